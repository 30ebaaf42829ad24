"""What a socket option does to our side of a socket, and what one is that nobody has set."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpstack.native import lib
from xdpstack.udp import groups, native
from xdpstack.udp.options import (
    IP_MTU_DISCOVER,
    IP_MULTICAST_ALL,
    IP_RECVERR,
    IPV6_MTU_DISCOVER,
    IPV6_MULTICAST_ALL,
    IPV6_RECVERR,
    PMTUDISC_DONT,
    PMTUDISC_WANT,
    SO_RCVBUFFORCE,
    SO_RXQ_OVFL,
    SO_SNDBUFFORCE,
    SO_TIMESTAMPNS,
    UDP_NO_CHECK6_RX,
)
from xdpstack.udp.semantics import Family, only_joined

if TYPE_CHECKING:
    from xdpstack.udp.endpoint import Endpoint

SOL, IP, IP6 = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6

#: Options that are a field of what is sent: option -> (field of struct xs_socket_sending).
FIELDS = {
    (SOL, socket.SO_SNDBUF): "sndbuf",
    (SOL, SO_SNDBUFFORCE): "sndbuf",
    (SOL, socket.SO_MARK): "mark",
    (SOL, socket.SO_PRIORITY): "priority",
    (IP, socket.IP_TOS): "tos",
    (IP, socket.IP_TTL): "ttl",
    (IP, socket.IP_MULTICAST_TTL): "multicast_ttl",
    (IP, IP_MTU_DISCOVER): "discover",
    (IP6, socket.IPV6_TCLASS): "tclass",
    (IP6, socket.IPV6_UNICAST_HOPS): "hops",
    (IP6, socket.IPV6_MULTICAST_HOPS): "multicast_hops",
}
#: TC_PRIO_*: best effort, bulk, interactive, interactive bulk; by two bits of the type of service (ip_tos2prio).
TOS_PRIORITY = (0, 2, 6, 4)
#: Options whose value is not always the last that was set.
HELD_HERE = {(SOL, socket.SO_PRIORITY), (SOL, socket.SO_MARK), (IP, socket.IP_TOS)}
#: Options that are a flag.
FLAGS = {
    (SOL, SO_TIMESTAMPNS): lib.XS_SOCKET_STAMP,
    (SOL, SO_RXQ_OVFL): lib.XS_SOCKET_RXQ_OVFL,
    (IP, IP_RECVERR): lib.XS_SOCKET_RECVERR,
    (IP6, IPV6_RECVERR): lib.XS_SOCKET_RECVERR_6,
    (socket.IPPROTO_UDP, UDP_NO_CHECK6_RX): lib.XS_SOCKET_NO_CHECK6_RX,
}
#: Flags by which each datagram is marked as it is queued (XS_SOCKET_MARKS).
MARKS = (lib.XS_SOCKET_STAMP, lib.XS_SOCKET_RXQ_OVFL)
#: IPV6_DEFAULT_HOPLIMIT
HOP_LIMIT = 64
RECEIVE_BUFFER = {(SOL, socket.SO_RCVBUF), (SOL, SO_RCVBUFFORCE)}
#: Options that name the device which multicast leaves by.
MULTICAST_DEVICE = {(IP, socket.IP_MULTICAST_IF), (IP6, socket.IPV6_MULTICAST_IF)}
#: Options that say whether the socket takes what comes to groups that it has not joined.
EVERY_GROUP: dict[tuple[int, int], Family] = {(IP, IP_MULTICAST_ALL): 4, (IP6, IPV6_MULTICAST_ALL): 6}


def apply(one: Endpoint, level: int, name: int, value: Any) -> bool:
    """Take over an option that now has `value`. True when the lookup has to know: publish."""
    key = (level, name)
    if key in groups.CHANGES:
        one.bound = replace(one.bound, groups=groups.changed(one, level, name, value))
        return True
    if key in EVERY_GROUP:
        others, only = only_joined(one.bound) - {EVERY_GROUP[key]}, () if value else (EVERY_GROUP[key],)
        one.bound = replace(one.bound, only_joined=others.union(only))
        return True
    if key in RECEIVE_BUFFER:
        one.resize(value)
    elif key == (IP, socket.IP_TOS):
        native.set_sending(one.pointer, priority=_priority(one, value), tos=value & 0xFF)
    elif key in FIELDS:
        native.set_sending(one.pointer, **{FIELDS[key]: value})
    elif key in MULTICAST_DEVICE:
        native.set_sending(one.pointer, kernel_multicast=1)
    elif key in FLAGS and FLAGS[key] in MARKS and value:
        one.view.mark(FLAGS[key])
    elif key in FLAGS:
        lib.xs_socket_set_flags(one.pointer, *((FLAGS[key], 0) if value else (0, FLAGS[key])))
        if FLAGS[key] == lib.XS_SOCKET_NO_CHECK6_RX:
            one.bound = replace(one.bound, no_check6_rx=bool(value))
            return True
    return False


def _priority(one: Endpoint, tos: int) -> int:
    """SO_PRIORITY once IP_TOS was set: __ip_sock_set_tos(), rt_tos2priority()."""
    if one.shadow is not None:
        return one.shadow.getsockopt(SOL, socket.SO_PRIORITY) & (2**32 - 1)
    now = lib.xs_socket_sending(one.pointer)
    return int(now.priority) if tos == now.tos else TOS_PRIORITY[tos >> 3 & 3]


def default(one: Endpoint, level: int, name: int) -> int:
    """The value of an option that was not set and that no kernel socket can be asked for."""
    key = (level, name)
    if key in RECEIVE_BUFFER:
        return one.stats()["rcvbuf"]
    if key in EVERY_GROUP:
        return int(EVERY_GROUP[key] not in only_joined(one.bound))
    if key in FLAGS:
        return int(bool(lib.xs_socket_flags(one.pointer) & FLAGS[key]))
    if key == (IP6, IPV6_MTU_DISCOVER):
        return PMTUDISC_WANT
    if key in FIELDS:
        value = int(getattr(lib.xs_socket_sending(one.pointer), FIELDS[key]))
        if value < 0:
            return one.host.sysctl("ipv4.ip_default_ttl") if FIELDS[key] == "ttl" else HOP_LIMIT
        return value - 2**32 if key in HELD_HERE and value >= 2**31 else value
    return 0


def discovery(one: Endpoint) -> int:
    """IP_MTU_DISCOVER of a new socket: net.ipv4.ip_no_pmtu_disc turns it off (inet_create)."""
    if one.shadow is not None:
        return one.shadow.getsockopt(IP, IP_MTU_DISCOVER)
    return PMTUDISC_DONT if one.host.sysctl("ipv4.ip_no_pmtu_disc") else PMTUDISC_WANT
