"""The FIB of the C stages in the making: Tables as the arrays that csrc/tables/fib.c copies (ffi/50_routing.cdef.h)."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xdpstack.native import ffi, lib
from xdpstack.netlink import Range, Rule, Snapshot
from xdpstack.netlink.ip import ANY, mask
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FAMILIES,
    FR_ACT_GOTO,
    FR_ACT_TO_TBL,
    IFA_F_DEPRECATED,
    IFA_F_HOMEADDRESS,
    IFA_F_OPTIMISTIC,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    NUD_FAILED,
    NUD_VALID,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BLACKHOLE,
    RTN_UNICAST,
)
from xdpstack.routing.fib4 import select_default
from xdpstack.routing.fib6 import PREFERENCE, loops_back
from xdpstack.routing.flow import Flow
from xdpstack.routing.multipath import halves, hash_fields
from xdpstack.routing.nexthops import NextHop, NextHopIds
from xdpstack.routing.rules import DSCP_MASK, LEGACY_TOS_MASK, Result
from xdpstack.routing.source import inet_select_addr
from xdpstack.routing.tables import Entry, Path, Tables, matches_all

MAPPED_BITS = 96


def mask_halves(family: int, length: int) -> tuple[int, int]:
    """The mask of a prefix of `length` bits in its family; of no bits at all, zero: it matches everything."""
    if not length:
        return 0, 0
    value = mask(128, length + (MAPPED_BITS if family == AF_INET else 0))
    return value >> 64, value & (1 << 64) - 1


def silence(tables: Tables | Snapshot, gateway: tuple[int, bytes]) -> int:
    """XS_HOP_SILENT and XS_HOP_FAILED of a gateway (device index, packed address), by the state of its neighbour."""
    neighbour = tables.neighbours.get(gateway)
    if neighbour is None or neighbour.state & NUD_VALID:
        return 0
    return int(lib.XS_HOP_SILENT | (lib.XS_HOP_FAILED if neighbour.state & NUD_FAILED else 0))


@dataclass
class Draft:
    """A FIB in the making: the arrays that C copies, and what keeps them alive until it has."""

    tables: Tables
    snapshot: Snapshot
    devices: Mapping[int, int]
    ids: NextHopIds
    gateways: set[tuple[int, bytes]] = field(default_factory=set)
    keep: list[Any] = field(default_factory=list)

    def array(self, kind: str, items: list[dict[str, Any]]) -> Any:
        """A C array of structures."""
        made = ffi.new(f"struct {kind}[]", items or 1)
        self.keep.append(made)
        return made

    def values(self) -> Any:
        """The struct xs_fib_values, valid as long as this draft."""
        routed = [(key, entry) for key, fib in self.tables.fibs.items() for entry in entries(fib.slots)]
        ids = self.ids.assign(self._next_hops(entry for _, entry in routed))
        table_index = {key: i for i, key in enumerate(self.tables.fibs)}
        routes, hops = self._routes(routed, table_index, ids)
        nexthops = [self._nexthop(i) for i in range(len(self.ids.slots))]
        sources = list(self._sources())
        locals_ = [{"address": halves(a), "ifindex": i} for a, i in self.tables.local.items()]
        groups = [{"address": halves(a), "ifindex": i} for i, a in self.tables.groups]
        links = self._links(ids)
        return ffi.new(
            "struct xs_fib_values *",
            {
                "family": [self._family(family, table_index) for family in FAMILIES],
                "routes": self.array("xs_fib_route_values", routes),
                "hops": self.array("xs_fib_hop", hops),
                "nexthops": self.array("xs_nexthop", nexthops),
                "sources": self.array("xs_fib_source", sources),
                "locals": self.array("xs_fib_address", locals_),
                "groups": self.array("xs_fib_address", groups),
                "links": self.array("xs_fib_link", links),
                "ntables": len(table_index),
                "nroutes": len(routes),
                "nhops": len(hops),
                "nnexthops": len(nexthops),
                "nsources": len(sources),
                "nlocals": len(locals_),
                "ngroups": len(groups),
                "nlinks": len(links),
                "generation": self.tables.generation,
            },
        )

    # ---- next hops ----

    def _next_hops(self, routed: Iterable[Entry]) -> Iterator[NextHop]:
        for entry in routed:
            yield from (self._key(entry, path) for path in entry.paths)
        yield from (self._on_link(ifindex) for ifindex in self.devices)

    def _key(self, entry: Entry, path: Path) -> NextHop:
        route = entry.route
        device = self.tables.devices.get(path.oif)
        mtu = route.mtu or (device.mtu[route.family] if device else 0)
        return NextHop(path.oif, path.gateway, mtu, route.mtu_locked, route.hop_limit, path.encap)

    def _on_link(self, ifindex: int) -> NextHop:
        device = self.tables.devices.get(ifindex)
        return NextHop(ifindex, mtu=device.mtu[AF_INET] if device else 0)

    def _nexthop(self, slot: int) -> dict[str, Any]:
        hop = self.ids.slots[slot]
        if hop is None:
            return {"device": lib.XS_NO_DEVICE}
        device = self.tables.devices.get(hop.ifindex)
        flags = lib.XS_NEXTHOP_GATEWAY if hop.gateway else 0
        flags |= lib.XS_NEXTHOP_MTU_LOCKED if hop.mtu_locked else 0
        flags |= lib.XS_NEXTHOP_OWN_ADDRESSES if device and device.use_oif_addrs_only else 0
        return {
            "id": self.ids.ids[slot],
            "ifindex": hop.ifindex,
            "gateway": halves(hop.gateway or ANY[AF_INET6]),
            "mtu": hop.mtu,
            "device": lib.XS_NO_DEVICE if hop.encap else self.devices.get(hop.ifindex, lib.XS_NO_DEVICE),
            "hop_limit": hop.hop_limit,
            "flags": flags,
        }

    # ---- routes ----

    def _routes(
        self,
        routed: list[tuple[tuple[int, int], Entry]],
        table_index: dict[tuple[int, int], int],
        ids: dict[NextHop, int],
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The routes, and the hops that they refer to by position."""
        hops: list[dict[str, Any]] = []
        first: dict[int, int] = {}
        for _, entry in routed:
            first[id(entry)] = len(hops)
            hops += [self._hop(entry, path, ids) for path in entry.paths] or [DEAD_END]
        routes = [self._route(entry, table_index[key], first) for key, entry in routed]
        return routes, hops

    def _hop(self, entry: Entry, path: Path, ids: dict[NextHop, int]) -> dict[str, Any]:
        family = entry.route.family
        device = self.tables.devices.get(path.oif)
        if path.gateway:
            self.gateways.add((path.oif, path.gateway))
        source = entry.route.prefsrc or path.source or ANY[family]
        return {
            "source": halves(source) if source != ANY[AF_INET6] else (0, 0),
            "nexthop": ids[self._key(entry, path)],
            "ifindex": path.oif,
            "bound": path.bound,
            "group": device.link.group if device else 0,
            "flags": (0 if path.usable else lib.XS_HOP_DOWN) | silence(self.tables, (path.oif, path.gateway)),
            "own": int.from_bytes(path.source) if family == AF_INET else 0,
        }

    def _route(self, entry: Entry, table: int, first: dict[int, int]) -> dict[str, Any]:
        route = entry.route
        ipv6 = route.family == AF_INET6
        return {
            "prefix": halves(route.destination.address),
            "source": halves(route.source.address) if route.source else (0, 0),
            "table": table,
            "metric": route.priority,
            "hop": first[id(entry)],
            "nhops": len(entry.paths) or (0 if entry.error else 1),
            "detour": self._detour(entry, first),
            "length": route.destination.length + (0 if ipv6 else MAPPED_BITS),
            "source_length": route.source.length if route.source else 0,
            "rank": 0 if route.table == RT_TABLE_LOCAL else 1,
            "type": RTN_BLACKHOLE if entry.error == errno.EINVAL else route.type,
            "tos": route.tos,
            "preference": PREFERENCE.get(route.preference, 2),
            "ipv6": ipv6,
            "grouped": entry.is_object,
            "looped": loops_back(route),
        }

    def _detour(self, entry: Entry, first: dict[int, int]) -> int:
        """The hop of another default route that senders take instead, as gateways are now (fib_select_default)."""
        route = entry.route
        default = route.family == AF_INET and not route.destination.length and route.type == RTN_UNICAST
        if not default or len(entry.paths) != 1:
            return int(lib.XS_HOP_NONE)
        chosen = select_default(self.tables, Result(0, entry, entry.paths[0]), Flow(ANY[AF_INET], tos=route.tos))
        if chosen.entry is entry or chosen.entry is None:
            return int(lib.XS_HOP_NONE)
        return first[id(chosen.entry)]

    # ---- rules ----

    def _family(self, family: int, table_index: dict[tuple[int, int], int]) -> dict[str, Any]:
        tables, sysctls = self.tables, self.snapshot.sysctls
        fields = hash_fields(sysctls, family)
        rules = tables.rules.get(family, ())
        position = {rule.priority: i for i, rule in reversed(list(enumerate(rules)))}
        by_port = any(rule.ip_protocol or rule.source_ports or rule.destination_ports for rule in rules)
        made = [self._rule(rule, i, table_index, position) for i, rule in enumerate(rules)]
        return {
            "rule": self.array("xs_fib_rule", made),
            "nrules": len(made),
            "hash_fields": fields,
            "local_table": table_index.get((family, RT_TABLE_LOCAL), lib.XS_FIB_NO_TABLE),
            "custom_rules": family == AF_INET and tables.custom_rules,
            "custom_local": family == AF_INET and tables.custom_local,
            "realms": family == AF_INET and tables.realms,
            "needs_ports": by_port or bool(fields & (lib.XS_HASH_SPORT | lib.XS_HASH_DPORT)),
            "avoid_silent": tables.use_neigh if family == AF_INET else tables.accept_routers,
        }

    def _rule(
        self, rule: Rule, at: int, table_index: dict[tuple[int, int], int], position: dict[int, int]
    ) -> dict[str, Any]:
        family, indices = rule.family, self.tables.indices
        unknown = any(name and name not in indices for name in (rule.iif, rule.oif))
        tos, tos_mask = tos_selector(rule)
        never = unknown or bool(rule.tunnel) or rule.l3_master or bool(tos & ~tos_mask)
        target = position.get(rule.goto, -1) if rule.action == FR_ACT_GOTO else -1
        flags = lib.XS_RULE_INVERT if rule.invert else 0
        flags |= lib.XS_RULE_NEVER if never else 0
        flags |= lib.XS_RULE_USERS if rule.users else 0
        flags |= lib.XS_RULE_ALL if matches_all(rule) else 0
        asked = rule.table or RT_TABLE_MAIN
        table = table_index.get((family, asked)) if rule.action == FR_ACT_TO_TBL else None
        return {
            "src": halves(rule.source.address) if rule.source else (0, 0),
            "src_mask": mask_halves(family, rule.source.length) if rule.source else (0, 0),
            "dst": halves(rule.destination.address) if rule.destination else (0, 0),
            "dst_mask": mask_halves(family, rule.destination.length) if rule.destination else (0, 0),
            "iif": indices.get(rule.iif, 0),
            "oif": indices.get(rule.oif, 0),
            "mark": rule.mark,
            "mark_mask": rule.mark_mask,
            "flow_label": rule.flow_label,
            "flow_label_mask": rule.flow_label_mask,
            "user_first": rule.users.start if rule.users else 0,
            "user_last": rule.users.end if rule.users else 0,
            "sport": ports(rule.source_ports),
            "dport": ports(rule.destination_ports),
            "table": lib.XS_FIB_NO_TABLE if table is None else table,
            "target": target if target > at else lib.XS_FIB_NO_RULE,
            "suppress_length": rule.suppress_prefix_length,
            "suppress_group": rule.suppress_group,
            "flags": flags,
            "action": rule.action,
            "proto": rule.ip_protocol,
            "tos": tos & tos_mask,
            "tos_mask": tos_mask,
        }

    # ---- addresses and devices ----

    def _sources(self) -> Iterator[dict[str, Any]]:
        """IPv6 addresses that may be sources, in the kernel's order."""
        for device in self.tables.devices.values():
            preferred = lib.XS_SOURCE_PREFER_TEMPORARY if device.use_tempaddr >= 2 else 0
            avoid = IFA_F_DEPRECATED | (0 if device.use_optimistic else IFA_F_OPTIMISTIC)
            for address in device.addresses[AF_INET6]:
                if address.flags & IFA_F_TENTATIVE and not address.flags & IFA_F_OPTIMISTIC:
                    continue
                meanings = (
                    (avoid, lib.XS_SOURCE_AVOID),
                    (IFA_F_OPTIMISTIC, lib.XS_SOURCE_OPTIMISTIC),
                    (IFA_F_TEMPORARY, lib.XS_SOURCE_TEMPORARY),
                    (IFA_F_HOMEADDRESS, lib.XS_SOURCE_HOME),
                )
                yield {
                    "address": halves(address.local),
                    "ifindex": device.index,
                    "flags": preferred | sum(flag for bits, flag in meanings if address.flags & bits),
                    "length": address.prefix_length,
                }

    def _links(self, ids: dict[NextHop, int]) -> list[dict[str, Any]]:
        """The stack's devices, at the place of their index."""
        links: list[dict[str, Any]] = [{} for _ in range(max(self.devices.values(), default=-1) + 1)]
        for ifindex, index in self.devices.items():
            link, universe = (
                int.from_bytes(inet_select_addr(self.tables.devices, ifindex, ANY[AF_INET], scope))
                for scope in (RT_SCOPE_LINK, RT_SCOPE_UNIVERSE)
            )
            links[index] = {
                "ifindex": ifindex,
                "nexthop": ids[self._on_link(ifindex)],
                "source_link": link,
                "source_universe": universe,
            }
        return links


DEAD_END = {"bound": -1, "flags": lib.XS_HOP_DOWN}
"""The hop of a route that has none: it is there, and leads nowhere."""


def entries(slots: Mapping[int, Mapping[int, list[Entry]]]) -> Iterator[Entry]:
    """All entries of one table, in the order of each prefix."""
    return (entry for prefixes in slots.values() for under in prefixes.values() for entry in under)


def ports(wanted: Range | None) -> dict[str, int]:
    """The struct xs_fib_ports of a selector; no mask, any port."""
    if wanted is None:
        return {}
    if wanted.mask:
        return {"first": wanted.start & wanted.mask, "last": wanted.start & wanted.mask, "mask": wanted.mask}
    return {"first": wanted.start, "last": wanted.end, "mask": 0xFFFF}


def tos_selector(rule: Rule) -> tuple[int, int]:
    """The TOS byte that a rule selects, and which of its bits count; no bits, any TOS."""
    if rule.dscp is not None:
        dscp_mask = rule.dscp_mask << 2
        return rule.dscp << 2 & dscp_mask, dscp_mask
    return (rule.tos, LEGACY_TOS_MASK if rule.family == AF_INET else DSCP_MASK) if rule.tos else (0, 0)
