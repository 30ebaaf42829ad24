"""Corners of routing that random tables do not come to: each a few commands and destinations, asked of Linux and of us.

Every device of the namespace is one of the stack, so that C decides as semantics.py does wherever it decides at all.
"""

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.kernel.route_world import World
from tests.kernel.test_routing_native import case_of
from tests.kernel.test_routing_semantics import check, settle
from tests.routing.native_case import Case
from xdpstack.netlink import Mirror, packed
from xdpstack.netlink.uapi import AF_INET
from xdpstack.routing.flow import Flow
from xdpstack.routing.tables import compile_tables

pytestmark = pytest.mark.root

#: By name: commands of ip(8), and the destinations to ask for.
CORNERS = {
    "a gateway that is this host means that the destination is on the link": (
        [
            "address add 10.9.0.1/24 dev a0",
            "address add 10.8.0.1/24 dev c0",
            "route add 10.1.0.0/16 via 10.9.0.1",
            "route add 10.2.0.0/16 nexthop via 10.9.0.1 nexthop via 10.9.0.2",
            "route add 10.3.0.0/16 via 10.9.0.1 table 100",
            "route add 10.9.0.0/16 dev a0 tos 0x10 table 100",
            "rule add lookup 100 priority 100",
            "route add 10.5.0.0/24 dev a0 scope host",
            "route add 10.6.0.0/16 via 10.5.0.7",
            "nexthop add id 1 via 10.9.0.1 dev a0",
            "nexthop add id 2 via 10.8.0.2 dev c0",
            "nexthop add id 3 group 1/2",
            "route add 10.7.0.0/16 nhid 1",
            "route add 10.70.0.0/16 nhid 3",
            "route add 10.71.0.0/16 via 10.9.0.2",
        ],
        ["10.1.1.1", "10.2.1.1", "10.3.1.1", "10.5.0.1", "10.6.0.1", "10.7.0.1", "10.70.0.1", "10.71.0.1"],
    ),
    "IPv6 anycast that a user added is sent out, and not to this host": (
        [
            "address add 2001:db8::1/64 dev a0 nodad",
            "route add anycast 2001:db8:2::/48 dev a0",
            "route add anycast 2001:db8:3::/48 dev lo",
            "route add multicast 2001:db8:4::/48 dev a0",
            "route add broadcast 2001:db8:5::/48 dev a0",
        ],
        ["2001:db8::", "2001:db8:2::1", "2001:db8:3::1", "2001:db8:4::1", "2001:db8:5::1"],
    ),
    "IPv6 refuses what comes in for a prefix of the loopback device": (
        [
            "address add 2001:db8::1/64 dev a0 nodad",
            "address add 2001:db8:2::1/64 dev lo nodad",
            "route add 2001:db8:3::/48 dev lo",
        ],
        ["2001:db8:2::", "2001:db8:2::1", "2001:db8:2::2", "2001:db8:3::1"],
    ),
    "IPv6 takes of a next-hop group the first member that will do": (
        [
            "address add 2001:db8::1/64 dev a0 nodad",
            "nexthop add id 4 via fe80::3 dev a0",
            "nexthop add id 5 via fe80::4 dev c0",
            "nexthop add id 12 group 4/5",
            "route append 2001:db8:2::/48 nhid 12",
            "route append 2001:db8:2::/48 dev c0",
            "route append 2001:db8:3::/48 dev c0",
            "route append 2001:db8:3::/48 nhid 12",
        ],
        ["2001:db8:2::1", "2001:db8:3::1"],
    ),
    "IPv6 heeds a carrier by the switch of the device alone": (
        [
            "sysctl net.ipv6.conf.all.ignore_routes_with_linkdown=1",
            "sysctl net.ipv6.conf.e0.ignore_routes_with_linkdown=0",
            "address add 2001:db8::1/64 dev e0 nodad",
            "route add 2001:db8:2::/48 dev e0 metric 5",
            "route add 2001:db8:2::/48 dev a0 metric 50",
        ],
        ["2001:db8:2::1"],
    ),
    "a rule that is for all but VRFs asks table main": (
        [
            "address add 10.9.0.1/24 dev a0",
            "route add 10.1.0.0/16 via 10.9.0.2",
            "address add 2001:db8::1/64 dev a0 nodad",
            "route add 2001:db8:2::/48 dev a0",
            "rule add not l3mdev priority 5",
            "rule del priority 32766",
            "-6 rule add not l3mdev priority 5",
            "-6 rule del priority 32766",
        ],
        ["10.1.1.1", "10.9.0.1", "2001:db8:2::1"],
    ),
    "a rule may name a device by another of its names": (
        [
            "link property add dev c0 altname other0 altname other1",
            "address add 10.9.0.1/24 dev a0",
            "route add 10.1.0.0/16 via 10.9.0.2 table 100",
            "rule add iif other0 lookup 100 priority 5",
            "rule add oif other1 blackhole priority 6",
            "rule add iif gone0 prohibit priority 4",
        ],
        ["10.1.1.1", "10.9.0.1", "10.9.0.2"],
    ),
    "types that are of no use refuse": (
        [
            "address add 10.9.0.1/24 dev a0",
            "route add 10.0.0.0/8 dev a0",
            "route add nat 10.1.0.0/16 scope nowhere",
            "route add xresolve 10.2.0.0/16 scope nowhere",
            "route add anycast 10.3.0.0/16 dev a0",
            "route add multicast 10.4.0.0/16 dev a0",
        ],
        ["10.1.1.1", "10.2.1.1", "10.3.1.1", "10.4.1.1"],
    ),
}


