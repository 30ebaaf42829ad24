"""Socket options: which there are, and what each does to our side of a socket.

The shadow socket gets every option first, so that the kernel judges the value and clamps it as it always does; what it then
has is what we use. Without a shadow (`reserve=False`, memory devices) the same rules are applied here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xdpstack.udp.semantics import Family, receive_buffer, send_buffer

SO_RCVBUFFORCE, SO_SNDBUFFORCE, SO_TIMESTAMPNS, SO_RXQ_OVFL = 33, 32, 35, 40
IP_MTU_DISCOVER, IP_RECVERR = 10, 11
IPV6_MTU_DISCOVER, IPV6_RECVERR = 23, 25
IP_MULTICAST_ALL, IPV6_MULTICAST_ALL = 49, 29
UDP_NO_CHECK6_RX = 102
#: IP_PMTUDISC_*: without path MTU discovery, and with it.
PMTUDISC_DONT, PMTUDISC_WANT = 0, 1

#: The largest C int.
_INT = 2**31 - 1

Sysctl = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name, what it may be without a shadow, and how a value becomes the one that holds."""

    name: str
    smallest: int
    largest: int
    holds: Callable[[int, Sysctl], int] = lambda value, sysctl: value


def _rcvbuf(value: int, sysctl: Sysctl) -> int:
    return receive_buffer(value & (2**32 - 1), sysctl("core.rmem_max"))  # below zero is very much


def _sndbuf(value: int, sysctl: Sysctl) -> int:
    return send_buffer(value & (2**32 - 1), sysctl("core.wmem_max"))


def _rcvbuf_forced(value: int, _: Sysctl) -> int:
    return receive_buffer(max(value, 0), _INT >> 1)


def _sndbuf_forced(value: int, _: Sysctl) -> int:
    return send_buffer(max(value, 0), _INT >> 1)


def _ttl(value: int, _: Sysctl) -> int:
    if not value:
        raise OSError(errno.EINVAL, "IP_TTL is -1, or 1 to 255, not 0")
    return value


def _or(default: int) -> Callable[[int, Sysctl], int]:
    """-1 stands for `default`."""
    return lambda value, _: default if value < 0 else value


def _flag(name: str) -> Option:
    return Option(name, -_INT - 1, _INT, lambda value, _: int(bool(value)))


OPTIONS: Mapping[tuple[int, int], Option] = {
    (socket.SOL_SOCKET, socket.SO_RCVBUF): Option("SO_RCVBUF", -_INT - 1, _INT, _rcvbuf),
    (socket.SOL_SOCKET, SO_RCVBUFFORCE): Option("SO_RCVBUFFORCE", -_INT - 1, _INT, _rcvbuf_forced),
    (socket.SOL_SOCKET, socket.SO_SNDBUF): Option("SO_SNDBUF", -_INT - 1, _INT, _sndbuf),
    (socket.SOL_SOCKET, SO_SNDBUFFORCE): Option("SO_SNDBUFFORCE", -_INT - 1, _INT, _sndbuf_forced),
    (socket.SOL_SOCKET, socket.SO_BROADCAST): _flag("SO_BROADCAST"),
    (socket.SOL_SOCKET, socket.SO_MARK): Option("SO_MARK", 0, 2**32 - 1),
    (socket.SOL_SOCKET, socket.SO_PRIORITY): Option("SO_PRIORITY", -_INT - 1, _INT, lambda v, _: v & (2**32 - 1)),
    (socket.SOL_SOCKET, SO_TIMESTAMPNS): _flag("SO_TIMESTAMPNS"),
    (socket.SOL_SOCKET, SO_RXQ_OVFL): _flag("SO_RXQ_OVFL"),
    (socket.IPPROTO_IP, socket.IP_TOS): Option("IP_TOS", -_INT - 1, _INT),
    (socket.IPPROTO_IP, socket.IP_TTL): Option("IP_TTL", -1, 255, _ttl),
    (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL): Option("IP_MULTICAST_TTL", -1, 255, _or(1)),
    (socket.IPPROTO_IP, IP_MTU_DISCOVER): Option("IP_MTU_DISCOVER", 0, 5),
    (socket.IPPROTO_IP, IP_RECVERR): _flag("IP_RECVERR"),
    (socket.IPPROTO_IP, IP_MULTICAST_ALL): Option("IP_MULTICAST_ALL", 0, 1),
    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS): Option("IPV6_TCLASS", -1, 255, _or(0)),
    (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS): Option("IPV6_UNICAST_HOPS", -1, 255),
    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS): Option("IPV6_MULTICAST_HOPS", -1, 255, _or(1)),
    (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER): Option("IPV6_MTU_DISCOVER", 0, 5),
    (socket.IPPROTO_IPV6, IPV6_RECVERR): _flag("IPV6_RECVERR"),
    (socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL): _flag("IPV6_MULTICAST_ALL"),
    (socket.IPPROTO_UDP, UDP_NO_CHECK6_RX): _flag("UDP_NO_CHECK6_RX"),
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
#: Options beyond the host's limits: each with the one that they set.
FORCED = {
    (socket.SOL_SOCKET, SO_RCVBUFFORCE): (socket.SOL_SOCKET, socket.SO_RCVBUF),
    (socket.SOL_SOCKET, SO_SNDBUFFORCE): (socket.SOL_SOCKET, socket.SO_SNDBUF),
}
#: Options all of whose bits count.
UNSIGNED = {(socket.SOL_SOCKET, socket.SO_MARK), (socket.SOL_SOCKET, socket.SO_PRIORITY)}
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


