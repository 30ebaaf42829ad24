"""The tables that routing decides by, compiled from a snapshot: values only, immutable, the same for every engine.

    snapshot (what Linux says) --compile_tables--> Tables --> semantics.py, and native.py for the C stage

Compiling resolves what does not depend on the packet: next-hop objects to paths, dead paths, the share of each path of a
multipath route, the source address that goes with a path, switches that combine with those of `all`, and Linux's merging
of tables local and main.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from xdpstack.errors import ConfigurationError
from xdpstack.netlink import Address, Hop, Link, NextHop, Route, Rule, Snapshot
from xdpstack.netlink.ip import ANY, mask
from xdpstack.netlink.neighbour import Neighbour
from xdpstack.netlink.rule import DEFAULT_RULES
from xdpstack.netlink.sysctl import Sysctls
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FAMILIES,
    RT_SCOPE_HOST,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_NAT,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    RTN_XRESOLVE,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    RTPROT_KERNEL,
)
from xdpstack.routing.gateways import OwnGateways
from xdpstack.routing.source import inet_select_addr

TYPE_ERRORS: Final = {
    RTN_BLACKHOLE: errno.EINVAL,
    RTN_UNREACHABLE: errno.EHOSTUNREACH,
    RTN_PROHIBIT: errno.EACCES,
    RTN_THROW: errno.EAGAIN,
}
"""What a route of this type answers instead of a path (fib_props, fib6_prop). EAGAIN: ask the next rule."""
UNUSED_TYPES: Final = frozenset({RTN_NAT, RTN_XRESOLVE})
"""Types that mean nothing any more: IPv4 refuses as with a blackhole, IPv6 takes them for unicast."""

MULTIPATH_BITS: Final = 31
"""A multipath hash has 31 bits; the bounds of paths are on its scale."""


@dataclass(frozen=True, slots=True)
class Path:
    """One way on from a route."""

    oif: int
    """The device's interface index, 0 for none."""
    gateway: bytes = b""
    """The next hop on that device, of either family; empty: the destination itself (also where it is this host)."""
    bound: int = -1
    """Multipath: this path takes hashes up to here and above the bound of the one before; -1: none."""
    source: bytes = b""
    """IPv4: the source for senders that have none and a route without prefsrc (nh_saddr). IPv6: empty, RFC 6724."""
    usable: bool = True
    """False while its device is down, or has no carrier and ignore_routes_with_linkdown is set."""
    encap: int = 0
    """LWTUNNEL_ENCAP_* that the kernel would apply and this stack cannot; 0 for none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A route as it is looked up."""

    route: Route
    paths: tuple[Path, ...]
    error: int = 0
    """The errno it answers (TYPE_ERRORS), 0 for a route that leads somewhere."""
    is_object: bool = False
    """Its paths are those of a next-hop object."""
    is_resilient: bool = False
    """The object is a resilient group."""

    @property
    def is_group(self) -> bool:
        """Its paths are those of a next-hop group."""
        return self.is_object and len(self.paths) > 1


class Fib:
    """One routing table. Entries under one prefix stand in the order the kernel tries them."""

    def __init__(self, family: int, entries: Iterable[Entry] = ()) -> None:
        self.width = 32 if family == AF_INET else 128
        slots: dict[int, dict[int, list[Entry]]] = {}
        for entry in entries:
            prefix = entry.route.destination
            slots.setdefault(prefix.length, {}).setdefault(int.from_bytes(prefix.address), []).append(entry)
        self.slots: Mapping[int, Mapping[int, list[Entry]]] = {n: slots[n] for n in sorted(slots, reverse=True)}
        """Entries by prefix length, the longest first, then by the prefix as a number."""

    def matches(self, address: bytes) -> Iterator[list[Entry]]:
        """The entries of each prefix that holds `address`, the longest prefix first."""
        value = int.from_bytes(address)
        for length, prefixes in self.slots.items():
            found = prefixes.get(value & mask(self.width, length))
            if found:
                yield found

    def __iter__(self) -> Iterator[Entry]:
        return (entry for prefixes in self.slots.values() for entries in prefixes.values() for entry in entries)

    def __len__(self) -> int:
        return sum(len(entries) for prefixes in self.slots.values() for entries in prefixes.values())


