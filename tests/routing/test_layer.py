"""The layer: tables in force, publication, and what it refuses or leaves to the kernel."""

import logging

import pytest

from xdpstack.errors import ConfigurationError
from xdpstack.netlink import Address, Hop, Link, NextHop, Route, Snapshot, packed
from xdpstack.routing.flow import Flow
from xdpstack.routing.layer import RoutingLayer
from xdpstack.routing.tables import Tables

A0 = Link(2, "a0", bytes.fromhex("020000000002"))
SNAPSHOT = Snapshot.build([A0], [Address.parse("10.0.0.1/24", 2)], generation=5)


def test_apply_puts_in_force_and_publishes() -> None:
    published: list[Tables] = []
    layer = RoutingLayer([lambda _, tables: published.append(tables)])
    assert layer.tables.generation == 0
    assert layer.route_output(Flow(packed("10.0.0.9"))).reason == "IP_OUTNOROUTES"
    tables = layer.apply(SNAPSHOT)
    assert published == [tables]
    assert layer.tables is tables
    assert tables.generation == 5
    assert layer.route_output(Flow(packed("10.0.0.9"))).action == "output"


def test_a_host_that_is_no_router() -> None:
    switches = {"ipv4.ip_forward": 1, "ipv6.conf.all.forwarding": 1}
    switched = Snapshot.build([A0], [Address.parse("10.0.0.1/24", 2)], sysctls=switches)
    through = Flow(packed("10.0.0.8"), packed("10.0.0.9"), iif=2)
    router, host = RoutingLayer(), RoutingLayer(forwards=False)
    router.apply(switched)
    host.apply(switched)
    assert router.route_input(through).action == "forward"
    assert host.route_input(through).reason == "IP_INADDRERRORS"


def test_what_could_not_be_published_is_not_in_force() -> None:
    def refuses(snapshot: Snapshot, tables: Tables) -> None:
        raise MemoryError

    layer = RoutingLayer()
    before = layer.apply(SNAPSHOT)
    layer.publishers.append(refuses)
    with pytest.raises(MemoryError):
        layer.apply(Snapshot.build([A0], generation=6))
    assert layer.tables is before


def test_vrfs_are_refused_and_change_nothing() -> None:
    published: list[Tables] = []
    layer = RoutingLayer([lambda _, tables: published.append(tables)])
    before = layer.apply(SNAPSHOT)
    with pytest.raises(ConfigurationError, match="red"):
        layer.apply(Snapshot.build([A0, Link(9, "red", kind="vrf")]))
    assert layer.tables is before
    assert published == [before]


def test_what_is_left_to_the_kernel_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    routes = [
        Route.make("192.0.2.0/24", hops=(Hop(2, packed("10.0.0.5"), encap=5),)),
        Route.make("198.51.100.0/24", nexthop=10),
    ]
    objects = [NextHop(1, Hop(2, packed("10.0.0.5"))), NextHop(10, group=((1, 1), (1, 1)), resilient=True)]
    snapshot = Snapshot.build([A0], [Address.parse("10.0.0.1/24", 2)], routes, nexthops=objects)
    layer = RoutingLayer()
    with caplog.at_level(logging.WARNING, "xdpstack.routing"):
        layer.apply(snapshot)
        layer.apply(snapshot)
    assert [("encapsulation" in text, "resilient" in text) for text in caplog.messages] == [
        (True, False),
        (False, True),
    ]
    assert layer.route_output(Flow(packed("192.0.2.1"))).encap == 5
