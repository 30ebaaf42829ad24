"""Next hops: the ones inside a route, and the kernel's next-hop objects that routes share by id (RTM_NEWNEXTHOP)."""

from dataclasses import dataclass

from xdpstack.netlink.ip import text
from xdpstack.netlink.uapi import RTNH_F_DEAD, RTNH_F_LINKDOWN, RTNH_F_ONLINK


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a route sends a packet next: a device, and a gateway on it unless the destination is on the link."""

    oif: int = 0
    """The index of the device, or 0 (a route that sends nowhere: blackhole and its like)."""
    gateway: bytes = b""
    """The gateway, packed, or empty. It may be of the other family (RTA_VIA: IPv4 through an IPv6 router)."""
    weight: int = 1
    """Share among the hops of a multipath route, 1 to 256 (65536 for next-hop objects)."""
    flags: int = 0
    """RTNH_F_* bits."""
    encap: int = 0
    """LWTUNNEL_ENCAP_*: the packet would be put in a tunnel here; 0 for none."""
    realms: int = 0
    """IPv4: the realms of source and destination that accounting gives packets which go here; 0 for none."""

    @property
    def is_dead(self) -> bool:
        """Its device is down."""
        return bool(self.flags & RTNH_F_DEAD)

    @property
    def is_link_down(self) -> bool:
        """Its device has no carrier; used all the same unless ignore_routes_with_linkdown is set."""
        return bool(self.flags & RTNH_F_LINKDOWN)

    def __str__(self) -> str:
        via = f"via {text(self.gateway)} " if self.gateway else ""
        notes = "".join(
            f" {name}"
            for bit, name in ((RTNH_F_ONLINK, "onlink"), (RTNH_F_DEAD, "dead"), (RTNH_F_LINKDOWN, "linkdown"))
            if self.flags & bit
        )
        return f"{via}dev #{self.oif}{notes}"


@dataclass(frozen=True, slots=True)
class NextHop:
    """A next-hop object: one hop, a blackhole, or a group of other objects."""

    id: int
    hop: Hop = Hop()
    """The hop of a single object; for a group or a blackhole it has no device."""
    blackhole: bool = False
    """Packets sent here are dropped."""
    group: tuple[tuple[int, int], ...] = ()
    """(id, weight) of the members of a group."""
    resilient: bool = False
    """The group keeps flows on their hop when members change (bucket table in the kernel, not mirrored)."""
    fdb: bool = False
    """For bridge forwarding entries only, never for routes."""
    family: int = 0
    """AF_INET, AF_INET6, or 0 for a group."""
    protocol: int = 0
    """RTPROT_*: who installed it."""
    scope: int = 0
    """RT_SCOPE_* the kernel worked out for it."""
