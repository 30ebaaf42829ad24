"""Which of several sockets that fit a datagram equally well gets it: where the kernel's hash tables have them.

By address and port (hash2) the last to come is the first to be found: with bind(), or with the connect() that gives a socket
bound to the wildcard its address. Sockets that are connected are found before, by all four numbers (hash4): there they come
with their first connect(), and stay under that peer. So one that is connected to another afterwards is not found there, and
its score decides. With early demultiplexing (net.ipv4.udp_early_demux, as Linux begins) the first that hash2 has is asked
before all others. Source: udp_lib_get_port(), udp_lib_rehash(), udp_lib_hash4(), __udp4_lib_demux_lookup().
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xdpstack.udp.semantics import Bound

if TYPE_CHECKING:
    from xdpstack.udp.endpoint import Endpoint
    from xdpstack.udp.host import Host

_moment = itertools.count()


@dataclass(frozen=True, slots=True)
class Place:
    """Since when a socket is where: in hash2, and in hash4 (`connected`), there under `peer`; None: it is not."""

    bound: int = field(default_factory=_moment.__next__)
    peer: tuple[bytes, int] | None = None
    connected: int = 0


def connect(place: Place, bound: Bound, address: bytes, peer: tuple[bytes, int]) -> tuple[Place, Bound]:
    """Where a socket is, and what the lookup knows of it, once it has `address` and `peer` (address, port)."""
    if address != bound.address:
        place = replace(place, bound=next(_moment))
    if place.peer is None:
        place = replace(place, peer=peer, connected=next(_moment))
    return place, replace(bound, address=address, peer=peer[0], peer_port=peer[1], reconnected=peer != place.peer)


def ordered(sockets: Iterable[Endpoint], host: Host) -> list[tuple[Endpoint, Bound]]:
    """The one that is found first, first; each with what the lookup knows of it."""
    newest = sorted(sockets, key=lambda one: one.place.bound, reverse=True)
    bounds = [one.bound for one in sorted(newest, key=_key, reverse=True)]
    if host.sysctl("ipv4.ip_early_demux") and host.sysctl("ipv4.udp_early_demux"):
        bounds = early_first(bounds, [one.bound for one in newest])
    by_index = {one.bound.index: one for one in newest}
    return [(by_index[bound.index], bound) for bound in bounds]


def early_first(bounds: Iterable[Bound], newest: Iterable[Bound]) -> list[Bound]:
    """`bounds` in the order in which they are found with early demultiplexing; `newest` are the same in that of hash2.

    Before all else Linux looks at the first that hash2 has for an address and port, and gives it what is from its peer.
    """
    first: dict[tuple[bytes, int, int], Bound] = {}
    for bound in newest:
        first.setdefault((bound.address, bound.port, bound.vlan), bound)
    early = {bound.index for bound in first.values() if bound.peer}
    looked_at = [replace(bound, reconnected=False) if bound.index in early else bound for bound in bounds]
    return sorted(looked_at, key=lambda bound: bound.index not in early)


def _key(one: Endpoint) -> tuple[bool, int]:
    # for one that is connected to port 0 it is mostly its score that decides: it has its place in hash2
    by_peer = one.bound.peer_port > 0 and not one.bound.reconnected
    return by_peer, one.place.connected if by_peer else one.place.bound