def value_of(level: int, value: Any) -> int:
    """An option's value as a number; bytes begin with a C int, or are one number of a byte for IPPROTO_IP.

    Raises OSError(EINVAL) for too few of them.
    """
    if isinstance(value, int):
        return int(value)
    try:
        raw = bytes(value)
    except TypeError:
        raise TypeError(f"an option's value is an int or the bytes of a C int, not {value!r}") from None
    if len(raw) >= 4:
        return int(struct.unpack("=i", raw[:4])[0])
    if level == socket.IPPROTO_IP and raw:
        return raw[0]
    raise OSError(errno.EINVAL, f"an option's value is a C int of 4 bytes, not {len(raw)}")


def hand_over(shadow: socket.socket | None, level: int, name: int, value: Any) -> None:
    """Set one of OF_KERNEL. Raises OSError as setsockopt(2) does; ENOPROTOOPT without a kernel socket."""
    if shadow is None:
        raise OSError(errno.ENOPROTOOPT, f"{OF_KERNEL[level, name]} is a kernel socket's, and reserve=False has none")
    shadow.setsockopt(level, name, value)


def settle(shadow: socket.socket | None, family: Family, level: int, name: int, value: Any, sysctl: Sysctl) -> int:
    """Set the option where it is judged; the value that it then has, -1 = BY_ROUTE. Raises OSError as setsockopt(2) does."""
    wanted = option(level, name)
    if family == 4 and level == socket.IPPROTO_IPV6:
        raise OSError(errno.ENOPROTOOPT, f"{wanted.name} is of IPv6 sockets")
    value = value_of(level, value)
    if shadow is None:
        if (level, name) == (socket.SOL_SOCKET, socket.SO_MARK):
            value &= 2**32 - 1  # a C int may have all its bits
        if not wanted.smallest <= value <= wanted.largest:
            raise OSError(errno.EINVAL, f"{wanted.name} is {wanted.smallest} to {wanted.largest}, not {value}")
        return wanted.holds(value, sysctl)
    if (level, name) in OURS:
        return int(bool(value))
    shadow.setsockopt(level, name, value if value < 2**31 else value - 2**32)
    if value == -1 and (level, name) in BY_ROUTE:
        return -1
    held = shadow.getsockopt(*read_by(level, name))
    return held & (2**32 - 1) if (level, name) in UNSIGNED else held


def read_by(level: int, name: int) -> tuple[int, int]:
    """The option that has the value of one that is set."""
    return FORCED.get((level, name), (level, name))


def held_by(shadow: socket.socket | None, family: Family, level: int, name: int) -> int | None:
    """What the kernel socket says of an option; None: it is not the one to ask. Raises OSError as getsockopt(2) does."""
    if (level, name) in FORCED:
        raise OSError(errno.ENOPROTOOPT, f"{option(level, name).name} can only be set")
    if (level, name) not in OF_KERNEL:
        option(level, name)
    if family == 4 and level == socket.IPPROTO_IPV6:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return None if shadow is None or (level, name) in OURS else shadow.getsockopt(level, name)
