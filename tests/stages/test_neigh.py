"""neigh.tx over memory devices: headers, waiting, asking, and giving up, by a clock that the test moves."""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from xdpstack.hook import HookBatch
from xdpstack.native import lib
from xdpstack.netlink import Address, Link, Neighbour, Route, Snapshot, packed
from xdpstack.netlink.uapi import (
    NUD_DELAY,
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_NOARP,
    NUD_PERMANENT,
    NUD_PROBE,
    NUD_REACHABLE,
    NUD_STALE,
    RT_TABLE_LOCAL,
    RTN_BROADCAST,
)
from xdpstack.routing.native import NativeRouting, device_flags
from xdpstack.routing.tables import compile_device
from xdpstack.stages.neigh import Neigh
from xdpstack.testing.memory_walk import MemoryWalk, TestDevice

DEVICES = {2: 0, 3: 1}
A0, B0, SENDER, PEER = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 0x99, 0x77))
MS = 1_000_000
ROOM = 212_992
"""net.ipv4.neigh.default.unres_qlen_bytes."""


class Router(MemoryWalk):
    """What comes in by a0 is forwarded: to b0's link, or through 10.1.0.254 and fd00:1::fe on it."""

    def __init__(self, frames: int = 1024) -> None:
        super().__init__(
            TestDevice("a0"), TestDevice("b0"), present={"napi.rx", "ip.rx", "routing.rx", "neigh.tx", "napi.tx"},
            catch=("ip.local",), frames=frames,
        )  # fmt: skip
        self.routing = NativeRouting(self.core.pointer)
        self.neigh = Neigh(self.core, DEVICES)
        self.asked: list[tuple[int, bytes]] = []
        self.publish()

    def publish(self, *neighbours: Neighbour, routes: tuple[Route, ...] = (), down: bool = False) -> None:
        """These are the neighbours now."""
        links = [Link(2, "a0", A0), Link(3, "b0", B0)]
        addresses = [
            Address.parse(a, 2 + i // 2)
            for i, a in enumerate(("10.0.0.1/24", "fd00::1/64", "10.1.0.1/24", "fd00:1::1/64"))
        ]
        ways = (Route.make("default", via="10.1.0.254"), Route.make("default", via="fd00:1::fe", oif=3), *routes)
        switches = {"ipv4.ip_forward": 1, "ipv6.conf.all.forwarding": 1, "ipv4.conf.all.bc_forwarding": 1,
                    "ipv4.conf.a0.bc_forwarding": 1}  # fmt: skip
        snapshot = Snapshot.build(links, addresses, ways, neighbours=neighbours, sysctls=switches)
        flags = {link.name: device_flags(compile_device(snapshot, link)) for link in snapshot.links.values()}
        self.set_devices(a0=flags["a0"], b0=flags["b0"] & ~(lib.XS_DEV_UP if down else 0))
        self.routing.publish(snapshot, DEVICES)
        self.neigh.publish(snapshot)

    def probe(self, neighbour: Neighbour | tuple[int, bytes]) -> bool:
        """The mirror's part: remember who was asked for."""
        assert isinstance(neighbour, tuple)
        self.asked.append(neighbour)
        return True

    def wanted(self) -> list[tuple[int, bytes]]:
        """Who was asked for since the last time."""
        self.neigh.handle_events(self)
        asked, self.asked = self.asked, []
        return asked

    def forward(self, destination: str, payload: bytes = b"x", number: int = 1, first: int = 0) -> None:
        """`number` packets to `destination` arrive, and are walked; they are numbered from `first`."""
        for i in range(number):
            self.inject("a0", frame(destination, payload, first + i))
            if i % 64 == 63:
                self.step()
        self.step()


def frame(destination: str, payload: bytes = b"x", sport: int = 0) -> bytes:
    ip = IPv6(src="fd00::9", dst=destination) if ":" in destination else IP(src="10.0.0.9", dst=destination)
    return bytes(Ether(dst=A0, src=SENDER) / ip / UDP(sport=1024 + sport, dport=7) / payload)


def entry(address: str, state: int = NUD_REACHABLE, mac: bytes = PEER, device: int = 3) -> Neighbour:
    return Neighbour(device, packed(address), mac if state & ~(NUD_INCOMPLETE | NUD_FAILED) else b"", state)


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as walk:
        yield walk
        walk.clock.advance(4000 * MS)  # nothing waits for longer
        walk.step(4)


# ---- the header ----


@pytest.mark.parametrize("state", [NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_PERMANENT, NUD_NOARP])
@pytest.mark.parametrize("destination", ["10.1.0.9", "fd00:1::9"])
def test_a_valid_neighbour_gets_the_packet(router: Router, destination: str, state: int) -> None:
    router.publish(entry(destination, state))
    router.forward(destination)
    (sent,) = router.sent("b0")
    assert sent == PEER + B0 + frame(destination)[12:]
    assert router.sent("a0") == []


def test_a_gateway_gets_what_is_for_others(router: Router) -> None:
    router.publish(entry("10.1.0.254"), entry("fd00:1::fe", mac=SENDER))
    router.forward("192.0.2.1")
    router.forward("2001:db8::1")
    four, six = router.sent("b0")
    assert four[:6] == PEER
    assert six[:6] == SENDER


def test_ipv4_through_an_ipv6_router(router: Router) -> None:
    """RFC 8950: the gateway's family is not that of the packet."""
    router.publish(entry("fe80::9"), routes=(Route.make("192.0.2.0/24", via="fe80::9", oif=3),))
    router.forward("192.0.2.1")
    (sent,) = router.sent("b0")
    assert sent[:14] == PEER + B0 + b"\x08\0"


def test_the_tag_of_the_old_header_goes(router: Router) -> None:
    router.publish(entry("10.1.0.9"))
    tagged = bytes(Ether(dst=A0, src=SENDER) / Dot1Q(vlan=5) / IP(frame("10.1.0.9")[14:]))
    router.inject("a0", tagged)
    router.step()
    assert router.sent("b0") == [PEER + B0 + frame("10.1.0.9")[12:]]


def test_a_directed_broadcast_goes_to_all(router: Router) -> None:
    router.forward("10.1.0.255")
    (sent,) = router.sent("b0")
    assert sent[:6] == b"\xff" * 6
    assert router.wanted() == []


def test_a_broadcast_address_comes_and_goes_with_its_route(router: Router) -> None:
    route = Route.make("10.1.0.77/32", oif=3, type=RTN_BROADCAST, table=RT_TABLE_LOCAL)
    router.publish(routes=(route,))
    router.forward("10.1.0.77")
    (sent,) = router.sent("b0")
    assert sent[:6] == b"\xff" * 6
    router.publish()
    router.forward("10.1.0.77")
    assert router.sent("b0") == []
    assert router.wanted() == [(3, packed("10.1.0.77"))]


# ---- waiting ----


def test_packets_wait_and_leave_in_order(router: Router) -> None:
    router.forward("10.1.0.9", number=100)
    assert router.sent("b0") == []
    assert router.neigh.held() == 100
    assert router.wanted() == [(3, packed("10.1.0.9"))]
    router.publish(entry("10.1.0.9", NUD_INCOMPLETE))
    router.step()
    assert router.neigh.held() == 100
    router.publish(entry("10.1.0.9"))
    router.step(2)
    sent = router.sent("b0")
    assert [int.from_bytes(each[34:36]) for each in sent] == [1024 + i for i in range(100)]
    assert {each[:14] for each in sent} == {PEER + B0 + b"\x08\0"}
    assert router.neigh.held() == 0
    assert router.drops() == {}


@pytest.mark.parametrize("waiting, more", [(1, 1), (100, 64), (100, 200), (240, 128)])
def test_those_that_come_when_it_is_found_do_not_overtake_those_that_wait(
    router: Router, waiting: int, more: int
) -> None:
    router.forward("10.1.0.8", number=3)
    router.forward("10.1.0.9", number=waiting)
    router.publish(entry("10.1.0.9"), entry("10.1.0.7"))
    router.inject("a0", frame("10.1.0.7"))  # in the same batch, to another
    router.forward("10.1.0.9", number=more, first=waiting)
    router.step(4)
    sent = router.sent("b0")
    ours = [each for each in sent if each[30:34] == packed("10.1.0.9")]
    assert [int.from_bytes(each[34:36]) for each in ours] == [1024 + i for i in range(waiting + more)]
    assert {each[:14] for each in sent} == {PEER + B0 + b"\x08\0"}
    assert len(sent) == len(ours) + 1
    assert router.neigh.held() == 3
    assert router.drops() == {}


def test_only_the_neighbour_that_was_found_gets_its_packets(router: Router) -> None:
    for destination in ("10.1.0.8", "fd00:1::9", "10.1.0.9"):
        router.forward(destination, number=3)
    router.publish(entry("10.1.0.9"))
    router.step()
    assert len(router.sent("b0")) == 3
    assert router.neigh.held() == 6
    router.publish(entry("10.1.0.9"), entry("fd00:1::9"), entry("10.1.0.8"))
    router.step()
    assert len(router.sent("b0")) == 6


@pytest.mark.parametrize("payload, size", [(18, 832), (1000, 2304)])
def test_a_full_queue_loses_its_oldest(payload: int, size: int) -> None:
    """As in __neigh_event_send: unres_qlen_bytes by truesize (the skb of a packet of this size; sockets.h)."""
    with Router(frames=4096) as router:
        fits = ROOM // size
        router.forward("10.1.0.9", bytes(payload), fits + 5)
        assert router.drops() == {"NEIGH_QUEUEFULL": 5}
        router.publish(entry("10.1.0.9"))
        router.step(8)
        sent = router.sent("b0")
        assert [int.from_bytes(each[34:36]) for each in sent] == [1024 + 5 + i for i in range(fits)]


def test_all_queues_together_are_bounded(router: Router) -> None:
    """A quarter of the worker's frames: receiving goes on."""
    for i in range(8):
        router.forward(f"10.1.0.{10 + i}", number=64)
    assert router.neigh.held() == 256
    assert router.drops() == {"NEIGH_QUEUEFULL": 256}


def test_neighbours_that_are_waited_for_are_bounded(router: Router) -> None:
    for i in range(130):
        router.forward(f"10.1.0.{2 + i}")
    assert router.neigh.held() == 128
    assert router.drops() == {"NEIGH_CREATEFAIL": 2}
    assert len(set(router.wanted())) == 128


def test_a_queue_that_lost_all_it_had_keeps_nobody_back(router: Router) -> None:
    for i in range(4):
        router.forward(f"10.1.0.{10 + i}", number=64)
    router.forward("10.1.0.9")
    assert router.drops() == {"NEIGH_QUEUEFULL": 1}
    router.publish(entry("10.1.0.9"))
    router.forward("10.1.0.9", first=1)
    assert len(router.sent("b0")) == 1
    assert router.neigh.held() == 256


# ---- giving up ----


def test_nobody_answers_for_three_seconds(router: Router) -> None:
    router.forward("10.1.0.9", number=3)
    router.clock.advance(2990 * MS)
    router.step()
    assert router.neigh.held() == 3
    router.clock.advance(60 * MS)
    router.step()
    assert router.neigh.held() == 0
    assert router.drops() == {"NEIGH_FAILED": 3}


def test_the_kernel_says_that_it_failed(router: Router) -> None:
    router.forward("10.1.0.9")
    router.publish(entry("10.1.0.9", NUD_FAILED))
    router.step()
    assert router.drops() == {"NEIGH_FAILED": 1}


def test_an_old_failure_is_no_answer(router: Router) -> None:
    """A failed entry is tried anew when it is used (__neigh_event_send); only a new failure ends the wait."""
    router.publish(entry("10.1.0.9", NUD_FAILED))
    router.forward("10.1.0.9")
    router.step(3)
    assert router.neigh.held() == 1
    assert router.wanted() == [(3, packed("10.1.0.9"))]
    router.publish(entry("10.1.0.9", NUD_INCOMPLETE))
    router.publish(entry("10.1.0.9", NUD_FAILED))
    router.step()
    assert router.drops() == {"NEIGH_FAILED": 1}


def test_the_device_goes_down(router: Router) -> None:
    router.forward("10.1.0.9", number=2)
    router.publish(down=True)
    router.clock.advance(60 * MS)
    router.step()
    assert router.drops() == {"DEVICE_GONE": 2}


def test_a_next_hop_that_is_anothers_by_now() -> None:
    """A packet that was parked while its route went and the id was given to another."""
    with Router() as router:
        router.publish(entry("10.1.0.9"))

        def spoil(batch: HookBatch) -> None:
            for number in batch.frames:
                batch.pkts[number].nexthop += 1 << lib.XS_NEXTHOP_SLOT_BITS

        router.hook("neigh.tx", spoil)
        router.forward("10.1.0.9")
        assert router.drops() == {"NEIGH_DEAD": 1}


# ---- asking ----


def test_asks_once_a_second(router: Router) -> None:
    router.publish(entry("10.1.0.8", NUD_STALE), entry("10.1.0.7", NUD_REACHABLE), entry("10.1.0.6", NUD_DELAY))
    seconds = []
    for _ in range(30):
        for host in (6, 7, 8, 9):
            router.forward(f"10.1.0.{host}")
        seconds.append(sorted(address[3] for _, address in router.wanted()))
        router.clock.advance(100 * MS)
    assert [i for i, asked in enumerate(seconds) if asked] == [0, 10, 20]
    assert seconds[0] == seconds[10] == seconds[20] == [8, 9]
    router.sent("b0")


def test_a_full_ring_of_events_is_tried_again(router: Router) -> None:
    """Control sleeps while 300 stale neighbours are used: 256 questions fit, the others are asked when it has woken."""
    stale = [entry(f"10.1.0.{i}", NUD_STALE) for i in range(2, 252)]
    stale += [entry(f"fd00:1::{i:x}", NUD_STALE) for i in range(2, 52)]
    router.publish(*stale)
    for each in stale:
        router.forward(".".join(map(str, each.address)) if len(each.address) == 4 else f"fd00:1::{each.address[15]:x}")
    assert len(router.wanted()) == 256
    router.clock.advance(10 * MS)
    for each in stale:
        router.forward(".".join(map(str, each.address)) if len(each.address) == 4 else f"fd00:1::{each.address[15]:x}")
    assert len(router.wanted()) == 44
    router.sent("b0")


# ---- publication ----


def test_a_table_that_fills_is_replaced(router: Router) -> None:
    known = [entry(f"10.1.{i >> 8}.{i & 255}", mac=bytes([2, 1, 1, 1, i >> 8, i & 255])) for i in range(2000)]
    for some in (10, 100, 2000):
        router.publish(*known[:some], routes=(Route.make("10.1.0.0/16", oif=3),))
    for i in (2, 700, 1999):
        router.forward(f"10.1.{i >> 8}.{i & 255}")
    assert [each[:6] for each in router.sent("b0")] == [known[i].lladdr for i in (2, 700, 1999)]


def test_a_neighbour_that_went_is_asked_for(router: Router) -> None:
    router.publish(entry("10.1.0.9"))
    router.forward("10.1.0.9")
    assert len(router.sent("b0")) == 1
    router.publish()
    router.forward("10.1.0.9")
    assert router.sent("b0") == []
    assert router.neigh.held() == 1
    router.publish(entry("10.1.0.9", mac=SENDER))
    router.step()
    assert [each[:6] for each in router.sent("b0")] == [SENDER]
