"""The C stages decide as semantics.py does: random hosts, every pair of some thirty addresses, both directions."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.routing.native_case import Case
from tests.routing.native_strategies import DEVICES, FAR4, FAR6, NAMES, OURS, OWN4, OWN6, snapshots
from xdpstack.errors import ConfigurationError
from xdpstack.native import ffi, lib
from xdpstack.netlink import Address, Hop, Link, Neighbour, Route, Snapshot, packed
from xdpstack.netlink.uapi import AF_INET6, NUD_FAILED, NUD_REACHABLE
from xdpstack.routing.flow import Flow, is_link_local, is_loopback, is_multicast

PAIRS = [*itertools.product((*OWN4, *FAR4), repeat=2), *itertools.product((*OWN6, *FAR6), repeat=2)]
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def case() -> Case:
    """One stack for all tests: tables replace each other, as in life."""
    return Case(OURS)


def flows(seed: int, oifs: tuple[int, ...] = (0,), unspecified: int = 0) -> list[Flow]:
    """A flow for each pair of addresses, the other keys random; every `unspecified`-th without a source."""
    dice = random.Random(seed)
    made = []
    for number, (destination, source) in enumerate(PAIRS):
        chosen = b"" if unspecified and number % unspecified == 0 else source
        oif = dice.choice(oifs)
        scoped = is_multicast(destination) or is_link_local(destination) or is_loopback(destination)
        if oif and len(destination) == 16 and not scoped:
            chosen = b""  # a bound IPv6 sender with a source: see test_a_bound_sender_leaves_by_its_device
        made.append(
            Flow(
                destination,
                chosen,
                oif=oif,
                mark=dice.choice((0, 1, 0xFF)),
                tos=dice.choice((0, 8, 0x10, 0x28, 0x23)),
                protocol=dice.choice((6, 17)),
                source_port=dice.choice((0, 1500, 40000)),
                destination_port=dice.choice((7, 53)),
                flow_label=dice.choice((0, 5)),
                hash=dice.choice((0, 1 << 29, 1 << 30, (1 << 31) - 1)),
            )
        )
    return made


@QUICK
@given(snapshots(), st.integers(0, 1 << 30))
def test_input_is_as_in_semantics(case: Case, snapshot: Snapshot, seed: int) -> None:
    case.publish(snapshot)
    for device in OURS.values():
        case.check_input(device, flows(seed))


@QUICK
@given(snapshots(), st.integers(0, 1 << 30))
def test_output_is_as_in_semantics(case: Case, snapshot: Snapshot, seed: int) -> None:
    case.publish(snapshot)
    case.check_output(flows(seed, (0, 0, *DEVICES), unspecified=2))


# ---- a host as there are many ----


def host(*routes: Route, **more: Any) -> Snapshot:
    """a0 10.0.0.1/24, b0 10.1.0.1/24, both with IPv6; c0 is not of the stack."""
    links = [Link(i, name, bytes([2, 0, 0, 0, 0, i])) for i, name in NAMES.items()]
    addresses = [
        Address.parse("10.0.0.1/24", 2),
        Address.parse("fd00::1/64", 2),
        Address.parse("10.1.0.1/24", 3),
        Address.parse("fd00:1::1/64", 3),
        Address.parse("10.2.0.1/24", 4),
    ]
    return Snapshot.build(links, addresses, routes, **more)


def send(destination: str, source: str = "", oif: int = 0) -> Flow:
    """What this host sends."""
    return Flow(packed(destination), packed(source) if source else b"", oif=oif, protocol=17)


def test_a_plain_host(case: Case) -> None:
    default = Route.make("default", via="10.0.0.254")
    case.publish(host(default, Route.make("default", via="fd00::fe", oif=2)))
    (far, near, far6, elsewhere, own) = case.ask(
        lib.XS_NO_DEVICE, [send("192.0.2.7"), send("10.1.0.9"), send("2001:db8::1"), send("10.2.0.9"), send("10.1.0.1")]
    )
    assert far["hop"] == (2, packed("10.0.0.254"), 1500, 0)
    assert far["source"] == packed("10.0.0.1")
    assert near["hop"] == (3, b"", 1500, 0)
    assert near["source"] == packed("10.1.0.1")
    assert far6["hop"] == (2, packed("fd00::fe"), 1500, 0)
    assert far6["source"] == packed("fd00::1")
    assert elsewhere == own == {"drop": "TX_SLOW"}


def test_thousands_of_routes(case: Case) -> None:
    """Every prefix of 4,000 is found, and no other."""
    dice = random.Random(1)
    prefixes = {(dice.randrange(1 << 24), dice.choice((16, 20, 23, 24))) for _ in range(4000)}
    routes = [
        Route.make(
            f"{0x20 + (n >> 20) % 64}.{n >> 12 & 255}.{n >> 4 & 255}.0/{length}", via=f"10.0.0.{2 + n % 200}", oif=2
        )
        for n, length in prefixes
    ]
    case.publish(host(*{route.destination: route for route in routes}.values()))
    destinations = [bytes([0x20 + n % 64, dice.randrange(256), dice.randrange(256), 7]) for n in range(3000)]
    case.check_output([Flow(d) for d in [*destinations, *(route.destination.address[:3] + b"\7" for route in routes)]])


def test_a_bound_sender_leaves_by_its_device(case: Case) -> None:
    """IPv6: with SO_BINDTODEVICE only routes through the device will do (RT6_LOOKUP_F_IFACE)."""
    case.publish(host(Route.make("2001:db8::/32", via="fd00::9", oif=2)))
    flow = Flow(packed("2001:db8::1"), packed("fd00::1"))
    free, bound_right, bound_wrong = case.ask(lib.XS_NO_DEVICE, [flow, flow.but(oif=2), flow.but(oif=3)])
    assert free == bound_right
    assert bound_wrong == {"drop": "IP_OUTNOROUTES"}


# ---- publication ----


def test_next_hops_keep_their_ids(case: Case) -> None:
    def id_of(destination: str) -> tuple[int, bytes]:
        (answer,) = case.ask(lib.XS_NO_DEVICE, [send(destination)])
        return answer["id"], answer["hop"][1]

    first, second = Route.make("192.0.2.0/24", via="10.0.0.9"), Route.make("198.51.100.0/24", via="10.0.0.8")
    case.publish(host(first, second))
    before = id_of("192.0.2.1"), id_of("198.51.100.1")
    case.publish(host(second))
    assert id_of("198.51.100.1") == before[1]
    retired = before[0][0]
    hop = lib.xs_stack_fib(case.core.pointer)
    assert hop != ffi.NULL
    assert case.routing.ids.ids[retired & lib.XS_NEXTHOP_SLOT_MASK] == retired, "packets on their way still leave"
    case.publish(host(second, first))
    assert id_of("192.0.2.1") == before[0]


def test_what_matters_to_no_route_is_not_published(case: Case) -> None:
    route = Route.make("192.0.2.0/24", via="10.0.0.9")
    near, gateway = packed("10.0.0.77"), packed("10.0.0.9")
    case.publish(host(route))
    count = case.routing.publications
    case.publish(
        host(
            route, neighbours=[Neighbour(2, near, bytes(6), NUD_FAILED), Neighbour(2, gateway, bytes(6), NUD_REACHABLE)]
        )
    )
    assert case.routing.publications == count
    case.publish(host(route, neighbours=[Neighbour(2, gateway, b"", NUD_FAILED)]))
    assert case.routing.publications == count + 1
    case.publish(host())
    assert case.routing.publications == count + 2


def test_a_router_that_fails_is_avoided(case: Case) -> None:
    """A host that is no router itself takes another default router when its own does not answer (RFC 4861, 6.3.6)."""
    routes = [Route.make("default", via=via, oif=2, family=AF_INET6) for via in ("fd00::a", "fd00::b")]
    failed = [Neighbour(2, packed("fd00::a"), b"", NUD_FAILED)]
    for neighbours, gateway in ((), "fd00::a"), (failed, "fd00::b"):
        case.publish(host(*routes, neighbours=neighbours))
        (answer,) = case.ask(lib.XS_NO_DEVICE, [send("2001:db8::1")])
        assert answer["hop"][1] == packed(gateway)


def test_hops_share_the_hash_space_by_weight(case: Case) -> None:
    hops = (Hop(2, packed("10.0.0.8"), weight=1), Hop(2, packed("10.0.0.9"), weight=3))
    case.publish(host(Route.make("default", hops=hops)))
    flows = [Flow(bytes([192, 0, n >> 8, n & 255]), packed("10.0.0.1")) for n in range(2000)]
    keys = ffi.new("struct xs_fib_key[]", [{**case.key(flow), "flags": 0} for flow in flows])
    out = ffi.new("struct xs_routed[]", len(flows))
    lib.xs_routing_ask(case.core.pointer, lib.XS_NO_DEVICE, keys, len(flows), out)
    first = sum(case.decoded(each, flow)["hop"][1] == packed("10.0.0.8") for each, flow in zip(out, flows, strict=True))
    assert 400 < first < 600


@pytest.mark.parametrize(
    "wrong",
    [
        {"table": 1},
        {"hop": 1},
        {"nhops": 2},
        {"length": 129},
        {"length": 24},
        {"prefix": (0, (0xFFFF << 32) + 1), "length": 120},
        {"detour": 5},
        {"nhops": 0},
    ],
    ids=str,
)
def test_an_index_that_control_got_wrong_is_refused(wrong: dict[str, object]) -> None:
    route = {
        "prefix": (0, 0xFFFF << 32),
        "table": 0,
        "hop": 0,
        "nhops": 1,
        "detour": lib.XS_HOP_NONE,
        "length": 96,
        "type": 1,
    }
    out = ffi.new("struct xs_fib **")
    for changes, result in ({}, 0), (wrong, -22):
        routes = ffi.new("struct xs_fib_route_values[]", [{**route, **changes}])
        hops, none = ffi.new("struct xs_fib_hop[]", 1), ffi.new("struct xs_nexthop[]", [{"device": lib.XS_NO_DEVICE}])
        no_local = [{"local_table": lib.XS_FIB_NO_TABLE}] * 2
        values = {
            "family": no_local,
            "routes": routes,
            "hops": hops,
            "nexthops": none,
            "ntables": 1,
            "nroutes": 1,
            "nhops": 1,
        }
        assert lib.xs_fib_create(ffi.new("struct xs_fib_values *", {**values, "nnexthops": 1}), out) == result
    lib.xs_fib_destroy(out[0])


def test_a_namespace_with_a_vrf_is_refused_and_changes_nothing(case: Case) -> None:
    links = [Link(index, name) for index, name in NAMES.items()]
    case.publish(Snapshot.build(links))
    before = case.routing.publications
    with pytest.raises(ConfigurationError, match="red"):
        case.routing.publish(Snapshot.build([*links, Link(99, "red", kind="vrf")]), OURS)
    assert case.routing.publications == before