@dataclass(frozen=True, slots=True)
class Device:
    """What routing asks about a device: its link, and its switches combined with those of `all`."""

    link: Link
    addresses: Mapping[int, tuple[Address, ...]]
    """By family, in the kernel's order."""
    mtu: Mapping[int, int]
    """Bytes of IP packet, by family."""
    forwarding: bool
    """IPv4 packets that came in here may be forwarded."""
    forwarding6: bool
    """IPv6 packets may (forwarding of `all`, or force_forwarding of the device)."""
    rp_filter: int
    """0 off, 1 strict, 2 loose."""
    accept_local: bool
    route_localnet: bool
    send_redirects: bool
    shared_media: bool
    src_valid_mark: bool
    bc_forwarding: bool
    drop_unicast_in_l2_multicast: Mapping[int, bool]
    use_tempaddr: int
    use_optimistic: bool
    use_oif_addrs_only: bool

    @property
    def index(self) -> int:
        """The interface index."""
        return self.link.index


@dataclass(frozen=True)
class Tables:
    """Everything a lookup needs. Immutable; `generation` is that of the snapshot it was compiled from."""

    generation: int = 0
    fibs: Mapping[tuple[int, int], Fib] = field(default_factory=dict)
    """By (family, table)."""
    rules: Mapping[int, tuple[Rule, ...]] = field(default_factory=dict)
    """By family, in the order they are asked."""
    devices: Mapping[int, Device] = field(default_factory=dict)
    """By interface index, in the order of indices."""
    indices: Mapping[str, int] = field(default_factory=dict)
    """Interface index by name, for the rules' iif and oif."""
    loopback: int = 1
    """The index of the loopback device: where what this host sends comes from, and what is for itself goes."""
    local: Mapping[bytes, int] = field(default_factory=dict)
    """The host's IPv4 addresses: packed address to the device that has it (inet_addr_lst)."""
    groups: frozenset[tuple[int, bytes]] = frozenset()
    """Multicast memberships: (device index, packed group)."""
    neighbours: Mapping[tuple[int, bytes], Neighbour] = field(default_factory=dict)
    """By (device index, packed address): multipath avoids the dead, IPv6 unreachable routers."""
    custom_rules: bool = False
    """Somebody changed the IPv4 rules once: tables local and main are no longer one, sources are checked in full."""
    custom_local: bool = False
    """Somebody added an IPv4 route of type local by hand once: the same of sources."""
    realms: bool = False
    """An IPv4 route or rule has realms: sources are checked in full whatever the device accepts (fib_num_tclassid_users)."""
    accept_routers: bool = True
    """IPv6: this host is no router, so it avoids routers known to be unreachable (RT6_LOOKUP_F_REACHABLE)."""
    use_neigh: bool = False
    """fib_multipath_use_neigh: IPv4 multipath passes over gateways that do not answer."""

    @cached_property
    def local_fib(self) -> Fib:
        """What `ip_dev_find` asks: table local, which without custom rules is one with main."""
        return self.fibs.get((AF_INET, RT_TABLE_LOCAL)) or Fib(AF_INET)


def refuse_vrfs(snapshot: Snapshot) -> None:
    """Raise ConfigurationError if `snapshot` has a VRF, by whatever engine is to be routed."""
    masters = [link.name for link in snapshot.links.values() if link.kind == "vrf"]
    if masters:
        raise ConfigurationError(
            f"there are VRFs here: {', '.join(masters)}",
            "A VRF gives its devices routing tables of their own, which this stack does not keep apart.",
            "Open the stack in a network namespace without VRF devices.",
        )


def compile_tables(snapshot: Snapshot) -> Tables:
    """The tables that stand for `snapshot`.

    ConfigurationError: the namespace has a VRF, whose packets would be routed by the wrong table.
    """
    refuse_vrfs(snapshot)
    devices = {index: compile_device(snapshot, link) for index, link in sorted(snapshot.links.items())}
    rules = {family: tuple(rule for rule in snapshot.rules if rule.family == family) for family in FAMILIES}
    custom_rules = snapshot.past.rules or tuple(map(essence, rules[AF_INET])) != DEFAULT_IPV4_RULES
    compiler = RouteCompiler(snapshot, devices)
    grouped: dict[tuple[int, int], list[Entry]] = {}
    for route in snapshot.routes:
        entry = compiler.entry(route)
        if entry is not None:
            grouped.setdefault((route.family, route.table), []).append(entry)
    if not custom_rules:  # fib_trie_unmerge: until a rule is added, local is an alias of main, with main's routes in it
        merged = grouped.pop((AF_INET, RT_TABLE_LOCAL), []) + grouped.pop((AF_INET, RT_TABLE_MAIN), [])
        grouped[AF_INET, RT_TABLE_LOCAL] = merged
    for (family, _), entries in grouped.items():
        entries.sort(key=ipv4_order if family == AF_INET else ipv6_order)
    loopback = snapshot.loopback
    return Tables(
        snapshot.generation,
        {key: Fib(key[0], entries) for key, entries in grouped.items()},
        rules,
        devices,
        {name: index for index, link in snapshot.links.items() for name in (link.name, *link.other_names)},
        loopback.index if loopback else 0,
        {a.local: a.index for a in reversed(snapshot.addresses) if a.family == AF_INET},
        snapshot.groups,
        snapshot.neighbours,
        custom_rules,
        snapshot.past.local_routes
        or any(r.family == AF_INET and r.type == RTN_LOCAL and r.protocol != RTPROT_KERNEL for r in snapshot.routes),
        has_realms(snapshot),
        snapshot.sysctls.conf(AF_INET6, "all", "forwarding") == 0,
        bool(snapshot.sysctls["ipv4.fib_multipath_use_neigh"]),
    )


