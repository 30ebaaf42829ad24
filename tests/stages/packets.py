"""Frames for tests of the IP stages, built field by field so that any field can be wrong."""

import struct

SRC4, DST4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
SRC6, DST6 = bytes.fromhex("fd000000000000000000000000000001"), bytes.fromhex("fd000000000000000000000000000002")
HOST, PEER, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x99", b"\x02\0\0\0\0\x77"
BROADCAST, GROUP = b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01"
UDP, NONE, HOPOPTS, ROUTING, FRAGMENT, AUTH, DSTOPTS = 17, 59, 0, 43, 44, 51, 60


def csum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(payload: bytes = b"hello", sport: int = 1000, dport: int = 7, sum_with: bytes = b"") -> bytes:
    """A UDP datagram; `sum_with` is both addresses, for a checksum."""
    length = 8 + len(payload)
    header = struct.pack(">HHHH", sport, dport, length, 0)
    if sum_with:
        pseudo = sum_with + struct.pack(">II", length, UDP)
        header = header[:6] + struct.pack(">H", csum(pseudo + header + payload) or 0xFFFF)
    return header + payload


def ipv4(
    payload: bytes | None = None,
    options: bytes = b"",
    version: int = 4,
    ihl: int | None = None,
    total: int | None = None,
    frag: int = 0,
    ttl: int = 64,
    proto: int = UDP,
    src: bytes = SRC4,
    dst: bytes = DST4,
    checksum: int | None = None,
    tos: int = 0,
    ident: int = 0x1234,
) -> bytes:
    """An IPv4 packet; what is None is right. Options are padded with zeros to whole words."""
    options += b"\0" * (-len(options) % 4)
    payload = udp(sum_with=src + dst) if payload is None else payload
    ihl = 5 + len(options) // 4 if ihl is None else ihl
    total = 20 + len(options) + len(payload) if total is None else total
    head = struct.pack(">BBHHHBBH4s4s", version << 4 | ihl, tos, total, ident, frag, ttl, proto, 0, src, dst) + options
    right = csum((head + payload)[: max(ihl, 5) * 4])
    return head[:10] + struct.pack(">H", right if checksum is None else checksum) + head[12:] + payload


def ipv6(
    payload: bytes | None = None,
    next_header: int = UDP,
    version: int = 6,
    length: int | None = None,
    hops: int = 64,
    src: bytes = SRC6,
    dst: bytes = DST6,
    tclass: int = 0,
) -> bytes:
    """An IPv6 packet; what is None is right. `payload` includes extension headers."""
    payload = udp(sum_with=src + dst) if payload is None else payload
    length = len(payload) if length is None else length
    return struct.pack(">IHBB", version << 28 | tclass << 20, length, next_header, hops) + src + dst + payload


def options_header(next_header: int, options: bytes) -> bytes:
    """A hop-by-hop or destination options header; padded by PadN to a multiple of 8 bytes."""
    missing = -(len(options) + 2) % 8
    if missing == 1:
        options += b"\0"
    elif missing:
        options += bytes([1, missing - 2]) + b"\0" * (missing - 2)
    return bytes([next_header, (len(options) + 2) // 8 - 1]) + options


def routing_header(next_header: int, kind: int = 0, left: int = 0, length: int = 0) -> bytes:
    """A routing header of (length + 1) * 8 bytes."""
    return bytes([next_header, length, kind, left]) + b"\0" * (4 + length * 8)


def fragment_header(next_header: int, offset: int = 0, more: bool = False, ident: int = 0xABCD) -> bytes:
    """A fragment header; `offset` in units of 8 bytes."""
    return struct.pack(">BBHI", next_header, 0, offset << 3 | more, ident)


def chain(*headers: bytes, last: bytes | None = None, final: int = UDP, first: int, **fields: bytes) -> bytes:
    """An IPv6 packet with extension headers as given: each says what follows it, `first` what the first is."""
    ends = fields.get("src", SRC6) + fields.get("dst", DST6)
    last = udp(sum_with=ends) if last is None and final == UDP else last or b""
    return ipv6(b"".join(headers) + last, next_header=first, **fields)


def ethernet(packet: bytes, dst: bytes = HOST, kind: int | None = None, pad: bool = False) -> bytes:
    """An Ethernet frame; the type is that of the packet's version nibble when not given."""
    if kind is None:
        kind = 0x86DD if packet[:1] and packet[0] >> 4 == 6 else 0x0800
    frame = dst + PEER + struct.pack(">H", kind) + packet
    return frame.ljust(60, b"\0") if pad else frame
