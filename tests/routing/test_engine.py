"""Routing run from Python: the same packets through the C stages and through semantics.py, by tables of random hosts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.routing.native_strategies import FAR4, FAR6, NAMES, OURS, OWN4, OWN6, snapshots
from tests.routing.test_native import host
from tests.routing.test_native_stages import ROUTED, Walk
from xdpstack.device.backend import Device
from xdpstack.errors import ConfigurationError
from xdpstack.hook import HookBatch
from xdpstack.layer import Layer, stand_in
from xdpstack.native import lib
from xdpstack.netlink import Hop, Link, Route, Snapshot, packed
from xdpstack.netlink import text as in_words
from xdpstack.routing.engine import RoutingBatch
from xdpstack.routing.flow import Verdict
from xdpstack.routing.layer import RoutingLayer
from xdpstack.stages.neigh import mapped
from xdpstack.testing import MemoryStack, memory_stack

SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class Routed(Walk):
    """A walk whose routing is the C stages', or the layer's own in Python."""

    def __init__(self, engine: str, *present: str, catch: tuple[str, ...]) -> None:
        super().__init__(*present, catch=catch)
        self.dropped: dict[str, int] = {}
        self.layer = RoutingLayer()
        if engine == "python":
            devices = [Device(name, OURS[i], i, bytes(6), (0,)) for i, name in ((2, "a0"), (3, "b0"))]
            batch = partial(RoutingBatch, layer=self.layer, ids=self.routing.ids, host=SimpleNamespace(devices=devices))
            for row in [row for row in present if row.startswith("routing")]:
                self.walk.replace_row(stand_in(row, self.layer, "python", batch))
            self.wire()

    def publish(self, snapshot: Snapshot) -> None:
        super().publish(snapshot)
        self.layer.apply(snapshot)

    def became(self, *rows: str) -> list[Any]:
        """What became of the packets since the last call: those caught on `rows`, and the drops."""
        caught = [
            (row, packet.data, packet.flags & ROUTED, packet.device, packet.nexthop)
            for row in rows
            for packet in self.caught[row]
        ]
        for row in rows:
            self.caught[row].clear()
        before, self.dropped = self.dropped, self.drops()
        return [caught, {name: n - before.get(name, 0) for name, n in self.dropped.items() if n != before.get(name, 0)}]

    def drops(self) -> dict[str, int]:
        return {name: n for name, n in self.walk.counters().items() if ".drop." in name and "catch" not in name}


@pytest.fixture(scope="module")
def receivers() -> Iterator[list[Routed]]:
    made = [
        Routed(engine, "ip.rx", "routing.rx", catch=("ip.local", "netfilter.forward"))
        for engine in ("native", "python")
    ]
    yield made
    for walk in made:
        walk.close()


def received(seed: int, device: int) -> list[bytes]:
    """Datagrams between random addresses, on their way through, to this host, or impossible."""
    dice = random.Random(seed)
    frames = []
    for _ in range(60):
        own, far = dice.choice(((OWN4, FAR4), (OWN6, FAR6)))
        destination, source = in_words(dice.choice([*own, *far])), in_words(dice.choice([*own, *far]))
        tos = dice.choice((0, 8, 0x10, 0x28))
        ip = (
            IPv6(src=source, dst=destination, tc=tos, fl=dice.choice((0, 5)))
            if ":" in destination
            else IP(src=source, dst=destination, tos=tos)
        )
        ports = UDP(sport=dice.choice((1, 1500, 40000)), dport=dice.choice((7, 53)))
        frames.append(
            bytes(Ether(dst=f"02:00:00:00:00:{device:02}", src="02:00:00:00:00:99") / ip / ports / b"payload")
        )
    return frames


@SOME
@given(snapshots(), st.integers(0, 1 << 30))
def test_what_comes_in_goes_the_same_way(receivers: list[Routed], snapshot: Snapshot, seed: int) -> None:
    became = []
    for walk in receivers:
        walk.publish(snapshot)
        walk.inject("a0", *received(seed, 1))
        walk.inject("b0", *received(seed + 1, 2))
        walk.step(4)
        became.append(walk.became("ip.local", "netfilter.forward"))
    native, python = became
    assert native[1] == python[1]
    assert native[0] == python[0]


# ---- transmit ----


class Sent(Routed):
    """What arrives on a0 is a payload that a socket sends, with the fields of `asked`: one dictionary a packet."""

    def __init__(self, engine: str) -> None:
        super().__init__(engine, "routing.tx", catch=("ip.rx", "udp.tx"))
        self.walk.hooks = [hook for hook in self.walk.hooks if hook.row != "ip.rx"]
        self.hook("ip.rx", self._as_sent, {"send": "routing.tx"})
        self.asked: list[dict[str, Any]] = []
        self.sources: list[bytes] = []

    def send(self, asked: list[dict[str, Any]]) -> list[Any]:
        self.asked, self.sources = list(asked), []
        self.inject("a0", *(number.to_bytes(2) * 40 for number in range(len(asked))))
        self.step(2)
        return [self.sources, *self.became("udp.tx")]

    def _as_sent(self, batch: HookBatch) -> None:
        for number in batch.frames:
            asked, packet, meta = self.asked.pop(0), batch.pkts[number], self.core.metas[number]
            ipv6 = len(asked["dst"]) == 16
            packet.flags = lib.XS_PKT_IPV6 if ipv6 else 0
            packet.device, packet.mark, packet.tos = asked["device"], asked["mark"], asked["tos"]
            packet.sport, packet.dport = asked["sport"], asked["dport"]
            meta.dst = mapped(asked["dst"])
            meta.src = mapped(asked["src"]) if asked["src"] else bytes(16)

    def _catcher(self, row: str) -> Any:
        catch = super()._catcher(row)

        def look(batch: HookBatch) -> None:
            self.sources += [bytes(self.core.metas[number].src) for number in batch.frames]
            catch(batch)

        return look


@pytest.fixture(scope="module")
def senders() -> Iterator[list[Sent]]:
    made = [Sent(engine) for engine in ("native", "python")]
    yield made
    for walk in made:
        walk.close()


@SOME
@given(snapshots(), st.integers(0, 1 << 30))
def test_what_is_sent_goes_the_same_way(senders: list[Sent], snapshot: Snapshot, seed: int) -> None:
    dice = random.Random(seed)
    asked = []
    for _ in range(60):
        own, far = dice.choice(((OWN4, FAR4), (OWN6, FAR6)))
        asked.append(
            {
                "dst": dice.choice([*own, *far]),
                "src": dice.choice([b"", b"", *own, *far]),
                "device": dice.choice((lib.XS_NO_DEVICE, lib.XS_NO_DEVICE, 0, 1)),
                "mark": dice.choice((0, 1, 0xFF)),
                "tos": dice.choice((0, 8, 0x10, 0x28)),
                "sport": dice.choice((1500, 40000)),
                "dport": dice.choice((7, 53)),
            }
        )
    for walk in senders:
        walk.publish(snapshot)
    native, python = (walk.send(asked) for walk in senders)
    assert native == python


def test_flows_take_the_same_paths(senders: list[Sent]) -> None:
    """The hash is the same in both, whatever the policy has it made of."""
    hops = tuple(Hop(2, packed(f"10.0.0.{n}"), weight=n) for n in (7, 8, 9))
    hops6 = tuple(Hop(2, packed(f"fd00::{n}"), weight=n) for n in (7, 8, 9))
    routes = Route.make("default", hops=hops), Route.make("default", hops=hops6, family=10)
    dice = random.Random(1)
    common = {"src": b"", "device": lib.XS_NO_DEVICE, "mark": 0, "tos": 0}
    for policy in range(4):
        switches = {"ipv4.fib_multipath_hash_policy": policy, "ipv6.fib_multipath_hash_policy": policy}
        for walk in senders:
            walk.publish(host(*routes, sysctls=switches))
        asked = [
            {**common, "dst": dice.randbytes(dice.choice((3, 15))), "sport": dice.randrange(65536), "dport": 7}
            for _ in range(60)
        ]
        for one in asked:
            one["dst"] = b"\xc0" + one["dst"] if len(one["dst"]) == 3 else b"\x20" + one["dst"]
        native, python = (walk.send(asked) for walk in senders)
        assert native == python
        assert len({nexthop for *_, nexthop in native[1]}) == 6


# ---- a layer of the user's ----


def stack_with(layer: Layer) -> MemoryStack:
    return memory_stack(
        "a0",
        "b0",
        addresses={"a0": ["10.0.0.1/24"], "b0": ["10.1.0.1/24"]},
        routes=["192.0.2.0/24 via 10.0.0.2 dev a0", "192.0.2.0/24 via 10.1.0.2 dev b0 metric 9"],
        neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99", "10.1.0.2 dev b0 lladdr 02:00:00:00:00:98"],
        engines={"routing": layer},
    )


class ByPort:
    """Chooses the way out by the destination port, of the routes there are."""

    def process(self, batch: RoutingBatch) -> None:
        for packet in batch:
            if batch.row == "routing.tx" and packet.flow.destination_port == 443:
                packet.decide(Verdict("output", 3, packed("10.1.0.2"), packed("10.1.0.1"), mtu=1500))
        batch.layer.process(batch)


def test_an_object_may_choose_the_next_hop() -> None:
    with stack_with(ByPort()) as stack:
        assert stack.info()["engines"] == {"routing": "ByPort", "udp": "native"}
        sock = stack.udp(("0.0.0.0", 7))
        sock.sendto(b"x", ("192.0.2.1", 80))
        sock.sendto(b"x", ("192.0.2.1", 443))
        first, second = (Ether(stack.sent(name)[0]) for name in ("a0", "b0"))
        assert (first.dst, first[IP].src, first.dport) == ("02:00:00:00:00:99", "10.0.0.1", 80)
        assert (second.dst, second[IP].src, second.dport) == ("02:00:00:00:00:98", "10.1.0.1", 443)


def test_a_next_hop_that_no_route_has_is_refused() -> None:
    class Elsewhere:
        def process(self, batch: RoutingBatch) -> None:
            for packet in batch:
                packet.decide(Verdict("output", 2, packed("10.0.0.77"), packed("10.0.0.1"), mtu=1500))

    with stack_with(Elsewhere()) as stack:
        sock = stack.udp(("0.0.0.0", 7))
        with pytest.raises(ConfigurationError, match=r"no next hop via 10.0.0.77[\s\S]*Add a route"):
            sock.sendto(b"x", ("192.0.2.1", 80))
        assert stack.reasons() == {"HOOK_EXCEPTION": 1}


def test_an_ipv4_source_of_zeros_is_none_however_it_is_written(senders: list[Sent]) -> None:
    """A multipath route, and no address to choose as source: both hash the same."""
    links = [Link(1, "lo"), *(Link(index, NAMES[index], bytes([2, 0, 0, 0, 0, index])) for index in (2, 3))]
    route = Route.make("default", hops=(Hop(2, b"", 1, 0, 0), Hop(3, b"", 1, 0, 0)))
    rest = {"device": lib.XS_NO_DEVICE, "mark": 0, "tos": 0, "sport": 1500, "dport": 7}
    outcomes = []
    for walk in senders:
        walk.publish(Snapshot.build(links, [], [route]))
        for source in (b"", bytes(4)):
            outcomes.append(walk.send([{"dst": bytes([192, 0, 2, n]), "src": source, **rest} for n in range(1, 60)]))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert len(outcomes[0][0]) == 59
