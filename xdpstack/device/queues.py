"""Which receive queues of a device are active, by whichever way the kernel tells."""

from __future__ import annotations

import time
from collections.abc import Collection

from xdpstack.device import ethtool, netdev
from xdpstack.device.sysfs import queue_numbers

#: How long a queue is waited for whose socket was closed, and how often it is looked at, in seconds.
RELEASE_SECONDS, LOOK_SECONDS = 2.0, 0.002


def active_queues(name: str, ifindex: int) -> list[int]:
    """The numbers of the active receive queues, in the calling thread's namespace."""
    told = netdev.rx_queues(ifindex)
    if told:
        return [queue.number for queue in told]
    channels = ethtool.channels(name)
    if channels is not None and channels.receiving:
        return list(range(channels.receiving))
    return queue_numbers(name) or [0]


def queues_released(ifindex: int, queues: Collection[int]) -> bool:
    """Wait until the kernel has let go of all these queues, whose sockets were closed, for at most RELEASE_SECONDS.

    It does so by work of its own (xp_release_deferred()), and only that takes them from the driver. Whether it has; what
    the kernel does not tell (before Linux 6.13, or of a device that is down) counts as that.
    """
    deadline = time.monotonic() + RELEASE_SECONDS
    while any(queue.xsk and queue.number in queues for queue in netdev.rx_queues(ifindex) or ()):
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def not_bound(name: str, ifindex: int, queues: Collection[int], mode: str) -> str:
    """What becomes of frames that come by active queues that are not bound; empty if nothing does."""
    others = [queue for queue in active_queues(name, ifindex) if queue not in queues]
    if not others or mode == "transmit only":
        return ""
    return (
        f"What comes by queue {', '.join(map(str, others))} is the kernel's, claimed or not "
        '(counter xdp.rx.pass_no_socket): queues="all" binds all; or have flows steered to those (docs/tuning.md).'
    )
