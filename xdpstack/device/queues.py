"""Which receive queues of a device are active, by whichever way the kernel tells."""

from __future__ import annotations

from xdpstack.device import ethtool, netdev
from xdpstack.device.sysfs import queue_numbers


def active_queues(name: str, ifindex: int) -> list[int]:
    """The numbers of the active receive queues, in the calling thread's namespace."""
    told = netdev.rx_queues(ifindex)
    if told:
        return [queue.number for queue in told]
    channels = ethtool.channels(name)
    if channels is not None and channels.receiving:
        return list(range(channels.receiving))
    return queue_numbers(name) or [0]
