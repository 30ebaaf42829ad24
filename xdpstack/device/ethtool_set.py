"""ethtool, the half that changes a device: channels, ring sizes, features, receive hashing, n-tuple rules.

All of it in the calling thread's network namespace. What changes a device raises OSError with the errno of driver or kernel
(EOPNOTSUPP: it has no such thing; EINVAL, ERANGE, EBUSY: not this, or not now) and leaves it as it was. Values are the
kernel's: who asks for something else than the driver can do may be given less, so read back.

By ioctl and not by netlink: of what is changed here pyroute2's ethtool family has a message for ring sizes alone, and takes
the ioctl for the rest; RSS and n-tuple rules it does not have. Its sockets are not used anyway (ADR 0002).
Source: uapi/linux/ethtool.h, net/ethtool/ioctl.c.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from xdpstack.device.ethtool import (
    ETH_GSTRING_LEN,
    ETH_SS_FEATURES,
    ETHTOOL_GCHANNELS,
    ETHTOOL_GRINGPARAM,
    ETHTOOL_GRXFH,
    ETHTOOL_GSSET_INFO,
    ETHTOOL_GSTRINGS,
    UDP_V4_FLOW,
    request,
)

ETHTOOL_SRINGPARAM, ETHTOOL_SCHANNELS, ETHTOOL_SFEATURES = 0x11, 0x3D, 0x3B
ETHTOOL_SRXFH, ETHTOOL_GRSSH, ETHTOOL_SRSSH = 0x2A, 0x46, 0x47
ETHTOOL_GRXCLSRLCNT, ETHTOOL_GRXCLSRULE, ETHTOOL_GRXCLSRLALL = 0x2E, 0x2F, 0x30
ETHTOOL_SRXCLSRLDEL, ETHTOOL_SRXCLSRLINS = 0x31, 0x32
ETH_RXFH_INDIR_NO_CHANGE = 0xFFFFFFFF
RX_CLS_LOC_SPECIAL = 0x80000000

#: Flow types whose hash fields can be chosen, by the names of ethtool(8).
FLOWS = {"tcp4": 0x01, "udp4": UDP_V4_FLOW, "sctp4": 0x03, "tcp6": 0x05, "udp6": 0x06, "sctp6": 0x07}
#: Fields that a hash may cover, by the letters of ethtool(8): RXH_*.
FIELDS = {"m": 1 << 1, "v": 1 << 2, "t": 1 << 3, "s": 1 << 4, "d": 1 << 5, "f": 1 << 6, "n": 1 << 7}

_FOUR = struct.Struct("=9I")  # struct ethtool_channels and ethtool_ringparam: cmd, four maxima, four values
_RXFH = struct.Struct("=4I8s")  # cmd, context, size of table, size of key; hash function, transform, reserved
_NFC = struct.Struct("=IIQ168sI4x")  # struct ethtool_rxnfc: cmd, flow type, data, rule, count
_RULE = struct.Struct("=I52s20s52s20s4xQI4x")  # struct ethtool_rx_flow_spec
_IPV4 = struct.Struct("!4s4sHHB39x")  # struct ethtool_tcpip4_spec in its union of 52 bytes
_IPV6 = struct.Struct("!16s16sHHB15x")


def set_channels(name: str, rx: int, tx: int, combined: int) -> None:
    """`ethtool -L`: how many queues of each kind are active. Other channels stay."""
    values = list(_FOUR.unpack(request(name, _FOUR.pack(ETHTOOL_GCHANNELS, *(0,) * 8))))
    values[0], values[5], values[6], values[8] = ETHTOOL_SCHANNELS, rx, tx, combined
    request(name, _FOUR.pack(*values))


def set_ring_sizes(name: str, rx: int, tx: int) -> None:
    """`ethtool -G`: slots of the NIC's own rings. Its rings for small and jumbo frames stay."""
    values = list(_FOUR.unpack(request(name, _FOUR.pack(ETHTOOL_GRINGPARAM, *(0,) * 8))))
    values[0], values[5], values[8] = ETHTOOL_SRINGPARAM, rx, tx
    request(name, _FOUR.pack(*values))


