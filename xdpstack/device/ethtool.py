"""ethtool, as far as it matters here: driver, queues, ring sizes, offloads, carrier. Only reads; ethtool_set.py changes.

All of it in the calling thread's network namespace.

Source: uapi/linux/ethtool.h, ioctl SIOCETHTOOL. What a driver does not answer is None.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from dataclasses import dataclass

SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO, ETHTOOL_GLINK, ETHTOOL_GRINGPARAM, ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO = 0x03, 0x0A, 0x10, 0x1B, 0x37
ETHTOOL_GFEATURES, ETHTOOL_GCHANNELS = 0x3A, 0x3C
ETHTOOL_GRXFH, UDP_V4_FLOW = 0x29, 0x02
RXH_L4_B_0_1, RXH_L4_B_2_3 = 1 << 6, 1 << 7
ETH_SS_FEATURES = 4
ETH_GSTRING_LEN = 32


@dataclass(frozen=True, slots=True)
class Driver:
    """Which driver runs the device, and on what bus."""

    name: str
    version: str
    firmware: str
    bus: str


@dataclass(frozen=True, slots=True)
class RingSizes:
    """Slots of the NIC's own rings, and the most they can have."""

    rx: int
    tx: int
    rx_max: int
    tx_max: int


@dataclass(frozen=True, slots=True)
class Channels:
    """Active queues: `combined` have a receive and a transmit side."""

    rx: int
    tx: int
    combined: int
    rx_max: int
    tx_max: int
    combined_max: int

    @property
    def receiving(self) -> int:
        """How many queues receive."""
        return self.rx + self.combined


@dataclass(frozen=True, slots=True)
class Offload:
    """One feature of `ethtool -k`. `fixed`: cannot be changed."""

    on: bool
    fixed: bool


def driver(name: str) -> Driver | None:
    """`ethtool -i`."""
    answer = _ioctl(name, struct.pack("=I32s32s32s32s32s12s5I", ETHTOOL_GDRVINFO, *(b"",) * 6, *(0,) * 5))
    if answer is None:
        return None
    _, *texts = struct.unpack_from("=I32s32s32s32s", answer)
    return Driver(*(text.partition(b"\0")[0].decode(errors="replace") for text in texts))


def ring_sizes(name: str) -> RingSizes | None:
    """`ethtool -g`."""
    answer = _ioctl(name, struct.pack("=9I", ETHTOOL_GRINGPARAM, *(0,) * 8))
    if answer is None:
        return None
    _, rx_max, _, _, tx_max, rx, _, _, tx = struct.unpack("=9I", answer)
    return RingSizes(rx, tx, rx_max, tx_max)


def channels(name: str) -> Channels | None:
    """`ethtool -l`."""
    answer = _ioctl(name, struct.pack("=9I", ETHTOOL_GCHANNELS, *(0,) * 8))
    if answer is None:
        return None
    _, rx_max, tx_max, _, combined_max, rx, tx, _, combined = struct.unpack("=9I", answer)
    return Channels(rx, tx, combined, rx_max, tx_max, combined_max)


def offloads(name: str) -> dict[str, Offload] | None:
    """`ethtool -k`, by the kernel's own names: `rx-gro`, `rx-lro`, `rx-vlan-hw-parse`, `tx-checksum-ip-generic`, ..."""
    answer = _ioctl(name, struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    if answer is None:
        return None
    count = struct.unpack_from("=I", answer, 16)[0]
    strings = _ioctl(
        name, struct.pack("=3I", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count) + bytes(count * ETH_GSTRING_LEN)
    )
    blocks = (count + 31) // 32
    states = _ioctl(name, struct.pack("=2I", ETHTOOL_GFEATURES, blocks) + bytes(blocks * 16))
    if strings is None or states is None:
        return None
    found: dict[str, Offload] = {}
    for i in range(count):
        text = struct.unpack_from("=32s", strings, 12 + i * ETH_GSTRING_LEN)[0].partition(b"\0")[0].decode()
        available, _, active, never_changed = struct.unpack_from("=4I", states, 8 + i // 32 * 16)
        bit = 1 << i % 32
        if text:
            found[text] = Offload(bool(active & bit), not available & bit or bool(never_changed & bit))
    return found


def hashes_udp_ports(name: str) -> bool | None:
    """Whether the hash that chooses a receive queue covers the ports of UDP over IPv4: `ethtool -n NAME rx-flow-hash udp4`.

    None if the driver does not say. Source: struct ethtool_rxnfc, of which this question needs the first 16 bytes.
    """
    answer = _ioctl(name, struct.pack("=IIQ", ETHTOOL_GRXFH, UDP_V4_FLOW, 0) + bytes(192 - 16))
    if answer is None:
        return None
    fields = struct.unpack_from("=Q", answer, 8)[0]
    return bool(fields & RXH_L4_B_0_1 and fields & RXH_L4_B_2_3)


def has_link(name: str) -> bool | None:
    """Whether there is a carrier now (IFF_RUNNING may come up to a second later); None if there is no such interface."""
    answer = _ioctl(name, struct.pack("=2I", ETHTOOL_GLINK, 0))
    return None if answer is None else bool(struct.unpack("=2I", answer)[1])


def request(name: str, message: bytes) -> bytes:
    """One SIOCETHTOOL with a buffer that is both request and answer. Raises OSError with the driver's or kernel's errno."""
    buffer = array.array("B", message)
    asked = struct.pack("@16sP16x", name.encode(), buffer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, asked)
    return buffer.tobytes()


def _ioctl(name: str, message: bytes) -> bytes | None:
    """As `request`; None if driver or kernel does not know the question."""
    try:
        return request(name, message)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL, errno.EPERM):
            return None
        raise
