"""Which of the host's addresses a sender gets that has chosen none.

IPv4 takes the first address of the outgoing device that fits (inet_select_addr); IPv6 compares all candidates by the rules
of RFC 6724 (ipv6_dev_get_saddr).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from xdpstack.netlink import Address, Prefix, packed
from xdpstack.netlink.ip import ANY
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    IFA_F_DEPRECATED,
    IFA_F_HOMEADDRESS,
    IFA_F_OPTIMISTIC,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
)

if TYPE_CHECKING:
    from xdpstack.routing.tables import Device

SCOPE_GLOBAL, SCOPE_SITE, SCOPE_LINK, SCOPE_NODE, SCOPE_NONE = 14, 5, 2, 1, -1  # IPV6_ADDR_SCOPE_*
LABELS: Final = tuple(
    (Prefix.parse(prefix), label)
    for prefix, label in (
        ("::1/128", 0),
        ("::/96", 3),
        ("::ffff:0:0/96", 4),
        ("2001::/32", 6),
        ("2001:10::/28", 7),
        ("3ffe::/16", 12),
        ("2002::/16", 2),
        ("fec0::/10", 11),
        ("fc00::/7", 5),
        ("::/0", 1),
    )
)
"""The policy table (RFC 6724 2.1) as the kernel has it from the start, the longest prefix first (ip6addrlbl_init_table)."""
ORCHID: Final = Prefix.parse("2001:10::/28")


def inet_select_addr(devices: "Mapping[int, Device]", index: int, towards: bytes, scope: int) -> bytes:
    """The IPv4 source for device `index`: an address whose scope is not narrower than `scope`.

    Of the device's primary addresses the one whose prefix holds `towards` (when that is given), else the first; if it has
    none, one of another device, loopback's among them. Empty if there is none anywhere.
    """
    device = devices.get(index)
    first = b""
    if device is not None:
        widest = RT_SCOPE_LINK if device.route_localnet else RT_SCOPE_HOST
        for address in device.addresses[AF_INET]:
            if address.is_secondary or min(address.scope, widest) > scope:
                continue
            if towards == ANY[AF_INET] or towards in address.prefix:
                return address.local
            first = first or address.local
    if first:
        return first
    for other in devices.values():
        for address in other.addresses[AF_INET]:
            if not address.is_secondary and address.scope != RT_SCOPE_LINK and address.scope <= scope:
                return address.local
    return b""


def ipv6_dev_get_saddr(devices: "Mapping[int, Device]", index: int, destination: bytes) -> bytes | None:
    """The IPv6 source towards `destination` through device `index` (0: not known yet), or None: EADDRNOTAVAIL.

    The best candidate by RFC 6724 section 5, the first of those that tie.
    """
    label = label_of(destination)
    best: tuple[tuple[int, ...], bytes] | None = None
    for device, address in candidates(devices, index, destination):
        score = rate(device, address, index, destination, label)
        if best is None or score > best[0]:
            best = score, address.local
    return best[1] if best else None


def candidates(devices: "Mapping[int, Device]", index: int, destination: bytes) -> "Iterator[tuple[Device, Address]]":
    """The candidate set of RFC 6724 section 4: of the outgoing device alone for destinations on its link."""
    outgoing = devices.get(index)
    chosen = devices.values()
    if outgoing is not None and (
        destination[0] == 0xFF or scope_of(destination) <= SCOPE_LINK or outgoing.use_oif_addrs_only
    ):
        chosen = {index: outgoing}.values()
    for device in chosen:
        for address in device.addresses[AF_INET6]:
            if address.flags & IFA_F_TENTATIVE and not address.flags & IFA_F_OPTIMISTIC:
                continue
            if address.local != ANY[AF_INET6] and address.local[0] != 0xFF:
                yield device, address


def rate(device: "Device", address: Address, index: int, destination: bytes, label: int) -> tuple[int, ...]:
    """The rules of RFC 6724 section 5 in their order, each as a number of which the larger is better."""
    own, flags = address.local, address.flags
    scope, wanted = scope_of(own), scope_of(destination)
    avoid = IFA_F_DEPRECATED | (0 if device.use_optimistic else IFA_F_OPTIMISTIC)
    temporary_preferred = device.use_tempaddr >= 2
    return (
        own == destination,  # 1: the same address
        -scope if scope >= wanted else scope - 128,  # 2: appropriate scope: the narrowest that reaches
        is_special(own) or not flags & avoid,  # 3: not deprecated
        bool(flags & IFA_F_HOMEADDRESS),  # 4: a home address
        not index or index == device.index,  # 5: of the outgoing device
        label_of(own) == label,  # 6: matching label
        bool(flags & IFA_F_TEMPORARY) == temporary_preferred,  # 7: public, or temporary where that is wanted
        (own in ORCHID) == (destination in ORCHID),
        min(common_bits(own, destination), address.prefix_length),  # 8: longest matching prefix
        not flags & IFA_F_OPTIMISTIC,
    )


def scope_of(address: bytes) -> int:
    """IPV6_ADDR_SCOPE_* of an address (__ipv6_addr_type)."""
    if address[0] == 0xFF:
        return address[1] & 0x0F
    if address[0] == 0xFE:
        if address[1] & 0xC0 == 0x80:
            return SCOPE_LINK
        if address[1] & 0xC0 == 0xC0:
            return SCOPE_SITE
    if address == packed("::1"):
        return SCOPE_LINK
    return SCOPE_NONE if address == ANY[AF_INET6] else SCOPE_GLOBAL


def is_special(address: bytes) -> bool:
    """Loopback, IPv4-mapped or IPv4-compatible: preferred whatever its flags (ipv6_saddr_preferred)."""
    return address != ANY[AF_INET6] and (address[:12] == bytes(12) or address[:12] == bytes(10) + b"\xff\xff")


def label_of(address: bytes) -> int:
    """The label of an address in the policy table."""
    return next(label for prefix, label in LABELS if address in prefix)


def common_bits(one: bytes, other: bytes) -> int:
    """How many leading bits are the same (ipv6_addr_diff)."""
    return 128 - (int.from_bytes(one) ^ int.from_bytes(other)).bit_length()
