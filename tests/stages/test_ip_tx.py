"""ip.tx: the header that Linux would have sent, byte by byte, and what is too large for it."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from tests.stages.packets import DST4, DST6, SRC4, SRC6, UDP, csum, udp
from xdpstack.hook import HookBatch
from xdpstack.native import lib
from xdpstack.testing.memory_walk import MemoryWalk, TestDevice

MAPPED = b"\0" * 10 + b"\xff\xff"


class Sender:
    """Datagrams enter ip.tx as udp.tx hands them over."""

    def __init__(self, **device: Any) -> None:
        self.walk = MemoryWalk(
            TestDevice("a0", **device), present={"napi.rx", "ip.tx"}, catch={"ip.rx", "neigh.tx"}, frame_bytes=4096
        )
        self.walk.walk.hooks = [h for h in self.walk.walk.hooks if h.row != "ip.rx"]
        self.walk.hook("ip.rx", self._as_sent, {"send": "ip.tx"})
        self.fields: dict[str, Any] = {}

    def _as_sent(self, batch: HookBatch) -> None:
        for number in batch.frames:
            packet, meta = batch.pkts[number], self.walk.core.metas[number]
            packet.l4_off, packet.l4_proto, packet.l3_off, packet.l3_proto = packet.data_off, UDP, 0, 0
            packet.flags = self.fields.get("flags", 0)
            packet.tos = self.fields.get("tos", 0)
            packet.sport = self.fields.get("sport", 1000)
            packet.dport = self.fields.get("dport", 7)
            six = packet.flags & lib.XS_PKT_IPV6
            meta.src = list(self.fields.get("src", SRC6 if six else MAPPED + SRC4))
            meta.dst = list(self.fields.get("dst", DST6 if six else MAPPED + DST4))
            meta.ttl = self.fields.get("ttl", 0)

    def send(self, datagram: bytes, **fields: Any) -> bytes | None:
        """The IP packet, or None when it was dropped with TX_FRAGMENT."""
        self.fields = fields
        before = len(self.walk.caught["neigh.tx"])
        self.walk.inject("a0", datagram)
        self.walk.step()
        caught = self.walk.caught["neigh.tx"][before:]
        if not caught:
            assert set(self.walk.drops()) == {"TX_FRAGMENT"}
            return None
        (packet,) = caught
        assert packet.data_off == packet.l3_off
        assert packet.pkt_len == len(packet.data)
        assert packet.l3_proto == (0x86DD if packet.flags & lib.XS_PKT_IPV6 else 0x0800)
        return packet.data

    def sent(self, datagram: bytes, **fields: Any) -> bytes:
        packet = self.send(datagram, **fields)
        assert packet is not None
        return packet


@pytest.fixture
def sender() -> Iterator[Callable[..., Sender]]:
    made: list[Sender] = []

    def make(**device: Any) -> Sender:
        made.append(Sender(**device))
        return made[-1]

    yield make
    for each in made:
        each.walk.check()
        each.walk.close()


SIX = lib.XS_PKT_IPV6


def test_the_ipv4_header(sender: Callable[..., Sender]) -> None:
    datagram = udp(b"payload of it")
    packet = sender().sent(datagram, tos=0x2E)
    assert packet[:4] == bytes([0x45, 0x2E, 0, 20 + len(datagram)])
    assert packet[6:10] == b"\x40\x00\x40\x11"
    assert packet[12:] == SRC4 + DST4 + datagram
    assert csum(packet[:20]) == 0
    assert IP(packet).len == len(packet)


def test_the_ipv6_header(sender: Callable[..., Sender]) -> None:
    datagram = udp(b"payload of it")
    packet = sender().sent(datagram, flags=SIX, tos=0xB8)
    assert packet[0] == 0x6B
    assert packet[1] >> 4 == 8
    assert packet[4:] == len(datagram).to_bytes(2, "big") + b"\x11\x40" + SRC6 + DST6 + datagram
    assert (IPv6(packet).tc, IPv6(packet).plen) == (0xB8, len(datagram))


@pytest.mark.parametrize("asked, four, six", [(0, 61, 62), (1, 1, 1), (255, 255, 255)])
def test_ttl_and_hop_limit(sender: Callable[..., Sender], asked: int, four: int, six: int) -> None:
    make = sender(ttl=61, hop_limit=62)
    assert make.sent(udp(), ttl=asked)[8] == four
    assert make.sent(udp(), flags=SIX, ttl=asked)[7] == six


@pytest.mark.parametrize("flags, header", [(0, 20), (SIX, 40), (lib.XS_PKT_DF, 20)])
def test_what_is_larger_than_the_mtu_is_the_kernels(sender: Callable[..., Sender], flags: int, header: int) -> None:
    make = sender(mtu=1280)
    assert len(make.sent(udp(b"x" * (1280 - header - 8)), flags=flags)) == 1280
    assert make.send(udp(b"x" * (1280 - header - 7)), flags=flags) is None
    assert make.walk.core.ledger().punted == 1


def test_jumbo_packets_of_several_frames(sender: Callable[..., Sender]) -> None:
    make, datagram = sender(mtu=9000), udp(bytes(range(250)) * 35)
    assert make.sent(datagram)[20:] == datagram
    assert make.sent(datagram, flags=SIX)[40:] == datagram


def test_ids_count_up_within_a_pair_of_addresses(sender: Callable[..., Sender]) -> None:
    make = sender()
    ids = [IP(make.sent(udp(), sport=port)).id for port in range(20)]
    assert [(b - a) % 65536 for a, b in pairwise(ids)] == [1] * 19
    others = {IP(make.sent(udp(), dst=MAPPED + bytes([10, 0, 1, i]))).id for i in range(50)}
    assert len(others) > 40


def test_ids_jump_after_a_pause_by_no_more_than_its_milliseconds(sender: Callable[..., Sender]) -> None:
    make = sender()
    jumps = set()
    last = IP(make.sent(udp())).id
    for _ in range(30):
        make.walk.clock.advance(100_000_000)
        now = IP(make.sent(udp())).id
        jumps.add((now - last) % 65536)
        last = now
    assert jumps <= set(range(1, 101))
    assert len(jumps) > 5


def test_id_is_zero_when_the_socket_forbids_fragments(sender: Callable[..., Sender]) -> None:
    packet = sender().sent(udp(), flags=lib.XS_PKT_DF)
    assert packet[4:8] == b"\0\0\x40\0"


def test_flow_labels(sender: Callable[..., Sender]) -> None:
    """The same for all packets of a flow, whatever is in them; another for nearly every other flow."""
    make = sender()

    def label(**fields: Any) -> int:
        return int(IPv6(make.sent(udp(), flags=SIX, **fields)).fl)

    assert {label(tos=tos, ttl=tos) for tos in (0, 1, 255)} == {label()}
    ports = {label(sport=port) for port in range(100)}
    hosts = {label(dst=DST6[:15] + bytes([host])) for host in range(100)}
    assert min(len(ports), len(hosts)) > 95
    assert max(ports | hosts) < 1 << 20
    again = Sender()
    assert int(IPv6(again.sent(udp(), flags=SIX)).fl) != label()  # another stack has another secret
    again.walk.close()