def has_realms(snapshot: Snapshot) -> bool:
    """A source may have to be looked up for the realm that it is of."""
    by_route = any(hop.realms for route in snapshot.routes if route.family == AF_INET for hop in route.hops)
    return by_route or any(rule.realms for rule in snapshot.rules if rule.family == AF_INET)


def essence(rule: Rule) -> tuple[int, int, int]:
    """Enough of a rule to tell the default ones (who installed it does not matter)."""
    return (rule.priority, rule.action, rule.table) if matches_all(rule) else (rule.priority, 0, 0)


def matches_all(rule: Rule) -> bool:
    """The rule has no selector and no suppressor (fib_rule_matchall)."""
    plain = Rule(rule.family, rule.priority, rule.action, rule.table, rule.goto, protocol=rule.protocol)
    return rule == plain


DEFAULT_IPV4_RULES: Final = tuple(essence(rule) for rule in DEFAULT_RULES if rule.family == AF_INET)


def ipv4_order(entry: Entry) -> tuple[int, int, int]:
    """Under one prefix: table local before main (where they are one), specific TOS before any, then the metric."""
    return -entry.route.table, -entry.route.tos, entry.route.priority


def ipv6_order(entry: Entry) -> int:
    """Under one prefix: the metric; the order of what ties is the kernel's (sorting is stable)."""
    return entry.route.priority


def compile_device(snapshot: Snapshot, link: Link) -> Device:
    """The device with its switches, combined as IN_DEV_* of include/linux/inetdevice.h and addrconf do."""
    sysctls, name = snapshot.sysctls, link.name
    return Device(
        link=link,
        addresses={family: tuple(snapshot.addresses_of(link.index, family)) for family in FAMILIES},
        mtu={AF_INET: min(link.mtu, 0xFFFF), AF_INET6: min(sysctls.conf(AF_INET6, name, "mtu"), link.mtu)},
        forwarding=bool(sysctls.conf(AF_INET, name, "forwarding")),
        forwarding6=bool(
            sysctls.conf(AF_INET6, "all", "forwarding") or sysctls.conf(AF_INET6, name, "force_forwarding")
        ),
        rp_filter=sysctls.conf_max(AF_INET, name, "rp_filter"),
        accept_local=sysctls.conf_or(AF_INET, name, "accept_local"),
        route_localnet=sysctls.conf_or(AF_INET, name, "route_localnet"),
        send_redirects=sysctls.conf_or(AF_INET, name, "send_redirects"),
        shared_media=sysctls.conf_or(AF_INET, name, "shared_media"),
        src_valid_mark=sysctls.conf_or(AF_INET, name, "src_valid_mark"),
        bc_forwarding=sysctls.conf_and(AF_INET, name, "bc_forwarding"),
        drop_unicast_in_l2_multicast={
            AF_INET: sysctls.conf_or(AF_INET, name, "drop_unicast_in_l2_multicast"),
            AF_INET6: bool(sysctls.conf(AF_INET6, name, "drop_unicast_in_l2_multicast")),
        },
        use_tempaddr=sysctls.conf(AF_INET6, name, "use_tempaddr"),
        use_optimistic=sysctls.conf_or(AF_INET6, name, "optimistic_dad")
        and sysctls.conf_or(AF_INET6, name, "use_optimistic"),
        use_oif_addrs_only=bool(sysctls.conf(AF_INET6, name, "use_oif_addrs_only")),
    )


def heeds_carrier(sysctls: Sysctls, family: int, device: str) -> bool:
    """Routes through the device are passed over while it has no carrier (ip_ignore_linkdown, ip6_ignore_linkdown)."""
    if family == AF_INET6:  # writing the switch of `all` writes those of the devices, and that is all it does
        return bool(sysctls.conf(AF_INET6, device, "ignore_routes_with_linkdown"))
    return sysctls.conf_or(AF_INET, device, "ignore_routes_with_linkdown")


