"""The path table agrees with what there is: which rows C has, which are off until somebody asks, which are hooks' alone."""

from __future__ import annotations

from xdpstack.path import ASKED_BY, BY_NAME, PATH, Where
from xdpstack.stack import Stack
from xdpstack.testing import memory_stack
from xdpstack.walk import ENTRIES, c_stages


def rows(*where: Where) -> set[str]:
    """Their names."""
    return {row.name for row in PATH if row.where in where}


def test_where_a_row_runs_is_where_it_is_built() -> None:
    """csrc/stages/registry.h has what C runs, in the table's order, and no other."""
    assert rows("stack", "asked") == set(c_stages())
    assert [row.name for row in PATH if row.name in c_stages()] == list(c_stages())
    assert rows("kernel") == {"xdp.rx"}


def test_what_may_be_absent_can_be_passed() -> None:
    assert {name for name in rows("asked", "hook") if BY_NAME[name].passes is None} == set()
    assert set(ENTRIES.values()) <= rows("stack", "asked", "hook")


def test_a_new_stack_has_the_rows_that_nobody_has_to_ask_for() -> None:
    with memory_stack("a0") as stack:
        assert {node.name for node in stack._walk.nodes} == rows("stack")


def test_what_is_off_is_switched_on_by_a_call_that_there_is() -> None:
    assert set(ASKED_BY) == rows("asked")
    for call in ASKED_BY.values():
        name, _, method = call.removesuffix("()").partition(".")
        assert name == "Stack"
        assert callable(getattr(Stack, method))
