"""Writes the scripts in the examples of GitLab, Buildkite, Bitbucket and Azure DevOps to DIRECTORY/script-*.sh, as
those platforms hand them to a shell, so that shellcheck can read them, and bitbucket-pipelines.yml there as its schema
knows it; holds what the four have in common: no token
on a command line, and a name of the join token and the authority's URL wherever `once` is run.
Usage: scripts.py EXAMPLES DIRECTORY"""

import pathlib
import re
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


def component(text):
    head, body = yaml.safe_load_all(text)
    inputs = head["spec"]["inputs"]
    given = {"authority": "https://id.example.com", "token": "gitlab-deploy", "sha256": "0" * 64}
    values = {name: given.get(name, spec.get("default")) for name, spec in inputs.items()}
    assert None not in values.values(), "an input that has neither a default nor a value in this test"
    for name, spec in inputs.items():
        assert spec["description"], name
        # What goes into a script's variables is held to a form by the component itself.
        assert values[name] in spec["options"] if "options" in spec else re.search(spec["regex"], values[name]), name
        for hostile in ('"; touch x; "', "$(touch x)", "a\nb", "`x`"):
            assert "options" in spec or not re.fullmatch(spec["regex"], hostile), f"{name} takes {hostile!r}"
    filled = re.sub(r"\$\[\[ inputs\.([a-z0-9-]+) \]\]", lambda match: values[match[1]], yaml.safe_dump(body, width=10_000))
    assert "$[[" not in filled
    return yaml.safe_load(filled)


def gitlab_component(file):
    job = file[".machine-id"]
    assert job["id_tokens"]["MACHINE_ID_ID_TOKEN"]["aud"] == job["variables"]["MACHINE_ID_AUTHORITY"]
    yield "component", [*job["before_script"], "machine-id once -- true", *job["after_script"]], job["variables"]


FILES = {
    "gitlab/.gitlab-ci.yml": gitlab,
    "gitlab/templates/machine-id.yml": gitlab_component,
    "buildkite/pipeline.yml": buildkite,
    "bitbucket/bitbucket-pipelines.yml": bitbucket,
    "azure-devops/azure-pipelines.yml": azure,
}

examples, directory = map(pathlib.Path, sys.argv[1:])

filled = component((examples / "gitlab/templates/machine-id.yml").read_text())
(directory / "gitlab-component.yml").write_text(yaml.safe_dump(filled))

known = yaml.safe_load((examples / "bitbucket/bitbucket-pipelines.yml").read_text())
for entry in known["pipelines"]["branches"]["main"]:
    entry["step"]["oidc"] = True
(directory / "bitbucket-pipelines.yml").write_text(yaml.safe_dump(known))

for path, read in FILES.items():
    platform = path.split("/", 1)[0]
    ran = 0
    text = (examples / path).read_text()
    file = component(text) if "/templates/" in path else yaml.safe_load(text)
    for name, lines, variables in read(file):
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
