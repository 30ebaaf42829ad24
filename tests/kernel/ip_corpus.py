"""Frames for the oracle tests of IP: every field wrong in turn, then many at once.

All random choices come from a seed. Fragments never share an id, so that Linux never puts two of them together.
"""

import itertools
import random
from collections.abc import Callable, Iterator

from tests.stages.packets import (
    AUTH,
    BROADCAST,
    DST4,
    DST6,
    DSTOPTS,
    FRAGMENT,
    GROUP,
    HOPOPTS,
    HOST,
    NONE,
    OTHER,
    ROUTING,
    SRC4,
    SRC6,
    UDP,
    chain,
    csum,
    ethernet,
    fragment_header,
    ipv4,
    ipv6,
    options_header,
    routing_header,
    udp,
)

IDS = itertools.count(1)
JUMBO = (b"\xc2\x04\0\1\0\0", b"\xc2\x04\0\0\xff\xff", b"\xc2\x04\0\0\0\x10", b"\xc2\x04\0\1\0\1", b"\xc2\x03\0\1\0")


def id4() -> int:
    return next(IDS) & 0xFFFF


def headers4() -> Iterator[bytes]:
    """Version, header length, total length, fragments, truncation, padding; with a right checksum and a wrong one."""
    for version in range(16):
        for ihl in range(16):
            yield ethernet(ipv4(version=version, ihl=ihl, options=b"\1" * 40), kind=0x0800)
            yield ethernet(ipv4(version=version, ihl=ihl), kind=0x0800)
    for options in (b"", b"\1" * 8, b"\1" * 40):
        for total in [*range(100), 1000, 65535]:
            yield ethernet(ipv4(options=options, total=total), pad=True)
            yield ethernet(ipv4(options=options, total=total, checksum=total)) + b"\xee" * 20
    for frame in (ethernet(ipv4()), ethernet(ipv4(options=b"\1" * 12)), ethernet(ipv4(udp(b"x" * 300), ident=id4()))):
        yield from (frame[:size] for size in range(14, min(len(frame), 90)))
        yield from (frame + b"\xee" * size for size in (1, 2, 3, 17, 100, 1000))
    for bit in range(16):
        for payload in (udp(), udp(b"x" * 16, sum_with=SRC4 + DST4)):
            yield ethernet(ipv4(payload, frag=1 << bit, ident=id4()))
    for proto in range(256):
        yield ethernet(ipv4(proto=proto))
    for kind in (0x0000, 0x0040, 0x05DC, 0x0600, 0x0801, 0x0806 + 1, 0x6003, 0x8847 + 0x100, 0x88B5, 0xFFFF):
        yield ethernet(ipv4(), kind=kind)


def addresses4() -> Iterator[bytes]:
    """Every kind of address, in frames to every kind of MAC."""
    interesting = [
        "0.0.0.0",
        "0.0.0.5",
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.0",
        "10.0.0.255",
        "10.0.0.77",
        "127.0.0.1",
        "192.0.2.1",
    ]
    interesting += ["224.0.0.1", "224.0.0.251", "239.1.2.3", "240.0.0.1", "255.255.255.255", "169.254.0.1", "11.0.0.1"]
    every = [bytes(int(part) for part in text.split(".")) for text in interesting]
    for src, dst, mac in itertools.product(every, every, (HOST, BROADCAST, GROUP, OTHER)):
        yield ethernet(ipv4(src=src, dst=dst), dst=mac)


