"""Addresses, routes, rules and neighbours in the words of iproute2."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpstack.device import memory_text
from xdpstack.errors import ConfigurationError
from xdpstack.netlink import Hop, Prefix, Range, packed
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FR_ACT_BLACKHOLE,
    FR_ACT_GOTO,
    NUD_FAILED,
    NUD_PERMANENT,
    NUD_STALE,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_UNICAST,
    RTNH_F_ONLINK,
)

DEVICES = {"lo": 1, "a0": 2, "b0": 3}


def test_a_default_route() -> None:
    route = memory_text.route("default via 10.0.0.254 dev a0 metric 10", DEVICES)
    assert route.destination == Prefix.parse("0.0.0.0/0")
    assert route.hops == (Hop(2, packed("10.0.0.254")),)
    assert (route.type, route.table, route.priority, route.scope) == (RTN_UNICAST, RT_TABLE_MAIN, 10, RT_SCOPE_UNIVERSE)


def test_a_default_route_is_ipv6_where_its_gateway_is() -> None:
    assert memory_text.route("default via fe80::1 dev a0", DEVICES).destination == Prefix.parse("::/0")


def test_a_connected_route_has_scope_link() -> None:
    route = memory_text.route("10.0.0.0/24 dev a0 proto kernel scope link src 10.0.0.1", DEVICES)
    assert (route.scope, route.prefsrc) == (RT_SCOPE_LINK, packed("10.0.0.1"))
    assert memory_text.route("10.0.0.0/24 dev a0", DEVICES).scope == RT_SCOPE_LINK


def test_route_types_and_tables() -> None:
    blackhole = memory_text.route("blackhole 192.0.2.0/24 table 100", DEVICES)
    assert (blackhole.type, blackhole.hops, blackhole.table) == (RTN_BLACKHOLE, (), 100)
    local = memory_text.route("local 192.0.2.1 dev lo", DEVICES)
    assert (local.type, local.table, local.destination.length) == (RTN_LOCAL, RT_TABLE_LOCAL, 32)


def test_a_multipath_route() -> None:
    line = "10.9.0.0/16 nexthop via 10.0.0.2 dev a0 nexthop via 10.0.1.2 dev b0 weight 2 nexthop dev a0 onlink"
    assert memory_text.route(line, DEVICES).hops == (
        Hop(2, packed("10.0.0.2")),
        Hop(3, packed("10.0.1.2"), 2),
        Hop(2, flags=RTNH_F_ONLINK),
    )


def test_an_ipv4_route_through_an_ipv6_gateway() -> None:
    route = memory_text.route("10.9.0.0/16 via inet6 fe80::2 dev a0", DEVICES)
    assert (route.family, route.hops) == (AF_INET, (Hop(2, packed("fe80::2")),))


def test_a_source_specific_route() -> None:
    assert memory_text.route("default from 2001:db8::/32 dev a0", DEVICES).source == Prefix.parse("2001:db8::/32")


@pytest.mark.parametrize(
    "line, message",
    [
        ("default vai 10.0.0.1", "'vai' is not understood here"),
        ("10.0.0.0/33 dev a0", "prefix length 33 does not fit"),
        ("10.0.0.256/32 dev a0", "not an IP address: '10.0.0.256'"),
        ("default via 10.0.0.300", "'10.0.0.300' is no gateway"),
        ("default via 10.0.0.1 dev zz", "there is no device 'zz'"),
        ("default via", "gateway is missing"),
        ("default dev a0 metric high", "'high' is no metric"),
        ("default dev a0 table mine", "'mine' is no table"),
        ("unicast", "destination is missing"),
        ("", "destination is missing"),
    ],
)
def test_what_is_wrong_with_a_route_is_said(line: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        memory_text.route(line, DEVICES)
    assert str(raised.value).startswith(f"route {line!r}: {message}")


def test_rules() -> None:
    rule = memory_text.rule("from 10.1.0.0/16 to 10.2.0.1 iif a0 fwmark 0x1/0xff lookup 100 pref 1000", DEVICES)
    assert (rule.family, rule.source, rule.destination) == (
        AF_INET,
        Prefix.parse("10.1.0.0/16"),
        Prefix.parse("10.2.0.1"),
    )
    assert (rule.iif, rule.mark, rule.mark_mask, rule.table, rule.priority) == ("a0", 1, 0xFF, 100, 1000)
    assert memory_text.rule("32000: from all lookup main", DEVICES).priority == 32000
    assert memory_text.rule("from 2001:db8::/32 blackhole", DEVICES).action == FR_ACT_BLACKHOLE
    assert memory_text.rule("-6 from all lookup 7", DEVICES).family == AF_INET6
    goto = memory_text.rule("not from 10.0.0.0/8 goto 500", DEVICES)
    assert (goto.invert, goto.action, goto.goto) == (True, FR_ACT_GOTO, 500)
    ports = memory_text.rule("ipproto udp sport 53 dport 1000-2000 lookup 9", DEVICES)
    assert (ports.ip_protocol, ports.source_ports, ports.destination_ports) == (17, Range(53, 53), Range(1000, 2000))


def test_a_rule_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="what to do is missing"):
        memory_text.rule("from all", DEVICES)


def test_neighbours() -> None:
    stale = memory_text.neighbour("10.0.0.2 dev a0 lladdr 02:00:00:00:00:02 nud stale", DEVICES)
    assert (stale.index, stale.lladdr, stale.state) == (2, bytes.fromhex("020000000002"), NUD_STALE)
    assert memory_text.neighbour("fe80::2 dev b0 lladdr 02:00:00:00:00:02 STALE", DEVICES).state == NUD_STALE
    assert memory_text.neighbour("10.0.0.2 dev a0 lladdr 02:00:00:00:00:02", DEVICES).state == NUD_PERMANENT
    assert memory_text.neighbour("10.0.0.2 dev a0", DEVICES).state == NUD_FAILED


@pytest.mark.parametrize(
    "line, message",
    [
        ("10.0.0.2 lladdr 02:00:00:00:00:02", "the device is missing"),
        ("10.0.0.2 dev a0 lladdr 02:00", "'02:00' is no MAC address"),
        ("10.0.0.2 dev a0 nud sleepy", "'sleepy' is no state"),
    ],
)
def test_what_is_wrong_with_a_neighbour_is_said(line: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        memory_text.neighbour(line, DEVICES)


def test_addresses() -> None:
    address = memory_text.address("10.0.0.1/24 brd +", "a0", DEVICES)
    assert (address.index, address.prefix_length, address.broadcast) == (2, 24, packed("10.0.0.255"))
    peer = memory_text.address("10.0.0.1 peer 10.0.0.2/32", "a0", DEVICES)
    assert (peer.peer, peer.prefix_length) == (packed("10.0.0.2"), 32)
    for wrong in ("10.0.0/24", "10.0.0.1/x", "10.0.0.1/24 broad +"):
        with pytest.raises(ConfigurationError, match=r"^address '10"):
            memory_text.address(wrong, "a0", DEVICES)


@given(st.lists(st.sampled_from([*memory_text.ROUTE_WORDS, "a0", "10.0.0.1", "fe80::1", "10.0.0.0/8", "7", "x"])))
def test_any_words_make_a_route_or_a_clear_error(words: list[str]) -> None:
    with suppress(ConfigurationError):
        memory_text.route(" ".join(words), DEVICES)


@given(
    st.lists(st.sampled_from([*memory_text.RULE_WORDS, "-6", "a0", "10.0.0.1", "::/0", "1-2", "0x1/0x1", "7:", "7"]))
)
def test_any_words_make_a_rule_or_a_clear_error(words: list[str]) -> None:
    with suppress(ConfigurationError):
        memory_text.rule(" ".join(words), DEVICES)
