"""The files of the tree, as the tests of this folder look at them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: What is made from other files, and not kept in the repository.
MADE = {"build", "dist", ".venv", "__pycache__", "xdpstack.egg-info", "xdpstack/include", "xdpstack/device/bpf"}

C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
C_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


def files(*patterns: str) -> list[Path]:
    """The files of the tree that match any of the patterns, relative to its root, without what was made."""
    found = {path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not {*map(str, path.parents), *path.parts} & MADE)


def text(path: Path | str) -> str:
    return (ROOT / path).read_text()


PYTHON = files("*.py", "xdpstack/**/*.py", "tests/**/*.py", "examples/**/*.py", "benchmarks/**/*.py", "tools/**/*.py")
C_SOURCES = files(
    "csrc/**/*.[ch]", "csrc/**/*.def", "bpf/*.[ch]", "examples/**/*.[ch]", "xdpstack/**/*.c", "benchmarks/**/*.[ch]"
)
DOCS = files("*.md", "docs/**/*.md", "benchmarks/**/*.md")
