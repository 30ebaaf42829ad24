"""Which claims the sockets need: one per key (address, port) that a socket is found under, however many share it."""

from __future__ import annotations

import socket
from collections import Counter
from typing import TYPE_CHECKING

from xdpstack.device.claims import SocketClaim, Vlan
from xdpstack.udp.address import bare
from xdpstack.udp.host import Host
from xdpstack.udp.semantics import Bound, keys

if TYPE_CHECKING:
    from xdpstack.udp.endpoint import Endpoint


class Claims:
    """The claims of a stack's sockets. A claim is made for the first socket that needs it, and ends with the last.

    Of several sockets with one address and port, the first that takes broadcasts has the claim made anew, with them; all get
    what it lifts, as in Linux. Between the two claims datagrams go to the kernel sockets.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        #: How many sockets need a claim (as without broadcast), and the claim as it was made.
        self._users: Counter[SocketClaim] = Counter()
        self._made: dict[SocketClaim, SocketClaim] = {}
        self._how: dict[int, tuple[Vlan | None, bool]] = {}

    def add(self, one: Endpoint, vlan: Vlan | None, broadcast: bool) -> None:
        """Lift what is for a socket. All of its claims are made, or none."""
        self._how[one.bound.index] = (vlan, broadcast)
        self._take(self._of(one.bound))

    def add_for(self, bound: Bound) -> None:
        """A socket that has claims is to be bound otherwise: lift what is for it then, too. All or none."""
        self._take(self._of(bound))

    def end_for(self, bound: Bound) -> None:
        """It is bound otherwise than that: lift no more what was for it then alone."""
        self._give(self._of(bound))

    def remove(self, one: Endpoint) -> None:
        """Lift no more what is for a socket alone."""
        if one.bound.index in self._how:
            self._give(self._of(one.bound))
            del self._how[one.bound.index]

    def _of(self, bound: Bound) -> list[SocketClaim]:
        vlan, broadcast = self._how[bound.index]
        return [SocketClaim(_text(address), bound.port, vlan, broadcast) for address in keys(bound)]

    def _take(self, claims: list[SocketClaim]) -> None:
        taken: list[SocketClaim] = []
        try:
            for claim in claims:
                self._make(claim)
                self._users[_alone(claim)] += 1
                taken.append(claim)
        except BaseException:
            self._give(taken)
            raise

    def _make(self, claim: SocketClaim) -> None:
        """Claim it, unless that was done with as much."""
        made = self._made.get(_alone(claim))
        if made is not None and made.broadcast >= claim.broadcast:
            return
        if made is not None:
            self._host.unclaim(made)
        try:
            self._host.claim(claim)
        except BaseException:
            if made is not None:
                self._host.claim(made)
            raise
        self._made[_alone(claim)] = claim

    def _give(self, claims: list[SocketClaim]) -> None:
        for claim in map(_alone, claims):
            self._users[claim] -= 1
            if not self._users[claim]:
                del self._users[claim]
                self._host.unclaim(self._made.pop(claim))


def _alone(claim: SocketClaim) -> SocketClaim:
    """The same claim without broadcast, as far as its address is not a group."""
    return SocketClaim(claim.address, claim.port, claim.vlan)


def _text(address: bytes) -> str:
    raw = bare(address)
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
