"""A state built by hand is completed as the kernel would."""

import pytest

from xdpstack.netlink import Address, Hop, Link, Neighbour, Prefix, Route, Snapshot, packed
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    IFF_BROADCAST,
    IFF_MULTICAST,
    NUD_REACHABLE,
    RT_SCOPE_HOST,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_LOCAL,
    RTN_UNICAST,
)

A0 = Link(2, "a0", bytes.fromhex("020000000001"))


def routes(snapshot: Snapshot, family: int) -> list[str]:
    return [str(route) for route in snapshot.routes if route.family == family]


def test_one_address_of_each_family() -> None:
    snapshot = Snapshot.build(
        [A0], [Address.parse("10.0.0.1/24", 2, broadcast="+"), Address.parse("2001:db8::1/64", 2)]
    )
    assert [link.name for link in snapshot.links.values()] == ["lo", "a0"]
    assert routes(snapshot, AF_INET) == [
        "local 127.0.0.1/32 dev #1 table 255 src 127.0.0.1",
        "local 127.0.0.0/8 dev #1 table 255 src 127.0.0.1",
        "broadcast 127.255.255.255/32 dev #1 table 255 src 127.0.0.1",
        "local 10.0.0.1/32 dev #2 table 255 src 10.0.0.1",
        "broadcast 10.0.0.255/32 dev #2 table 255 src 10.0.0.1",
        "10.0.0.0/24 dev #2 table 254 src 10.0.0.1",
    ]
    assert set(routes(snapshot, AF_INET6)) == {
        "local ::1/128 dev #1 table 255",
        "multicast ff00::/8 dev #2 table 255 metric 256",
        "local 2001:db8::1/128 dev #2 table 255",
        "2001:db8::/64 dev #2 table 254 metric 256",
        "local fe80::ff:fe00:1/128 dev #2 table 255",
        "fe80::/64 dev #2 table 254 metric 256",
    }
    assert (2, packed("ff02::1:ff00:1")) in snapshot.groups
    assert (1, packed("224.0.0.1")) in snapshot.groups


def test_second_address_of_a_prefix_is_secondary() -> None:
    snapshot = Snapshot.build([A0], [Address.parse("10.0.0.1/24", 2), Address.parse("10.0.0.2/24", 2)])
    second = snapshot.addresses_of(2, AF_INET)[1]
    assert second.is_secondary
    assert "local 10.0.0.2/32 dev #2 table 255 src 10.0.0.1" in routes(snapshot, AF_INET)
    assert routes(snapshot, AF_INET).count("10.0.0.0/24 dev #2 table 254 src 10.0.0.1") == 1


def test_gateway_finds_its_device_and_a_downed_device_has_no_routes() -> None:
    down = Link(3, "b0", bytes.fromhex("020000000002"), flags=IFF_BROADCAST | IFF_MULTICAST)
    snapshot = Snapshot.build(
        [A0, down],
        [Address.parse("10.0.0.1/24", 2), Address.parse("10.1.0.1/24", 3)],
        [Route.make("default", via="10.0.0.254"), Route.make("10.9.0.0/16", oif=3)],
    )
    default = next(route for route in snapshot.routes if route.destination == Prefix.parse("default"))
    assert default.hops == (Hop(2, packed("10.0.0.254")),)
    assert not any(hop.oif == 3 for route in snapshot.routes if route.type == RTN_UNICAST for hop in route.hops)
    local = [route for route in snapshot.routes if route.destination == Prefix.parse("10.1.0.1")]
    assert [(r.type, r.table, r.scope) for r in local] == [(RTN_LOCAL, RT_TABLE_LOCAL, RT_SCOPE_HOST)]
    with pytest.raises(ValueError, match=r"gateway 10\.5\.0\.1 is on no link"):
        Snapshot.build([A0], [], [Route.make("default", via="10.5.0.1")])


def test_route_made_as_ip_route_would() -> None:
    connected = Route.make("10.0.0.0/24", oif=2)
    assert (connected.table, connected.scope, connected.priority) == (RT_TABLE_MAIN, 253, 0)
    assert Route.make("default", via="fe80::1", oif=2).priority == 1024
    assert Route.make("10.0.0.1", type=RTN_LOCAL, oif=1).table == RT_TABLE_LOCAL


def test_switches_combine_as_in_the_kernel() -> None:
    snapshot = Snapshot.build([A0], sysctls={"net.ipv4.ip_forward": 1, "net.ipv4.conf.a0.rp_filter": 2})
    sysctls = snapshot.sysctls
    assert sysctls.conf(AF_INET, "a0", "forwarding") == sysctls["ipv4.ip_forward"] == 1
    assert sysctls.conf_max(AF_INET, "a0", "rp_filter") == 2
    assert sysctls.conf_max(AF_INET, "lo", "rp_filter") == 0
    assert not sysctls.conf_and(AF_INET, "a0", "accept_source_route")
    assert sysctls.conf(AF_INET6, "a0", "mtu") == 1500
    for unknown in ("net.ipv4.nonsense", "net.ipv4.conf.b9.rp_filter"):
        with pytest.raises(KeyError, match="not a switch that is mirrored"):
            Snapshot.build([A0], sysctls={unknown: 1})


def test_neighbours_are_found_by_device_and_address() -> None:
    entry = Neighbour(2, packed("10.0.0.2"), bytes(6), NUD_REACHABLE)
    snapshot = Snapshot.build([A0], neighbours=[entry])
    assert snapshot.neighbours[2, packed("10.0.0.2")] is entry
    assert entry.is_valid
    assert entry.is_connected
