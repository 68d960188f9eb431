"""That README.md of the action names exactly the inputs and outputs of action.yml, with their defaults."""

import re
import sys
from pathlib import Path

import yaml

folder = Path(sys.argv[1])
action = yaml.safe_load((folder / "action.yml").read_text())
page = (folder / "README.md").read_text()


def rows(heading: str) -> dict[str, str]:
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", section, re.M))


inputs, outputs = rows("Inputs"), rows("Outputs")
assert set(inputs) == set(action["inputs"]), set(inputs) ^ set(action["inputs"])
assert set(outputs) == set(action["outputs"]), set(outputs) ^ set(action["outputs"])
for name, spec in action["inputs"].items():
    if "default" in spec:
        assert f"`{spec['default']}`" in inputs[name], f"{name}: its default is not on the page"
using = action["runs"]["using"]
assert using in page, f"{using} is not on the page"
