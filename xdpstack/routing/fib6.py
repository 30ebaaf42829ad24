"""Looking up an IPv6 destination: rules, longest prefix (with source prefixes), the best score, one of its paths.

Mirrors: fib6_rule_lookup, fib6_table_lookup, rt6_select, fib6_select_path of net/ipv6/{fib6_rules,ip6_fib,route}.c.

Where IPv4 takes the first route that fits, IPv6 gives each path of the lowest metric a score (device, router preference,
reachability) and takes the best; only if none of them will do it looks at higher metrics.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from xdpstack.netlink import Prefix, Route
from xdpstack.netlink.uapi import (
    AF_INET6,
    NUD_FAILED,
    NUD_VALID,
    RTN_ANYCAST,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTPROT_KERNEL,
)
from xdpstack.routing.fib4 import group_path
from xdpstack.routing.flow import Flow, is_link_local, is_loopback, is_multicast
from xdpstack.routing.rules import ASK_ON, Result, walk_rules
from xdpstack.routing.tables import TYPE_ERRORS, Entry, Fib, Path, Tables

PREFERENCE = {0: 2, 1: 3, 3: 1}  # router preference (RFC 4191) medium, high, low as a score (IPV6_DECODE_PREF)
FAIL = -1  # RT6_NUD_FAIL_*: any of them


@dataclass(frozen=True, slots=True)
class Want:
    """What a lookup wants of a path."""

    oif: int
    """A device to prefer, 0 for none: the sender's, or for what came in the device it came in by."""
    strict: bool
    """Only paths through `oif` will do (RT6_LOOKUP_F_IFACE)."""
    reachable: bool
    """Avoid gateways known to be unreachable (RT6_LOOKUP_F_REACHABLE)."""


def need_strict(destination: bytes) -> bool:
    """Addresses that mean something on one link only (rt6_need_strict)."""
    return is_multicast(destination) or is_link_local(destination) or is_loopback(destination)


def loops_back(route: Route) -> bool:
    """What this host sends there comes back to it (RTF_LOCAL, RTF_ANYCAST).

    Anycast that a user added as a route, and not the kernel for an address, is taken in but is sent out like unicast.
    """
    return route.type == RTN_LOCAL or (route.type == RTN_ANYCAST and route.protocol == RTPROT_KERNEL)


def leads_nowhere(tables: Tables, found: Result) -> bool:
    """The route is one through loopback to what is not this host: it refuses what comes in (fib6_is_reject)."""
    assert found.entry is not None
    assert found.path is not None
    plain = not found.entry.is_object and not loops_back(found.entry.route)
    return plain and found.path.oif == tables.loopback


def rule_lookup(tables: Tables, flow: Flow, oif: int, strict: bool) -> Result:
    """The route to `flow.destination` and one of its paths; an errno if there is none (fib6_rule_lookup)."""
    want = Want(oif, strict, tables.accept_routers)
    return walk_rules(tables, flow, lambda table: pol_route(tables, tables.fibs.get((AF_INET6, table)), flow, want))


def pol_route(tables: Tables, fib: Fib | None, flow: Flow, want: Want) -> Result:
    """The same in one table; ASK_ON if it has no answer (ip6_pol_route)."""
    if fib is None:
        return ASK_ON
    source = flow.source_or_any
    found = table_lookup(tables, fib, flow.destination, source, want)
    if found is None:
        return ASK_ON
    entry, path = found
    if path is None:  # a blackhole object
        return Result(TYPE_ERRORS[RTN_BLACKHOLE], entry)
    if entry.is_group:  # chosen by the hash alone, even for a sender that is bound to a device
        path = group_path(tables, entry, flow.path_hash)
    elif len(entry.paths) > 1:
        path = multipath(tables, entry, path, flow, want)
    return Result(entry.error, entry, path)


def table_lookup(
    tables: Tables, fib: Fib, destination: bytes, source: bytes, want: Want
) -> tuple[Entry, Path | None] | None:
    """The best entry and path, from the most specific node of the tree that has one (fib6_table_lookup).

    If only unreachable gateways would do, they do.
    """
    tries = (want, Want(want.oif, want.strict, False)) if want.reachable else (want,)
    for attempt in tries:
        for entries in nodes(fib, destination, source):
            found = select(tables, entries, attempt)
            if found:
                return found
    return None


def nodes(fib: Fib, destination: bytes, source: bytes) -> Iterator[list[Entry]]:
    """The nodes of the tree in the order the kernel visits them (fib6_node_lookup, then fib6_backtrack).

    Under one destination prefix, routes for a source prefix come before those for any source, the longest source first.
    A quirk of the kernel's: the first node is never one whose source prefixes do not match, not even for its routes for
    any source; except the root of the tree.
    """
    started = False
    for entries in fib.matches(destination):
        plain = [entry for entry in entries if entry.route.source is None]
        by_source = source_nodes(entries, source)
        has_subtree = len(plain) != len(entries)
        is_root = entries[0].route.destination.length == 0
        if has_subtree and not by_source and not started and not is_root:
            continue
        yield from by_source
        started = True
        if plain:
            yield plain


def source_nodes(entries: list[Entry], source: bytes) -> list[list[Entry]]:
    """The entries for source prefixes that hold `source`, the longest prefix first."""
    groups: dict[Prefix, list[Entry]] = {}
    for entry in entries:
        if entry.route.source is not None and source in entry.route.source:
            groups.setdefault(entry.route.source, []).append(entry)
    return [groups[prefix] for prefix in sorted(groups, key=lambda prefix: -prefix.length)]


def select(tables: Tables, entries: list[Entry], want: Want) -> tuple[Entry, Path | None] | None:
    """The best path of a node's routes (rt6_select, find_rr_leaf): of the lowest metric, else of all the others."""
    lowest = entries[0].route.priority
    first = [entry for entry in entries if entry.route.priority == lowest]
    return best(tables, first, want) or best(tables, entries[len(first) :], want)


def best(tables: Tables, entries: list[Entry], want: Want) -> tuple[Entry, Path | None] | None:
    """The entry and path of the highest score; the first of those that tie (__find_rr_leaf).

    A blackhole object ends the search wherever it stands. Of a next-hop group counts the first member that is better than
    what was found before it (rt6_nh_find_match), whichever member is taken in the end.
    """
    chosen: tuple[Entry, Path | None] | None = None
    highest = FAIL
    for entry in entries:
        if entry.is_object and not entry.paths:
            return entry, None
        for path in entry.paths:
            points = score(tables, entry, path, want) if path.usable else FAIL
            if points > highest:
                highest, chosen = points, (entry, path)
                if entry.is_object:
                    break
    return chosen


def score(tables: Tables, entry: Entry, path: Path, want: Want) -> int:
    """How good a path is (rt6_score_route); FAIL for one that will not do."""
    right_device = not want.oif or path.oif == want.oif
    if not right_device and want.strict:
        return FAIL
    if want.reachable and path.gateway:
        neighbour = tables.neighbours.get((path.oif, path.gateway))
        if neighbour and not neighbour.state & NUD_VALID and neighbour.state & NUD_FAILED:
            return FAIL
    return (2 if right_device else 0) | PREFERENCE.get(entry.route.preference, 2) << 2


def multipath(tables: Tables, entry: Entry, path: Path, flow: Flow, want: Want) -> Path:
    """The path of a multipath route that `flow.path_hash` falls to, if it will do; else `path` (fib6_select_path)."""
    for sibling in entry.paths:
        if flow.path_hash <= sibling.bound:
            return sibling if score(tables, entry, sibling, want) > FAIL else path
    return path
