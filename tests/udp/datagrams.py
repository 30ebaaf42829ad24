"""Sound datagrams for the socket tests: two hosts, a port, a checksum that is right."""

from __future__ import annotations

import socket
import struct

from xdpstack.udp.semantics import V4_MAPPED, Datagram, Family, ones_complement_sum, pseudo_header

HERE, PEER = "10.0.0.1", "10.0.0.9"
HERE6, PEER6 = "fd00::1", "fd00::9"


def packed(host: str) -> bytes:
    """The 16 bytes of a numeric address."""
    try:
        return V4_MAPPED + socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return socket.inet_pton(socket.AF_INET6, host)


def datagram(payload: bytes, port: int = 7, source: str = PEER, to: str = HERE, sport: int = 1000) -> Datagram:
    """From `source` and `sport` to `to` and `port`."""
    family: Family = 6 if ":" in to else 4
    head = struct.pack(">HHH", sport, port, 8 + len(payload))
    total = ones_complement_sum(
        pseudo_header(family, packed(source), packed(to), 8 + len(payload)) + head + b"\0\0" + payload
    )
    return Datagram(family, packed(source), packed(to), head + (0xFFFF - total or 0xFFFF).to_bytes(2) + payload)
