"""routing.rx and routing.tx as stages: frames over memory devices, and tables that are replaced under them."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether

from tests.routing.test_native import host
from xdpstack.hook import HookBatch
from xdpstack.native import lib
from xdpstack.netlink import Range, Route, Rule, Snapshot, packed
from xdpstack.netlink.rule import DEFAULT_RULES
from xdpstack.netlink.uapi import AF_INET, AF_INET6, FR_ACT_PROHIBIT
from xdpstack.routing.native import NativeRouting, device_flags
from xdpstack.routing.tables import compile_device
from xdpstack.stages.neigh import mapped
from xdpstack.testing.memory_walk import MemoryWalk, TestDevice

DEVICES = {2: 0, 3: 1}
LOCAL, BROADCAST, MULTICAST = lib.XS_PKT_ROUTED_LOCAL, lib.XS_PKT_ROUTED_BROADCAST, lib.XS_PKT_ROUTED_MULTICAST
ROUTED = LOCAL | BROADCAST | MULTICAST


class Walk(MemoryWalk):
    """Devices a0 (index 2) and b0 (index 3), and routing by a snapshot."""

    def __init__(self, *present: str, catch: tuple[str, ...]) -> None:
        super().__init__(TestDevice("a0"), TestDevice("b0"), present={"napi.rx", *present}, catch=catch)
        self.routing = NativeRouting(self.core.pointer)

    def publish(self, snapshot: Snapshot) -> None:
        """Route by `snapshot`, on devices as it has them."""
        for ifindex, index in DEVICES.items():
            device = compile_device(snapshot, snapshot.links[ifindex])
            self.devices[index] = replace(self.devices[index], flags=device_flags(device), rp_filter=device.rp_filter)
        self.set_devices()
        self.routing.publish(snapshot, DEVICES)

    def hop(self, nexthop: int) -> tuple[int, bytes]:
        """Device and gateway of a next hop id."""
        found = self.routing.ids.slots[nexthop & lib.XS_NEXTHOP_SLOT_MASK]
        assert found is not None
        return found.ifindex, found.gateway


def frame(destination: str, source: str = "", sport: int = 1000) -> bytes:
    """A datagram that arrives on a0."""
    ipv6 = ":" in destination
    ip = (IPv6 if ipv6 else IP)(src=source or ("fd00::9" if ipv6 else "10.0.0.9"), dst=destination)
    return bytes(Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:99") / ip / UDP(sport=sport, dport=7) / b"payload")


# ---- receive ----


@pytest.fixture
def rx() -> Iterator[Walk]:
    with Walk("ip.rx", "routing.rx", catch=("ip.local", "netfilter.forward")) as walk:
        yield walk


def test_what_is_for_this_host(rx: Walk) -> None:
    rx.publish(host(groups=[(2, packed("239.1.2.3"))]))
    expected = {
        "10.0.0.1": LOCAL,
        "10.1.0.1": LOCAL,
        "fd00::1": LOCAL,
        "10.0.0.255": BROADCAST,
        "255.255.255.255": BROADCAST,
        "239.1.2.3": MULTICAST,
        "224.0.0.1": MULTICAST,
        "ff02::1": MULTICAST,
    }
    rx.inject("a0", *map(frame, expected))
    rx.step()
    caught = rx.caught["ip.local"]
    assert [packet.flags & ROUTED for packet in caught] == [*expected.values()]
    assert {(packet.device, packet.nexthop) for packet in caught} == {(0, 0)}
    assert rx.drops() == {}


def test_what_is_for_others(rx: Walk) -> None:
    frames = [*map(frame, ("10.1.0.9", "fd00:1::9", "192.0.2.1"))]
    rx.publish(host())
    rx.inject("a0", *frames)
    rx.step()
    assert rx.drops() == {"IP_INADDRERRORS": 3}


def test_what_is_forwarded(rx: Walk) -> None:
    switches = {"ipv4.ip_forward": 1, "ipv6.conf.all.forwarding": 1}
    rx.publish(host(Route.make("192.0.2.0/24", via="10.1.0.254"), sysctls=switches))
    rx.inject("a0", *map(frame, ("10.1.0.9", "fd00:1::9", "192.0.2.1", "198.51.100.1", "10.2.0.9")))
    rx.step()
    caught = rx.caught["netfilter.forward"]
    assert [rx.hop(packet.nexthop) for packet in caught] == [(3, b""), (3, b""), (3, packed("10.1.0.254"))]
    assert {packet.device for packet in caught} == {0}, "the one it came by; neigh.tx sets the one it leaves by"
    assert rx.drops() == {"IP_INNOROUTES": 1, "NOT_CLAIMED": 1}


MARTIANS = [
    ("10.0.0.1", "224.0.0.1", "IP_INVALID_SOURCE"),
    ("10.0.0.1", "0.0.0.0", "IP_INVALID_SOURCE"),
    ("10.0.0.1", "10.0.0.255", "IP_INVALID_SOURCE"),
    ("0.0.0.0", "10.0.0.9", "IP_INVALID_DEST"),
    ("127.0.0.1", "10.0.0.9", "IP_LOCALNET"),
    ("10.0.0.1", "127.0.0.1", "IP_LOCALNET"),
    ("10.0.0.1", "10.1.0.1", "IP_LOCAL_SOURCE"),
    ("10.0.0.1", "192.0.2.1", "IP_RPFILTER"),
    ("10.0.0.1", "10.1.0.9", "IP_RPFILTER"),
    ("239.9.9.9", "10.0.0.9", "NOT_MEMBER"),
    ("ff02::9", "fe80::9", "NOT_MEMBER"),
    ("fe80::77", "fe80::9", "IP_INADDRERRORS"),
    ("::", "fd00::9", "IP_INADDRERRORS"),
]


@pytest.mark.parametrize("destination, source, reason", MARTIANS)
def test_martians(rx: Walk, destination: str, source: str, reason: str) -> None:
    rx.publish(host(sysctls={"ipv4.conf.a0.rp_filter": 1}))
    rx.inject("a0", frame(destination, source))
    rx.step()
    assert rx.drops() == {reason: 1}


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_rules_select_by_port(rx: Walk, family: int) -> None:
    """What hides its ports, as ICMP does, is not selected; ports behind extension headers are found."""
    odd = Rule(family, 100, FR_ACT_PROHIBIT, ip_protocol=17, source_ports=Range(2000, 2010))
    rx.publish(host(rules=(*DEFAULT_RULES, odd), sysctls={"ipv4.ip_forward": 1, "ipv6.conf.all.forwarding": 1}))
    to = "10.1.0.9" if family == AF_INET else "fd00:1::9"
    rx.inject("a0", frame(to, sport=1999), frame(to, sport=2005), frame(to, sport=2011))
    if family == AF_INET6:
        hidden = IPv6(src="fd00::9", dst=to) / IPv6ExtHdrDestOpt() / UDP(sport=2000, dport=7)
    else:
        hidden = IP(src="10.0.0.9", dst=to) / ICMP()
    rx.inject("a0", bytes(Ether(dst="02:00:00:00:00:01") / hidden))
    rx.step()
    refused = "ROUTE_PROHIBIT" if family == AF_INET else "IP_INNOROUTES"
    assert rx.drops() == {refused: 1 + (family == AF_INET6)}


def test_before_anything_is_published_there_are_no_routes(rx: Walk) -> None:
    rx.inject("a0", frame("10.0.0.1"), frame("fd00::1"))
    rx.step()
    assert rx.drops() == {"IP_INADDRERRORS": 1, "IP_INNOROUTES": 1}


# ---- transmit ----


class Sender(Walk):
    """What arrives on a0 is a payload that a socket sends: it enters routing.tx with the fields of `sent`."""

    def __init__(self) -> None:
        super().__init__("routing.tx", catch=("ip.rx", "udp.tx"))
        self.walk.hooks = [hook for hook in self.walk.hooks if hook.row != "ip.rx"]
        self.hook("ip.rx", self._as_sent, {"send": "routing.tx"})
        self.chosen: bytes = b""

    def send(self, destination: str, source: str = "", device: int = lib.XS_NO_DEVICE) -> dict[str, object]:
        """What became of a datagram: where it goes, from which address; or the drop reason."""
        self.asked = destination, source, device
        before = len(self.caught["udp.tx"]), self.drops()
        self.inject("a0", b"payload" * 10)
        self.step()
        drops = {reason: n - before[1].get(reason, 0) for reason, n in self.drops().items()}
        if len(self.caught["udp.tx"]) == before[0]:
            (reason,) = (each for each, n in drops.items() if n)
            return {"drop": reason}
        packet = self.caught["udp.tx"][-1]
        oif, gateway = self.hop(packet.nexthop)
        flags = packet.flags & ROUTED
        return {"device": packet.device, "oif": oif, "gateway": gateway, "source": self.source, "flags": flags}

    def _as_sent(self, batch: HookBatch) -> None:
        destination, source, device = self.asked
        for number in batch.frames:
            packet, meta = batch.pkts[number], self.core.metas[number]
            packet.flags = lib.XS_PKT_IPV6 if ":" in destination else 0
            packet.device = device
            meta.dst = mapped(packed(destination))
            meta.src = mapped(packed(source)) if source else bytes(16)
            self.number = number

    def _catcher(self, row: str) -> Callable[[HookBatch], None]:
        catch = super()._catcher(row)

        def look(batch: HookBatch) -> None:
            self.source = bytes(self.core.metas[batch.frames[0]].src)
            catch(batch)

        return look


@pytest.fixture
def tx() -> Iterator[Sender]:
    with Sender() as walk:
        walk.publish(host(Route.make("default", via="10.0.0.254"), Route.make("default", via="fd00::fe", oif=2)))
        yield walk


@pytest.mark.parametrize(
    "destination, source, device, oif, gateway, chosen",
    [
        ("192.0.2.1", "", 0, 2, "10.0.0.254", "10.0.0.1"),
        ("192.0.2.1", "10.1.0.1", 0, 2, "10.0.0.254", "10.1.0.1"),
        ("10.1.0.9", "", 1, 3, "", "10.1.0.1"),
        ("2001:db8::1", "", 0, 2, "fd00::fe", "fd00::1"),
        ("fd00:1::9", "", 1, 3, "", "fd00:1::1"),
    ],
)
def test_the_way_and_the_source(
    tx: Sender, destination: str, source: str, device: int, oif: int, gateway: str, chosen: str
) -> None:
    assert tx.send(destination, source) == {
        "device": device, "oif": oif, "gateway": packed(gateway) if gateway else b"",
        "source": mapped(packed(chosen)), "flags": 0,
    }  # fmt: skip


def test_a_link_local_destination_needs_its_device(tx: Sender) -> None:
    """The scope of fe80::9%b0 comes as the device that the sender is bound to."""
    way = tx.send("fe80::9", device=1)
    assert (way["device"], way["oif"], way["gateway"]) == (1, 3, b"")


def test_groups_leave_by_the_route_to_them_without_its_gateway(tx: Sender) -> None:
    way = tx.send("239.1.2.3")
    assert way == {"device": 0, "oif": 2, "gateway": b"", "source": mapped(packed("10.0.0.1")), "flags": MULTICAST}
    assert tx.send("239.1.2.3", "10.1.0.1")["oif"] == 3, "the device that has the source"
    assert tx.send("ff05::7", device=1)["flags"] == MULTICAST


@pytest.mark.parametrize(
    "destination, source, device, reason",
    [
        ("10.0.0.1", "", 255, "TX_SLOW"),
        ("127.0.0.1", "", 255, "TX_SLOW"),
        ("fd00::1", "", 255, "TX_SLOW"),
        ("0.0.0.0", "", 255, "TX_SLOW"),
        ("::", "", 255, "TX_SLOW"),
        ("10.2.0.9", "", 255, "TX_SLOW"),
        ("10.0.0.255", "", 255, "TX_SLOW"),
        ("255.255.255.255", "", 1, "TX_SLOW"),
        ("224.0.0.1", "", 1, "TX_SLOW"),
        ("ff02::1", "", 1, "TX_SLOW"),
        ("ff01::7", "", 1, "TX_SLOW"),
        ("192.0.2.1", "192.0.2.9", 255, "IP_OUTNOROUTES"),
        ("192.0.2.1", "224.0.0.9", 255, "INVALID_ARG"),
        ("192.0.2.1", "127.0.0.1", 255, "INVALID_ARG"),
    ],
)
def test_what_is_not_sent(tx: Sender, destination: str, source: str, device: int, reason: str) -> None:
    assert tx.send(destination, source, device) == {"drop": reason}


def test_no_way(tx: Sender) -> None:
    refusing = [Route.make(f"192.0.{n}.0/24", type=6 + n) for n in range(3)]
    refusing += [Route.make(f"2001:db8:{n}::/48", type=6 + n) for n in range(3)]
    tx.publish(host(*refusing))
    reasons = ["ROUTE_BLACKHOLE", "ROUTE_UNREACHABLE", "ROUTE_PROHIBIT"]
    for n, reason in enumerate(reasons):
        assert tx.send(f"192.0.{n}.1") == tx.send(f"2001:db8:{n}::1") == {"drop": reason}
    assert tx.send("198.51.100.1") == tx.send("2001:db8:9::1") == {"drop": "IP_OUTNOROUTES"}


def test_no_source(tx: Sender) -> None:
    bare = host()
    tx.publish(replace(bare, addresses=tuple(a for a in bare.addresses if len(a.local) == 4)))
    assert tx.send("fd00:1::9") == {"drop": "NO_SOURCE_ADDRESS"}


# ---- replacing the tables ----


def test_tables_are_replaced_under_a_worker(rx: Walk) -> None:
    """A worker polls all the time while tables come and go: each packet is routed by one table, whole."""
    switches = {"ipv4.ip_forward": 1}
    ways = [
        host(
            Route.make("192.0.2.0/24", via=f"10.1.0.{n}"),
            Route.make("198.51.100.0/24", via=f"10.1.0.{n}"),
            sysctls=switches,
        )
        for n in range(2, 12)
    ]
    rx.publish(ways[0])
    published, batches, stop = 0, 0, threading.Event()

    def publish() -> None:
        nonlocal published
        for snapshot in itertools.cycle(ways):
            if stop.is_set():
                return
            rx.routing.publish(snapshot, DEVICES)
            published += 1

    publisher = threading.Thread(target=publish)
    publisher.start()
    frames = [frame("192.0.2.1"), frame("198.51.100.1")] * 16
    deadline = time.monotonic() + 60
    try:
        while (batches < 100 or published < 30) and time.monotonic() < deadline:
            rx.inject("a0", *frames)
            rx.step()
            caught = rx.caught["netfilter.forward"][batches * len(frames) :]
            assert len(caught) == len(frames)
            assert len({rx.hop(packet.nexthop) for packet in caught}) == 1, "a batch is routed by one table"
            batches += 1
    finally:
        stop.set()
        publisher.join()
    assert published >= 30
    assert batches >= 100
