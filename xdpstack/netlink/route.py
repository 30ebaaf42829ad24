"""A route, as the kernel describes it (RTM_NEWROUTE)."""

from dataclasses import dataclass

from xdpstack.netlink.ip import Prefix, packed, text
from xdpstack.netlink.nexthop import Hop
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    IP6_RT_PRIO_USER,
    ROUTE_TYPES,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    RTPROT_STATIC,
)


@dataclass(frozen=True, slots=True)
class Route:
    """One route of one table, with all its hops."""

    destination: Prefix
    hops: tuple[Hop, ...] = ()
    """More than one: multipath. Empty for blackhole and its like, and where `nexthop` names an object."""
    type: int = RTN_UNICAST
    """RTN_*."""
    table: int = RT_TABLE_MAIN
    """The table's number; 32 bits."""
    priority: int = 0
    """The metric: among routes to the same prefix the lowest is tried first."""
    tos: int = 0
    """IPv4: only packets with this TOS (its DSCP bits); 0 matches every packet."""
    scope: int = RT_SCOPE_UNIVERSE
    """RT_SCOPE_*; IPv6 has no scopes here."""
    protocol: int = RTPROT_STATIC
    """RTPROT_*: who installed it."""
    prefsrc: bytes = b""
    """The source address to prefer, packed, or empty."""
    source: Prefix | None = None
    """IPv6: only packets from this prefix (source-specific routing)."""
    nexthop: int = 0
    """The id of the next-hop object that stands for the hops, or 0."""
    mtu: int = 0
    """RTAX_MTU in bytes, or 0 for the device's."""
    mtu_locked: bool = False
    """Path MTU discovery must not lower it."""
    hop_limit: int = 0
    """RTAX_HOPLIMIT, or 0 for the default."""
    preference: int = 0
    """IPv6 router preference (RFC 4191): 0 medium, 1 high, 3 low."""

    @classmethod
    def make(
        cls,
        destination: "str | Prefix",
        *,
        via: str | bytes = "",
        oif: int = 0,
        onlink: bool = False,
        hops: tuple[Hop, ...] | None = None,
        type: int = RTN_UNICAST,  # noqa: A002
        table: int | None = None,
        priority: int | None = None,
        scope: int | None = None,
        prefsrc: str | bytes = "",
        family: int = AF_INET,
        tos: int = 0,
        source: "str | Prefix | None" = None,
        nexthop: int = 0,
        mtu: int = 0,
        protocol: int = RTPROT_STATIC,
    ) -> "Route":
        """A route with what `ip route add` and the kernel would fill in: table, scope, and IPv6's metric of 1024.

        `family` is needed only for `"default"` without a gateway.
        """
        gateway = packed(via) if via else b""
        if destination == "default" and len(gateway) == 16:
            family = AF_INET6
        prefix = Prefix.parse(destination, family)
        if hops is None:
            hops = (Hop(oif, gateway, flags=RTNH_F_ONLINK if onlink else 0),) if oif or gateway else ()
        if table is None:
            table = RT_TABLE_LOCAL if type in LOCAL_TABLE_TYPES else RT_TABLE_MAIN
        if priority is None:
            priority = IP6_RT_PRIO_USER if prefix.family == AF_INET6 else 0
        if scope is None:
            scope = default_scope(prefix.family, type, hops)
        return cls(
            prefix, hops, type, table, priority, tos, scope, protocol, packed(prefsrc) if prefsrc else b"",
            Prefix.parse(source, prefix.family) if source else None, nexthop, mtu,
        )  # fmt: skip

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.destination.family

    def __str__(self) -> str:
        kind = "" if self.type == RTN_UNICAST else f"{ROUTE_TYPES[self.type]} "
        parts = [f"{kind}{self.destination}"]
        if self.source:
            parts.append(f"from {self.source}")
        if self.tos:
            parts.append(f"tos {self.tos:#x}")
        if self.nexthop:
            parts.append(f"nhid {self.nexthop}")
        if len(self.hops) == 1:
            parts.append(str(self.hops[0]))
        parts.append(f"table {self.table}")
        if self.prefsrc:
            parts.append(f"src {text(self.prefsrc)}")
        if self.priority:
            parts.append(f"metric {self.priority}")
        if len(self.hops) > 1:
            parts += [f"nexthop {hop} weight {hop.weight}" for hop in self.hops]
        return " ".join(parts)


LOCAL_TABLE_TYPES = frozenset({RTN_LOCAL, RTN_BROADCAST, 4})
"""Types that iproute2 puts into table local by itself (4 is RTN_ANYCAST)."""


def default_scope(family: int, type_: int, hops: tuple[Hop, ...]) -> int:
    """The scope iproute2 chooses when none is given: host for local, link for what needs no gateway."""
    if family == AF_INET6:
        return RT_SCOPE_UNIVERSE
    if type_ == RTN_LOCAL:
        return RT_SCOPE_HOST
    if type_ == RTN_BROADCAST:
        return RT_SCOPE_LINK
    if type_ == RTN_UNICAST and hops and not any(hop.gateway for hop in hops):
        return RT_SCOPE_LINK
    return RT_SCOPE_UNIVERSE
