"""Frames in which everything may be odd at once: addresses, options, extension headers, lengths, checksums, padding, MACs.

ip_corpus.py bends one thing at a time; here what is odd in one header meets what is odd in another.
"""

import random
import struct
from collections.abc import Iterator

from tests.kernel.ip_corpus import IDS, id4
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
    csum,
    ethernet,
    ipv4,
    ipv6,
    options_header,
    udp,
)

ODD4 = [bytes(each) for each in ((10, 0, 0, 255), (255,) * 4, (224, 0, 0, 1), (10, 0, 0, 77), (127, 0, 0, 1), (0,) * 4)]
ODD6 = [
    bytes.fromhex(each.rjust(32, "0") if len(each) < 4 else each)
    for each in ("0", "1", "ff02" + "0" * 27 + "1", "ff01" + "0" * 27 + "1", "ff00" + "0" * 27 + "1",
                 "0" * 20 + "ffff0a000002", "fe80" + "0" * 27 + "9", "20010db8" + "0" * 23 + "1")
]  # fmt: skip
#: Options of IPv4: route and timestamp by slots of so many bytes behind so many; the others are data alone.
SLOTS = {7: (3, 4), 131: (3, 4), 137: (3, 4), 68: (4, 4)}


def _option4(rng: random.Random) -> bytes:
    kind = rng.choice((1, 1, 7, 68, 131, 137, 148, 134, 130, 0 if rng.random() < 0.3 else 1, rng.randrange(2, 256)))
    if kind < 2:
        return bytes([kind])
    if kind not in SLOTS:
        length = rng.choice((0, 1, 2, 3, 4, 4, 8, 11))
        return (bytes([kind, length]) + rng.randbytes(40))[: max(2, length)]
    head, slot = SLOTS[kind]
    length = head + slot * rng.randrange(9)
    pointer = rng.choice((*range(head + 1, length + 2, slot), length + 1, head, 0, 255))
    length = rng.choice((length, length, length, length + 1, length - 1, 2))
    flags = bytes([rng.choice((0, 1, 2, 3, 0xF0, 0xF1, 0xF3, 0xE3))]) if kind == 68 else b""
    body = flags + rng.choice((bytes(40), SRC4 * 10, bytes([10, 0, 0, 9]) * 10))
    return (bytes([kind, length, pointer]) + body)[: max(2, min(length, 40))]


def _datagram(rng: random.Random, ends: bytes) -> bytes:
    data = bytearray(udp(rng.randbytes(rng.choice((0, 1, 2, 17, 68, 69, rng.randrange(1200)))), sum_with=ends))
    roll = rng.random()
    if roll < 0.15:
        data[6:8] = rng.choice((b"\0\0", b"\xff\xff", rng.randbytes(2)))
    elif roll < 0.3:
        length = rng.choice((0, 7, 8, 9, len(data) - 1, len(data) + 1, 0xFFFF)) & 0xFFFF
        data[4:6] = length.to_bytes(2, "big")
        covered = length or len(data)
        data[6:8] = b"\0\0"
        if covered <= len(data):
            pseudo = ends + struct.pack(">II", covered, UDP)
            data[6:8] = (csum(pseudo + bytes(data[:covered])) or 0xFFFF).to_bytes(2, "big")
    if rng.random() < 0.1:
        data += rng.randbytes(rng.randrange(1, 40))
    return bytes(data[: rng.randrange(14)] if rng.random() < 0.03 else data)


