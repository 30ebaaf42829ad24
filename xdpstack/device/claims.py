"""What a user may claim: plain values, checked when they are made.

Nothing is lifted out of the kernel until it is claimed. A claim says which frames; equal claims say the same. `vlan` None
means untagged frames, and those whose tag has a priority alone (VLAN 0): tagged ones are lifted only by a claim that names
their VLAN. (100, 200) is VLAN 200 within the service VLAN 100 (QinQ): an 802.1Q tag behind an 802.1ad one, as of a device
eth0.100.200 in Linux. Frames with a service tag alone, or with other tags, are lifted by no claim.

Socket claims are narrow: one UDP port, on the device's own MAC. The others are wide, and leave three things to the kernel
unless they name them (`include`): ARP, neighbour discovery and the host's SSH, because a machine without them is off the
network. `any_mac` lifts frames for other stations as well, which only arrive where the device is promiscuous.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from xdpstack.errors import ConfigurationError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
#: A VLAN, 1 to 4094; or (service VLAN, VLAN).
Vlan = int | tuple[int, int]

ETHERTYPE_ARP = 0x0806
LIMITED_BROADCAST = IPv4Address("255.255.255.255")


class Essential(enum.Flag):
    """What a wide claim leaves to the kernel unless it names it."""

    NOTHING = 0
    ARP = enum.auto()
    #: Neighbour and router discovery, and multicast listener discovery, which switches need to pass the former on.
    ND = enum.auto()
    #: TCP to the ports that the host's SSH server has; see `ssh.py`.
    SSH = enum.auto()


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A port of this host: `protocol` is the IP protocol's number (6 is TCP, 17 UDP)."""

    protocol: int
    port: int

    def __post_init__(self) -> None:
        _within("protocol", self.protocol, 0, 255)
        _within("port", self.port, 1, 65535)


@dataclass(frozen=True, slots=True, init=False)
class SocketClaim:
    """UDP datagrams to one of the host's addresses and a port, whole ones: fragments stay with the kernel, which joins them.

    The wildcard address (0.0.0.0, or :: for IPv6 alone) stands for all of the host's addresses of that family. A claim on an
    address that the host does not have sleeps until it has it. `broadcast` takes frames to group MACs too; on a wildcard
    that means the host's broadcast addresses and joined groups. A multicast or broadcast address implies it.
    """

    address: IPAddress
    port: int
    vlan: Vlan | None
    broadcast: bool

    def __init__(self, address: IPAddress | str, port: int, vlan: Vlan | None = None, broadcast: bool = False) -> None:
        address = _unscoped(address)
        _within("UDP port", port, 1, 65535)
        check_vlan(vlan)
        object.__setattr__(self, "address", address)
        object.__setattr__(self, "port", port)
        object.__setattr__(self, "vlan", vlan)
        object.__setattr__(self, "broadcast", bool(broadcast or is_group(address)))

    @property
    def wildcard(self) -> bool:
        """Whether all of the host's addresses are meant."""
        return self.address.is_unspecified


@dataclass(frozen=True, slots=True, init=False)
class PrefixClaim:
    """Every packet to an address of the prefix, fragments too, whether or not the address is the host's."""

    prefix: IPNetwork
    vlan: Vlan | None
    any_mac: bool
    include: Essential

    def __init__(
        self,
        prefix: IPNetwork | IPAddress | str,
        vlan: Vlan | None = None,
        any_mac: bool = False,
        include: Essential = Essential.NOTHING,
    ) -> None:
        try:
            network = ip_network(prefix)
        except ValueError as error:
            raise ConfigurationError(f"not a prefix: {error}") from None
        check_vlan(vlan)
        object.__setattr__(self, "prefix", network)
        object.__setattr__(self, "vlan", vlan)
        object.__setattr__(self, "any_mac", any_mac)
        object.__setattr__(self, "include", include)


@dataclass(frozen=True, slots=True)
class ProtocolClaim:
    """Every packet of an IP protocol, by number, over IPv4 (`family` 4), IPv6 (6) or both.

    IPv6: the protocol behind at most 8 extension headers; of a fragment, the one that its fragment header names.
    """

    protocol: int
    family: int | None = None
    vlan: Vlan | None = None
    any_mac: bool = False
    include: Essential = Essential.NOTHING

    def __post_init__(self) -> None:
        _within("IP protocol", self.protocol, 0, 255)
        if self.family not in (4, 6, None):
            raise ConfigurationError(f"family is 4, 6 or None, not {self.family!r}")
        check_vlan(self.vlan)


