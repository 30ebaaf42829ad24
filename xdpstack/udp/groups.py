"""The multicast groups that a socket has joined, as its kernel socket has them.

The host receives what any socket has joined; each socket's own memberships say whether it gets it (semantics.takes_group()).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xdpstack.native import lib
from xdpstack.udp.address import mapped

if TYPE_CHECKING:
    from xdpstack.udp.endpoint import Endpoint

#: Options that join or leave: by how much they change the number of memberships.
CHANGES = {
    (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP): 1,
    (socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP): -1,
    (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP): 1,
    (socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP): -1,
}


def changed(one: Endpoint, level: int, name: int, value: Any) -> frozenset[tuple[bytes, int | None]]:
    """What `one` has joined, now that its kernel socket took `value` (struct ip_mreq, ip_mreqn or ipv6_mreq).

    Of IPv4 the kernel is asked by which of the stack's devices: the value may leave the choice to it. Over IPv6 it makes no
    difference to a socket by which device it has joined, so that they are counted.
    """
    if level == socket.IPPROTO_IPV6:
        group = bytes(value[:16])
        one.joined[group] += CHANGES[level, name]
        now: Iterable[int | None] = (None,) * (one.joined[group] > 0)
    else:
        bare, fd = bytes(value[:4]), -1 if one.shadow is None else one.shadow.fileno()
        group = mapped(bare)
        now = [device.index for device in one.host.devices if lib.xs_shadow_is_member(fd, bare, device.ifindex)]
    others = {each for each in one.bound.groups if each[0] != group}
    return frozenset(others | {(group, device) for device in now})
