"""Frames that no sane sender makes: packets of scapy, bent in their fields, cut, flipped, grown. The same each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, LLC, Dot1Q, Ether
from scapy.packet import Raw, fuzz

from tests.paths.world import PORT
from xdpstack.testing.veth import Veth

#: Ethertypes that nothing here handles: local experimental, LLDP, MPLS, PPPoE, EtherCAT, and lengths (IEEE 802.3).
UNKNOWN = (0x88B5, 0x88CC, 0x8847, 0x8864, 0x88A4, 0x0200, 0x05FF, 0x0000, 0xFFFF)
#: What may be sent by a packet socket: no less than the Ethernet header, no more than the MTU beyond it.
LEAST, MOST = 14, 1514


def healthy(pair: Veth) -> list[bytes]:
    """Frames to bend: each kind that the stages look into."""
    eth = Ether(dst=pair.near.mac, src=pair.far.mac)
    udp = UDP(sport=4000, dport=PORT) / Raw(b"payload" * 9)
    v4, v6 = IP(src="10.0.0.2", dst="10.0.0.1"), IPv6(src="fd00::2", dst="fd00::1")
    options = [IPOption_RR(), IPOption_Timestamp(), IPOption_LSRR(routers=["10.0.0.9"])]
    packets: list[Any] = [
        *(eth / v4 / udp for _ in range(4)),
        *(eth / v6 / udp for _ in range(4)),
        *(eth / IP(src="10.0.0.2", dst="10.0.0.1", options=[option]) / udp for option in options),
        eth / IP(src="10.0.0.2", dst="10.0.0.1", flags="MF", frag=0) / udp,
        eth / IP(src="10.0.0.2", dst="10.0.0.1", frag=9) / udp,
        eth / v6 / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))]) / udp,
        eth / v6 / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]) / IPv6ExtHdrRouting(addresses=["fd00::9"]) / udp,
        eth / v6 / IPv6ExtHdrFragment(offset=0, m=1) / udp,
        eth / v4 / UDP(sport=4000, dport=9999) / b"no socket there",
        eth / v4 / TCP(sport=4000, dport=80, flags="S"),
        eth / v4 / ICMP(),
        eth / v6 / ICMPv6EchoRequest(),
        eth / v6 / ICMPv6ND_NS(tgt="fd00::1"),
        eth / ARP(psrc="10.0.0.2", pdst="10.0.0.1"),
        eth / Dot1Q(vlan=7) / v4 / udp,
        eth / LLC() / b"802.3",
        Ether(dst="ff:ff:ff:ff:ff:ff", src=pair.far.mac) / v4 / udp,
        Ether(dst=pair.near.mac, src="01:00:5e:00:00:01") / v4 / udp,
        *(Ether(dst=pair.near.mac, src=pair.far.mac, type=kind) / bytes(46) for kind in UNKNOWN),
    ]
    return [raw(packet) for packet in packets]


def bent(pair: Veth, source: random.Random) -> bytes:
    """A packet with every field that scapy can fuzz at random, but for the addresses that bring it to us."""
    eth = Ether(dst=pair.near.mac, src=pair.far.mac)
    if source.random() < 0.5:
        ip = fuzz(IP(src="10.0.0.2", dst="10.0.0.1", proto=17, options=[]))
    else:
        ip = fuzz(IPv6(src="fd00::2", dst="fd00::1", nh=17))
    return raw(eth / ip / fuzz(UDP(sport=4000, dport=PORT)) / source.randbytes(source.randrange(60)))


def mutated(frame: bytes, source: random.Random) -> bytes:
    """One to four changes: a bit, a byte, a 16-bit word set to a limit, cut short, grown, bytes put in or taken out."""
    data = bytearray(frame)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(12, max(13, len(data)))  # the MACs stay, or nothing would be lifted
        match source.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << source.randrange(8)
            case 1 if at < len(data):
                data[at] = source.randrange(256)
            case 2:
                data[at : at + 2] = source.choice((b"\0\0", b"\xff\xff", b"\0\1", b"\x7f\xff", b"\x80\0"))
            case 3:
                del data[source.randrange(LEAST, max(LEAST, len(data)) + 1) :]
            case 4:
                data += source.randbytes(source.randrange(1, 300))
            case 5:
                data[at:at] = source.randbytes(source.randrange(1, 20))
            case _:
                del data[at : at + source.randrange(1, 20)]
    return bytes(data[:MOST]).ljust(LEAST, b"\0")


def frames(pair: Veth, n: int, seed: int) -> Iterator[bytes]:
    """`n` frames: the healthy ones, those cut at every length of their headers, then mutated and bent ones."""
    source = random.Random(seed)
    random.seed(seed)  # scapy's
    whole = healthy(pair)
    made = 0
    for frame in (*whole, *(frame[:cut] for frame in (whole[0], whole[4]) for cut in range(LEAST, 70))):
        yield frame
        made += 1
    while made < n:
        yield bent(pair, source) if source.random() < 0.2 else mutated(source.choice(whole), source)
        made += 1
