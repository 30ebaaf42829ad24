"""The C tables against Linux: random namespaces are mirrored, compiled and published, and asked what RTM_GETROUTE is asked.

The worlds and the oracle are those of test_routing_semantics.py. Every device of the namespace is one of the stack, so that
what C leaves to the kernel (TX_SLOW) is what is for this host itself, broadcast, or a group that the host has joined.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import pytest

from tests.kernel import effort
from tests.kernel.route_oracle import Answer, Oracle
from tests.kernel.route_world import World
from tests.kernel.test_routing_semantics import explain, hashes, world
from tests.routing.native_case import Case
from xdpstack.native import ffi, lib
from xdpstack.netlink import Mirror
from xdpstack.netlink.ip import ANY
from xdpstack.netlink.uapi import AF_INET, AF_INET6, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST
from xdpstack.routing import fib6
from xdpstack.routing.flow import Flow, is_multicast
from xdpstack.routing.reasons import SEND_ERRNO

pytestmark = pytest.mark.root

VERDICT_ERRNO = {lib.XS_FIB_NONE: 101, lib.XS_FIB_UNREACHABLE: 113, lib.XS_FIB_PROHIBITED: 13, lib.XS_FIB_BLACKHOLE: 22}


def case_of(mirror: Mirror) -> Case:
    """C with the tables of the namespace, over all its devices."""
    indices = [index for index, link in sorted(mirror.snapshot.links.items()) if not link.is_loopback]
    case = Case({index: number for number, index in enumerate(indices)})
    case.publish(mirror.snapshot)
    return case


def agrees(case: Case, flow: Flow, got: dict[str, Any], kernel: Answer) -> bool:
    """What routing.tx decides is what the kernel says."""
    if kernel.error:
        return SEND_ERRNO.get(str(got.get("drop"))) == kernel.error
    joined = (kernel.oif, flow.destination) in case.tables.groups
    here = kernel.type in (RTN_LOCAL, RTN_BROADCAST) or kernel.oif not in case.devices
    if here or (kernel.type == RTN_MULTICAST and joined):
        return got == {"drop": "TX_SLOW"}
    if "drop" in got or got["hop"] is None:
        return False
    oif, gateway = got["hop"][:2]
    source = got["source"] if kernel.source is not None else None
    return (oif, gateway, source) == (kernel.oif, kernel.gateway, kernel.source)


@pytest.mark.parametrize("seed, rules", [(seed, seed % 5 > 1) for seed in effort.seeds(200, 5)])
def test_what_is_sent(seed: int, rules: bool) -> None:
    with world(seed, rules) as (made, mirror, tables):
        case = case_of(mirror)
        flows = [
            flow
            for flow in made.flows(tables, mirror.snapshot.addresses, 2500)
            if flow.family == AF_INET and not flow.iif and flow.oif in (0, *case.devices) and not left_out(flow)
        ]
        with contextlib.closing(Oracle(made.name)) as oracle:
            answers = oracle.ask(flows)
        by_hash = {each: case.ask(lib.XS_NO_DEVICE, [flow.but(hash=each) for flow in flows]) for each in hashes(tables)}
        wrong = [
            (flow, kernel, [str(each[i]) for each in by_hash.values()])
            for i, (flow, kernel) in enumerate(zip(flows, answers, strict=True))
            if not any(agrees(case, flow, each[i], kernel) for each in by_hash.values())
        ]
        assert len(flows) > 300
        assert not wrong, f"{len(wrong)} of {len(flows)}; the first: {described(made, mirror, wrong[0])}"


def left_out(flow: Flow) -> bool:
    """RTM_GETROUTE takes the source 0.0.0.0 for none."""
    return flow.source == ANY[AF_INET]


def described(made: World, mirror: Mirror, wrong: tuple[Flow, Answer, list[str]]) -> str:
    flow, kernel, mine = wrong
    return explain(made, mirror, flow, kernel, set()) + f"\nC: {mine}"


def lookups(case: Case, flows: Iterable[Flow]) -> list[Answer]:
    """xs_fib_ask: the lookup alone, which is what RTM_GETROUTE of IPv6 runs."""
    asked = list(flows)
    keys = ffi.new("struct xs_fib_key[]", [lookup_key(case, flow) for flow in asked])
    answers = ffi.new("struct xs_fib_answer[]", len(asked))
    lib.xs_fib_ask(lib.xs_stack_fib(case.core.pointer), keys, len(asked), answers)
    return [answer_of(case, each) for each in answers]


def lookup_key(case: Case, flow: Flow) -> dict[str, object]:
    """The key of the lookup alone."""
    strict = fib6.need_strict(flow.destination) or bool(flow.oif and not flow.source and not flow.iif)
    flags = lib.XS_FIB_IPV6 | lib.XS_FIB_HASHED | (lib.XS_FIB_STRICT if strict else 0)
    flags |= lib.XS_FIB_HAS_SOURCE if flow.source or flow.iif else 0
    return case.key(flow) | {"iif": flow.iif or 1, "oif": flow.oif, "prefer": flow.iif or flow.oif, "flags": flags}


def answer_of(case: Case, got: Any) -> Answer:
    """Struct xs_fib_answer as an Answer without source and table."""
    if got.verdict != lib.XS_FIB_FOUND:
        return Answer(VERDICT_ERRNO[got.verdict])
    hop = case.routing.ids.slots[got.nexthop & lib.XS_NEXTHOP_SLOT_MASK]
    assert hop is not None
    own = got.type in (RTN_LOCAL, 4)
    return Answer(0, got.type, 1 if own else got.ifindex, hop.gateway)


@pytest.mark.parametrize("seed, rules", [(seed, seed % 4 > 1) for seed in effort.seeds(208, 4)])
def test_ipv6_lookups(seed: int, rules: bool) -> None:
    with world(seed, rules) as (made, mirror, tables):
        case = case_of(mirror)
        flows = [
            flow
            for flow in made.flows(tables, mirror.snapshot.addresses, 2500)
            if flow.family == AF_INET6 and not (flow.iif and is_multicast(flow.destination))
        ]
        with contextlib.closing(Oracle(made.name)) as oracle:
            answers = oracle.ask(flows)
        by_hash = [lookups(case, [flow.but(hash=each) for flow in flows]) for each in hashes(tables)]
        wrong = [
            (flow, kernel, [str(each[i]) for each in by_hash])
            for i, (flow, kernel) in enumerate(zip(flows, answers, strict=True))
            if Answer(kernel.error, kernel.type, kernel.oif, kernel.gateway) not in [each[i] for each in by_hash]
        ]
        assert len(flows) > 300
        assert not wrong, f"{len(wrong)} of {len(flows)}; the first: {described(made, mirror, wrong[0])}"
