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
    """The claims of a stack's sockets. A claim is made for the first socket that needs it, and ends with the last."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._users: Counter[SocketClaim] = Counter()
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
                if not self._users[claim]:
                    self._host.claim(claim)
                self._users[claim] += 1
                taken.append(claim)
        except BaseException:
            self._give(taken)
            raise

    def _give(self, claims: list[SocketClaim]) -> None:
        for claim in claims:
            self._users[claim] -= 1
            if not self._users[claim]:
                del self._users[claim]
                self._host.unclaim(claim)


def _text(address: bytes) -> str:
    raw = bare(address)
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
