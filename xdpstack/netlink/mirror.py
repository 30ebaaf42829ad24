"""The mirror: what Linux knows about devices, addresses, routes, rules and neighbours, followed live.

    start():    subscribe, then dump every table, then apply the events that came meanwhile, then publish.
    process():  apply what waits (never blocks on events), dump again the tables in doubt, publish once.

    kernel --events--> channel --> state (mutable tables) --publish--> Snapshot (immutable) --> listeners
           <--dump----            ^                  |
                                  +--- doubtful tables

What can go wrong, and what then happens:

* Events are lost (ENOBUFS): every table is dumped again. `counters.overruns`.
* An event cannot be decoded, or does not fit what is known: its tables are dumped again. `counters.doubts`.
* A switch of /proc/sys/net changes, of which netlink says nothing (all but forwarding, rp_filter and a few): they are
  read again by `process()`, at most once a second and for at most a fiftieth of the time. `counters.rereads`.
* Events that imply more than they say (a device went down): the tables concerned are dumped again (see state.py).
* A dump is interrupted by changes ten times over: its last answer is taken, and it is dumped again at the next
  `process()`. `counters.interrupted`.
* The kernel refuses a dump: NetlinkError, and the published snapshot stays.

The old snapshot serves until the new one is complete; a listener never sees half a change.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from xdpstack.errors import ClosedError, ConfigurationError, NamespaceError, NetlinkError
from xdpstack.netlink.changes import Change, differences
from xdpstack.netlink.channel import Channel, OverrunError
from xdpstack.netlink.multicast import read_groups
from xdpstack.netlink.namespace import HeldNamespace
from xdpstack.netlink.neighbour import Neighbour
from xdpstack.netlink.past import Past
from xdpstack.netlink.provoke import provoke
from xdpstack.netlink.route import Route
from xdpstack.netlink.snapshot import Snapshot
from xdpstack.netlink.state import (
    DUMPED,
    EVERYTHING,
    GROUPS,
    NEXTHOPS,
    REQUESTS,
    ROUTES,
    RULES,
    SYSCTLS,
    RouteKey,
    State,
    Table,
)
from xdpstack.netlink.sysctl import Sysctls
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FAMILIES,
    RT_TABLE_MAIN,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_MCADDR,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_MCADDR,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_NEXTHOP,
)

log = logging.getLogger("xdpstack.netlink")

SUBSCRIPTIONS: Final = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV4_MCADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_MCADDR,
    RTNLGRP_NEXTHOP,
)
#: How long switches are believed: so long, and so many times what reading them took.
SYSCTL_SECONDS: Final = 1.0
SYSCTL_SHARE: Final = 50
SETTLE_ROUNDS: Final = 8  # rounds of "dump what is in doubt, apply what came meanwhile" in one process()
PROBE_SECONDS: Final = 1.0
PROBES_REMEMBERED: Final = 4096


@dataclass(slots=True)
class Counters:
    """What the mirror has done since it started."""

    events: int = 0
    """Netlink messages received."""
    overruns: int = 0
    """Times that events were lost."""
    doubts: int = 0
    """Events that could not be decoded."""
    resyncs: int = 0
    """Rounds in which tables were dumped again after the start."""
    rereads: int = 0
    """Times that the switches were read again although nothing said that they had changed."""
    dumps: int = 0
    """Tables dumped."""
    interrupted: int = 0
    """Dumps that changes interrupted every time they were tried."""
    publications: int = 0
    """Snapshots published."""
    probes: int = 0
    """Neighbours the kernel was asked to resolve."""
    probes_spared: int = 0
    """Probes not sent, less than a second after the last to the same address."""
    probe_failures: int = 0
    """Probes the kernel refused or the socket did not take."""


Listener = Callable[[Snapshot, Snapshot, tuple[Change, ...]], None]


class Mirror:
    """Follows one network namespace. One thread at a time may call it, except `snapshot` and `probe` (any thread).

    `netns` is a name under /run/netns, a path, or None for the namespace of the calling thread (which must then stay in
    it for switches to be read). `clock` gives seconds and serves the limits on probes and on reading switches.
    """

    def __init__(self, netns: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.netns = netns
        self.counters = Counters()
        self.listeners: list[Listener] = []
        """Called after each publication, in order, by the thread that runs `process()`. What one raises, it raises."""
        self._clock = clock
        self._state = State()
        self._snapshot = Snapshot(rules=())
        self._routes: Mapping[int, Mapping[RouteKey, tuple[Route, ...]]] = {family: {} for family in FAMILIES}
        self.place = HeldNamespace(None)
        """The namespace, held from `start()` to `close()`: it can be visited though its name is gone."""
        self._channel: Channel | None = None
        self._doubtful: set[Table] = set()
        self._changed: set[Table] = set()
        self._sysctls = Sysctls()
        self._sysctls_until = math.inf
        self._groups: frozenset[tuple[int, bytes]] = frozenset()
        self._rules_changed = False
        self._probed: dict[tuple[int, bytes], float] = {}
        self.privileged = True
        """Whether the kernel can be asked for neighbours (CAP_NET_ADMIN); else it is provoked (provoke.py)."""

    def start(self) -> Snapshot:
        """Open, subscribe, dump everything, and return the first snapshot (generation 1). Once per mirror.

        NamespaceError: the namespace cannot be entered. NetlinkError: the kernel refused a dump.
        """
        if self._channel is not None:
            raise ConfigurationError("this mirror has been started already")
        self.place = HeldNamespace(self.netns)
        try:
            self._channel = Channel(self.place, SUBSCRIPTIONS)
            self._doubtful |= EVERYTHING
            self._settle()
        except BaseException:
            self.close()
            raise
        self._publish()
        return self._snapshot

    @property
    def snapshot(self) -> Snapshot:
        """The last one published; empty, with generation 0, before `start()`."""
        return self._snapshot

    def fileno(self) -> int:
        """For a selector: readable when `process()` has something to do."""
        return self._opened().fileno()

    def close(self) -> None:
        """Close the sockets. The last snapshot stays valid."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.place.close()

    def __enter__(self) -> "Mirror":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def process(self) -> tuple[Change, ...]:
        """Apply what waits, dump what is in doubt, publish at most once; returns what changed, () if nothing did."""
        self._drain()
        if self._clock() >= self._sysctls_until and SYSCTLS not in self._doubtful:
            self._look_at_sysctls()
        first = self._doubtful
        if first:
            self.counters.resyncs += 1
            self._settle()
        return self._publish()

    def collect(self) -> None:
        """Apply what waits, and leave the rest to the next `process()`: nothing is dumped, nothing published.

        For who lets `process()` rest, which takes the longer the more routes there are, while changes come: they do not wait
        in the kernel, where they could be lost.
        """
        self._drain()

    def doubt_groups(self) -> None:
        """Have the next `process()` read the multicast memberships: kernels before 6.14 do not say when one changes."""
        self._doubtful.add(GROUPS)

    def resync(self) -> tuple[Change, ...]:
        """Dump every table and read every switch again, then as `process()`.

        So a switch that the kernel announces to nobody is noticed at once, and not within a second or so.
        """
        self._doubtful |= EVERYTHING
        return self.process()

    def probe(self, neighbour: Neighbour | tuple[int, bytes]) -> bool:
        """Ask the kernel to resolve or confirm a neighbour, by entry or by (device index, packed address).

        At most once a second for each address: False says that the limit spared it, or that the socket took no more.
        The answer comes as a change of the neighbour.
        """
        key = neighbour if isinstance(neighbour, tuple) else (neighbour.index, neighbour.address)
        now = self._clock()
        last = self._probed.get(key)
        if last is not None and now - last < PROBE_SECONDS:
            self.counters.probes_spared += 1
            return False
        if len(self._probed) >= PROBES_REMEMBERED:
            recent = ((each, when) for each, when in self._probed.copy().items() if now - when < PROBE_SECONDS)
            self._probed = dict(recent)
        self._probed[key] = now
        channel = self._opened()
        self.counters.probe_failures += channel.probe_failures()
        try:
            if self.privileged:
                channel.probe(AF_INET if len(key[1]) == 4 else AF_INET6, *key)
            else:
                provoke(self.place, *key)
        except OSError:
            self.counters.probe_failures += 1
            return False
        self.counters.probes += 1
        return True

    def _opened(self) -> Channel:
        if self._channel is None:
            raise ClosedError("this mirror is not open", "start() was not called, or close() was")
        return self._channel

    def _drain(self) -> None:
        """Apply every event that waits."""
        channel = self._opened()
        while True:
            try:
                for kind, flags, message in channel.events():
                    self.counters.events += 1
                    self._apply(kind, flags, message)
                return
            except OverrunError:
                self.counters.overruns += 1
                self._doubtful |= EVERYTHING

    def _apply(self, kind: int, flags: int, message: bytes) -> None:
        try:
            changed, doubtful = self._state.apply(kind, flags, message)
        except Exception:  # whatever a malformed message provokes: the tables are read again instead
            self.counters.doubts += 1
            self._doubtful |= EVERYTHING
            return
        self._changed |= changed
        self._doubtful |= doubtful

    def _settle(self) -> None:
        """Dump what is in doubt, apply what came meanwhile, until nothing is left, for a bounded number of rounds."""
        for _ in range(SETTLE_ROUNDS):
            if not self._doubtful:
                return
            tables, self._doubtful = self._doubtful, set()
            try:
                self._dump(tables)
            except BaseException:
                self._doubtful |= tables
                raise
            self._drain()

    def _dump(self, tables: set[Table]) -> None:
        """Read `tables` from the kernel. The order is that of DUMPED: what is referred to before what refers."""
        channel = self._opened()
        for table in DUMPED:
            if table not in tables:
                continue
            kind, family = table
            self.counters.dumps += 1
            try:
                messages, consistent = channel.dump(REQUESTS[kind], family)
            except NetlinkError:
                if table == NEXTHOPS:  # a kernel before 5.3 has none
                    continue
                raise
            if not consistent:
                self.counters.interrupted += 1
                self._doubtful.add(table)
            self._state.replace(table, messages)
            self._changed.add(table)
            if table == RULES[0] and not self._rules_changed:
                self._rules_changed = self._is_unmerged(channel)
        if SYSCTLS in tables:
            self._sysctls = self._read_sysctls()
            self._changed.add(SYSCTLS)
        if GROUPS in tables:
            self._groups = self.place.run(read_groups)
            self._changed.add(GROUPS)

    def _is_unmerged(self, channel: Channel) -> bool:
        """Table local is not one with main any more (Past.rules). Else the kernel finds the host's addresses in main."""
        owners = (channel.table_of(address.local) for address in self._state.addresses[AF_INET])
        return next((table != RT_TABLE_MAIN for table in owners if table), False)

    def _read_sysctls(self) -> Sysctls:
        names = [link.name for link in self._state.links.values()]
        begun = self._clock()
        read = self.place.run(lambda: Sysctls.read(names))
        ended = self._clock()
        self._sysctls_until = ended + max(SYSCTL_SECONDS, SYSCTL_SHARE * (ended - begun))
        return read

    def _look_at_sysctls(self) -> None:
        """Read the switches again; what else depends on one that has changed is in doubt (as with RTM_NEWNETCONF)."""
        self.counters.rereads += 1
        try:
            read = self._read_sysctls()
        except NamespaceError as error:
            self._sysctls_until = math.inf
            log.warning("switches are read no more: %s", error)
            return
        if read != self._sysctls:
            self._sysctls = read
            self._changed.add(SYSCTLS)
            self._doubtful |= {GROUPS, *ROUTES}

    def _publish(self) -> tuple[Change, ...]:
        """Make a snapshot of the tables if any changed, and tell the listeners."""
        if not self._changed:
            return ()
        changed, self._changed = self._changed, set()
        touched = {kind for kind, _ in changed}
        old, state = self._snapshot, self._state
        past = Past(self._rules_changed, state.local_routes_seen)
        routes = {f: dict(state.routes[f]) if ("route", f) in changed else self._routes[f] for f in FAMILIES}
        new = Snapshot(
            MappingProxyType(dict(state.links)) if "link" in touched else old.links,
            state.addresses[AF_INET] + state.addresses[AF_INET6] if "address" in touched else old.addresses,
            flatten(routes) if "route" in touched else old.routes,
            state.rules[AF_INET] + state.rules[AF_INET6] if "rule" in touched else old.rules,
            MappingProxyType({**state.neighbours[AF_INET], **state.neighbours[AF_INET6]})
            if "neighbour" in touched
            else old.neighbours,
            MappingProxyType(dict(state.nexthops)) if "nexthop" in touched else old.nexthops,
            self._sysctls,
            self._groups,
            old.generation + 1,
            old.past if past == old.past else past,
        )
        changes = tuple(differences(old, new, (self._routes, routes)))
        if not changes and new == old:
            return ()
        self._snapshot, self._routes = new, routes
        self.counters.publications += 1
        for listener in self.listeners:
            listener(old, new, changes)
        return changes


def flatten(routes: Mapping[int, Mapping[RouteKey, tuple[Route, ...]]]) -> tuple[Route, ...]:
    """Every route, IPv4 first; routes under one key stay in their order."""
    return tuple(route for family in (AF_INET, AF_INET6) for group in routes[family].values() for route in group)
