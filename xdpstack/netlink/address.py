"""An IP address of a device, as the kernel describes it (RTM_NEWADDR)."""

from dataclasses import dataclass

from xdpstack.netlink.ip import Prefix, family_of, packed, text
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_OPTIMISTIC,
    IFA_F_PERMANENT,
    IFA_F_SECONDARY,
    IFA_F_TENTATIVE,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
)


@dataclass(frozen=True, slots=True)
class Address:
    """One address of one device. Lifetimes are not kept: the kernel tells when an address is deprecated or gone."""

    index: int
    """The device's interface index."""
    local: bytes
    """The address itself, packed."""
    prefix_length: int
    """Bits of the prefix; of the peer's prefix where there is a peer."""
    peer: bytes = b""
    """The other end of a point-to-point address, or empty."""
    broadcast: bytes = b""
    """The broadcast address if one was assigned (IPv4), or empty."""
    scope: int = RT_SCOPE_UNIVERSE
    """RT_SCOPE_*: how far the address may be seen."""
    flags: int = IFA_F_PERMANENT
    """IFA_F_* bits."""
    metric: int = 0
    """Priority of the connected route the kernel makes for it; 0 is the family's default."""
    label: str = ""
    """The IPv4 label (`eth0:1`), or empty."""

    @classmethod
    def parse(
        cls,
        address: str,
        index: int,
        *,
        peer: str = "",
        broadcast: str = "",
        scope: int | None = None,
        flags: int = IFA_F_PERMANENT,
        metric: int = 0,
    ) -> "Address":
        """`"10.0.0.1/24"` on device `index`, with what `ip address add` would fill in.

        That is the scope from the address (host for loopback, link for fe80::/10), and for `broadcast="+"` the last
        address of the prefix if it has room for one.
        """
        local, _, length = address.partition("/")
        own = packed(local)
        peer_text, _, peer_length = peer.partition("/")
        bits = int(length or peer_length or len(own) * 8)
        if broadcast == "+":
            hosts = (1 << (32 - bits)) - 1
            last = (int.from_bytes(own) | hosts).to_bytes(4) if bits < 31 else b""
        else:
            last = packed(broadcast) if broadcast else b""
        other = packed(peer_text) if peer_text else b""
        return cls(index, own, bits, other, last, scope_of(own) if scope is None else scope, flags, metric)

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return family_of(self.local)

    @property
    def prefix(self) -> Prefix:
        """The prefix on the link: of the peer where there is one, as in the kernel's ifa_address."""
        return Prefix.of(self.peer or self.local, self.prefix_length)

    @property
    def is_secondary(self) -> bool:
        """IPv4: another address of the same prefix was there first, and is the one that routes prefer."""
        return self.family == AF_INET and bool(self.flags & IFA_F_SECONDARY)

    @property
    def is_deprecated(self) -> bool:
        """IPv6: its preferred lifetime is over; not to be chosen for new flows."""
        return bool(self.flags & IFA_F_DEPRECATED)

    @property
    def is_usable(self) -> bool:
        """False while duplicate address detection runs (unless optimistic) and after it failed."""
        tentative = self.flags & IFA_F_TENTATIVE and not self.flags & IFA_F_OPTIMISTIC
        return not tentative and not self.flags & IFA_F_DADFAILED

    def __str__(self) -> str:
        peer = f" peer {text(self.peer)}" if self.peer else ""
        return f"{text(self.local)}{peer}/{self.prefix_length} dev #{self.index}"


def scope_of(address: bytes) -> int:
    """The RT_SCOPE_* that goes with an address by its value (ipv6_addr_type; for IPv4 what iproute2 chooses)."""
    if family_of(address) == AF_INET6:
        if address == bytes(15) + b"\x01":
            return RT_SCOPE_HOST
        return RT_SCOPE_LINK if address[0] == 0xFE and address[1] & 0xC0 == 0x80 else RT_SCOPE_UNIVERSE
    return RT_SCOPE_HOST if address[0] == 127 else RT_SCOPE_UNIVERSE
