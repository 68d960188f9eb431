"""Writes the scripts in the examples of GitLab, Buildkite, Bitbucket and Azure DevOps to DIRECTORY/script-*.sh, as
those platforms hand them to a shell, so that shellcheck can read them, and bitbucket-pipelines.yml there as its schema
knows it; holds what the four have in common: no token
on a command line, and a name of the join token and the authority's URL wherever `once` is run.
Usage: scripts.py EXAMPLES DIRECTORY"""

import pathlib
import sys

import yaml


def gitlab(file):
    shared = file[".machine-id"]
    for name in ("one-command", "several-steps"):
        job = {**shared, **file[name]}
        assert job["id_tokens"]["MACHINE_ID_ID_TOKEN"]["aud"] == file["variables"]["MACHINE_ID_AUTHORITY"], name
        lines = job["before_script"] + job["script"] + job.get("after_script", [])
        yield name, lines, {**file["variables"], **job.get("variables", {})}


def buildkite(file):
    for step in file["steps"]:
        # `$$` keeps the agent from filling the variable in when the pipeline is uploaded.
        yield step["key"], [step["command"].replace("$$", "$")], file["env"]


def bitbucket(file):
    for entry in file["pipelines"]["branches"]["main"]:
        step = entry["step"]
        assert step["oidc"]["audiences"] == ["https://id.example.com"]
        exported = dict(word.split("=", 1) for line in step["script"] if line.startswith("export ") for word in line.split()[1:])
        yield "step", step["script"], {"MACHINE_ID_RELEASE": "", "MACHINE_ID_SHA256": "", **exported}


def azure(file):
    for index, step in enumerate(file["steps"]):
        if " once " in step["script"]:
            assert step["env"] == {"SYSTEM_ACCESSTOKEN": "$(System.AccessToken)"}, step
        given = {"MACHINE_ID_RELEASE": "", "MACHINE_ID_SHA256": "", "AGENT_TEMPDIRECTORY": ""}
        yield f"step-{index}", [step["script"]], {**file["variables"], **given}


FILES = {
    "gitlab/.gitlab-ci.yml": gitlab,
    "buildkite/pipeline.yml": buildkite,
    "bitbucket/bitbucket-pipelines.yml": bitbucket,
    "azure-devops/azure-pipelines.yml": azure,
}

examples, directory = map(pathlib.Path, sys.argv[1:])

known = yaml.safe_load((examples / "bitbucket/bitbucket-pipelines.yml").read_text())
for entry in known["pipelines"]["branches"]["main"]:
    entry["step"]["oidc"] = True
(directory / "bitbucket-pipelines.yml").write_text(yaml.safe_dump(known))

for path, read in FILES.items():
    platform = path.split("/", 1)[0]
    ran = 0
    for name, lines, variables in read(yaml.safe_load((examples / path).read_text())):
        text = "\n".join(lines)
        assert not any(word in text for word in ("ID_ID_TOKEN", "OIDC_TOKEN", "ACCESSTOKEN")), f"{path}: {name} names a token"
        if "machine-id once" in text or '/machine-id" once' in text:
            ran += 1
            missing = {"MACHINE_ID_AUTHORITY", "MACHINE_ID_TOKEN"} - variables.keys()
            assert not missing, f"{path}: {name} lacks {missing}"
        given = "".join(f"export {variable}\n" for variable in variables)
        head = "#!/usr/bin/env bash\nset -euo pipefail\n"
        (directory / f"script-{platform}-{name}.sh").write_text(f"{head}{given}{text}\n")
    assert ran, f"{path} runs no once"
