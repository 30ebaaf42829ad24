"""ICMP errors about what a socket sent, as its user sees them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from xdpstack.udp.address import Address, unpacked
from xdpstack.udp.semantics import Family

#: SO_EE_ORIGIN_* of linux/errqueue.h.
ORIGINS = {0: "none", 1: "local", 2: "icmp", 3: "icmp6"}


@dataclass(frozen=True, slots=True)
class SocketError:
    """One error about a datagram that was sent to `destination`.

    `error` is the errno; `origin` says who noticed: "local", or "icmp" and "icmp6"; then `type` and `code` are those of the
    message, and `offender` is who sent it. With EMSGSIZE, `mtu` is the path's, in bytes.
    """

    error: int
    origin: str
    type: int
    code: int
    destination: Address
    offender: str | None
    mtu: int | None

    def __str__(self) -> str:
        where = f"{self.destination[0]} port {self.destination[1]}"
        whence = f", says {self.offender}" if self.offender else ""
        return f"{os.strerror(self.error)}: {where}{whence}"

    @classmethod
    def of(cls, value: Any, family: Family) -> SocketError:
        """From a `struct xs_socket_error`."""
        offender = bytes(value.offender)
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}.get(value.family)
        return cls(
            error=value.error,
            origin=ORIGINS.get(value.origin, str(value.origin)),
            type=value.type,
            code=value.code,
            destination=unpacked(bytes(value.destination), value.port, family),
            offender=None if kind is None else socket.inet_ntop(kind, offender[12:] if value.family == 4 else offender),
            mtu=value.info if value.info else None,
        )
