"""Packs the orb as `circleci orb pack` does and checks what CircleCI's JSON schema cannot see.

Usage: orb.py SRC OUT CONFIG...

Names and parameters must fit together, in the orb itself, in its examples and in the configurations given; parameters
may not become part of a script's text. OUT gets `orb.yml`, every configuration with the orb inlined, and every inline
script, for the schema and shellcheck to look at. Problems go to stderr, one a line, and the exit code is 1.
"""

import json
import re
import sys
from pathlib import Path

import yaml

KINDS = ("commands", "jobs", "executors", "examples")
INCLUDE = re.compile(r"<<\s*include\(([\w./-]+)\)\s*>>")
PARAMETER = re.compile(r"<<\s*parameters\.([\w-]+)\s*>>")
BUILTIN = {
    "checkout", "run", "steps", "save_cache", "restore_cache", "store_artifacts", "store_test_results",
    "persist_to_workspace", "attach_workspace", "add_ssh_keys", "setup_remote_docker",
}  # fmt: skip
# What a workflow may say of any job, beside the job's own parameters.
INVOCATION = {"name", "requires", "context", "filters", "matrix", "type", "pre-steps", "post-steps", "serial-group"}

problems = []


def problem(where, text):
    problems.append(f"{where}: {text}")


def load(path):
    return yaml.safe_load(path.read_text())


def pack(src):
    """One document of the whole tree; `<<include(PATH)>>` becomes the file, and must be all there is to its value."""
    included = set()

    def include(value, where):
        if isinstance(value, dict):
            return {key: include(item, where) for key, item in value.items()}
        if isinstance(value, list):
            return [include(item, where) for item in value]
        found = INCLUDE.search(value) if isinstance(value, str) else None
        if not found:
            return value
        path = src / found[1]
        if found[0] != value:
            problem(where, f"{value!r} is more than an include")
        elif not path.is_file():
            problem(where, f"{found[1]} does not exist")
        else:
            included.add(path)
            return path.read_text()
        return value

    orb = load(src / "@orb.yml")
    for kind in KINDS:
        for path in sorted((src / kind).glob("*.yml")):
            orb.setdefault(kind, {})[path.stem] = include(load(path), path.relative_to(src))
    for path in sorted(path for path in src.rglob("*") if path.is_file()):
        if path.parent.name == "scripts" and path not in included:
            problem(path.relative_to(src), "is not included anywhere")
        elif path.suffix != ".yml" and path.parent.name != "scripts":
            problem(path.relative_to(src), "is not packed")
    return orb


class Document:
    """An orb or a configuration, and the names that its steps and jobs may use."""

    def __init__(self, where, body, orbs=None):
        self.where, self.body = where, body
        self.known = {kind: dict(body.get(kind, {})) for kind in KINDS}
        for name, orb in (orbs or {}).items():
            for kind in KINDS:
                self.known[kind] |= {f"{name}/{key}": item for key, item in orb.get(kind, {}).items()}
        self.scripts = []

    def check(self):
        for kind in ("commands", "jobs", "executors"):
            for name, item in self.body.get(kind, {}).items():
                where = f"{self.where}: {kind}/{name}"
                self.parameters(item, where)
                self.steps(item.get("steps", []), where)
                if "executor" in item:
                    self.call("executors", item["executor"], where)
        for name, workflow in self.body.get("workflows", {}).items():
            where = f"{self.where}: workflows/{name}"
            for job in workflow["jobs"]:
                self.call("jobs", job, where)
        return self

    def parameters(self, item, where):
        declared = item.get("parameters", {})
        body = json.dumps({key: value for key, value in item.items() if key != "parameters"})
        used = set(PARAMETER.findall(body))
        for name in sorted(used - declared.keys()):
            problem(where, f"parameter {name} is used, not declared")
        for name in sorted(declared.keys() - used):
            problem(where, f"parameter {name} is declared, not used")

    def steps(self, steps, where):
        for step in steps:
            self.call("commands", step, where)

    def call(self, kind, item, where):
        """A name, or `{name: arguments}`: of a command as a step, a job in a workflow, or an executor."""
        if isinstance(item, str):
            name, arguments = item, {}
        elif kind == "executors":
            name, arguments = item["name"], {key: value for key, value in item.items() if key != "name"}
        else:
            ((name, arguments),) = item.items()
        if kind == "commands" and name in ("when", "unless"):
            self.steps(arguments["steps"], where)
        elif kind == "commands" and name == "run":
            self.script(arguments, where)
        elif (kind == "commands" and name in BUILTIN) or PARAMETER.fullmatch(name):
            pass
        elif name not in self.known[kind]:
            problem(where, f"{name} is not among the {kind}")
        else:
            self.arguments(self.known[kind][name].get("parameters", {}), kind, name, arguments, where)

    def arguments(self, declared, kind, name, arguments, where):
        given = arguments.keys() - (INVOCATION if kind == "jobs" else set())
        for argument in sorted(given - declared.keys()):
            problem(where, f"{name} has no parameter {argument}")
        for argument, parameter in declared.items():
            if argument not in given:
                if "default" not in parameter:
                    problem(where, f"{name} needs the parameter {argument}")
            elif parameter["type"] == "steps":
                if isinstance(arguments[argument], list):
                    self.steps(arguments[argument], where)
            elif parameter["type"] == "string" and not isinstance(arguments[argument], str):
                problem(where, f"{name}: {argument} is {arguments[argument]!r}, not a string")

    def script(self, run, where):
        command = run if isinstance(run, str) else run["command"]
        if "<<" in command:
            problem(where, "`<<` in a script: parameters go through `environment`, and here-documents do not survive")
        self.scripts.append(command)


class Readable(yaml.SafeDumper):
    """Scripts as they are read, each line on a line."""


Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text.rstrip("\n") else None),
)


def packed(orb):
    head = "# yamllint disable\n# Packed from orb/src, for those who name the orb by its URL; tests/examples/check holds the two together.\n"
    return head + yaml.dump(orb, Dumper=Readable, sort_keys=False, width=110)


def main(src, out, *configs):
    src, out = Path(src), Path(out)
    orb = pack(src)
    documents = [Document("orb", orb).check()]
    used = [(Path(path).name, load(Path(path))) for path in configs]
    used += [(f"examples/{name}.yml", example["usage"]) for name, example in orb["examples"].items()]
    inline = {kind: orb[kind] for kind in ("commands", "jobs", "executors")}
    for name, config in used:
        if not config.get("workflows"):  # any other spelling of it would pass the schema
            problem(name, "has no workflows")
        documents.append(Document(name, config, {"machine-id": orb}).check())
        text = yaml.safe_dump({**config, "orbs": {"machine-id": inline}}, sort_keys=False)
        (out / f"inline-{name.replace('/', '-')}").write_text(text)
    (out / "orb.yml").write_text(packed(orb))
    scripts = [script for document in documents[1:] for script in document.scripts]
    for number, script in enumerate(scripts):
        (out / f"script-{number}.sh").write_text(f"#!/bin/bash\nset -eo pipefail\n{script}\n")
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