def set_feature(name: str, feature: str, on: bool) -> None:
    """`ethtool -K`, by the kernel's own names (`rx-gro`). Raises OSError (EOPNOTSUPP) for a feature there is not."""
    answer = request(name, struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    count = struct.unpack_from("=I", answer, 16)[0]
    strings = request(
        name, struct.pack("=3I", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count) + bytes(count * ETH_GSTRING_LEN)
    )
    names = [strings[12 + i * ETH_GSTRING_LEN :][:ETH_GSTRING_LEN].partition(b"\0")[0].decode() for i in range(count)]
    if feature not in names:
        raise OSError(errno.EOPNOTSUPP, f"no feature {feature}")
    number = names.index(feature)
    blocks = [[0, 0] for _ in range((count + 31) // 32)]
    blocks[number // 32] = [1 << number % 32, int(on) << number % 32]  # valid, requested
    request(
        name,
        struct.pack("=2I", ETHTOOL_SFEATURES, len(blocks)) + b"".join(struct.pack("=2I", *block) for block in blocks),
    )


@dataclass(frozen=True, slots=True)
class Rss:
    """How received packets are spread: `table` has a queue for each value of the hash's low bits, `key` is the hash's."""

    table: tuple[int, ...]
    key: bytes


def rss(name: str) -> Rss:
    """`ethtool -x`. Raises OSError (EOPNOTSUPP) where there is no such table."""
    _, _, _, table, key = _rss(name)
    return Rss(table, key)


def set_rss(name: str, table: tuple[int, ...] | None = None, key: bytes | None = None) -> None:
    """`ethtool -X`: another table (empty: the driver's default one), another key; None leaves it."""
    context, tail, size, _, _ = _rss(name)
    entries = size if table is None else len(table)
    head = (ETHTOOL_SRSSH, context, ETH_RXFH_INDIR_NO_CHANGE if table is None else entries, len(key or b""))
    # hash function 0 is "no change"; the transform behind it has no such value on old kernels, and is given as it was read
    values = struct.pack(f"={len(table)}I", *table) if table else b""
    request(name, _RXFH.pack(*head, b"\0" + tail[1:2] + bytes(6)) + values + (key or b""))


def _rss(name: str) -> tuple[int, bytes, int, tuple[int, ...], bytes]:
    sizes = request(name, _RXFH.pack(ETHTOOL_GRSSH, 0, 0, 0, bytes(8)))
    _, _, size, key_size, _ = _RXFH.unpack_from(sizes)
    answer = request(name, _RXFH.pack(ETHTOOL_GRSSH, 0, size, key_size, bytes(8)) + bytes(4 * size + key_size))
    _, context, _, _, tail = _RXFH.unpack_from(answer)
    table = struct.unpack_from(f"={size}I", answer, _RXFH.size)
    return context, tail, size, table, answer[_RXFH.size + 4 * size :][:key_size]


def hash_fields(name: str, flow: str) -> int:
    """`ethtool -n NAME rx-flow-hash FLOW`: which fields the hash covers, bits of FIELDS. `flow` is a name of FLOWS."""
    answer = request(name, _NFC.pack(ETHTOOL_GRXFH, FLOWS[flow], 0, bytes(168), 0))
    return int(_NFC.unpack(answer)[2])


def set_hash_fields(name: str, flow: str, fields: int) -> None:
    """`ethtool -N NAME rx-flow-hash FLOW FIELDS`."""
    request(name, _NFC.pack(ETHTOOL_SRXFH, FLOWS[flow], fields, bytes(168), 0))


def fields_text(fields: int) -> str:
    """Bits of FIELDS as the letters of ethtool(8)."""
    return "".join(letter for letter, bit in FIELDS.items() if fields & bit)


# ---- n-tuple rules ----


def udp_rule(address: IPv4Address | IPv6Address, port: int, queue: int, location: int) -> bytes:
    """A rule, struct ethtool_rx_flow_spec: UDP to `address` (unspecified: any) and `port` goes to `queue`."""
    packed = address.packed
    mask = bytes(len(packed)) if address.is_unspecified else b"\xff" * len(packed)
    layout, flow = (_IPV4, "udp4") if isinstance(address, IPv4Address) else (_IPV6, "udp6")
    value = layout.pack(bytes(len(packed)), packed, 0, port, 0)
    wanted = layout.pack(bytes(len(packed)), mask, 0, 0xFFFF, 0)
    return _RULE.pack(FLOWS[flow], value, bytes(20), wanted, bytes(20), queue, location)


def rule_locations(name: str) -> tuple[list[int], int]:
    """Where there are rules, and how many there can be (0: not said). Raises OSError (EOPNOTSUPP) if there can be none."""
    count = _NFC.unpack(request(name, _NFC.pack(ETHTOOL_GRXCLSRLCNT, 0, 0, bytes(168), 0)))
    used, size = count[4], count[2] & (RX_CLS_LOC_SPECIAL - 1)
    if not used:
        return [], size
    answer = request(name, _NFC.pack(ETHTOOL_GRXCLSRLALL, 0, 0, bytes(168), used)[:188] + bytes(4 * used + 4))
    return sorted(struct.unpack_from(f"={used}I", answer, 188)), size


def rule(name: str, location: int) -> bytes | None:
    """The rule there; None if there is none."""
    empty = _RULE.pack(0, bytes(52), bytes(20), bytes(52), bytes(20), 0, location)
    try:
        return bytes(_NFC.unpack(request(name, _NFC.pack(ETHTOOL_GRXCLSRULE, 0, 0, empty, 0)))[3])
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise


def insert_rule(name: str, spec: bytes) -> None:
    """`ethtool -N NAME flow-type ...`; the location is in `spec`."""
    request(name, _NFC.pack(ETHTOOL_SRXCLSRLINS, 0, 0, spec, 0))


def delete_rule(name: str, location: int) -> None:
    """`ethtool -N NAME delete LOCATION`."""
    empty = _RULE.pack(0, bytes(52), bytes(20), bytes(52), bytes(20), 0, location)
    request(name, _NFC.pack(ETHTOOL_SRXCLSRLDEL, 0, 0, empty, 0))
