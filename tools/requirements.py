"""Prints the packages that this project requires, for pip: what builds it, what it runs on, and the extras named.

    python tools/requirements.py [EXTRA...]

pip can install a project's requirements only together with the project; the Makefile keeps the two apart, so that a
change of a source file does not resolve the requirements anew.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def requirements(extras: list[str]) -> list[str]:
    """The requirement lines of pyproject.toml, an extra's references to the project's other extras followed."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    found = [*pyproject["build-system"]["requires"], *project["dependencies"]]
    wanted = list(extras)
    for extra in wanted:
        for line in project["optional-dependencies"][extra]:
            if line.startswith(f"{project['name']}["):
                wanted += line.removeprefix(f"{project['name']}[").removesuffix("]").split(",")
            else:
                found.append(line)
    return found


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
