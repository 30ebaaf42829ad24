"""The mirror's working copy of the kernel's tables: dumps replace a table, events change one entry.

Only the plain case of an event is applied; whatever depends on order or on things the event does not say is answered
by naming the tables to dump again:

* rules, next-hop objects, addresses: their order matters and there are few; every event asks for a dump.
* routes: an event about a key that no or one route holds is applied. Several routes under one key (prepended, appended,
  IPv6 siblings) are dumped again.
* a device that goes down or away, an IPv4 address or next-hop object that goes: the kernel drops routes over it without
  a word (fib_sync_down_dev, fib_sync_down_addr, fib_flush), so routes are dumped again.
"""

from collections.abc import Callable, Iterable
from typing import Final

from xdpstack.netlink import decode
from xdpstack.netlink.address import Address
from xdpstack.netlink.ip import Prefix
from xdpstack.netlink.link import Link
from xdpstack.netlink.neighbour import Neighbour
from xdpstack.netlink.nexthop import NextHop
from xdpstack.netlink.route import Route
from xdpstack.netlink.rule import Rule
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    IFF_LOWER_UP,
    IFF_RUNNING,
    IFF_UP,
    NLM_F_REPLACE,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELMULTICAST,
    RTM_DELNEIGH,
    RTM_DELNETCONF,
    RTM_DELNEXTHOP,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETNEXTHOP,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWMULTICAST,
    RTM_NEWNEIGH,
    RTM_NEWNETCONF,
    RTM_NEWNEXTHOP,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTN_LOCAL,
    RTPROT_KERNEL,
)

Table = tuple[str, int]
"""A table that can be dumped by itself: ("route", AF_INET). The family is 0 where one dump has both."""

LINKS: Final = ("link", 0)
NEXTHOPS: Final = ("nexthop", 0)
SYSCTLS: Final = ("sysctl", 0)
GROUPS: Final = ("group", 0)
ADDRESSES: Final = (("address", AF_INET), ("address", AF_INET6))
ROUTES: Final = (("route", AF_INET), ("route", AF_INET6))
RULES: Final = (("rule", AF_INET), ("rule", AF_INET6))
NEIGHBOURS: Final = (("neighbour", AF_INET), ("neighbour", AF_INET6))
DUMPED: Final[tuple[Table, ...]] = (LINKS, *ADDRESSES, NEXTHOPS, *ROUTES, *RULES, *NEIGHBOURS)
"""Every table that netlink dumps, in the order it is asked for."""
EVERYTHING: Final[frozenset[Table]] = frozenset({*DUMPED, SYSCTLS, GROUPS})

REQUESTS: Final = {
    "link": RTM_GETLINK,
    "address": RTM_GETADDR,
    "route": RTM_GETROUTE,
    "rule": RTM_GETRULE,
    "neighbour": RTM_GETNEIGH,
    "nexthop": RTM_GETNEXTHOP,
}
"""The dump request of each kind of table."""

RouteKey = tuple[int, Prefix, Prefix | None, int, int]
"""(table, destination, source, tos, priority): what the kernel finds a route by."""


def key_of(route: Route) -> RouteKey:
    """The key that `route` is kept under."""
    return route.table, route.destination, route.source, route.tos, route.priority


