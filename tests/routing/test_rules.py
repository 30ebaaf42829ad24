"""Policy rules: selectors, and the walk from rule to rule. What ip(8) can set is held against Linux elsewhere."""

import errno
from typing import Any

import pytest

from xdpstack.netlink import Link, Prefix, Range, Route, Rule, Snapshot, packed
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FR_ACT_BLACKHOLE,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_UNREACHABLE,
)
from xdpstack.routing.flow import Flow
from xdpstack.routing.rules import ASK_ON, Result, matches, walk_rules
from xdpstack.routing.tables import Tables, compile_tables

TABLES = compile_tables(Snapshot.build([Link(2, "a0", group=7)]))
FOUR = Flow(packed("10.1.2.3"), packed("10.9.8.7"), iif=2, mark=0x15, tos=0xB8, protocol=17, source_port=1000,
            destination_port=53, user=5)  # fmt: skip
SIX = FOUR.but(destination=packed("2001:db8::1"), source=packed("2001:db8:9::1"), flow_label=0x12345)


@pytest.mark.parametrize(
    "selectors, expected",
    [
        ({}, True),
        ({"destination": Prefix.parse("10.1.0.0/16")}, True),
        ({"source": Prefix.parse("10.1.0.0/16")}, False),
        ({"iif": "a0"}, True),
        ({"iif": "lo"}, False),
        ({"iif": "gone0"}, False),
        ({"oif": "a0"}, False),
        ({"mark": 0x5, "mark_mask": 0xF}, True),
        ({"mark": 0x5, "mark_mask": 0xFF}, False),
        ({"tos": 0x18}, True),  # a TOS selector sees three bits of the DSCP: 0xb8 & 0x1c
        ({"tos": 0x08}, False),
        ({"dscp": 46}, True),
        ({"dscp": 47}, False),
        ({"dscp": 47, "dscp_mask": 0x3E}, True),
        ({"dscp": 0}, False),
        ({"ip_protocol": 17}, True),
        ({"ip_protocol": 6}, False),
        ({"source_ports": Range(1000, 1000)}, True),
        ({"source_ports": Range(1001, 1002)}, False),
        ({"destination_ports": Range(50, 60)}, True),
        ({"destination_ports": Range(0x31, 0x31, mask=0xFFF0)}, True),
        ({"destination_ports": Range(0x41, 0x41, mask=0xFFF0)}, False),
        ({"users": Range(5, 9)}, True),
        ({"users": Range(6, 9)}, False),
        ({"tunnel": 3}, False),
        ({"l3_master": True}, False),
    ],
)
def test_selectors(selectors: dict[str, Any], expected: bool) -> None:
    rule = Rule(AF_INET, **selectors)
    assert matches(TABLES, rule, FOUR) is expected
    assert matches(TABLES, Rule(AF_INET, invert=True, **selectors), FOUR) is not expected


def test_selectors_of_ipv6() -> None:
    def applies(flow: Flow = SIX, **selectors: Any) -> bool:
        return matches(TABLES, Rule(AF_INET6, **selectors), flow)

    assert applies(flow_label=0x345, flow_label_mask=0xFFF)
    assert not applies(flow_label=0x346, flow_label_mask=0xFFF)
    assert applies(tos=0xB8)
    assert not applies(tos=0x18)  # here a TOS selector sees the whole DSCP
    assert applies(source=Prefix.parse("2001:db8:9::/48"))
    assert not applies(SIX.but(source=b""), source=Prefix.parse("::/0"))  # no source chosen: nothing to match
    assert applies(SIX.but(source=b""), source=Prefix.parse("::/0"), invert=True)


def walk(*rules: Rule, known: dict[int, Result]) -> tuple[Result, list[int]]:
    """What the walk finds, and which tables it asks."""
    asked: list[int] = []

    def ask(table: int) -> Result:
        asked.append(table)
        return known.get(table, ASK_ON)

    tables = Tables(rules={AF_INET: rules}, devices=TABLES.devices, indices=TABLES.indices)
    return walk_rules(tables, FOUR, ask), asked


FOUND = Result(0, next(iter(compile_tables(Snapshot.build([Link(2, "a0", group=7)], [], [Route.make("10.0.0.0/8", oif=2)]))
                            .fibs[AF_INET, 255].matches(packed("10.1.2.3"))))[0])  # fmt: skip


def test_tables_are_asked_in_order_until_one_knows() -> None:
    rules = (Rule(AF_INET, 1, table=1), Rule(AF_INET, 2, table=2), Rule(AF_INET, 3, table=3))
    assert walk(*rules, known={2: FOUND}) == (FOUND, [1, 2])
    assert walk(*rules, known={}) == (Result(errno.ENETUNREACH), [1, 2, 3])
    assert walk(*rules, known={1: Result(errno.EHOSTUNREACH)}) == (Result(errno.EHOSTUNREACH), [1])


def test_goto_nop_and_refusals() -> None:
    far = Rule(AF_INET, 9, table=9)
    assert walk(Rule(AF_INET, 1, FR_ACT_GOTO, goto=9), Rule(AF_INET, 2, table=2), far, known={9: FOUND})[1] == [9]
    assert walk(Rule(AF_INET, 1, FR_ACT_GOTO, goto=8), Rule(AF_INET, 2, table=2), far, known={})[1] == [2, 9]
    assert walk(Rule(AF_INET, 1, FR_ACT_NOP), far, known={9: FOUND})[1] == [9]
    for action, number in ((FR_ACT_BLACKHOLE, errno.EINVAL), (FR_ACT_PROHIBIT, errno.EACCES),
                           (FR_ACT_UNREACHABLE, errno.ENETUNREACH)):  # fmt: skip
        assert walk(Rule(AF_INET, 1, action), far, known={9: FOUND}) == (Result(number), [])


def test_suppressors() -> None:
    last = Rule(AF_INET, 9, table=9)
    assert walk(Rule(AF_INET, 1, table=1, suppress_prefix_length=8), last, known={1: FOUND})[1] == [1, 9]
    assert walk(Rule(AF_INET, 1, table=1, suppress_prefix_length=7), last, known={1: FOUND})[1] == [1]
    assert walk(Rule(AF_INET, 1, table=1, suppress_group=7), last, known={1: FOUND})[1] == [1, 9]
    assert walk(Rule(AF_INET, 1, table=1, suppress_group=8), last, known={1: FOUND})[1] == [1]
    refused = Result(errno.EHOSTUNREACH)  # an answer that is an error is not suppressed
    assert walk(Rule(AF_INET, 1, table=1, suppress_prefix_length=32), last, known={1: refused}) == (refused, [1])
