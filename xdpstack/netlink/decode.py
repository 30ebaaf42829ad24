"""rtnetlink messages to values: one function per message, bytes in, a frozen value out, no I/O.

A message is a header (struct nlmsghdr), a fixed body, and attributes: length, type and payload, padded to four bytes
(rtnetlink(7)). `attributes()` splits them into a dictionary; the rest is reading numbers out of it. Numbers of the
kernel are in the machine's byte order, addresses in network order, ports of rules in the machine's.

Each function raises struct.error, IndexError, KeyError or ValueError on a message that is not what it says it is; the
mirror takes any of them as doubt and dumps again. `tests/netlink/test_decode.py` holds every function against
pyroute2's decoding of the same messages.
"""

import struct
from collections.abc import Iterator
from typing import Final

from xdpstack.netlink.address import Address
from xdpstack.netlink.ip import ANY, Prefix
from xdpstack.netlink.link import Link
from xdpstack.netlink.neighbour import Neighbour
from xdpstack.netlink.nexthop import Hop, NextHop
from xdpstack.netlink.route import Route
from xdpstack.netlink.rule import Range, Rule
from xdpstack.netlink.uapi import AF_INET6, FAMILIES, NTF_PROXY, RTAX_HOPLIMIT, RTAX_LOCK, RTAX_MTU, RTM_F_CLONED

HEADER: Final = struct.Struct("=IHHII")  # nlmsg_len, nlmsg_type, nlmsg_flags, nlmsg_seq, nlmsg_pid
LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
RULE: Final = struct.Struct("=BBBBBxxBI")  # family, dst_len, src_len, tos, table, action, flags
NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # family, ifindex, state, flags, type
NEXTHOP: Final = struct.Struct("=BBBxI")  # family, scope, protocol, flags
HOP: Final = struct.Struct("=HBBi")  # rtnh_len, flags, hops, ifindex
ATTRIBUTE: Final = struct.Struct("=HH")  # nla_len, nla_type
MEMBER: Final = struct.Struct("=IBBH")  # id, weight, weight_high, reserved
TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

IFLA_ADDRESS, IFLA_BROADCAST, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 2, 3, 4, 5, 10
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_GROUP, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_XDP = 16, 18, 27, 31, 32, 43
IFLA_PROP_LIST, IFLA_ALT_IFNAME = 52, 53
IFLA_INFO_KIND, IFLA_XDP_ATTACHED, IFLA_XDP_PROG_ID = 1, 2, 4
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_FLAGS, IFA_RT_PRIORITY = 1, 2, 3, 4, 8, 9
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH = 1, 2, 4, 5, 6, 7, 8, 9
RTA_FLOW, RTA_TABLE, RTA_VIA, RTA_PREF, RTA_ENCAP_TYPE, RTA_NH_ID = 11, 15, 18, 20, 21, 30
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_GOTO, FRA_PRIORITY, FRA_FWMARK, FRA_FLOW, FRA_TUN_ID = 1, 2, 3, 4, 6, 10, 11, 12
FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_FWMASK, FRA_OIFNAME, FRA_L3MDEV = 13, 14, 15, 16, 17, 19
FRA_UID_RANGE, FRA_PROTOCOL, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE, FRA_DSCP = 20, 21, 22, 23, 24, 25
FRA_FLOWLABEL, FRA_FLOWLABEL_MASK, FRA_SPORT_MASK, FRA_DPORT_MASK, FRA_DSCP_MASK = 26, 27, 28, 29, 30
NDA_DST, NDA_LLADDR = 1, 2
NHA_ID, NHA_GROUP, NHA_GROUP_TYPE, NHA_BLACKHOLE, NHA_OIF, NHA_GATEWAY, NHA_ENCAP_TYPE = 1, 2, 3, 4, 5, 6, 7
NHA_FDB = 11


def attributes(data: bytes, start: int, end: int | None = None) -> dict[int, bytes]:
    """The attributes of `data[start:end]` by type; of a type that repeats, the last. ValueError if one runs over."""
    return dict(each(data, start, end))