@contextlib.contextmanager
def corner(*commands: str) -> Iterator[tuple[World, Mirror]]:
    """A namespace with the devices of a World, after `commands`, each of which must do."""
    made = World(0)
    try:
        made.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for command in commands:
            if command.startswith("sysctl "):
                made.sysctl(command.removeprefix("sysctl "))
                continue
            six = ["-6"] if "2001:" in command else []
            subprocess.run(["ip", *six, "-n", made.name, *command.split()], check=True, timeout=30)
        with Mirror(made.name) as mirror:
            settle(mirror)
            yield made, mirror
    finally:
        made.close()


def flows(mirror: Mirror, destinations: list[str]) -> list[Flow]:
    """What is sent to each of them, bound to each device or to none, and what comes in by each device."""
    indices = [index for index, link in mirror.snapshot.links.items() if not link.is_loopback]
    asked = []
    for to in map(packed, destinations):
        foreign = packed("10.200.0.1" if len(to) == 4 else "2001:db8:200::1")
        asked += [Flow(to, oif=oif, protocol=17, destination_port=53) for oif in (0, *indices)]
        asked += [Flow(to, foreign, iif=iif, protocol=17, destination_port=53) for iif in indices]
    return asked


@pytest.mark.parametrize("name", CORNERS)
def test_corner(name: str) -> None:
    commands, destinations = CORNERS[name]
    with corner(*commands) as (made, mirror):
        asked = flows(mirror, destinations)
        check(made, mirror, compile_tables(mirror.snapshot), asked)
        check_c(case_of(mirror), asked)


#: What was once, and what is asked after it: a more specific route of main than that of local, and odd sources.
UNDONE = {
    "rules": (["rule add fwmark 77 lookup 100 priority 9"], ["rule del priority 9"]),
    "local routes": (["route add local 10.77.0.0/16 dev lo"], ["route del local 10.77.0.0/16 dev lo table local"]),
}


#: A local route that went before the mirror began: nobody can know (layer.py).
KNOWN = [("rules", True), ("rules", False), ("local routes", True)]


@pytest.mark.parametrize("name, followed", KNOWN)
def test_what_is_undone_still_counts(name: str, followed: bool) -> None:
    """Rules and local routes that came and went, before the mirror began or while it followed."""
    there, gone = UNDONE[name]
    setup = [
        "address add 10.9.0.1/24 dev a0",
        "address add 10.8.0.1/16 dev c0",
        "address add 10.66.0.1/16 dev lo",
        "route add 10.66.6.0/24 dev c0",
        "route add broadcast 10.9.0.99 dev a0",
    ]
    with corner(*setup, *([] if followed else there + gone)) as (made, mirror):
        if followed:
            check(made, mirror, compile_tables(mirror.snapshot), odd_flows(mirror))
            for commands in (there, gone):
                made.ip(*commands)
                mirror.process()
        tables = compile_tables(mirror.snapshot)
        assert tables.custom_rules if name == "rules" else tables.custom_local
        asked = odd_flows(mirror)
        check(made, mirror, tables, asked)
        check_c(case_of(mirror), asked)


REALMS = [
    "route add 10.1.0.0/16 via 10.9.0.2 realms 5",
    "route add 10.1.0.0/16 nexthop via 10.9.0.2 realms 5 nexthop via 10.8.0.9",
    "rule add from 10.3.0.0/16 lookup main realms 7",
]


@pytest.mark.parametrize("command", REALMS)
def test_realms_have_sources_looked_up(command: str) -> None:
    """Even on a device that accepts the host's own addresses as sources."""
    switches = ("conf.a0.accept_local=1", "conf.a0.send_redirects=0", "conf.all.send_redirects=0")
    addresses = ("address add 10.9.0.1/24 dev a0", "address add 10.8.0.1/16 dev c0")
    with corner(*addresses, *(f"sysctl net.ipv4.{each}" for each in switches), command) as (made, mirror):
        asked = odd_flows(mirror)
        check(made, mirror, compile_tables(mirror.snapshot), asked)
        check_c(case_of(mirror), asked)


def odd_flows(mirror: Mirror) -> list[Flow]:
    """To both tables' prefixes, and from addresses that only the full check of a source refuses."""
    indices = [index for index, link in mirror.snapshot.links.items() if not link.is_loopback]
    destinations = [packed(each) for each in ("10.66.6.6", "10.66.1.1", "10.9.0.1", "10.77.1.1", "10.8.0.9")]
    sources = [packed(each) for each in ("10.9.0.255", "10.9.0.99", "10.8.0.1", "10.8.0.7", "10.9.0.7", "192.0.2.1")]
    incoming = [Flow(to, source, iif=iif, protocol=17) for to in destinations for source in sources for iif in indices]
    return incoming + [Flow(to, protocol=17) for to in destinations]


def check_c(case: Case, asked: list[Flow]) -> None:
    """C decides as semantics.py."""
    case.check_output([flow for flow in asked if not flow.iif and not (flow.oif and flow.family != AF_INET)])
    for ifindex, device in case.devices.items():
        case.check_input(device, [flow for flow in asked if flow.iif == ifindex])