class RouteCompiler:
    """Makes entries of routes. Many routes share their hops, so paths are made once for each set of hops."""

    def __init__(self, snapshot: Snapshot, devices: Mapping[int, Device]) -> None:
        self.snapshot = snapshot
        self.devices = devices
        self.loopback = snapshot.loopback
        self.heeds_carrier = {
            (family, link.index)
            for link in snapshot.links.values()
            for family in FAMILIES
            if heeds_carrier(snapshot.sysctls, family, link.name)
        }
        self.own_gateways = OwnGateways(snapshot.routes)
        self._paths: dict[tuple[int, int, tuple[Hop, ...], tuple[Hop, ...], bool], tuple[Path, ...]] = {}

    def entry(self, route: Route) -> Entry | None:
        """The route with its paths; None while it refers to a next-hop object that is not there (yet)."""
        kind = RTN_BLACKHOLE if route.family == AF_INET and route.type in UNUSED_TYPES else route.type
        error = TYPE_ERRORS.get(kind, 0)
        if route.nexthop:
            return self._entry_of_object(route, error)
        hops = route.hops
        if error and not hops and route.family == AF_INET6 and self.loopback:
            hops = (Hop(self.loopback.index),)  # where fib6_nh_init lets them lead to
        own = self.own_gateways.among(route.table, hops) if route.family == AF_INET else ()
        return Entry(route, self._shared(route, hops, own, is_object=False), error)

    def _entry_of_object(self, route: Route, error: int) -> Entry | None:
        nexthops = self.snapshot.nexthops
        leader = nexthops.get(route.nexthop)
        if leader is None:
            return None
        members = [(nexthops[member], weight) for member, weight in leader.group if member in nexthops]
        members = members if leader.group else [(leader, 1)]
        if len(members) == 1 and members[0][0].blackhole:
            return Entry(route, (), TYPE_ERRORS[RTN_BLACKHOLE], is_object=True)
        hops = tuple(replace(member.hop, weight=weight, flags=self._carrier(member)) for member, weight in members)
        own = tuple(
            hop
            for hop, (member, _) in zip(hops, members, strict=True)
            if member.scope >= RT_SCOPE_HOST and member.family == AF_INET
        )
        paths = self._shared(route, hops, own, is_object=True)
        return Entry(route, paths, error, is_object=True, is_resilient=leader.resilient)

    def _carrier(self, member: NextHop) -> int:
        """The flags of an object's hop, with linkdown where its device has no carrier: the kernel does not tell."""
        link = self.snapshot.links.get(member.hop.oif)
        return member.hop.flags | (RTNH_F_LINKDOWN if link and not link.has_carrier else 0)

    def _shared(self, route: Route, hops: tuple[Hop, ...], own: tuple[Hop, ...], is_object: bool) -> tuple[Path, ...]:
        """The paths of these hops, made when they are first asked for."""
        key = (route.family, route.scope, hops, own, is_object)
        paths = self._paths.get(key)
        if paths is None:
            paths = self._paths[key] = tuple(self._make(*key))
        return paths

    def _make(
        self, family: int, scope: int, hops: tuple[Hop, ...], own: tuple[Hop, ...], is_object: bool
    ) -> Iterator[Path]:
        """The paths with their bounds, which share the hash space out by weight. The gateways of `own` are not used.

        Source: fib_rebalance, rt6_multipath_rebalance, nh_hthr_group_rebalance (a group counts members that are down too).
        """
        usable = [self._is_usable(hop, family) for hop in hops]
        counted = [good or is_object for good in usable]
        total = sum(hop.weight for hop, count in zip(hops, counted, strict=True) if count)
        reached = 0
        for hop, good, count in zip(hops, usable, counted, strict=True):
            bound = -1
            if count:
                reached += hop.weight
                bound = ((reached << MULTIPATH_BITS) + total // 2) // total - 1
            source = b""
            if family == AF_INET and hop.oif in self.devices:
                towards = hop.gateway if len(hop.gateway) == 4 else ANY[AF_INET]
                source = inet_select_addr(self.devices, hop.oif, towards, scope)
            yield Path(hop.oif, b"" if hop in own else hop.gateway, bound, source, good, hop.encap)

    def _is_usable(self, hop: Hop, family: int) -> bool:
        """The path can carry packets: neither dead, nor without carrier where that is to be heeded."""
        if hop.flags & RTNH_F_DEAD or hop.oif not in self.snapshot.links:
            return False
        return not (hop.flags & RTNH_F_LINKDOWN and (family, hop.oif) in self.heeds_carrier)