def each(data: bytes, start: int, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each attribute of `data[start:end]`. ValueError if one runs over."""
    stop = len(data) if end is None else end
    while start + 4 <= stop:
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > stop:
            raise ValueError(f"netlink attribute {kind & TYPE_MASK} of {length} bytes does not fit its message")
        yield kind & TYPE_MASK, data[start + 4 : start + length]
        start += length + 3 & ~3


def u32(payload: bytes | None, default: int = 0) -> int:
    """An unsigned number of 8, 16, 32 or 64 bits in the machine's order; `default` where the attribute is absent."""
    return default if payload is None else int.from_bytes(payload, NATIVE)


def s32(payload: bytes | None, default: int) -> int:
    """A signed 32-bit number in the machine's order."""
    return default if payload is None else int.from_bytes(payload, NATIVE, signed=True)


def string(payload: bytes | None) -> str:
    """A zero-terminated name."""
    return "" if payload is None else payload.partition(b"\0")[0].decode(errors="surrogateescape")


NATIVE: Final = "little" if struct.pack("=H", 1) == b"\x01\x00" else "big"


def link(message: bytes) -> Link | None:
    """RTM_NEWLINK or RTM_DELLINK; None for one that another family sends about a device (bridge ports)."""
    family, hardware, index, flags, _ = LINK.unpack_from(message, HEADER.size)
    if family:
        return None
    found = attributes(message, HEADER.size + LINK.size)
    info = attributes(found.get(IFLA_LINKINFO, b""), 0)
    xdp = attributes(found.get(IFLA_XDP, b""), 0)
    return Link(
        index,
        string(found[IFLA_IFNAME]),
        found.get(IFLA_ADDRESS, b""),
        u32(found.get(IFLA_MTU)),
        flags,
        string(info.get(IFLA_INFO_KIND)),
        u32(found.get(IFLA_MASTER)),
        u32(found.get(IFLA_LINK)),
        hardware,
        u32(found.get(IFLA_OPERSTATE)),
        found.get(IFLA_BROADCAST, b""),
        u32(found.get(IFLA_NUM_RX_QUEUES), 1),
        u32(found.get(IFLA_NUM_TX_QUEUES), 1),
        u32(found.get(IFLA_GROUP)),
        u32(xdp.get(IFLA_XDP_ATTACHED)),
        u32(xdp.get(IFLA_XDP_PROG_ID)),
        tuple(string(name) for kind, name in each(found.get(IFLA_PROP_LIST, b""), 0) if kind == IFLA_ALT_IFNAME),
    )


def address(message: bytes) -> Address | None:
    """RTM_NEWADDR or RTM_DELADDR; None for a family that is not IP."""
    family, prefix_length, flags, scope, index = ADDRESS.unpack_from(message, HEADER.size)
    if family not in FAMILIES:
        return None
    found = attributes(message, HEADER.size + ADDRESS.size)
    other = found[IFA_ADDRESS] if IFA_ADDRESS in found else found[IFA_LOCAL]
    local = found.get(IFA_LOCAL, other)
    return Address(
        index,
        local,
        prefix_length,
        other if other != local else b"",
        found.get(IFA_BROADCAST, b""),
        scope,
        u32(found.get(IFA_FLAGS), flags),
        u32(found.get(IFA_RT_PRIORITY)),
        string(found.get(IFA_LABEL)),
    )


def prefix(family: int, payload: bytes | None, length: int) -> Prefix:
    """The prefix of a route or rule; the kernel leaves the attribute out where the length is 0."""
    return Prefix(ANY[family] if payload is None else payload, length)


def gateway(found: dict[int, bytes]) -> bytes:
    """The gateway of a hop: of the route's family (RTA_GATEWAY), or of the other (RTA_VIA: family, address)."""
    via = found.get(RTA_VIA)
    return via[2:] if via is not None else found.get(RTA_GATEWAY, b"")


def multipath(payload: bytes) -> tuple[Hop, ...]:
    """The hops of RTA_MULTIPATH: struct rtnexthop and its attributes, one after the other."""
    hops = []
    offset = 0
    while offset + HOP.size <= len(payload):
        length, flags, weight, oif = HOP.unpack_from(payload, offset)
        if length < HOP.size or offset + length > len(payload):
            raise ValueError(f"next hop of {length} bytes does not fit its route")
        found = attributes(payload, offset + HOP.size, offset + length)
        encap, realms = u32(found.get(RTA_ENCAP_TYPE)), u32(found.get(RTA_FLOW))
        hops.append(Hop(oif, gateway(found), weight + 1, flags, encap, realms))
        offset += length + 3 & ~3
    return tuple(hops)


def route(message: bytes) -> Route | None:
    """RTM_NEWROUTE or RTM_DELROUTE; None for other families, multicast routing, and cached clones."""
    family, dst_len, src_len, tos, table, protocol, scope, kind, flags = ROUTE.unpack_from(message, HEADER.size)
    if family not in FAMILIES or flags & RTM_F_CLONED:
        return None
    found = attributes(message, HEADER.size + ROUTE.size)
    nexthop = u32(found.get(RTA_NH_ID))
    hops: tuple[Hop, ...] = ()
    if not nexthop:
        if RTA_MULTIPATH in found:
            hops = multipath(found[RTA_MULTIPATH])
        elif RTA_OIF in found:
            encap, realms = u32(found.get(RTA_ENCAP_TYPE)), u32(found.get(RTA_FLOW))
            hops = (Hop(u32(found[RTA_OIF]), gateway(found), 1, flags & 0xFF, encap, realms),)
    metrics = attributes(found.get(RTA_METRICS, b""), 0)
    return Route(
        prefix(family, found.get(RTA_DST), dst_len),
        hops,
        kind,
        u32(found.get(RTA_TABLE), table),
        u32(found.get(RTA_PRIORITY)),
        tos,
        scope,
        protocol,
        found.get(RTA_PREFSRC, b""),
        prefix(family, found[RTA_SRC], src_len) if src_len else None,
        nexthop,
        u32(metrics.get(RTAX_MTU)),
        bool(u32(metrics.get(RTAX_LOCK)) & 1 << RTAX_MTU),
        u32(metrics.get(RTAX_HOPLIMIT)),
        u32(found.get(RTA_PREF)),
    )


def rule(message: bytes) -> Rule | None:
    """RTM_NEWRULE or RTM_DELRULE; None for the rules of multicast routing."""
    family, dst_len, src_len, tos, table, action, flags = RULE.unpack_from(message, HEADER.size)
    if family not in FAMILIES:
        return None
    found = attributes(message, HEADER.size + RULE.size)
    return Rule(
        family,
        u32(found.get(FRA_PRIORITY)),
        action,
        u32(found.get(FRA_TABLE), table),
        u32(found.get(FRA_GOTO)),
        bool(flags & 0x2),
        prefix(family, found.get(FRA_SRC), src_len) if src_len else None,
        prefix(family, found.get(FRA_DST), dst_len) if dst_len else None,
        string(found.get(FRA_IIFNAME)),
        string(found.get(FRA_OIFNAME)),
        u32(found.get(FRA_FWMARK)),
        u32(found.get(FRA_FWMASK)),
        tos,
        u32(found[FRA_DSCP]) if FRA_DSCP in found else None,
        u32(found.get(FRA_DSCP_MASK), 0x3F),
        u32(found.get(FRA_IP_PROTO)),
        ports(found.get(FRA_SPORT_RANGE), found.get(FRA_SPORT_MASK)),
        ports(found.get(FRA_DPORT_RANGE), found.get(FRA_DPORT_MASK)),
        users(found.get(FRA_UID_RANGE)),
        int.from_bytes(found.get(FRA_FLOWLABEL, b"\0")),
        int.from_bytes(found.get(FRA_FLOWLABEL_MASK, b"\0")),
        int.from_bytes(found.get(FRA_TUN_ID, b"\0")),
        bool(u32(found.get(FRA_L3MDEV))),
        s32(found.get(FRA_SUPPRESS_PREFIXLEN), -1),
        s32(found.get(FRA_SUPPRESS_IFGROUP), -1),
        u32(found.get(FRA_PROTOCOL)),
        u32(found.get(FRA_FLOW)),
    )


def ports(payload: bytes | None, port_mask: bytes | None) -> Range | None:
    """Read a struct fib_rule_port_range: two 16-bit numbers in the machine's order."""
    if payload is None:
        return None
    start, end = struct.unpack("=HH", payload)
    return Range(start, end, u32(port_mask))


def users(payload: bytes | None) -> Range | None:
    """Read a struct fib_rule_uid_range; the kernel's "every user" as None."""
    if payload is None:
        return None
    start, end = struct.unpack("=II", payload)
    return None if (start, end) == (0, 0xFFFFFFFF) else Range(start, end)


def neighbour(message: bytes) -> Neighbour | None:
    """RTM_NEWNEIGH or RTM_DELNEIGH; None for proxy entries, the bridge's forwarding table, and multicast groups.

    The kernel keeps entries for groups it sends to, made without a message; their address is a function of the group.
    """
    family, index, state, flags, _ = NEIGHBOUR.unpack_from(message, HEADER.size)
    if family not in FAMILIES or flags & NTF_PROXY:
        return None
    found = attributes(message, HEADER.size + NEIGHBOUR.size)
    destination = found[NDA_DST]
    if destination[0] == 0xFF if family == AF_INET6 else destination[0] & 0xF0 == 0xE0:
        return None
    return Neighbour(index, destination, found.get(NDA_LLADDR, b""), state, flags)


def nexthop(message: bytes) -> NextHop | None:
    """RTM_NEWNEXTHOP or RTM_DELNEXTHOP."""
    family, scope, protocol, flags = NEXTHOP.unpack_from(message, HEADER.size)
    found = attributes(message, HEADER.size + NEXTHOP.size)
    members = tuple(
        (member, weight + 1 + (high << 8)) for member, weight, high, _ in MEMBER.iter_unpack(found.get(NHA_GROUP, b""))
    )
    hop = Hop(u32(found.get(NHA_OIF)), found.get(NHA_GATEWAY, b""), 1, flags & 0xFF, u32(found.get(NHA_ENCAP_TYPE)))
    resilient = u32(found.get(NHA_GROUP_TYPE)) == 1
    return NextHop(
        u32(found[NHA_ID]), hop, NHA_BLACKHOLE in found, members, resilient, NHA_FDB in found, family, protocol, scope
    )


def split(buffer: bytes) -> list[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, message with its header) of each message in what one receive returned."""
    messages = []
    offset = 0
    while offset + HEADER.size <= len(buffer):
        length, kind, flags, sequence, _ = HEADER.unpack_from(buffer, offset)
        if length < HEADER.size or offset + length > len(buffer):
            raise ValueError(f"netlink message of {length} bytes does not fit a buffer of {len(buffer)}")
        messages.append((kind, flags, sequence, buffer[offset : offset + length]))
        offset += length + 3 & ~3
    return messages
