"""How to bind a device's queues: which flags, given what was asked, what the driver declares, and the MTU. No I/O.

What cannot be granted is refused here with its cause, before the kernel refuses it with a bare EINVAL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdpstack.device.netdev import NetdevFeatures, XdpFeature
from xdpstack.device.xsk import HEADROOM_BYTES, XDP_COPY, XDP_USE_NEED_WAKEUP, XDP_USE_SG, XDP_ZEROCOPY
from xdpstack.errors import ConfigurationError, ModeRefused, MtuTooLarge

#: Ethernet header and one VLAN tag: what a frame has beyond the MTU.
FRAMING_BYTES = 14 + 4
#: The first kernel whose AF_XDP has packets of several frames (XDP_USE_SG).
SG_KERNEL = (6, 6)
#: Drivers whose frames may carry a checksum that only hardware would have completed (CHECKSUM_PARTIAL): the sender is on the
#: same machine, or on the same hypervisor.
PARAVIRTUAL = {
    "veth",
    "tun",
    "virtio_net",
    "xen-netfront",
    "vif",
    "hv_netvsc",
    "vmxnet3",
    "macvlan",
    "ipvlan",
    "bridge",
}
#: Drivers that in zero-copy tell the NIC the size of a frame's room rounded down to a multiple of this many bytes. A longer
#: packet comes cut into pieces, each a packet of its own to the driver (igb_setup_srrctl(), seen on Linux 7.3).
ZERO_COPY_STEPS = {"igb": 1024}


@dataclass(frozen=True, slots=True)
class Plan:
    """`flags` for bind(2); `why` says of each thing that was asked for and is not granted, the reason.

    `zc_max_segs`: if the kernel grants zero-copy, so many frames of a packet are sent; 0: it does not say.
    """

    flags: int
    why: dict[str, str] = field(default_factory=dict)
    zc_max_segs: int = 0


def largest_mtu(frame_bytes: int) -> int:
    """The largest MTU whose frames fit one UMEM frame each."""
    return frame_bytes - HEADROOM_BYTES - FRAMING_BYTES


def plan(
    name: str,
    mode: str,
    zero_copy: bool | None,
    features: NetdevFeatures | None,
    mtu: int,
    frame_bytes: int,
    kernel: tuple[int, int],
    driver: str = "",
    need_wakeup: bool = True,
    added: Sequence[int] = (),
) -> Plan:
    """The bind flags for an interface whose program is attached in `mode` ("native", "generic", "offloaded").

    `zero_copy`: True demands it, False refuses it, None takes what there is. Without `need_wakeup` the kernel does not say
    when it has to be told of what there is to send. `added`: those of the queues to bind that are there only while a program
    is attached. Raises ModeRefused and MtuTooLarge.
    """
    several = mtu > largest_mtu(frame_bytes)
    if several and kernel < SG_KERNEL:
        raise MtuTooLarge(
            f"the MTU of {name} is {mtu}; with frames of {frame_bytes} bytes the largest that works here is "
            f"{largest_mtu(frame_bytes)}",
            f"A packet over several frames needs Linux 6.6; this is {kernel[0]}.{kernel[1]}.",
            f"ip link set {name} mtu {largest_mtu(frame_bytes)}"
            + (f", or frame_bytes=4096 (MTU {largest_mtu(4096)})" if frame_bytes < 4096 else ""),
        )
    segments = features.zc_max_segs if features else 0
    obstacle = zero_copy_obstacle(name, mode, features, several, mtu, frame_bytes, driver, added)
    flags = (XDP_USE_NEED_WAKEUP if need_wakeup else 0) | (XDP_USE_SG if several else 0)
    if zero_copy is False:
        return Plan(flags | XDP_COPY)
    if zero_copy:
        if obstacle:
            raise ModeRefused(
                f"zero-copy is refused on {name}",
                obstacle,
                "Leave zero_copy out: copy mode works, and info() says what was granted.",
            )
        return Plan(flags | XDP_ZEROCOPY, zc_max_segs=segments)
    if obstacle:
        return Plan(flags | XDP_COPY, {"zero_copy": obstacle})
    return Plan(flags, zc_max_segs=segments)


def zero_copy_obstacle(
    name: str,
    mode: str,
    features: NetdevFeatures | None,
    several: bool,
    mtu: int,
    frame_bytes: int,
    driver: str = "",
    added: Sequence[int] = (),
) -> str:
    """Why there can be no zero-copy; empty if nothing that can be known speaks against it."""
    if mode == "generic":
        return "Generic mode runs after the kernel has made an skb, so that every frame is copied."
    if features is None:  # a kernel before 6.3
        return ""
    if XdpFeature.XSK_ZEROCOPY not in features.xdp:
        return f"The driver of {name} has no zero-copy."
    if added:
        return (
            f"Queues {', '.join(map(str, added))} are there only while a program is attached, and {driver} does not take a "
            "zero-copy socket off a queue that has gone: Linux crashes. `ethtool -L` has all queues in use beforehand, "
            "queues=[...] does without these."
        )
    step = ZERO_COPY_STEPS.get(driver, 1)
    room = (frame_bytes - HEADROOM_BYTES) // step * step
    if step > 1 and mtu + FRAMING_BYTES > room:
        larger = (4096 - HEADROOM_BYTES) // step * step - FRAMING_BYTES
        return (
            f"In zero-copy {driver} receives into steps of {step} bytes, of a frame of {frame_bytes} bytes {room}, and cuts "
            f"longer packets to pieces. frame_bytes=4096 has zero-copy up to MTU {larger}."
        )
    if several and features.zc_max_segs <= 1:
        return (
            f"The driver of {name} takes zero-copy packets in one frame only, and the MTU {mtu} needs several: "
            f"with frames of {frame_bytes} bytes the largest is {largest_mtu(frame_bytes)}."
        )
    if several and mtu + FRAMING_BYTES > features.zc_max_segs * (frame_bytes - HEADROOM_BYTES):
        largest = features.zc_max_segs * (frame_bytes - HEADROOM_BYTES) - FRAMING_BYTES
        return (
            f"The driver of {name} takes zero-copy packets in {features.zc_max_segs} frames at most, and the MTU {mtu} "
            f"needs more: with frames of {frame_bytes} bytes the largest is {largest}."
        )
    return ""


def choose_queues(name: str, asked: str | Sequence[int], active: Sequence[int]) -> tuple[int, ...]:
    """The queues to bind: all that are active, or those asked for. Raises ConfigurationError."""
    if asked == "all":
        return tuple(active)
    if isinstance(asked, str):
        raise ConfigurationError(f"queues is {asked!r}", 'It can be "all" or a list of queue numbers.', 'queues="all"')
    unknown = sorted(set(asked) - set(active))
    if unknown or not asked:
        raise ConfigurationError(
            f"{name} has no queue {', '.join(map(str, unknown)) or 'at all in queues=[]'}",
            f"Active receive queues: {', '.join(map(str, active))}.",
            f"ethtool -L {name} sets how many there are.",
        )
    return tuple(dict.fromkeys(asked))


def next_power_of_two(least: int) -> int:
    """The smallest power of two that is not below `least`."""
    return 1 << max(0, least - 1).bit_length()