@dataclass(frozen=True, slots=True)
class EthertypeClaim:
    """Every frame of an ethertype, of a tagged frame that behind the tag. Claiming 0x0806 names ARP."""

    ethertype: int
    vlan: Vlan | None = None
    any_mac: bool = False
    include: Essential = Essential.NOTHING

    def __post_init__(self) -> None:
        _within("ethertype", self.ethertype, 0x600, 0xFFFF)
        if self.ethertype in (0x8100, 0x88A8):
            raise ConfigurationError(
                f"{self.ethertype:#x} is a VLAN tag, not what the frame carries", fix="Name the VLAN: vlan=..."
            )
        check_vlan(self.vlan)
        if self.ethertype == ETHERTYPE_ARP:
            object.__setattr__(self, "include", self.include | Essential.ARP)


@dataclass(frozen=True, slots=True)
class ForwardClaim:
    """Every packet to the own MAC but to none of the host's addresses, whose route may be lifted.

    For a stack that forwards, which there is not yet: the program knows the claim, no stack takes it (StackHost.claim).
    The routes are given apart, by `Claims.set_forwardable`, which tests alone call so far.
    """

    vlan: Vlan | None = None

    def __post_init__(self) -> None:
        check_vlan(self.vlan)


@dataclass(frozen=True, slots=True, init=False)
class EverythingBut:
    """Every frame but the exceptions: claims of the same VLAN, and ports of this host."""

    but: frozenset[Endpoint | PrefixClaim | ProtocolClaim | EthertypeClaim]
    vlan: Vlan | None
    any_mac: bool
    include: Essential

    def __init__(
        self,
        but: Iterable[Endpoint | PrefixClaim | ProtocolClaim | EthertypeClaim] = (),
        vlan: Vlan | None = None,
        any_mac: bool = False,
        include: Essential = Essential.NOTHING,
    ) -> None:
        check_vlan(vlan)
        exceptions = frozenset(but)
        for exception in exceptions:
            if not isinstance(exception, Endpoint | PrefixClaim | ProtocolClaim | EthertypeClaim):
                raise ConfigurationError(
                    f"an exception is a port, a prefix, a protocol or an ethertype, not {exception!r}"
                )
            if not isinstance(exception, Endpoint) and exception.vlan != vlan:
                raise ConfigurationError(f"{exception} is not in the VLAN of what it is an exception from: {vlan}")
        object.__setattr__(self, "but", exceptions)
        object.__setattr__(self, "vlan", vlan)
        object.__setattr__(self, "any_mac", any_mac)
        object.__setattr__(self, "include", include)


WideClaim = PrefixClaim | ProtocolClaim | EthertypeClaim | ForwardClaim | EverythingBut
Claim = SocketClaim | WideClaim


@dataclass(frozen=True, slots=True, init=False)
class LocalAddress:
    """An address that the host takes as its own on the device, as its local routing table has it.

    `group`: a broadcast address, or a multicast group that the host has joined.
    """

    address: IPAddress
    group: bool
    vlan: Vlan | None

    def __init__(self, address: IPAddress | str, group: bool = False, vlan: Vlan | None = None) -> None:
        address = _unscoped(address)
        check_vlan(vlan)
        object.__setattr__(self, "address", address)
        object.__setattr__(self, "group", bool(group or is_group(address)))
        object.__setattr__(self, "vlan", vlan)


def is_group(address: IPAddress) -> bool:
    """Whether the address is multicast or the limited broadcast by itself; a network's broadcast address does not show."""
    return address.is_multicast or address == LIMITED_BROADCAST


def _unscoped(address: IPAddress | str) -> IPAddress:
    """The address without a zone: claims belong to a device, which is all that a zone says."""
    try:
        parsed = ip_address(address)
    except ValueError as error:
        raise ConfigurationError(f"not an address: {error}") from None
    return IPv6Address(parsed.packed) if isinstance(parsed, IPv6Address) and parsed.scope_id else parsed


def check_vlan(vlan: Vlan | None) -> None:
    """Raises ConfigurationError unless `vlan` is a VLAN, 1 to 4094, two of them as a tuple, or None: untagged."""
    if vlan is None:
        return
    if isinstance(vlan, tuple):
        if len(vlan) != 2:
            raise ConfigurationError(f"VLAN {vlan} is none", fix="(service VLAN, VLAN): there are two tags at most.")
        for what, each in zip(("service VLAN", "VLAN"), vlan, strict=True):
            _within(what, each, 1, 4094)
        return
    if vlan == 0:
        raise ConfigurationError(
            "VLAN 0 is none: its frames have a priority alone, and count as untagged", fix="Leave vlan out."
        )
    _within("VLAN", vlan, 1, 4094)


def vlan_number(vlan: Vlan | None) -> int:
    """A VLAN as one number, 0 for untagged: service VLAN << 16 | VLAN, as xs_vlan_number() in C."""
    return vlan[0] << 16 | vlan[1] if isinstance(vlan, tuple) else vlan or 0


def vlan_of(number: int) -> Vlan | None:
    """The VLAN that `vlan_number` has made a number of."""
    return (number >> 16, number & 0xFFFF) if number >> 16 else number or None


def _within(what: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value <= high:
        raise ConfigurationError(f"{what} is {value!r}; it can be {low} to {high}")
