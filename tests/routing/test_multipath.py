"""Paths of multipath routes: their shares of the hash space, and which one a hash falls to."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from xdpstack.netlink import Address, Hop, Link, Neighbour, Route, Snapshot, packed
from xdpstack.netlink.uapi import AF_INET, AF_INET6, IFF_BROADCAST, IFF_UP, NUD_FAILED, RTNH_F_DEAD
from xdpstack.routing.flow import Flow
from xdpstack.routing.semantics import route_output
from xdpstack.routing.tables import Entry, Tables, compile_tables

LINKS = [Link(2, "a0", bytes.fromhex("020000000002")), Link(3, "b0", bytes.fromhex("020000000003"))]
ADDRESSES = [Address.parse("10.0.0.1/24", 2), Address.parse("10.0.1.1/24", 3), Address.parse("2001:db8::1/64", 2)]
SPACE = 1 << 31


def tables_of(route: Route, **more: Any) -> Tables:
    return compile_tables(Snapshot.build(more.pop("links", LINKS), ADDRESSES, [route], **more))


def entry_of(tables: Tables, route: Route) -> Entry:
    return next(entry for fib in tables.fibs.values() for entry in fib if entry.route.destination == route.destination)


@given(st.lists(st.integers(1, 256), min_size=2, max_size=16), st.sampled_from([AF_INET, AF_INET6]))
@settings(deadline=None)
def test_shares_follow_the_weights(weights: list[int], family: int) -> None:
    gateways = [packed(f"10.0.0.{i + 2}" if family == AF_INET else f"fe80::{i + 2}") for i in range(len(weights))]
    hops = tuple(Hop(2, gateway, weight) for gateway, weight in zip(gateways, weights, strict=True))
    route = Route.make("8.0.0.0/8" if family == AF_INET else "2a00::/16", hops=hops)
    bounds = [-1, *(path.bound for path in entry_of(tables_of(route), route).paths)]
    assert bounds[-1] == SPACE - 1
    for low, high, weight in zip(bounds, bounds[1:], weights, strict=False):
        assert abs((high - low) - SPACE * weight / sum(weights)) <= 1


HOPS = (Hop(2, packed("10.0.0.5"), 1), Hop(3, packed("10.0.1.5"), 3))
ROUTE = Route.make("8.0.0.0/8", hops=HOPS)


def way(tables: Tables, hash_: int, **more: Any) -> int:
    return route_output(tables, Flow(packed("8.8.8.8"), hash=hash_, **more)).oif


def test_a_hash_falls_to_the_path_whose_share_it_is_in() -> None:
    tables = tables_of(ROUTE)
    quarter = SPACE // 4
    assert [way(tables, h) for h in (0, quarter - 1, quarter, SPACE - 1)] == [2, 2, 3, 3]
    assert way(tables, 0, oif=3) == 3  # a bound sender has no choice


def test_ipv4_prefers_the_path_that_the_source_belongs_to() -> None:
    tables = tables_of(ROUTE)
    assert way(tables, 0, source=packed("10.0.1.1")) == 3
    assert way(tables, SPACE - 1, source=packed("10.0.0.1")) == 2
    assert way(tables, 0, source=packed("127.0.0.1")) == 0  # may not leave


def test_dead_paths_have_no_share() -> None:
    dead = Route.make("8.0.0.0/8", hops=(HOPS[0], Hop(3, packed("10.0.1.5"), 3, RTNH_F_DEAD)))
    assert {way(tables_of(dead), h) for h in (0, SPACE // 2, SPACE - 1)} == {2}


def test_paths_without_carrier_where_that_is_heeded() -> None:
    links = [LINKS[0], Link(3, "b0", LINKS[1].address, flags=IFF_UP | IFF_BROADCAST)]
    heeded = {"net.ipv4.conf.b0.ignore_routes_with_linkdown": 1}
    assert {way(tables_of(ROUTE, links=links), h) for h in (0, SPACE - 1)} == {2, 3}
    assert {way(tables_of(ROUTE, links=links, sysctls=heeded), h) for h in (0, SPACE - 1)} == {2}


def test_gateways_that_do_not_answer_where_that_is_heeded() -> None:
    gone = [Neighbour(3, packed("10.0.1.5"), b"", NUD_FAILED)]
    heeded = {"net.ipv4.fib_multipath_use_neigh": 1}
    assert way(tables_of(ROUTE, neighbours=gone), SPACE - 1) == 3
    assert way(tables_of(ROUTE, neighbours=gone, sysctls=heeded), SPACE - 1) == 2
