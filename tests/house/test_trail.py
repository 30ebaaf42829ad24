"""docs/trail.md leads through files and functions that there are, and names every row of the path."""

import re
from collections.abc import Iterator

from tests.house.tree import ROOT, text
from xdpstack.batch import Batch
from xdpstack.path import PATH
from xdpstack.stack import Stack
from xdpstack.udp.socket import UdpSocket

TRAIL = "docs/trail.md"
FILE = re.compile(r"`((?:csrc|bpf|xdpstack)/[\w/.]+\.(?:c|h|def|py))`")
FUNCTION = re.compile(r"`([A-Za-z_][\w.]*)\(\)`")
#: What the page names as users call it, without a file.
PUBLIC = (Stack, UdpSocket, Batch)


def places() -> Iterator[tuple[str, list[str], list[str]]]:
    """Each row of a table, and each other paragraph or item of a list: its text, the files and the functions in it."""
    for block in re.split(r"\n\n|\n(?=\||\d\. )", text(TRAIL)):
        yield block, FILE.findall(block), FUNCTION.findall(block)


def is_defined(function: str, file: str) -> bool:
    """In C from the first column on; in Python as a method of its class, or by itself."""
    source = text(file)
    if not file.endswith(".py"):
        return re.search(rf"^(\S.*)?\b{function}\(", source, re.MULTILINE) is not None
    kind, _, name = function.rpartition(".")
    found = re.search(rf"^class {kind}\b.*?^    def {name}\(", source, re.MULTILINE | re.DOTALL) if kind else None
    return found is not None or re.search(rf"^def {function}\(", source, re.MULTILINE) is not None


def is_public(function: str) -> bool:
    kind, _, name = function.rpartition(".")
    return any(hasattr(each, name) for each in PUBLIC if kind in ("", each.__name__))


def test_every_file_exists() -> None:
    named = {file for _, files, _ in places() for file in files}
    assert len(named) > 30
    assert [file for file in sorted(named) if not (ROOT / file).exists()] == []


def test_every_function_is_in_a_file_that_is_named_with_it() -> None:
    lost = [
        (function, files)
        for _, files, functions in places()
        for function in functions
        if not any(is_defined(function, file) for file in files) and not is_public(function)
    ]
    assert lost == []


def test_every_row_of_the_path_is_on_the_trail() -> None:
    trail = text(TRAIL)
    missing = [row.name for row in PATH if f"`{row.name}`" not in trail and f"`{row.stem}.*`" not in trail]
    assert missing == []


def test_what_is_off_by_default_is_said_to_be() -> None:
    off = [block for block, _, _ in places() if "**off by default**" in block]
    said = {name for block in off for name in re.findall(r"`(\w+\.\w+)`", block.partition("**off")[0])}
    assert said == {row.name for row in PATH if row.where == "asked"}
