"""Socket options: which there are, and what each does to our side of a socket.

The shadow socket gets every option first, so that the kernel judges the value and clamps it as it always does; what it then
has is what we use. Without a shadow (`reserve=False`, memory devices) the same rules are applied here.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xdpstack.udp.semantics import receive_buffer, send_buffer

SO_RCVBUFFORCE, SO_SNDBUFFORCE, SO_TIMESTAMPNS, SO_RXQ_OVFL = 33, 32, 35, 40
IP_MTU_DISCOVER, IP_RECVERR = 10, 11
IPV6_MTU_DISCOVER, IPV6_RECVERR = 23, 25
IP_MULTICAST_ALL, IPV6_MULTICAST_ALL = 49, 29
UDP_NO_CHECK6_RX = 102
#: IP_PMTUDISC_*: without path MTU discovery, and with it.
PMTUDISC_DONT, PMTUDISC_WANT = 0, 1

Sysctl = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name, what it may be without a shadow, and how a value becomes the one that holds."""

    name: str
    smallest: int
    largest: int
    holds: Callable[[int, Sysctl], int] = lambda value, sysctl: value


def _rcvbuf(value: int, sysctl: Sysctl) -> int:
    return receive_buffer(value, sysctl("core.rmem_max"))


def _sndbuf(value: int, sysctl: Sysctl) -> int:
    return send_buffer(value, sysctl("core.wmem_max"))


def _ttl(value: int, _: Sysctl) -> int:
    if not value:
        raise OSError(errno.EINVAL, "IP_TTL is -1, or 1 to 255, not 0")
    return value


def _or(default: int) -> Callable[[int, Sysctl], int]:
    """-1 stands for `default`."""
    return lambda value, _: default if value < 0 else value


_INT = 2**31 - 1

OPTIONS: Mapping[tuple[int, int], Option] = {
    (socket.SOL_SOCKET, socket.SO_RCVBUF): Option("SO_RCVBUF", 0, _INT, _rcvbuf),
    (socket.SOL_SOCKET, SO_RCVBUFFORCE): Option("SO_RCVBUFFORCE", 0, _INT, lambda v, _: receive_buffer(v, _INT >> 1)),
    (socket.SOL_SOCKET, socket.SO_SNDBUF): Option("SO_SNDBUF", 0, _INT, _sndbuf),
    (socket.SOL_SOCKET, SO_SNDBUFFORCE): Option("SO_SNDBUFFORCE", 0, _INT, lambda v, _: send_buffer(v, _INT >> 1)),
    (socket.SOL_SOCKET, socket.SO_BROADCAST): Option("SO_BROADCAST", 0, 1),
    (socket.SOL_SOCKET, socket.SO_MARK): Option("SO_MARK", 0, 2**32 - 1),
    (socket.SOL_SOCKET, socket.SO_PRIORITY): Option("SO_PRIORITY", 0, 6),
    (socket.SOL_SOCKET, SO_TIMESTAMPNS): Option("SO_TIMESTAMPNS", 0, 1),
    (socket.SOL_SOCKET, SO_RXQ_OVFL): Option("SO_RXQ_OVFL", 0, 1),
    (socket.IPPROTO_IP, socket.IP_TOS): Option("IP_TOS", 0, 255),
    (socket.IPPROTO_IP, socket.IP_TTL): Option("IP_TTL", -1, 255, _ttl),
    (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL): Option("IP_MULTICAST_TTL", -1, 255, _or(1)),
    (socket.IPPROTO_IP, IP_MTU_DISCOVER): Option("IP_MTU_DISCOVER", 0, 5),
    (socket.IPPROTO_IP, IP_RECVERR): Option("IP_RECVERR", 0, 1),
    (socket.IPPROTO_IP, IP_MULTICAST_ALL): Option("IP_MULTICAST_ALL", 0, 1),
    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS): Option("IPV6_TCLASS", -1, 255, _or(0)),
    (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS): Option("IPV6_UNICAST_HOPS", -1, 255),
    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS): Option("IPV6_MULTICAST_HOPS", -1, 255, _or(1)),
    (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER): Option("IPV6_MTU_DISCOVER", 0, 5),
    (socket.IPPROTO_IPV6, IPV6_RECVERR): Option("IPV6_RECVERR", 0, 1),
    (socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL): Option("IPV6_MULTICAST_ALL", 0, 1),
    (socket.IPPROTO_UDP, UDP_NO_CHECK6_RX): Option("UDP_NO_CHECK6_RX", 0, 1),
}
#: Options whose value -1 means: as the route or the device has it.
BY_ROUTE = {(socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)}
#: Options that are the kernel socket's alone: it joins groups, and sends multicast that loops back, or by a device.
OF_KERNEL: Mapping[tuple[int, int], str] = {
    (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP): "IP_ADD_MEMBERSHIP",
    (socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP): "IP_DROP_MEMBERSHIP",
    (socket.IPPROTO_IP, socket.IP_MULTICAST_IF): "IP_MULTICAST_IF",
    (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP): "IP_MULTICAST_LOOP",
    (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP): "IPV6_JOIN_GROUP",
    (socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP): "IPV6_LEAVE_GROUP",
    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF): "IPV6_MULTICAST_IF",
    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP): "IPV6_MULTICAST_LOOP",
}
#: The worker needs these of every shadow, whatever the user says.
OURS = {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR), (socket.SOL_SOCKET, SO_RXQ_OVFL)}
#: Settled when the socket is made: the keyword of stack.udp() that says so.
AT_OPEN = {
    (socket.SOL_SOCKET, socket.SO_REUSEADDR): "reuse_address",
    (socket.SOL_SOCKET, socket.SO_BINDTODEVICE): "device",
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY): "v6only",
}


