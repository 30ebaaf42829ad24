"""Verdicts of the routing semantics on small hosts, each case a line. Linux's own verdicts: tests/kernel/test_routing_*."""

import errno
from dataclasses import replace
from typing import Any

import pytest

from xdpstack.netlink import Address, Hop, Link, Neighbour, NextHop, Route, Snapshot, packed
from xdpstack.netlink.uapi import (
    AF_INET6,
    NUD_FAILED,
    NUD_REACHABLE,
    RT_SCOPE_LINK,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
)
from xdpstack.routing.flow import Flow
from xdpstack.routing.semantics import route_input, route_output
from xdpstack.routing.tables import Tables, compile_tables

A0, B0 = Link(2, "a0", bytes.fromhex("020000000002")), Link(3, "b0", bytes.fromhex("020000000003"), mtu=9000)
ADDRESSES = [
    Address.parse("10.0.0.1/24", 2, broadcast="+"),
    Address.parse("10.0.1.1/24", 3, broadcast="+"),
    Address.parse("2001:db8::1/64", 2),
    Address.parse("2001:db8:1::1/64", 3),
]
ROUTES = [
    Route.make("default", via="10.0.0.254"),
    Route.make("default", via="fe80::254", oif=2),
    Route.make("192.0.2.0/24", via="10.0.1.254", mtu=1400),
    Route.make("192.0.2.128/25", type=RTN_UNREACHABLE),
    Route.make("192.0.2.192/26", type=RTN_PROHIBIT),
    Route.make("192.0.2.224/27", type=RTN_BLACKHOLE),
    Route.make("192.0.2.240/28", type=RTN_THROW),
    Route.make("2001:db8:20::/48", via="2001:db8:1::254", oif=3),
    Route.make("2001:db8:21::/48", type=RTN_UNREACHABLE),
    Route.make("2001:db8:22::/48", type=RTN_PROHIBIT),
    Route.make("2001:db8:23::/48", type=RTN_BLACKHOLE),
    Route.make("198.51.100.0/24", type=RTN_LOCAL, oif=1),
    Route.make("203.0.113.0/24", via="fe80::9", oif=3),
]


def host(routes: list[Route] = ROUTES, **more: Any) -> Tables:
    return compile_tables(Snapshot.build([A0, B0], ADDRESSES, routes, **more))


def incoming(tables: Tables, source: str, to: str, iif: int = 2, **more: int) -> str:
    verdict = route_input(tables, Flow(packed(to), packed(source), iif=iif, **more))
    return str(verdict) if verdict.action != "drop" else verdict.reason


def outgoing(tables: Tables, to: str, source: str = "", **more: int) -> str:
    verdict = route_output(tables, Flow(packed(to), packed(source) if source else b"", **more))
    return str(verdict) if verdict.action != "drop" else errno.errorcode[verdict.errno]


@pytest.mark.parametrize(
    "source, to, verdict",
    [
        ("10.0.0.9", "10.0.0.1", "local dev #1"),
        ("10.0.0.9", "10.0.1.1", "local dev #1"),  # the weak host model: any address, by any device
        ("10.0.0.9", "198.51.100.7", "local dev #1"),
        ("10.0.0.9", "10.0.0.255", "broadcast dev #1"),
        ("10.0.0.9", "255.255.255.255", "broadcast dev #1"),
        ("0.0.0.0", "255.255.255.255", "broadcast dev #1"),
        ("10.0.0.9", "224.0.0.1", "multicast dev #1"),
        ("10.0.0.9", "224.0.0.2", "NOT_MEMBER"),
        ("10.0.0.9", "10.0.0.2", "IP_INADDRERRORS"),
        ("10.0.0.1", "10.0.0.1", "IP_LOCAL_SOURCE"),
        ("224.0.0.1", "10.0.0.1", "IP_INVALID_SOURCE"),
        ("0.0.0.0", "10.0.0.1", "IP_INVALID_SOURCE"),
        ("10.0.0.9", "0.0.0.0", "IP_INVALID_DEST"),
        ("127.0.0.1", "10.0.0.1", "IP_LOCALNET"),
        ("10.0.0.9", "127.0.0.1", "IP_LOCALNET"),
        ("2001:db8::9", "2001:db8::1", "local dev #1"),
        ("fe80::9", "fe80::ff:fe00:2", "local dev #1"),
        ("fe80::9", "fe80::ff:fe00:3", "IP_INADDRERRORS"),  # link-local, of the other link
        ("fe80::9", "ff02::1", "multicast dev #1"),
        ("fe80::9", "ff02::1:ff00:1", "multicast dev #1"),
        ("fe80::9", "ff02::5", "NOT_MEMBER"),
        ("2001:db8::9", "2001:db8::2", "IP_INADDRERRORS"),
        ("2001:db8::9", "2001:db8:23::1", "ROUTE_BLACKHOLE"),
    ],
)
def test_what_comes_in_to_a_host(source: str, to: str, verdict: str) -> None:
    assert incoming(host(), source, to) == verdict


