"""The routing semantics against Linux: the same lookups on the same random tables must have the same answers.

A namespace gets random addresses, routes, rules, next-hop objects, neighbours and switches. The mirror reads them back, the
tables are compiled from that, and thousands of lookups go both ways: RTM_GETROUTE to the kernel (with `iif` for what comes
in), and the Python semantics. Compared are the errno, or else type, device, gateway, source address and table.

What RTM_GETROUTE does not run (choice of the IPv6 source with rules in play, ip6_dst_lookup_tail) is compared with what
connect(2) on a UDP socket gets.
"""

import contextlib
import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.kernel import effort
from tests.kernel.route_oracle import Answer, Oracle
from tests.kernel.route_world import World
from xdpstack.netlink import Mirror, packed, run_in, text
from xdpstack.netlink.ip import ANY
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
)
from xdpstack.routing import fib6, semantics, source
from xdpstack.routing.flow import Flow, Verdict, is_link_local, is_multicast
from xdpstack.routing.tables import Tables, compile_tables
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root


# ---- the same from our side ----


def ours(tables: Tables, flow: Flow) -> Answer:
    if flow.family == AF_INET6:
        return ours_ipv6(tables, flow)
    verdict = semantics.route_input(tables, flow) if flow.iif else semantics.route_output(tables, flow)
    if verdict.action == "drop":
        return Answer(verdict.errno)
    source = None if flow.iif or verdict.source == ANY[AF_INET] else verdict.source
    return Answer(0, type_of(verdict), verdict.oif, verdict.gateway, source, table_of(tables, verdict))


def type_of(verdict: Verdict) -> int:
    names = {"local": RTN_LOCAL, "broadcast": RTN_BROADCAST, "multicast": RTN_MULTICAST}
    if verdict.action in names:
        return names[verdict.action]
    return verdict.route.type if verdict.route else RTN_UNICAST


def table_of(tables: Tables, verdict: Verdict) -> int:
    """Without custom rules Linux looks local and main up as one table, and calls it main."""
    table = verdict.route.table if verdict.route else 0
    return RT_TABLE_MAIN if table == RT_TABLE_LOCAL and not tables.custom_rules else table


def ours_ipv6(tables: Tables, flow: Flow) -> Answer:
    """RTM_GETROUTE of IPv6 is the lookup alone, without the checks of ip6_forward and the second try of ip6_dst_lookup."""
    oif = flow.iif or flow.oif
    strict = fib6.need_strict(flow.destination) or bool(flow.oif and not flow.source and not flow.iif)
    found = fib6.rule_lookup(tables, flow, oif, strict)
    if found.error:
        return Answer(found.error)
    assert found.entry
    assert found.path
    source = None
    if not flow.iif and not flow.source:
        source = semantics.preferred_source(tables, found, flow.destination)
    kind = found.entry.route.type
    device = tables.loopback if fib6.loops_back(found.entry.route) else found.path.oif
    # Routes that share an object share its cached dst too: the kernel may name any of their tables.
    table = None if found.entry.is_object else found.entry.route.table
    return Answer(0, kind, device, found.path.gateway, source, table)


def agree(kernel: Answer, mine: set[Answer]) -> bool:
    """The kernel's answer is one of ours."""
    return kernel in mine or replace(kernel, table=None) in mine


def possible(tables: Tables, flow: Flow) -> set[Answer]:
    """Our answers over all hashes that make a difference: the kernel's hash is its own."""
    asked = [flow.but(hash=each) for each in hashes(tables)]
    return {ours(tables, each) for each in asked}.union(
        *(cached(tables, each) for each in asked if needs_source6(each))
    )


def needs_source6(flow: Flow) -> bool:
    """RTM_GETROUTE chooses an IPv6 source for it."""
    return flow.family == AF_INET6 and not flow.source and not flow.iif


def cached(tables: Tables, flow: Flow) -> set[Answer]:
    """The same by the dst that Linux keeps of a next-hop object, where another route through it was asked first.

    It chooses the source by that route: of the device of its object, or of its group's first.
    """
    found = fib6.rule_lookup(tables, flow, flow.oif, fib6.need_strict(flow.destination) or bool(flow.oif))
    if found.error or not found.entry or not found.path or not found.entry.is_object:
        return set()
    answer, hop = ours(tables, flow), (found.path.oif, found.path.gateway)
    entries = (entry for (family, _), fib in tables.fibs.items() if family == AF_INET6 for entry in fib)
    sharing = (entry for entry in entries if entry.is_object and hop in {(p.oif, p.gateway) for p in entry.paths})
    first = {entry.paths[0].oif for entry in sharing}
    return {replace(answer, source=source.ipv6_dev_get_saddr(tables.devices, oif, flow.destination)) for oif in first}


def hashes(tables: Tables) -> set[int]:
    """One hash from each interval between bounds."""
    bounds = {path.bound for fib in tables.fibs.values() for entry in multipaths(fib) for path in entry.paths}
    return {0, (1 << 31) - 1} | {b for b in bounds if b >= 0} | {b + 1 for b in bounds if b + 1 < 1 << 31}


