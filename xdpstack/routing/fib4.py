"""Looking up an IPv4 destination: rules, longest prefix, the first route that fits, one of its paths.

Mirrors: __fib_lookup, fib_table_lookup, fib_select_path of net/ipv4/fib_{rules,trie,semantics}.c.
"""

from xdpstack.netlink.uapi import (
    AF_INET,
    NUD_INCOMPLETE,
    NUD_REACHABLE,
    NUD_VALID,
    RT_TABLE_LOCAL,
    RTN_UNICAST,
)
from xdpstack.routing.flow import Flow
from xdpstack.routing.rules import ASK_ON, LEGACY_TOS_MASK, Result, walk_rules
from xdpstack.routing.tables import Entry, Fib, Path, Tables


def fib_lookup(tables: Tables, flow: Flow) -> Result:
    """The route to `flow.destination` and its first usable path; an errno if there is none."""
    return walk_rules(tables, flow, lambda table: table_lookup(tables.fibs.get((AF_INET, table)), flow))


def table_lookup(fib: Fib | None, flow: Flow) -> Result:
    """The same in one table; ASK_ON if it has no answer (a throw route is one that has none).

    A quirk of the kernel's: a next-hop object without a path that fits ends the search of its leaf, and a leaf of the trie
    holds all prefixes that start at the same address, whatever their length: 10.2.0.0/23 hides 10.2.0.0/16.
    """
    if fib is None:
        return ASK_ON
    hidden = None
    for entries in fib.matches(flow.destination):
        for entry in entries:
            if entry.route.destination.address == hidden or not fits(entry, flow):
                continue
            if entry.error:
                return Result(entry.error)
            for path in entry.paths:
                if path.usable and flow.oif in (0, path.oif):
                    return Result(0, entry, path)
            if entry.is_object:
                hidden = entry.route.destination.address
    return ASK_ON


def fits(entry: Entry, flow: Flow) -> bool:
    """The route is for packets like this: its TOS, if it has one, and its scope."""
    route = entry.route
    if route.tos and route.tos != flow.tos & LEGACY_TOS_MASK:
        return False
    return route.scope >= flow.scope


def select_path(tables: Tables, found: Result, flow: Flow, source: bytes) -> Result:
    """Choose among the paths of a multipath route, or among default routes (fib_select_path without an oif).

    `source` is the sender's address, which multipath prefers a path for; empty if it has none, or for what came in.
    """
    entry = found.entry
    assert entry is not None
    if len(entry.paths) > 1:
        if entry.is_group:
            return Result(0, entry, group_path(tables, entry, flow.path_hash))
        return Result(0, entry, multipath(tables, entry, flow.path_hash, source) or found.path)
    default = not entry.route.destination.length and entry.route.type == RTN_UNICAST
    if default and entry.route.table != RT_TABLE_LOCAL:
        return select_default(tables, found, flow)
    return found


def multipath(tables: Tables, entry: Entry, hash_: int, source: bytes) -> Path | None:
    """The path whose share of the hash space `hash_` falls in; better, one whose own source is `source`.

    fib_select_multipath: 2 points for the source, 1 for the hash; the first path with the most points.
    """
    best, best_score = None, -1
    for path in entry.paths:
        if path.bound == -1 or (tables.use_neigh and not answers(tables, path)):
            continue
        score = (2 if source and path.source == source else 0) + (hash_ <= path.bound)
        if score > best_score:
            best, best_score = path, score
            if score == 3 or (not source and score == 1):
                break
    return best


def group_path(tables: Tables, entry: Entry, hash_: int) -> Path:
    """The same for a next-hop group, which always passes over gateways that do not answer.

    nexthop_select_path_hthr: if the hash falls to none that answers, the first that does; if none does, the first.
    """
    answering = [path for path in entry.paths if answers(tables, path)]
    chosen = next((path for path in answering if hash_ <= path.bound), None)
    return chosen or (answering or entry.paths)[0]


def answers(tables: Tables, path: Path) -> bool:
    """Its gateway is not known to be unreachable (fib_good_nh): no entry is as good as a valid one."""
    neighbour = tables.neighbours.get((path.oif, path.gateway))
    return neighbour is None or bool(neighbour.state & NUD_VALID)


def select_default(tables: Tables, found: Result, flow: Flow) -> Result:
    """Of several default routes that differ only in the gateway, the first whose gateway is alive (fib_select_default).

    The kernel remembers the last choice, to leave it only when that gateway dies; here each lookup starts afresh.
    """
    assert found.entry
    chosen = found.entry.route
    fib = tables.fibs.get((AF_INET, chosen.table)) or tables.fibs.get((AF_INET, RT_TABLE_LOCAL))
    entries = fib.slots.get(0, {}).get(0, []) if fib else []
    alternatives: list[Entry] = []
    priority, tos = chosen.priority, 0
    for entry in entries:
        route = entry.route
        if route.table != chosen.table or (route.tos and route.tos != flow.tos & LEGACY_TOS_MASK):
            continue
        if route.priority > priority and route.tos == tos:
            if tos:
                continue
            break
        tos, priority = route.tos, route.priority
        if route.scope != chosen.scope or route.type != RTN_UNICAST or entry.error or not entry.paths:
            continue
        if not entry.paths[0].gateway:
            continue
        if not alternatives and entry is not found.entry:
            break
        alternatives.append(entry)
    if len(alternatives) < 2:
        return found
    last_resort = None
    for order, entry in enumerate(alternatives):
        alive, possible = detect_death(tables, entry.paths[0], last_resort is None)
        if alive:
            return Result(0, entry, entry.paths[0])
        if possible:
            last_resort = (order, entry)
    return Result(0, last_resort[1], last_resort[1].paths[0]) if last_resort else found


def detect_death(tables: Tables, path: Path, first: bool) -> tuple[bool, bool]:
    """(the gateway is alive, it is a last resort), as fib_detect_death sees it with no memory of earlier choices."""
    neighbour = tables.neighbours.get((path.oif, path.gateway))
    if neighbour is None or neighbour.state & (NUD_REACHABLE | NUD_VALID):
        return True, False
    return False, first and neighbour.state != NUD_INCOMPLETE
