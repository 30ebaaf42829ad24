"""Writes the seeds of csrc/fuzz/walk.c: one file a kind of frame, in the records that walk.c describes.

python csrc/fuzz/make_corpus.py
"""

import struct
from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Pad1,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

FOLDER = Path(__file__).parent / "corpus/walk"

MAKE_IP_CSUM, MAKE_CSUM, MAKE_PARTIAL, OTHER_DEVICE, POLL_FIRST, LARGE = 1, 2, 4, 8, 16, 32
MADE = MAKE_IP_CSUM | MAKE_CSUM

to_a0 = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:99")
ip = IP(src="10.0.0.2", dst="10.0.0.1")
ip6 = IPv6(src="2001:db8::2", dst="2001:db8::1")
udp = UDP(sport=1234, dport=7)
data = Raw(b"payload")

SEEDS = {
    "udp4": [(MADE, to_a0 / ip / udp / data)],
    "udp6": [(MADE, to_a0 / ip6 / udp / data)],
    "udp4_no_checksum": [(MAKE_IP_CSUM, to_a0 / ip / UDP(sport=1, dport=7, chksum=0) / data)],
    "partial": [(MAKE_IP_CSUM | MAKE_PARTIAL, to_a0 / ip / udp / data), (MAKE_PARTIAL, to_a0 / ip6 / udp / data)],
    "options": [
        (MADE, to_a0 / IP(src=ip.src, dst=ip.dst, options=[IPOption_Router_Alert(), IPOption_RR()]) / udp / data),
        (MADE, to_a0 / IP(src=ip.src, dst=ip.dst, options=[IPOption_Timestamp()]) / udp / data),
    ],
    "extension_headers": [
        (MADE, to_a0 / ip6 / IPv6ExtHdrHopByHop(options=[Pad1(), PadN(optdata=b"xx")]) / udp / data),
        (
            MADE,
            to_a0 / ip6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=["2001:db8::3"], segleft=0) / udp / data,
        ),
    ],
    "fragments": [
        (MADE, to_a0 / IP(src=ip.src, dst=ip.dst, flags="MF") / udp / data),
        (MADE, to_a0 / IP(src=ip.src, dst=ip.dst, frag=3) / data),
        (MADE, to_a0 / ip6 / IPv6ExtHdrFragment(m=1) / udp / data),
    ],
    "vlan": [(MADE, to_a0 / Dot1Q(vlan=5) / ip / udp / data), (0, to_a0 / Dot1AD(vlan=5) / Dot1Q(vlan=6) / ip6 / udp)],
    "forward": [
        (MADE, to_a0 / IP(src="10.0.0.2", dst="10.0.1.9") / udp / data),
        (MADE, to_a0 / IP(src="10.0.0.2", dst="198.51.100.1", ttl=1) / udp / data),
        (MADE, to_a0 / IPv6(src="2001:db8::2", dst="2001:db8:1::9") / udp / data),
        (MADE | OTHER_DEVICE, Ether(dst="02:00:00:00:00:02") / IP(src="10.0.1.9", dst="10.0.0.9") / udp / data),
    ],
    "broadcast": [
        (MADE, Ether(dst="ff:ff:ff:ff:ff:ff") / IP(src="10.0.0.2", dst="10.0.0.255") / udp / data),
        (MADE, Ether(dst="01:00:5e:00:00:01") / IP(src="10.0.0.2", dst="224.0.0.1") / udp / data),
        (MADE, Ether(dst="33:33:00:00:00:01") / IPv6(src="fe80::2", dst="ff02::1") / udp / data),
    ],
    "martians": [
        (MADE, to_a0 / IP(src="127.0.0.1", dst="10.0.0.1") / udp),
        (MADE, to_a0 / IP(src="10.0.0.1", dst="10.0.0.1") / udp),
        (MADE, to_a0 / IPv6(src="::1", dst="2001:db8::1") / udp),
    ],
    "other_protocols": [
        (MADE, to_a0 / ip / ICMP() / data),
        (MADE, to_a0 / ip / TCP(dport=7)),
        (MADE, to_a0 / ip6 / ICMPv6EchoRequest()),
        (0, to_a0 / ip6 / ICMPv6ND_NS(tgt="2001:db8::1")),
        (0, to_a0 / ARP(pdst="10.0.0.1")),
        (0, Ether(type=0x88B5) / data),
    ],
    "jumbo": [
        (MADE | LARGE, to_a0 / IP(src=ip.src, dst=ip.dst, len=8000 - 14) / UDP(dport=7, len=8000 - 34) / data),
        (POLL_FIRST | MADE, to_a0 / ip / udp / data),
    ],
    "short": [(0, bytes(to_a0 / ip / udp)[:n]) for n in (1, 13, 14, 15, 33, 34, 41)],
}


def record(flags: int, frame: Ether | bytes) -> bytes:
    """One record of an input."""
    body = bytes(frame)
    length = 8000 // 16 if flags & LARGE else len(body)
    return struct.pack("!BH", flags, length) + body


def main() -> None:
    """Write every seed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, records in SEEDS.items():
        (FOLDER / name).write_bytes(b"".join(record(*each) for each in records))


if __name__ == "__main__":
    main()
