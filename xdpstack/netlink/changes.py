"""What differs between two snapshots, as values for listeners, logs and tests."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from xdpstack.netlink.address import Address
from xdpstack.netlink.link import Link
from xdpstack.netlink.neighbour import Neighbour
from xdpstack.netlink.nexthop import NextHop
from xdpstack.netlink.route import Route
from xdpstack.netlink.rule import Rule
from xdpstack.netlink.snapshot import Snapshot
from xdpstack.netlink.state import RouteKey
from xdpstack.netlink.sysctl import Sysctls

Kind = Literal["link", "address", "route", "rule", "neighbour", "nexthop", "sysctl", "group"]
Value = Link | Address | Route | Rule | Neighbour | NextHop | Sysctls | tuple[int, bytes]


Key = TypeVar("Key")
Entry = TypeVar("Entry", Link, Neighbour, NextHop)
Item = TypeVar("Item", Address, Route, Rule, tuple[int, bytes])


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two snapshots."""

    kind: Kind
    action: Literal["added", "removed", "changed"]
    old: Value | None
    """What was; None if added."""
    new: Value | None
    """What is; None if removed."""

    def __str__(self) -> str:
        return f"{self.kind} {self.action}: {self.new if self.new is not None else self.old}"


Routes = Mapping[int, Mapping[RouteKey, tuple[Route, ...]]]
"""By family, then by the key that the kernel finds a route by."""


def differences(old: Snapshot, new: Snapshot, routes: tuple[Routes, Routes] | None = None) -> Iterator[Change]:
    """What changed from `old` to `new`; an entry that moved but kept its value is no change.

    `routes` may have the routes of both grouped by key: then only groups that are not the same object are looked at.
    """
    yield from by_key("link", old.links, new.links)
    yield from by_value("address", old.addresses, new.addresses)
    if routes is None:
        yield from by_value("route", old.routes, new.routes)
    else:
        for family, groups in routes[1].items():
            yield from by_group(routes[0][family], groups)
    yield from by_value("rule", old.rules, new.rules)
    yield from by_key("neighbour", old.neighbours, new.neighbours)
    yield from by_key("nexthop", old.nexthops, new.nexthops)
    if old.sysctls != new.sysctls:
        yield Change("sysctl", "changed", old.sysctls, new.sysctls)
    yield from by_value("group", old.groups, new.groups)


def by_group(old: Mapping[RouteKey, tuple[Route, ...]], new: Mapping[RouteKey, tuple[Route, ...]]) -> Iterator[Change]:
    """Changes between two sets of routes."""
    if old is new:
        return
    for key in [key for key in old if key not in new]:
        yield from by_value("route", old[key], ())
    for key, group in new.items():
        before = old.get(key, ())
        if before is not group:
            yield from by_value("route", before, group)


def by_key(kind: Kind, old: Mapping[Key, Entry], new: Mapping[Key, Entry]) -> Iterator[Change]:
    """Changes between two mappings: entries with the same key and another value are "changed"."""
    if old is new:
        return
    for key in old.keys() - new.keys():
        yield Change(kind, "removed", old[key], None)
    for key, value in new.items():
        before = old.get(key)
        if before is None:
            yield Change(kind, "added", None, value)
        elif before != value:
            yield Change(kind, "changed", before, value)


def by_value(kind: Kind, old: Collection[Item], new: Collection[Item]) -> Iterator[Change]:
    """Changes between two collections of values without identity: what went, what came."""
    if old is new or old == new:
        return
    before, after = set(old), set(new)
    yield from (Change(kind, "removed", value, None) for value in old if value not in after)
    yield from (Change(kind, "added", None, value) for value in new if value not in before)
