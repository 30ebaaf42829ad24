"""IPv4 gateways that are this host itself: what goes by such a route is sent straight to its destination.

The old way to say that a network is on the link (`ip route add 10.7.0.0/16 via OWN_ADDRESS`). Linux remembers of a hop the
scope of the route to its gateway, and uses the gateway only if that is RT_SCOPE_LINK.

Mirrors: fib_check_nh_v4_gw of net/ipv4/fib_semantics.c, rt_set_nexthop of net/ipv4/route.c.
"""

from collections.abc import Iterable

from xdpstack.netlink import Hop, Route
from xdpstack.netlink.ip import mask
from xdpstack.netlink.uapi import (
    AF_INET,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_TABLE_DEFAULT,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_LOCAL,
    RTN_UNICAST,
    RTNH_F_ONLINK,
)

WIDTH = 32
EVERYWHERE = frozenset({RT_TABLE_LOCAL, RT_TABLE_MAIN, RT_TABLE_DEFAULT})


class OwnGateways:
    """Knows them, from the routes there are (Linux: from those there were when the route with the gateway was added)."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [route for route in routes if route.family == AF_INET]
        self._hosts: dict[int, set[int]] = {}
        """By prefix length: the prefixes of routes of scope host, few besides the host's addresses."""
        for route in self._routes:
            if route.scope >= RT_SCOPE_HOST and route.type in (RTN_LOCAL, RTN_UNICAST):
                prefix = route.destination
                self._hosts.setdefault(prefix.length, set()).add(int.from_bytes(prefix.address))
        self._known: dict[tuple[int, Hop], bool] = {}

    def among(self, table: int, hops: tuple[Hop, ...]) -> tuple[Hop, ...]:
        """Those of `hops`, of a route of `table`, whose gateway is this host."""
        return tuple(hop for hop in hops if self._may_be(hop) and self._is_own(table, hop))

    def _may_be(self, hop: Hop) -> bool:
        if len(hop.gateway) != 4 or hop.flags & RTNH_F_ONLINK:  # those are taken at their word
            return False
        address = int.from_bytes(hop.gateway)
        return any(address & mask(WIDTH, length) in prefixes for length, prefixes in self._hosts.items())

    def _is_own(self, table: int, hop: Hop) -> bool:
        key = (table, hop)
        if key not in self._known:
            found = None if table == RT_TABLE_MAIN else self._best(frozenset({table}), hop)
            found = found or self._best(EVERYWHERE, hop)
            self._known[key] = found is not None and found.scope >= RT_SCOPE_HOST
        return self._known[key]

    def _best(self, tables: frozenset[int], hop: Hop) -> Route | None:
        """The most specific route to the gateway that could be one to a gateway."""
        fitting = (
            route
            for route in self._routes
            if route.table in tables
            and route.scope >= RT_SCOPE_LINK
            and not route.tos  # it is looked up without
            and hop.gateway in route.destination
            and any(other.oif == hop.oif for other in route.hops)
        )
        return max(fitting, key=lambda route: (route.destination.length, route.table), default=None)
