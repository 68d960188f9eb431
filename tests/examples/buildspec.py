"""Checks the shape of a CodeBuild buildspec and writes each phase as a script: buildspec.py FILE FOLDER."""

import pathlib
import sys

import yaml

file, folder = sys.argv[1:]
spec = yaml.safe_load(pathlib.Path(file).read_text())
assert set(spec) <= {"version", "env", "phases"} and spec["version"] == 0.2, "version 0.2, env and phases"
assert set(spec["env"]) == {"shell", "variables"} and spec["env"]["shell"] == "bash"
assert all(isinstance(value, str) for value in spec["env"]["variables"].values()), "variables are text"
for phase, body in spec["phases"].items():
    assert phase in {"install", "pre_build", "build", "post_build"}, phase
    assert set(body) <= {"commands", "finally", "on-failure"} and body.get("on-failure", "ABORT") in {"ABORT", "CONTINUE"}
    text = "#!/bin/bash\nset -e\n" + "\n".join(body["commands"]) + "\n"
    (pathlib.Path(folder) / f"buildspec-{phase}.sh").write_text(text)