def options4(rng: random.Random, count: int) -> Iterator[bytes]:
    """Each option type, with each length and pointer that matters; then random sequences of options."""
    for kind in range(256):
        for length in (0, 1, 2, 3, 4, 8, 11, 12):
            yield ethernet(ipv4(options=bytes([kind, length, 4, 0]) + b"\0" * 8))
    for kind in (7, 68, 131, 137, 148, 134):
        for length, pointer, flags in itertools.product(
            (2, 3, 4, 5, 7, 8, 11, 12, 15, 40),
            (0, 3, 4, 5, 6, 8, 9, 12, 13, 16, 255),
            (0, 1, 2, 3, 0xE0, 0xF0, 0xF1, 0xF3),
        ):
            yield ethernet(
                ipv4(options=(bytes([kind, length, pointer, flags]) + b"\0" * 36)[: max(4, -(-length // 4) * 4)])
            )
    for _ in range(count):
        options = b""
        while len(options) < rng.randrange(41):
            kind = rng.choice((0, 1, 1, 7, 68, 131, 137, 148, 134, 130, 136, rng.randrange(256)))
            length = rng.choice((2, 3, 4, 7, 8, 11, 12, rng.randrange(16)))
            body = bytes([rng.choice((3, 4, 5, 6, 8, length, length + 1)), rng.choice((0, 1, 3, 0xF0))])
            options += bytes([kind]) if kind < 2 else (bytes([kind, length]) + body + b"\0" * 12)[: max(2, length)]
        yield ethernet(ipv4(options=options[:40]), dst=rng.choice((HOST, HOST, HOST, BROADCAST, GROUP)))


def headers6() -> Iterator[bytes]:
    """Version, payload length, next header, truncation, padding."""
    for version in range(16):
        yield ethernet(ipv6(version=version), kind=0x86DD)
    hop = options_header(UDP, b"") + udp(sum_with=SRC6 + DST6)
    for length in [*range(60), 1000, 65535]:
        yield ethernet(ipv6(length=length))
        yield ethernet(ipv6(length=length)) + b"\xee" * 20
        yield ethernet(ipv6(hop, HOPOPTS, length=length))
        yield ethernet(ipv6(hop, HOPOPTS, length=length)) + b"\xee" * 20
    long = chain(
        options_header(DSTOPTS, b"\x05\x02\0\0"),
        options_header(ROUTING, b"\x1e\x0a" + b"\1" * 10),
        routing_header(FRAGMENT, length=2),
        fragment_header(UDP, ident=next(IDS)),
        first=HOPOPTS,
    )
    for packet in (ipv6(), long):
        yield from (ethernet(packet[:size], kind=0x86DD) for size in range(len(packet)))
        for size in range(40, len(packet)):  # as short as it says
            yield ethernet(packet[:4] + (size - 40).to_bytes(2, "big") + packet[6:size])
    for next_header in range(256):
        yield ethernet(ipv6(next_header=next_header))
        yield ethernet(chain(options_header(next_header, b""), first=DSTOPTS))


def addresses6() -> Iterator[bytes]:
    texts = ["0" * 32, "0" * 31 + "1", "0" * 24 + "0a000002", "0" * 20 + "ffff0a000002", "0" * 20 + "ffff0a000001"]
    texts += [SRC6.hex(), DST6.hex(), "fd" + "0" * 28 + "77", "20010db8" + "0" * 23 + "1", "fe80" + "0" * 27 + "1"]
    texts += [f"ff{flags:x}{scope:x}" + "0" * 27 + "1" for flags in (0, 1, 3) for scope in range(16)]
    texts += ["ff02" + "0" * 19 + "1ff000002", "ff020000000000000000000000000000"]
    every = [bytes.fromhex(text) for text in texts]
    plain = (SRC6, DST6, every[0], every[1], every[4], every[10])
    for src, dst in {*itertools.product(every, plain), *itertools.product(plain, every)}:
        for mac in (HOST, BROADCAST, GROUP, OTHER):
            yield ethernet(ipv6(src=src, dst=dst), dst=mac)


def options6(rng: random.Random, count: int) -> Iterator[bytes]:
    """Options of both headers: each type, at both alignments, each length; padding; too many; then random ones."""

    def both(options: bytes) -> Iterator[bytes]:
        for first in (HOPOPTS, DSTOPTS):
            yield ethernet(chain(options_header(UDP, options), first=first))

    for kind in range(256):
        for length in (0, 2, 4, 8, 9):
            yield from both(bytes([kind, length]) + b"\0" * length)
            yield from both(b"\0\0" + bytes([kind, length]) + b"\0" * length)
    for size in range(16):
        yield from both(b"\0" * size + b"\x1e\0")
        yield from both(b"\1" + bytes([size]) + b"\0" * size)
        yield from both(b"\1" + bytes([size]) + b"\0" * max(0, size - 1) + b"\1")
        yield from both(b"\x1e\0" * size)
        yield from both(b"\x1e" + bytes([size]) + b"\0" * 4)
    for option, pad in itertools.product(JUMBO, range(5)):
        for length in (None, 0):
            header = options_header(UDP, b"\0" * pad + option)
            yield ethernet(ipv6(header + udp(sum_with=SRC6 + DST6), HOPOPTS, length=length))
    for _ in range(count):
        options = b""
        while len(options) < rng.randrange(80):
            kind = rng.choice((0, 0, 1, 1, 5, 7, 0x1E, 0x31, 0x3E, 0xC2, rng.randrange(256)))
            length = rng.choice((0, 1, 2, 2, 4, 4, 5, rng.randrange(20)))
            fill = rng.choice((b"\0", b"\0", b"\0", b"\1"))
            options += b"\0" if kind == 0 else bytes([kind, length]) + fill * length
        header = options_header(UDP, options)
        if rng.random() < 0.3:
            header = header[:1] + bytes([rng.randrange(12)]) + header[2:]
        yield ethernet(chain(header, first=rng.choice((HOPOPTS, DSTOPTS))))


def chains6(rng: random.Random, count: int) -> Iterator[bytes]:
    """Extension headers in any order and number, some too long for the packet, some with segments left."""
    kinds = (HOPOPTS, DSTOPTS, DSTOPTS, ROUTING, FRAGMENT, AUTH, NONE)
    for _ in range(count):
        order = [rng.choice(kinds) for _ in range(rng.randrange(7))]
        if rng.random() < 0.5:
            order = [kind for at, kind in enumerate(order) if kind in (DSTOPTS, ROUTING) or (kind, at) == (HOPOPTS, 0)]
        ends = [*order, rng.choice((UDP, UDP, UDP, UDP, 6, 58, NONE, 200))]
        headers = [_header(rng, kind, follows) for kind, follows in zip(order, ends[1:], strict=True)]
        packet = chain(*headers, first=ends[0])
        if rng.random() < 0.2:
            packet = packet[:4] + rng.randrange(len(packet)).to_bytes(2, "big") + packet[6:]
        if rng.random() < 0.1:
            packet = packet[: rng.randrange(40, len(packet))]
        yield ethernet(packet, dst=rng.choice((HOST, HOST, HOST, HOST, GROUP)))


def _header(rng: random.Random, kind: int, follows: int) -> bytes:
    if kind == ROUTING:
        left = rng.choice((0, 0, 0, 1, 2))
        return routing_header(follows, rng.choice((0, 0, 1, 2, 3, 4, 5, 253)), left, rng.choice((0, 0, 1, 2, 4)))
    if kind == FRAGMENT:
        offset, more = rng.choice(((0, False), (0, False), (0, False), (0, True), (1, False), (7, True)))
        return fragment_header(follows, offset, more, next(IDS))
    if kind == AUTH:
        return bytes([follows, 1]) + b"\0" * 10
    if kind == NONE:
        return bytes([follows, 0]) + b"\0" * 6
    made = options_header(
        follows, rng.choice((b"", b"", b"\x1e\x02ab", b"\x05\x02\0\0", b"\x44\0", b"\x1e\x50" + b"x" * 80))
    )
    return made[:1] + bytes([rng.randrange(255)]) + made[2:] if rng.random() < 0.03 else made


def large(rng: random.Random, count: int) -> Iterator[bytes]:
    """Packets of several frames of ours, with and without padding and options."""
    for _ in range(count):
        size = rng.choice((1700, 1778, 1779, 3500, 3826, 3827, 5000, 8900))
        payload = udp(rng.randbytes(size))
        packet = rng.choice((ipv4(payload), ipv4(payload, options=b"\1" * 40), ipv6(payload)))
        packet = packet[: rng.choice((len(packet), len(packet), rng.randrange(40, len(packet))))]
        yield ethernet(packet + b"\xee" * rng.choice((0, 0, 1, 50, max(0, 9000 - len(packet)))))[: 14 + 9000]


def mutated(rng: random.Random, count: int) -> Iterator[bytes]:
    """Sound frames of all kinds with some bytes changed, inserted or gone; the IPv4 checksum mended in half of them."""
    sound: list[Callable[[], bytes]] = [
        lambda: ipv4(ident=id4()),
        lambda: ipv4(options=b"\x94\x04\0\0\x07\x07\x04\0\0\0\0\0", ident=id4()),
        lambda: ipv4(options=b"\x44\x0c\x05\x01" + b"\0" * 8, ident=id4()),
        lambda: ipv6(),
        lambda: chain(options_header(UDP, b"\x05\x02\0\0"), first=HOPOPTS),
        lambda: chain(options_header(DSTOPTS, b""), options_header(UDP, b"\x1e\x02ab"), first=HOPOPTS),
        lambda: chain(routing_header(UDP, length=2), first=ROUTING),
        lambda: chain(fragment_header(UDP, ident=next(IDS)), first=FRAGMENT),
    ]
    for _ in range(count):
        packet = bytearray(rng.choice(sound)())
        kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(packet))
            what = rng.randrange(8)
            if what == 0:
                del packet[at : at + rng.randrange(1, 9)]
            elif what == 1:
                packet[at:at] = rng.randbytes(rng.randrange(1, 9))
            elif what < 5:
                packet[at] ^= 1 << rng.randrange(8)
            else:
                packet[at] = rng.choice((0, 1, 4, 0x3C, 0x7F, 0xFF, rng.randrange(256)))
            if not packet:
                break
        if kind == 0x0800 and rng.random() < 0.5 and len(packet) >= 20:
            header = (packet[0] & 15) * 4
            if 20 <= header <= len(packet):
                packet[10:12] = b"\0\0"
                packet[10:12] = csum(bytes(packet[:header])).to_bytes(2, "big")
        yield ethernet(bytes(packet), kind=kind)