def multipaths(fib) -> Iterator:
    return (entry for entry in fib if len(entry.paths) > 1)


@contextlib.contextmanager
def world(seed: int, rules: bool, *commands: str) -> Iterator[tuple[World, Mirror, Tables]]:
    """A random namespace, or one made by `commands` of ip(8)."""
    made = World(seed)
    try:
        with Mirror(made.name) as mirror:  # from the start: a local route counts after it has gone
            if commands:
                made.ip(*commands)
            else:
                made.populate(rules)
            settle(mirror)
            yield made, mirror, compile_tables(mirror.snapshot)
    finally:
        made.close()


def settle(mirror: Mirror) -> None:
    """Wait until duplicate address detection of the link-local addresses is over, and until a work queue of the kernel has
    entered the local routes of the others; nothing else moves by itself. Of two alike addresses one may get none."""

    def detecting() -> bool:
        mirror.process()
        return any(address.flags & 0x40 for address in mirror.snapshot.addresses if not address.flags & 0x08)

    def lacking() -> bool:
        mirror.process()
        routes = {r.destination.address for r in mirror.snapshot.routes if r.family == AF_INET6 and r.type == RTN_LOCAL}
        return any(a.local not in routes for a in mirror.snapshot.addresses if a.family == AF_INET6)

    until(lambda: not detecting())
    with contextlib.suppress(AssertionError):
        until(lambda: not lacking(), seconds=1)
    mirror.resync()


def explain(world: World, mirror: Mirror, flow: Flow, kernel: Answer, mine: set[Answer]) -> str:
    routes = "\n".join(f"  {route}" for route in mirror.snapshot.routes if route.family == flow.family)
    rules = "\n".join(f"  {rule}" for rule in mirror.snapshot.rules if rule.family == flow.family)
    where = {index: link.name for index, link in mirror.snapshot.links.items()}
    asked = (f"{text(flow.source) if flow.source else 'any'} > {text(flow.destination)} iif {flow.iif} oif {flow.oif} "
             f"mark {flow.mark} tos {flow.tos:#x} proto {flow.protocol} {flow.source_port}>{flow.destination_port} "
             f"uid {flow.user}")  # fmt: skip
    return f"{asked}\nkernel: {kernel}\nours:   {[*map(str, mine)]}\n{where}\nrules:\n{rules}\nroutes:\n{routes}"


def compare(seed: int, rules: bool, count: int) -> None:
    with world(seed, rules) as (made, mirror, tables):
        # RTM_GETROUTE hands IPv6 multicast that comes in to the multicast router, which is another matter.
        flows = [
            f
            for f in made.flows(tables, mirror.snapshot.addresses, count)
            if not (f.iif and f.family == AF_INET6 and is_multicast(f.destination))
        ]
        check(made, mirror, tables, flows)


def check(made: World, mirror: Mirror, tables: Tables, flows: list[Flow]) -> None:
    with contextlib.closing(Oracle(made.name)) as oracle:
        answers = oracle.ask(flows)
    wrong = []
    for flow, kernel in zip(flows, answers, strict=True):
        mine = {ours(tables, flow)}
        if not agree(kernel, mine):
            mine = possible(tables, flow)
        if not agree(kernel, mine):
            wrong.append((flow, kernel, mine))
    if wrong and add_again(made, mirror, tables, [flow for flow, _, _ in wrong]):
        with contextlib.closing(Oracle(made.name)) as oracle:
            answers = oracle.ask([flow for flow, _, _ in wrong])
        wrong = [each for each, kernel in zip(wrong, answers, strict=True) if not agree(kernel, each[2])]
    assert not wrong, f"{len(wrong)} of {len(flows)}; the first: {explain(made, mirror, *wrong[0])}"


def add_again(made: World, mirror: Mirror, tables: Tables, flows: list[Flow]) -> int:
    """Delete the source-specific routes that we find for `flows`, and add them again as they were; how many there are.

    Linux can lose such a route: it lists it, and no packet finds it until it is added again. What that mends is no
    difference of ours.
    """
    names = {index: link.name for index, link in mirror.snapshot.links.items()}
    lost = {}
    for flow in flows:
        strict = fib6.need_strict(flow.destination) or bool(flow.oif and not flow.source and not flow.iif)
        found = fib6.rule_lookup(tables, flow, flow.iif or flow.oif, strict) if flow.family == AF_INET6 else None
        if found and found.entry and found.entry.route.source and len(found.entry.route.hops) == 1:
            route, (hop,) = found.entry.route, found.entry.route.hops
            what = (f"{route.destination} from {route.source} {f'via {text(hop.gateway)}' if hop.gateway else ''} "
                    f"dev {names[hop.oif]} table {route.table} metric {route.priority}")  # fmt: skip
            lost[what] = (f"route del {what}", f"route add {what}")
    made.ip(*(command for pair in lost.values() for command in pair), options=("-6",))
    return len(lost)