def _packet4(rng: random.Random) -> bytes:
    src = rng.choice((SRC4, SRC4, SRC4, *ODD4)) if rng.random() < 0.4 else SRC4
    dst = rng.choice(ODD4) if rng.random() < 0.3 else DST4
    options = b"".join(_option4(rng) for _ in range(rng.choice((0, 0, 1, 1, 2, 4))))[:40]
    body = _datagram(rng, src + dst)
    odd: dict[str, int] = {"frag": rng.choice((0, 0x4000, 0x8000))}
    if rng.random() < 0.25:
        right = 20 + -(-len(options) // 4) * 4 + len(body)
        odd |= rng.choice(
            (
                {"version": rng.randrange(16)},
                {"ihl": rng.randrange(16)},
                {"total": rng.choice((0, 19, 20, 28, right - 1, right - 9, right + 1, 0xFFFF))},
                {"frag": rng.randrange(1 << 16)},
                {"proto": rng.choice((0, 1, 6, 50, 51, 60, 255))},
                {"checksum": rng.choice((0, 0xFFFF, rng.randrange(1 << 16)))},
            )
        )
    odd |= {"ttl": rng.choice((0, 1, 64)), "tos": rng.choice((0, 3, 255)), "ident": id4()}
    return ipv4(body, options, src=src, dst=dst, **odd)


def _extension(rng: random.Random, kind: int, follows: int) -> bytes:
    if kind in (HOPOPTS, DSTOPTS):
        options = b""
        for _ in range(rng.choice((0, 1, 1, 2, 9))):
            option = rng.choice((0, 1, 1, 5, 7, 0x1E, 0x31, 0xC2, 0xC9, rng.randrange(256)))
            size = rng.choice((0, 1, 2, 2, 4, 10, rng.randrange(30)))
            options += b"\0" if option == 0 else bytes([option, size]) + rng.choice((bytes(size), rng.randbytes(size)))
        return options_header(follows, options)
    if kind == ROUTING:
        size = rng.choice((0, 0, 1, 2, 4))
        head = bytes([follows, size, rng.choice((0, 1, 2, 3, 4, 253)), rng.choice((0, 0, 0, 1, 2, 255))])
        return head + bytes(4) + (DST6 * 2)[: 8 * size].ljust(8 * size, b"\0")
    if kind == FRAGMENT:
        rest = rng.choice((0, 0, 0, 2, 4, 6, 1, 8, 9, rng.randrange(1 << 16)))
        return struct.pack(">BBHI", follows, rng.choice((0, 255)), rest, next(IDS))
    size = rng.choice((0, 1, 2)) if kind == AUTH else 0
    return bytes([follows, size]) + rng.randbytes((size + 2) * 4 - 2)


def _packet6(rng: random.Random) -> bytes:
    src = rng.choice((SRC6, SRC6, SRC6, *ODD6)) if rng.random() < 0.4 else SRC6
    dst = rng.choice(ODD6) if rng.random() < 0.3 else DST6
    order = rng.choices((HOPOPTS, DSTOPTS, DSTOPTS, ROUTING, FRAGMENT, AUTH, NONE), k=rng.choice((0, 0, 1, 1, 2, 4)))
    if rng.random() < 0.6:  # as hosts send them
        order = [kind for at, kind in enumerate(order) if kind not in (AUTH, NONE) and (kind != HOPOPTS or not at)]
    ends = [*order, rng.choice((UDP, UDP, UDP, UDP, UDP, UDP, 58, NONE))]
    headers = b"".join(_extension(rng, kind, follows) for kind, follows in zip(order, ends[1:], strict=True))
    body = headers + _datagram(rng, src + dst)
    length = rng.choice((0, 8, len(body) + 1, max(0, len(body) - 9), 0xFFFF)) if rng.random() < 0.15 else len(body)
    version = rng.randrange(16) if rng.random() < 0.03 else 6
    return ipv6(body, ends[0], version, length, rng.choice((0, 1, 64)), src, dst, rng.choice((0, 3, 255)))


def mixed(rng: random.Random, count: int) -> Iterator[bytes]:
    """`count` frames of both families; a fifth is cut off, followed by padding, or of the other's ethertype."""
    for _ in range(count):
        kind, make = rng.choice(((0x0800, _packet4), (0x86DD, _packet6)))
        packet = make(rng)
        roll = rng.random()
        if roll < 0.05:
            packet = packet[: rng.randrange(len(packet))]
        elif roll < 0.15:
            packet += rng.randbytes(rng.choice((1, 2, 3, 30)))
        elif roll < 0.18:
            kind = 0x0800 + 0x86DD - kind
        mac = rng.choice((BROADCAST, GROUP, OTHER)) if rng.random() < 0.15 else HOST
        yield ethernet(packet, dst=mac, kind=kind, pad=rng.random() < 0.5)
