"""VLAN tags that are taken off a frame before XDP sees it: whether they may be, and what helps.

A tagged frame then looks like an untagged one, and is lifted by claims on untagged frames; unless the program asks the
device for the tag (metadata=("vlan",), docs/vlan.md).
"""

from __future__ import annotations

from collections.abc import Collection

from xdpstack.device import ethtool, netdev
from xdpstack.device.netdev import RxMetadata

#: The kernel's names for taking tags off: of 802.1Q, and of 802.1ad.
STRIPPING = ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")


def tags_taken_off(name: str, ifindex: int, kind: str, mode: str, hints: Collection[str]) -> str:
    """Why tags may not be seen on a device of the driver `kind`, and what helps; empty if all are.

    `hints`: what the program asks the device. In the calling thread's network namespace.
    """
    features = ethtool.offloads(name) or {}
    on = [each for each in STRIPPING if each in features and features[each].on]
    if "vlan" in hints or mode == "transmit only" or not (on or kind == "veth"):
        return ""
    given = netdev.features(ifindex) if mode == "native" else None
    asks = given is not None and given.rx_metadata is not None and RxMetadata.VLAN_TAG in given.rx_metadata
    whose = "the sender has put beside the frame is" if kind == "veth" else f"{name} takes off ({', '.join(on)}) is"
    cures = ['metadata=("vlan",) asks for it'] if asks else []
    if kind == "veth":
        cures.append("ethtool -K PEER tx-vlan-hw-insert off")
    else:
        cures.append(f"Tuning(vlan_stripping=False), or ethtool -K {name} {' '.join(f'{each} off' for each in on)}")
    return f"A tag that {whose} not seen, and the frame counts as untagged: {'; or '.join(cures)}."