@pytest.mark.parametrize("seed", effort.seeds(0, 6))
def test_lookups_with_the_default_rules(seed: int) -> None:
    compare(seed, rules=False, count=1500)


@pytest.mark.parametrize("seed", effort.seeds(100, 12))
def test_lookups_with_policy_rules(seed: int) -> None:
    compare(seed, rules=True, count=1500)


@pytest.mark.parametrize("seed", effort.seeds(0, 6))
def test_source_specific_routes(seed: int) -> None:
    """Few prefixes, nested, most of their routes for a source prefix; every source to every destination."""
    rng = random.Random(seed)
    to = ["::/0", "2001:db8::/32", "2001:db8:5::/48", "2001:db8:5:5::/64", "2001:db8:5:5::9/128"]
    sources = ["2001:db8:1::/48", "2001:db8:1:1::/64", "2001:db8::/32", "2001:db8:2::/48"]
    commands = ["address add 2001:db8:1:1::1/64 dev a0 nodad", "address add 2001:db8:2::1/64 dev c0 nodad"]
    # Nothing twice: an add that Linux refuses can leave its tree with a node that no packet finds any more.
    origins = ["", "", "", *(f"from {source}" for source in sources)]
    keys = {(rng.choice(to), rng.choice(origins), rng.choice(["", "metric 50", "metric 2000"])) for _ in range(18)}
    for number, (prefix, origin, metric) in enumerate(sorted(keys), 1):
        commands.append(f"route add {prefix} {origin} via fe80::{number} dev {rng.choice(['a0', 'c0'])} {metric}")
    hosts = ["2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:2::1", "2001:db8:3::1", "2a00::1"]
    destinations = ["2001:db8:5:5::9", "2001:db8:5:5::8", "2001:db8:5:6::1", "2001:db8:6::1", "2a00::2"]
    with world(seed, False, *commands) as (made, mirror, tables):
        check(
            made,
            mirror,
            tables,
            [
                Flow(packed(destination), packed(source), iif=iif, oif=oif, protocol=17)
                for destination in destinations
                for source in hosts
                for iif, oif in ((0, 0), (0, tables.indices["a0"]), (tables.indices["c0"], 0))
            ],
        )


# ---- what a socket gets ----


def connected(namespace: str, flows: list[Flow]) -> list[Answer]:
    """What connect(2) of UDP sockets says: an errno, or the source address that was chosen."""

    def visit() -> list[Answer]:
        return [connect(flow) for flow in flows]

    return run_in(namespace, visit)


def connect(flow: Flow) -> Answer:
    family = socket.AF_INET6 if flow.family == AF_INET6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if flow.oif:
            each.setsockopt(socket.IPPROTO_IPV6 if family == socket.AF_INET6 else socket.IPPROTO_IP, UNICAST_IF[family],
                            struct.pack(">I", flow.oif))  # fmt: skip
        each.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, flow.mark)
        try:
            each.connect((text(flow.destination), flow.destination_port))
        except OSError as error:
            return Answer(error.errno or 0)
        return Answer(source=packed(each.getsockname()[0].partition("%")[0]))


UNICAST_IF = {socket.AF_INET: 50, socket.AF_INET6: 76}  # IP_UNICAST_IF, IPV6_UNICAST_IF


def connected_by_us(tables: Tables, flow: Flow) -> Answer:
    """ip_route_connect and ip6_datagram_dst_update: IPv4 asks again with the source it was given."""
    verdict = semantics.route_output(tables, flow)
    if verdict.action != "drop" and flow.family == AF_INET and not flow.source:
        verdict = semantics.route_output(tables, flow.but(source=verdict.source))
    return Answer(verdict.errno) if verdict.action == "drop" else Answer(source=verdict.source)


def connectable(tables: Tables, flows: Iterator[Flow]) -> Iterator[Flow]:
    """The flows that connect(2) hands to routing as they are: it has its own ways with multicast and link-local ones."""
    for flow in flows:
        to = flow.destination
        strange = flow.family == AF_INET6 and (is_multicast(to) or is_link_local(to) or to[:12] == semantics.MAPPED)
        if flow.iif or strange or to in ANY.values():
            continue
        oif = flow.oif if flow.oif in tables.devices and not is_multicast(to) else 0
        yield Flow(to, mark=flow.mark, oif=oif, protocol=17, destination_port=flow.destination_port or 9)


@pytest.mark.parametrize("seed, rules", [(1, False), (2, False), (101, True), (102, True), (103, True), (104, True)])
def test_what_connect_says(seed: int, rules: bool) -> None:
    with world(seed, rules) as (made, mirror, tables):
        flows = list(connectable(tables, made.flows(tables, mirror.snapshot.addresses, 1500)))
        wrong = []
        for flow, kernel in zip(flows, connected(made.name, flows), strict=True):
            mine = {connected_by_us(tables, flow.but(hash=h)) for h in hashes(tables)}
            if kernel not in mine:
                wrong.append((flow, kernel, mine))
        assert not wrong, f"{len(wrong)} of {len(flows)}; the first: {explain(made, mirror, *wrong[0])}"