class State:
    """The tables, mutable; `Mirror` makes snapshots of them."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.addresses: dict[int, tuple[Address, ...]] = {AF_INET: (), AF_INET6: ()}
        self.rules: dict[int, tuple[Rule, ...]] = {AF_INET: (), AF_INET6: ()}
        self.nexthops: dict[int, NextHop] = {}
        self.routes: dict[int, dict[RouteKey, tuple[Route, ...]]] = {AF_INET: {}, AF_INET6: {}}
        self.neighbours: dict[int, dict[tuple[int, bytes], Neighbour]] = {AF_INET: {}, AF_INET6: {}}
        self.local_routes_seen = False
        """Of IPv4, added by somebody and not by the kernel for an address (Past.local_routes)."""

    def replace(self, table: Table, messages: Iterable[bytes]) -> None:
        """Take the answer to a dump as the whole of `table`."""
        kind, family = table
        if kind == "link":
            self.links = {link.index: link for link in map(decode.link, messages) if link}
        elif kind == "address":
            self.addresses[family] = tuple(address for address in map(decode.address, messages) if address)
        elif kind == "rule":
            self.rules[family] = tuple(rule for rule in map(decode.rule, messages) if rule)
        elif kind == "nexthop":
            self.nexthops = {each.id: each for each in map(decode.nexthop, messages) if each and not each.fdb}
        elif kind == "neighbour":
            found = (entry for entry in map(decode.neighbour, messages) if entry)
            self.neighbours[family] = {(entry.index, entry.address): entry for entry in found}
        elif kind == "route":
            routes: dict[RouteKey, tuple[Route, ...]] = {}
            for route in map(decode.route, messages):
                if route:
                    self._remember(route)
                    key = key_of(route)
                    routes[key] = (*routes.get(key, ()), route)
            self.routes[family] = routes

    def apply(self, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
        """Apply one event; returns (tables that changed here, tables to dump again)."""
        handler = HANDLERS.get(kind)
        return handler(self, kind, flags, message) if handler else NOTHING

    def _link(self, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
        link = decode.link(message)
        if link is None:
            return NOTHING
        before = self.links.get(link.index)
        if kind == RTM_DELLINK:
            self.links.pop(link.index, None)
            return frozenset({LINKS}), frozenset({SYSCTLS, GROUPS, *ADDRESSES, *ROUTES, *NEIGHBOURS})
        self.links[link.index] = link
        if before is None or before.name != link.name:
            return frozenset({LINKS}), frozenset({SYSCTLS, GROUPS, *ADDRESSES, *ROUTES})
        stirred = (before.flags ^ link.flags) & (IFF_UP | IFF_RUNNING | IFF_LOWER_UP)
        if stirred or before.mtu != link.mtu or before.master != link.master:
            return frozenset({LINKS}), frozenset({SYSCTLS, GROUPS, NEXTHOPS, *ADDRESSES, *ROUTES})
        return frozenset({LINKS}), frozenset()

    def _address(self, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
        address = decode.address(message)
        if address is None:
            return NOTHING
        tables: set[Table] = {("address", address.family), GROUPS}
        if kind == RTM_DELADDR:
            tables.add(("route", address.family))
        return frozenset(), frozenset(tables)

    def _rule(self, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
        rule = decode.rule(message)
        return (frozenset(), frozenset({("rule", rule.family)})) if rule else NOTHING

    def _nexthop(self, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
        return frozenset(), frozenset({NEXTHOPS, *(ROUTES if kind == RTM_DELNEXTHOP else ())})

    def _neighbour(self, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
        entry = decode.neighbour(message)
        if entry is None:
            return NOTHING
        table = self.neighbours[entry.family]
        if kind == RTM_DELNEIGH:
            table.pop((entry.index, entry.address), None)
        else:
            table[entry.index, entry.address] = entry
        return frozenset({("neighbour", entry.family)}), frozenset()

    def _route(self, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
        route = decode.route(message)
        if route is None:
            return NOTHING
        self._remember(route)
        table: Table = ("route", route.family)
        routes = self.routes[route.family]
        key = key_of(route)
        present = routes.get(key, ())
        if kind == RTM_NEWROUTE:
            plain = not present or present == (route,) or (len(present) == 1 and flags & NLM_F_REPLACE)
            if plain:
                routes[key] = (route,)
                return frozenset({table}), frozenset()
        elif not present or same_route(present, route):
            routes.pop(key, None)
            return frozenset({table}), frozenset()
        return frozenset(), frozenset({table})

    def _remember(self, route: Route) -> None:
        if route.type == RTN_LOCAL and route.family == AF_INET and route.protocol != RTPROT_KERNEL:
            self.local_routes_seen = True


def same_route(present: tuple[Route, ...], gone: Route) -> bool:
    """The one route under a key is the one that went (its hops may be marked dead since)."""
    if len(present) != 1 or present[0].type != gone.type:
        return False
    return [(h.oif, h.gateway) for h in present[0].hops] == [(h.oif, h.gateway) for h in gone.hops]


NOTHING: Final[tuple[frozenset[Table], frozenset[Table]]] = (frozenset(), frozenset())
Handler = Callable[[State, int, int, bytes], tuple[frozenset[Table], frozenset[Table]]]


def reread_sysctls(state: State, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
    """RTM_NEWNETCONF names a few switches (forwarding, rp_filter); all are read again."""
    return frozenset(), frozenset({SYSCTLS, GROUPS, *ROUTES})


def reread_groups(state: State, kind: int, flags: int, message: bytes) -> tuple[frozenset[Table], frozenset[Table]]:
    """A multicast group was joined or left."""
    return frozenset(), frozenset({GROUPS})


HANDLERS: Final[dict[int, Handler]] = {
    RTM_NEWLINK: State._link,
    RTM_DELLINK: State._link,
    RTM_NEWADDR: State._address,
    RTM_DELADDR: State._address,
    RTM_NEWROUTE: State._route,
    RTM_DELROUTE: State._route,
    RTM_NEWNEIGH: State._neighbour,
    RTM_DELNEIGH: State._neighbour,
    RTM_NEWRULE: State._rule,
    RTM_DELRULE: State._rule,
    RTM_NEWNEXTHOP: State._nexthop,
    RTM_DELNEXTHOP: State._nexthop,
    RTM_NEWNETCONF: reread_sysctls,
    RTM_DELNETCONF: reread_sysctls,
    RTM_NEWMULTICAST: reread_groups,
    RTM_DELMULTICAST: reread_groups,
}
