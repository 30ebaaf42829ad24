"""Hypothesis strategies: sockets in a small world, and datagrams that meet them, with lengths and checksums at edges."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from xdpstack.udp.semantics import (
    ANY,
    V4_MAPPED,
    Bound,
    Datagram,
    Family,
    ones_complement_sum,
    pseudo_header,
)


def _v4(*last: int) -> list[bytes]:
    return [V4_MAPPED + bytes([10, 0, 0, n]) for n in last]


def _v6(*last: int) -> list[bytes]:
    return [b"\xfd" + bytes(14) + bytes([n]) for n in last]


#: Few of each, so that sockets and datagrams meet.
LOCAL = {4: _v4(1, 2), 6: _v6(1, 2)}
REMOTE = {4: _v4(8, 9), 6: _v6(8, 9)}
MANY = {4: V4_MAPPED + bytes([224, 0, 0, 9]), 6: b"\xff\x05" + bytes(13) + b"\x09"}
#: What a socket may join: groups of IPv4 by each device, of IPv6 by whichever.
GROUPS: dict[int, list[tuple[bytes, int | None]]] = {4: [(MANY[4], 0), (MANY[4], 1)]}
GROUPS[6] = [*GROUPS[4], (MANY[6], None)]
#: Of which families it may take no other groups.
ONLY_JOINED: dict[int, list[frozenset[Family]]] = {4: [frozenset(), frozenset({4})]}
ONLY_JOINED[6] = [*ONLY_JOINED[4], frozenset({6}), frozenset({4, 6})]
PORTS = [7, 53]
#: Of peers and of what comes: a socket may be connected to port 0, and takes any then; and one may send from it.
REMOTE_PORTS = [1000, 1001, 0]
DEVICES = [0, 1]
VLANS = [0, 0, 0, 5, 6, 6 << 16 | 5]

families: st.SearchStrategy[Family] = st.sampled_from([4, 6])


@st.composite
def bounds(draw: st.DrawFn, index: int, vlans: bool = False) -> Bound:
    family = draw(families)
    carried: Family = 4 if family == 4 or draw(st.integers(0, 3)) == 0 else 6
    wild = draw(st.booleans())
    address = draw(st.sampled_from([*LOCAL[carried], MANY[carried]])) if not wild else ANY[family]
    connected = address in LOCAL[carried] and draw(st.booleans())
    return Bound(
        index=index,
        family=family,
        address=address,
        port=draw(st.sampled_from(PORTS)),
        peer=draw(st.sampled_from(REMOTE[carried])) if connected else None,
        peer_port=draw(st.sampled_from(REMOTE_PORTS)) if connected else 0,
        device=draw(st.sampled_from([None, None, *DEVICES])),
        vlan=draw(st.sampled_from(VLANS)) if vlans else 0,
        v6only=family == 6 and wild and draw(st.booleans()),
        no_check6_rx=family == 6 and draw(st.booleans()),
        reconnected=connected and draw(st.booleans()),
        groups=draw(st.frozensets(st.sampled_from(GROUPS[family]), max_size=2)),
        only_joined=draw(st.sampled_from([None, *ONLY_JOINED[family]])),
    )


@st.composite
def worlds(draw: st.DrawFn, most: int = 8, vlans: bool = False) -> list[Bound]:
    return [draw(bounds(index, vlans)) for index in range(draw(st.integers(0, most)))]


@st.composite
def datagrams(draw: st.DrawFn, partial: bool | None = None, vlans: bool = False) -> Datagram:
    family = draw(families)
    to_many = draw(st.integers(0, 4)) == 0
    source = draw(st.sampled_from(REMOTE[family]))
    destination = MANY[family] if to_many else draw(st.sampled_from(LOCAL[family]))
    payload = draw(st.binary(max_size=64) | st.binary(min_size=1300, max_size=1400))
    ports = draw(st.sampled_from(REMOTE_PORTS)), draw(st.sampled_from([*PORTS, 9]))
    length = 8 + len(payload)
    head = ports[0].to_bytes(2) + ports[1].to_bytes(2) + length.to_bytes(2)
    kind = draw(st.sampled_from(["good", "good", "good", "zero", "partial", "bad", "ffff"]))
    pseudo = pseudo_header(family, source, destination, length)
    good = 0xFFFF - ones_complement_sum(pseudo + head + b"\0\0" + payload) or 0xFFFF
    field = {
        "good": good,
        "zero": 0,
        "partial": ones_complement_sum(pseudo),
        "bad": good ^ (1 << draw(st.integers(0, 15))),
        "ffff": 0xFFFF,
    }[kind]
    data = head + field.to_bytes(2) + payload + draw(st.sampled_from([b"", b"", b"\0", b"trailing bytes"]))
    if draw(st.integers(0, 3)) == 0:  # a length that lies
        wrong = draw(st.sampled_from([0, 1, 7, 8, 9, length - 1, length + 1, len(data), len(data) + 1, 0xFFFF]))
        data = data[:4] + wrong.to_bytes(2) + data[6:]
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, 12))]
    return Datagram(
        family=family,
        source=source,
        destination=destination,
        data=data,
        device=draw(st.sampled_from(DEVICES)),
        vlan=draw(st.sampled_from(VLANS)) if vlans else 0,
        partial=draw(st.booleans()) if partial is None else partial,
        to_many=to_many,
    )


def _from_port(port: int) -> Datagram:
    head = port.to_bytes(2) + PORTS[0].to_bytes(2) + (8).to_bytes(2)
    return Datagram(4, REMOTE[4][0], LOCAL[4][0], head + bytes(2))


_CONNECTED = Bound(0, 4, LOCAL[4][0], PORTS[0], peer=REMOTE[4][0], peer_port=1000)
#: Two with the same peer: the one that was connected to it at first, and the one that was bound last.
TO_ONE_PEER = {
    "sockets": [_CONNECTED, replace(_CONNECTED, index=1, reconnected=True)],
    "stream": [_from_port(1000)],
}


#: A socket that is connected to port 0, beside one with the better score for what comes from another port.
TO_PORT_0 = {
    "sockets": [
        Bound(0, 6, LOCAL[4][0], PORTS[0], peer=REMOTE[4][0]),
        Bound(1, 4, LOCAL[4][0], PORTS[0], device=0),
    ],
    "stream": [_from_port(0), _from_port(1000)],
}