@pytest.mark.parametrize(
    "source, to, verdict, icmp",
    [
        ("10.0.0.9", "10.0.1.9", "forward dev #3", None),
        ("10.0.0.9", "192.0.2.1", "forward via 10.0.1.254 dev #3", None),
        ("10.0.0.9", "203.0.113.1", "forward via fe80::9 dev #3", None),
        ("10.0.0.9", "192.0.2.129", "ROUTE_UNREACHABLE", (3, 1)),
        ("10.0.0.9", "192.0.2.193", "ROUTE_PROHIBIT", (3, 13)),
        ("10.0.0.9", "192.0.2.225", "ROUTE_BLACKHOLE", None),
        ("10.0.0.9", "192.0.2.241", "IP_INNOROUTES", (3, 0)),  # throw: this table has no answer, and no other is asked
        ("2001:db8::9", "2001:db8:20::1", "forward via 2001:db8:1::254 dev #3", None),
        ("2001:db8::9", "2001:db8:21::1", "IP_INNOROUTES", (1, 0)),
        ("2001:db8::9", "2001:db8:22::1", "IP_INNOROUTES", (1, 1)),
        ("fe80::9", "2001:db8:20::1", "IP_INADDRERRORS", (1, 2)),  # beyond scope of the source
    ],
)
def test_what_comes_in_to_a_router(source: str, to: str, verdict: str, icmp: tuple[int, int] | None) -> None:
    router = host(sysctls={"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
    assert incoming(router, source, to) == verdict
    assert route_input(router, Flow(packed(to), packed(source), iif=2)).icmp == icmp


def test_mtu_and_redirect_of_what_is_forwarded() -> None:
    router = host(sysctls={"net.ipv4.ip_forward": 1})
    onward = route_input(router, Flow(packed("192.0.2.1"), packed("10.0.0.9"), iif=2))
    assert (onward.mtu, onward.redirect) == (1400, False)
    assert route_input(router, Flow(packed("10.0.1.9"), packed("10.0.0.9"), iif=2)).mtu == 9000
    back = route_input(router, Flow(packed("8.8.8.8"), packed("10.0.0.9"), iif=2))
    assert (back.oif, back.redirect) == (2, True)  # its sender could have asked 10.0.0.254 itself
    far = route_input(router, Flow(packed("8.8.8.8"), packed("9.9.9.9"), iif=2))
    assert (far.oif, far.redirect) == (2, False)


@pytest.mark.parametrize(
    "rp_filter, source, verdict",
    [
        (0, "10.0.1.9", "local dev #1"),
        (1, "10.0.0.9", "local dev #1"),
        (1, "10.0.1.9", "IP_RPFILTER"),
        (2, "10.0.1.9", "local dev #1"),
        (1, "10.0.0.255", "IP_INVALID_SOURCE"),
        (2, "192.0.2.241", "IP_RPFILTER"),
        (1, "10.0.1.1", "IP_LOCAL_SOURCE"),
    ],
)
def test_reverse_path_filter(rp_filter: int, source: str, verdict: str) -> None:
    tables = host(sysctls={"net.ipv4.conf.a0.rp_filter": rp_filter})
    assert incoming(tables, source, "10.0.0.1") == verdict


@pytest.mark.parametrize(
    "to, source, verdict",
    [
        ("10.0.0.9", "", "output dev #2 src 10.0.0.1"),
        ("8.8.8.8", "", "output via 10.0.0.254 dev #2 src 10.0.0.1"),
        ("192.0.2.1", "", "output via 10.0.1.254 dev #3 src 10.0.1.1"),
        ("192.0.2.1", "10.0.0.1", "output via 10.0.1.254 dev #3 src 10.0.0.1"),
        ("203.0.113.1", "", "output via fe80::9 dev #3 src 10.0.1.1"),
        ("10.0.1.1", "", "local dev #1 src 10.0.1.1"),
        ("127.0.0.1", "", "local dev #1 src 127.0.0.1"),
        ("0.0.0.0", "", "local dev #1 src 127.0.0.1"),
        ("10.0.0.255", "", "broadcast dev #2 src 10.0.0.1"),
        ("224.1.1.1", "", "multicast dev #2 src 10.0.0.1"),  # by the default route, but not to its gateway
        ("192.0.2.129", "", "EHOSTUNREACH"),
        ("192.0.2.193", "", "EACCES"),
        ("192.0.2.225", "", "EINVAL"),
        ("192.0.2.241", "", "ENETUNREACH"),
        ("8.8.8.8", "10.9.9.9", "ENETUNREACH"),  # no address of this host
        ("8.8.8.8", "127.0.0.1", "EINVAL"),
        ("8.8.8.8", "224.0.0.1", "EINVAL"),
        ("2001:db8::9", "", "output dev #2 src 2001:db8::1"),
        ("2001:db8:20::1", "", "output via 2001:db8:1::254 dev #3 src 2001:db8:1::1"),
        ("2a00::1", "", "output via fe80::254 dev #2 src 2001:db8::1"),
        ("2001:db8:1::1", "", "local dev #1 src 2001:db8:1::1"),
        ("::1", "", "local dev #1 src ::1"),
        ("2001:db8:21::1", "", "EHOSTUNREACH"),
        ("2001:db8:22::1", "", "EACCES"),
        ("2001:db8:23::1", "", "EINVAL"),
        ("2a00::1", "::ffff:10.0.0.1", "EAFNOSUPPORT"),
    ],
)
def test_what_goes_out(to: str, source: str, verdict: str) -> None:
    assert outgoing(host(), to, source) == verdict


def test_sender_bound_to_a_device() -> None:
    tables = host()
    assert outgoing(tables, "8.8.8.8", oif=3) == "output dev #3 src 10.0.1.1"  # no route: taken to be on the link
    assert outgoing(tables, "255.255.255.255", oif=3) == "broadcast dev #3 src 10.0.1.1"
    assert outgoing(tables, "224.0.0.1", oif=2) == "multicast dev #2 src 10.0.0.1"
    assert outgoing(tables, "10.0.0.9", oif=9) == "ENODEV"
    assert outgoing(tables, "fe80::9", oif=3) == "output dev #3 src fe80::ff:fe00:3"
    assert outgoing(tables, "ff02::1", oif=3) == "multicast dev #3 src fe80::ff:fe00:3"
    assert outgoing(tables, "2001:db8::9", oif=3) == "ENETUNREACH"
    assert outgoing(tables, "2001:db8::9", "2001:db8:1::1", oif=3) == "output dev #2 src 2001:db8:1::1"
    assert outgoing(tables, "2001:db8::9", "2001:db8:1::1", oif=3, bound=True) == "ENETUNREACH"


def test_dontroute_wants_what_is_on_the_link() -> None:
    assert outgoing(host(), "10.0.0.9", scope=RT_SCOPE_LINK) == "output dev #2 src 10.0.0.1"
    assert outgoing(host(), "8.8.8.8", scope=RT_SCOPE_LINK) == "ENETUNREACH"


def test_an_object_that_does_not_fit_hides_its_leaf() -> None:
    """Linux's trie has one leaf for all prefixes that begin at one address."""
    routes = [Route.make("192.0.2.0/25", nexthop=1), Route.make("192.0.2.0/24", via="10.0.1.7"),
              Route.make("192.0.0.0/16", via="10.0.1.8")]  # fmt: skip
    tables = host(routes, nexthops=[NextHop(1, Hop(2, packed("10.0.0.5")))])
    assert outgoing(tables, "192.0.2.1") == "output via 10.0.0.5 dev #2 src 10.0.0.1"
    assert outgoing(tables, "192.0.2.1", oif=3) == "output via 10.0.1.8 dev #3 src 10.0.1.1"
    assert outgoing(tables, "192.0.2.129", oif=3) == "output via 10.0.1.7 dev #3 src 10.0.1.1"


def test_prefsrc() -> None:
    routes = [Route.make("192.0.2.0/24", via="10.0.0.5", prefsrc="10.0.1.1"),
              Route.make("2001:db8:20::/48", via="fe80::a", oif=2, prefsrc="2001:db8:1::1")]  # fmt: skip
    assert outgoing(host(routes), "192.0.2.1") == "output via 10.0.0.5 dev #2 src 10.0.1.1"
    assert outgoing(host(routes), "2001:db8:20::1") == "output via fe80::a dev #2 src 2001:db8:1::1"


def test_router_preference() -> None:
    """Routes that are no siblings: the better preference wins, and the right device over an equal preference."""
    low, high = (Route.make("2001:db8:20::/48", oif=oif) for oif in (2, 3))
    tables = host([replace(low, preference=3), replace(high, preference=1)])
    assert "dev #3" in outgoing(tables, "2001:db8:20::1", "2001:db8::1")
    equal = host([low, high])
    assert "dev #2" in outgoing(equal, "2001:db8:20::1", "2001:db8::1")
    assert "dev #3" in outgoing(equal, "2001:db8:20::1", "2001:db8::1", oif=3)


def test_no_device_no_packet() -> None:
    assert incoming(host(), "10.0.0.9", "10.0.0.1", iif=99) == "DEVICE_GONE"
    assert outgoing(compile_tables(Snapshot()), "10.0.0.9") == "ENETUNREACH"


def test_the_first_default_route_whose_gateway_is_alive() -> None:
    routes = [Route.make("default", via="10.0.0.5"), Route.make("default", via="10.0.0.6")]

    def gateway(first: int, second: int) -> str:
        states = ((packed("10.0.0.5"), first), (packed("10.0.0.6"), second))
        return outgoing(
            host(routes, neighbours=[Neighbour(2, each, bytes(6), state) for each, state in states]), "8.8.8.8"
        )

    assert "via 10.0.0.5" in gateway(NUD_REACHABLE, NUD_REACHABLE)
    assert "via 10.0.0.6" in gateway(NUD_FAILED, NUD_REACHABLE)
    assert "via 10.0.0.5" in gateway(NUD_FAILED, NUD_FAILED)


def test_ipv6_avoids_routers_that_are_gone_unless_there_is_no_other() -> None:
    hops = (Hop(2, packed("fe80::a")), Hop(3, packed("fe80::b")))
    routes = [Route.make("default", family=AF_INET6, hops=hops)]
    gone = [Neighbour(2, packed("fe80::a"), b"", NUD_FAILED)]
    assert "via fe80::a" in outgoing(host(routes), "2a00::1")
    assert "via fe80::b" in outgoing(host(routes, neighbours=gone), "2a00::1")
    gone.append(Neighbour(3, packed("fe80::b"), b"", NUD_FAILED))
    assert "via fe80::a" in outgoing(host(routes, neighbours=gone), "2a00::1")
    router = host(routes, neighbours=gone[:1], sysctls={"net.ipv6.conf.all.forwarding": 1})
    assert "via fe80::a" in outgoing(router, "2a00::1")  # a router takes its routes as they are


def test_source_specific_routes_hide_those_for_any_source_of_their_prefix() -> None:
    """Linux's tree: a prefix with source-specific routes is passed over by other sources, its other routes with it."""
    routes = [
        Route.make("2001:db8:20::/48", via="fe80::a", oif=2),
        Route.make("2001:db8:20::/48", via="fe80::b", oif=2, source="2001:db8::/64"),
        Route.make("default", via="fe80::c", oif=2),
        Route.make("default", via="fe80::d", oif=2, source="2001:db8:1::/64"),
    ]
    tables = host(routes)
    assert "via fe80::b" in outgoing(tables, "2001:db8:20::1", "2001:db8::1")
    assert "via fe80::d" in outgoing(tables, "2001:db8:20::1", "2001:db8:1::1")
    assert "via fe80::c" in outgoing(tables, "2001:db8:20::1", "2001:db8:9::1")
    assert "via fe80::c" in outgoing(tables, "2a00::1", "2001:db8::1")


def test_next_hop_objects() -> None:
    objects = [
        NextHop(1, Hop(2, packed("10.0.0.5"))),
        NextHop(2, Hop(3, packed("10.0.1.5"))),
        NextHop(3, blackhole=True),
        NextHop(10, group=((1, 1), (2, 3))),
    ]
    routes = [Route.make("192.0.2.0/24", nexthop=1), Route.make("198.51.100.0/24", nexthop=3),
              Route.make("203.0.113.0/24", nexthop=10), Route.make("8.0.0.0/8", nexthop=77)]  # fmt: skip
    tables = host(routes, nexthops=objects)
    assert outgoing(tables, "192.0.2.1") == "output via 10.0.0.5 dev #2 src 10.0.0.1"
    assert outgoing(tables, "198.51.100.1") == "EINVAL"
    assert outgoing(tables, "203.0.113.1", hash=0) == "output via 10.0.0.5 dev #2 src 10.0.0.1"
    assert outgoing(tables, "203.0.113.1", hash=1 << 30) == "output via 10.0.1.5 dev #3 src 10.0.1.1"
    assert outgoing(tables, "8.8.8.8") == "ENETUNREACH"  # its object is not there yet


def test_a_more_specific_route_of_main_beats_a_wider_one_of_local_until_there_are_rules() -> None:
    """Linux looks tables local and main up as one until a policy rule is added (fib_unmerge)."""
    from xdpstack.netlink import DEFAULT_RULES, Rule
    from xdpstack.netlink.uapi import AF_INET

    routes = [Route.make("198.51.100.0/24", type=RTN_LOCAL, oif=1), Route.make("198.51.100.128/25", via="10.0.0.5")]
    assert outgoing(host(routes), "198.51.100.129").startswith("output via 10.0.0.5")
    ruled = host(routes, rules=[*DEFAULT_RULES, Rule(AF_INET, 100, table=100)])
    assert outgoing(ruled, "198.51.100.129").startswith("local")
