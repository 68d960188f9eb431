"""Holds a Jenkinsfile to Groovy's grammar, and runs its `sh` steps with `fake-machine-id`, as the agent would.

Usage: jenkins.py JENKINSFILE SCRATCH. The scripts are left in SCRATCH as script-jenkins-N.sh, for shellcheck.
"""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from groovy_parser.parser import parse_and_digest_groovy_content

HERE = Path(__file__).resolve().parent
jenkinsfile, scratch = Path(sys.argv[1]), Path(sys.argv[2])
text = jenkinsfile.read_text()
parse_and_digest_groovy_content(text)

environment = dict(re.findall(r"^\s+(MACHINE_ID_\w+) = '([^']*)'$", text, re.MULTILINE))
assert {"MACHINE_ID_AUTHORITY", "MACHINE_ID_JOIN_METHOD", "MACHINE_ID_TOKEN", "MACHINE_ID_STORAGE"} <= environment.keys()
assert not any("SECRET" in name for name in environment), "a secret belongs into a credential"

steps = [long or short for long, short in re.findall(r"\bsh (?:'''(.*?)'''|'([^'\n]*)')", text, re.DOTALL)]
assert len(steps) == len(re.findall(r"\bsh\b ['\"]", text)) > 0, steps

tools = scratch / "jenkins-bin"
tools.mkdir()
(tools / "machine-id").symlink_to(HERE / "fake-machine-id")
for name in ("scp", "ssh"):
    (tools / name).write_text('#!/bin/sh\ntest -f "$2" || { echo "no $2" >&2; exit 1; }\n')
    (tools / name).chmod(0o755)

for number, step in enumerate(steps, 1):
    script = scratch / f"script-jenkins-{number}.sh"
    # Jenkins runs a step that names no interpreter with `sh -xe`.
    # What stands in single quotes is for the shell inside, which has the certificates.
    script.write_text("#!/bin/sh -e\n# shellcheck disable=SC2016\n" + textwrap.dedent(step).strip("\n") + "\n")
    log = scratch / f"jenkins-{number}.log"
    path = f"{tools}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(scratch), "TMPDIR": str(scratch), "FAKE_LOG": str(log), **environment}
    subprocess.run(["/bin/sh", "-xe", str(script)], env=env, check=True, cwd=scratch)
    calls = [json.loads(line)["argv"] for line in log.read_text().splitlines()]
    assert len(calls) == 1 and calls[0][0] == "once" and "--" in calls[0], calls
    # Whether the command got certificates was seen by scp and ssh; afterwards there are none.
    assert not list(scratch.glob("fake-*/manifest.json"))