def option(level: int, name: int) -> Option:
    """The option; OSError(ENOPROTOOPT) that says what there is when it is none."""
    found = OPTIONS.get((level, name))
    if found is not None:
        return found
    if (level, name) in AT_OPEN:
        text = f"is settled when the socket is made: stack.udp(..., {AT_OPEN[level, name]}=...)"
    else:
        text = "is not there; these are: " + ", ".join([*(one.name for one in OPTIONS.values()), *OF_KERNEL.values()])
    raise OSError(errno.ENOPROTOOPT, f"socket option {level}/{name} {text}")


def value_of(value: Any) -> int:
    """An option's value as a number; bytes are a C int."""
    if isinstance(value, int):
        return int(value)
    try:
        (number,) = struct.unpack("=i", bytes(value))
    except (struct.error, TypeError):
        raise TypeError(f"an option's value is an int or the 4 bytes of a C int, not {value!r}") from None
    return int(number)


def hand_over(shadow: socket.socket | None, level: int, name: int, value: Any) -> None:
    """Set one of OF_KERNEL. Raises OSError as setsockopt(2) does; ENOPROTOOPT without a kernel socket."""
    if shadow is None:
        raise OSError(errno.ENOPROTOOPT, f"{OF_KERNEL[level, name]} is a kernel socket's, and reserve=False has none")
    shadow.setsockopt(level, name, value)


def settle(shadow: socket.socket | None, level: int, name: int, value: int, sysctl: Sysctl) -> int:
    """Set the option where it is judged; the value that it then has, -1 = BY_ROUTE. Raises OSError as setsockopt(2) does."""
    wanted = option(level, name)
    if (level, name) == (socket.SOL_SOCKET, socket.SO_MARK):
        value &= 2**32 - 1  # a C int may have all its bits
    if shadow is None:
        if not wanted.smallest <= value <= wanted.largest:
            raise OSError(errno.EINVAL, f"{wanted.name} is {wanted.smallest} to {wanted.largest}, not {value}")
        return wanted.holds(value, sysctl)
    if (level, name) in OURS:
        return int(bool(value))
    shadow.setsockopt(level, name, value if value < 2**31 else value - 2**32)
    if value == -1 and (level, name) in BY_ROUTE:
        return -1
    read = {SO_RCVBUFFORCE: socket.SO_RCVBUF, SO_SNDBUFFORCE: socket.SO_SNDBUF}.get(name, name)
    held = shadow.getsockopt(level, read if level == socket.SOL_SOCKET else name)
    return held & (2**32 - 1) if wanted.largest > _INT else held
