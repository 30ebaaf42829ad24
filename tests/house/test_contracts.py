"""Every stage has its contract, and it agrees with the path table, the drop reasons and the C code.

A contract is a section of a module's docstring under the name of its row. Its parts are as in PARTS, in that order.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.house.tree import files, text
from xdpstack.path import PATH, Row
from xdpstack.walk import c_stages, reasons

PARTS = ["Does", "Mirrors", "Reads", "Writes", "Next", "Drops", "Holds", "State", "Cost", "Differs from Linux"]
SECTION = re.compile(r"^([a-z]+\.[a-z]+)\n=+\n(.*?)(?=^[a-z.]+\n=+\n|\Z)", re.MULTILINE | re.DOTALL)
PART = re.compile(rf"^({'|'.join(PARTS)}):(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^    ([A-Za-z_0-9]+): \S", re.MULTILINE)

#: Row -> (the module that has its contract, its parts).
CONTRACTS = {
    name: (path, dict(PART.findall(section)))
    for path in files("xdpstack/**/*.py")
    for name, section in SECTION.findall(ast.get_docstring(ast.parse(text(path))) or "")
}
IN_C = [row for row in PATH if row.name in c_stages()]
STEMS = sorted({row.stem for row in IN_C})


def name(row: Row) -> str:
    return row.name


def test_there_is_a_contract_for_every_stage_and_for_nothing_else() -> None:
    assert {row.name for row in IN_C} <= set(CONTRACTS) <= {row.name for row in PATH}


@pytest.mark.parametrize("row", IN_C, ids=name)
def test_the_contract_has_all_parts_in_order(row: Row) -> None:
    _, parts = CONTRACTS[row.name]
    assert list(parts) == PARTS
    may_be_empty = {"Next", "Drops"}  # lists: the end of the path, a stage that drops nothing
    assert {part for part, words in parts.items() if not words.strip()} <= may_be_empty


@pytest.mark.parametrize("row", IN_C, ids=name)
def test_the_contract_agrees_with_the_path(row: Row) -> None:
    _, parts = CONTRACTS[row.name]
    assert ENTRY.findall(parts["Next"]) == list(row.edges)
    functions = [function.partition("(")[0] for function in row.mirrors.split(", ")]
    assert any(function in parts["Mirrors"] for function in functions)


@pytest.mark.parametrize("stem", STEMS)
def test_the_contract_has_the_drop_reasons_of_the_code(stem: str) -> None:
    contracts = [parts for name, (_, parts) in CONTRACTS.items() if name.startswith(f"{stem}.")]
    documented = {reason for parts in contracts for reason in ENTRY.findall(parts["Drops"])}
    in_stage = reasons_in(files(f"csrc/stages/{stem}.[ch]", f"csrc/stages/{stem}_*.[ch]")) - {"NOT_SPECIFIED"}
    assert documented <= set(reasons())
    assert in_stage - documented == set()
    assert documented - reasons_in(files("csrc/**/*.[ch]")) == set()


def reasons_in(paths: list[Path]) -> set[str]:
    return {reason for path in paths for reason in re.findall(r"\bXS_REASON_([A-Z0-9_]+)", text(path))}


@pytest.mark.parametrize("stem", STEMS)
def test_the_header_says_where_the_contract_is(stem: str) -> None:
    modules = {str(path) for name, (path, _) in CONTRACTS.items() if name.startswith(f"{stem}.")}
    assert set(re.findall(r"Contracts?: ([\w/]+\.py)", text(f"csrc/stages/{stem}.h"))) == modules
