"""What a socket is bound to; which cannot be bound together, where no kernel socket says so (`reserve=False`)."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from xdpstack.device.backend import Device
from xdpstack.errors import ConfigurationError
from xdpstack.udp.address import bare, mapped, unpacked
from xdpstack.udp.semantics import Bound, keys

#: Ports that are given out when none is asked for (net.ipv4.ip_local_port_range).
EPHEMERAL = range(32768, 61000)


def conflict(bound: Bound, others: Iterable[Bound]) -> Bound | None:
    """One of `others` that `bound` would take datagrams from, as inet_rcv_saddr_equal() sees it; None when there is none."""
    for other in others:
        same_device = None in (other.device, bound.device) or other.device == bound.device
        same = same_device and other.vlan == bound.vlan
        if other.port == bound.port and same and _overlap(other, bound):
            return other
    return None


def with_free_port(bound: Bound, others: Sequence[Bound]) -> Bound:
    """`bound` with a port at which it is in nobody's way. Raises OSError(EADDRINUSE) when there is none."""
    for port in random.sample(EPHEMERAL, len(EPHEMERAL)):
        free = replace(bound, port=port)
        if conflict(free, others) is None:
            return free
    raise OSError(errno.EADDRINUSE, "no free port")


def text(bound: Bound) -> str:
    """For a message."""
    host, port, *_ = unpacked(bound.address, bound.port, bound.family)
    return f"{host} port {port}"


def _overlap(one: Bound, other: Bound) -> bool:
    """Whether both would be found under one address, or one of them under every address of the other's family."""
    mine, theirs = set(keys(one)), set(keys(other))
    if mine & theirs:
        return True
    return any(_any(address) in mine for address in theirs) or any(_any(address) in theirs for address in mine)


def _any(address: bytes) -> bytes:
    """The wildcard of an address's family, 16 bytes."""
    return mapped(bytes(len(bare(address))))


def device_of(devices: Sequence[Device], name: str | None, scope: int) -> int | None:
    """The stack index of the device a socket is bound to: by the scope of a link-local address, or else by name.

    None: any. Raises ConfigurationError.
    """
    if name is None and not scope:
        return None
    for device in devices:
        if device.ifindex == scope or (not scope and device.name == name):
            return device.index
    have = ", ".join(device.name for device in devices)
    raise ConfigurationError(f"device {scope or name} is not of this stack", fix=f"It has: {have}.")
