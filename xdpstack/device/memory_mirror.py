"""What a host of memory devices knows, given by hand instead of by netlink: links, addresses, routes, rules, neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from xdpstack.device import memory_text
from xdpstack.device.memory_clock import ManualClock
from xdpstack.errors import ConfigurationError
from xdpstack.netlink import DEFAULT_RULES, Address, Change, Hop, Link, Neighbour, Route, Rule, Snapshot, text
from xdpstack.netlink.changes import differences
from xdpstack.netlink.derive import on_link
from xdpstack.netlink.uapi import IFF_LOWER_UP, IFF_RUNNING, IFF_UP

#: A neighbour is probed at most so often.
PROBE_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Given:
    """A host as it is given: the lists of `Snapshot.build`, each entry as a value or in the words of iproute2.

    What the kernel would add by itself (loopback, local and connected routes, link-local addresses) is added.
    """

    addresses: Mapping[str, Sequence[str | Address]]
    routes: Sequence[str | Route] = ()
    rules: Sequence[str | Rule] = ()
    neighbours: Sequence[str | Neighbour] = ()
    sysctls: Mapping[str, int] | None = None


class MemoryMirror:
    """Holds the snapshot of the links and of what was `given`; `change()` and the others make a new one.

    `rules` are added to the kernel's default rules. A change reaches the workers with the next round of the stack's
    control side, as a netlink message would. Raises ConfigurationError for what cannot be.
    """

    def __init__(self, links: Iterable[Link], given: Given, clock: ManualClock | None = None) -> None:
        self.links = {link.name: link for link in links}
        self.given = given
        #: Neighbours that the stack had asked for: (device name, address as text), oldest first.
        self.probed: list[tuple[str, str]] = []
        self._clock = clock
        self._probed_ns: dict[tuple[int, bytes], int] = {}
        self._changes: list[Change] = []
        self._snapshot = self._build(1)

    def _build(self, generation: int) -> Snapshot:
        given, devices = self.given, self._devices()
        for name in given.addresses.keys() - devices.keys():
            raise ConfigurationError(
                f"addresses for {name!r}, which is no device", fix=f"One of: {', '.join(devices)}."
            )
        try:
            return Snapshot.build(
                self.links.values(),
                self._addresses(),
                self._routes(),
                [*DEFAULT_RULES, *(r if isinstance(r, Rule) else memory_text.rule(r, devices) for r in given.rules)],
                [n if isinstance(n, Neighbour) else memory_text.neighbour(n, devices) for n in given.neighbours],
                sysctls=given.sysctls,
                generation=generation,
            )
        except ConfigurationError:
            raise
        except (ValueError, KeyError) as error:
            raise ConfigurationError(str(error.args[0] if error.args else error)) from None

    def _devices(self) -> dict[str, int]:
        """Interface indices by name."""
        return {"lo": 1, **{name: link.index for name, link in self.links.items()}}

    def _addresses(self) -> list[Address]:
        devices = self._devices()
        return [
            address if isinstance(address, Address) else memory_text.address(address, name, devices)
            for name, own in self.given.addresses.items()
            for address in own
        ]

    def _routes(self) -> list[Route]:
        """The given routes, each hop with its device: that of the gateway, as if every link were up."""
        devices = self._devices()
        routes = [r if isinstance(r, Route) else memory_text.route(r, devices) for r in self.given.routes]
        if all(hop.oif for route in routes for hop in route.hops):
            return routes
        up = [replace(link, flags=link.flags | IFF_UP) for link in self.links.values()]
        connected = Snapshot.build(up, self._addresses(), sysctls=self.given.sysctls).routes

        def with_device(hop: Hop) -> Hop:
            return hop if hop.oif else replace(hop, oif=on_link(hop.gateway, connected))

        return [replace(route, hops=tuple(with_device(hop) for hop in route.hops)) for route in routes]

    # ---- what a stack calls (MirrorLike) ----

    @property
    def snapshot(self) -> Snapshot:
        """The host as it is now."""
        return self._snapshot

    def fileno(self) -> int:
        """-1: nothing ever comes by itself."""
        return -1

    def process(self) -> Sequence[Change]:
        """The changes made since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def collect(self) -> None:
        """Nothing comes by itself."""

    def doubt_groups(self) -> None:
        """They are what was given."""

    def probe(self, neighbour: Neighbour | tuple[int, bytes]) -> bool:
        """Note that the stack wants a neighbour resolved; answer by `learn()`. False within a second of the last time."""
        key = neighbour if isinstance(neighbour, tuple) else (neighbour.index, neighbour.address)
        now = self._clock.now_ns if self._clock else 0
        last = self._probed_ns.get(key)
        if last is not None and now - last < PROBE_NS:
            return False
        self._probed_ns[key] = now
        self.probed.append((self._snapshot.links[key[0]].name, text(key[1])))
        return True

    def close(self) -> None:
        """Nothing to close."""

    # ---- what a test calls ----

    def change(
        self,
        *,
        addresses: Mapping[str, Sequence[str | Address]] | None = None,
        routes: Sequence[str | Route] | None = None,
        rules: Sequence[str | Rule] | None = None,
        neighbours: Sequence[str | Neighbour] | None = None,
        sysctls: Mapping[str, int] | None = None,
    ) -> None:
        """Replace what is given; what is None stays. Addresses are replaced device by device, sysctls one by one."""
        given = self.given
        self._replace(
            self.links,
            Given(
                {**given.addresses, **(addresses or {})},
                given.routes if routes is None else routes,
                given.rules if rules is None else rules,
                given.neighbours if neighbours is None else neighbours,
                {**(given.sysctls or {}), **(sysctls or {})},
            ),
        )

    def learn(self, *neighbours: str | Neighbour) -> None:
        """Add neighbours, or replace those with the same device and address."""
        devices = self._devices()
        new = [n if isinstance(n, Neighbour) else memory_text.neighbour(n, devices) for n in neighbours]
        keys = {(n.index, n.address) for n in new}
        kept = [n for n in self._snapshot.neighbours.values() if (n.index, n.address) not in keys]
        self.change(neighbours=[*kept, *new])

    def set_link(
        self, name: str, *, up: bool | None = None, carrier: bool | None = None, mtu: int | None = None
    ) -> None:
        """Change a link as `ip link set` would. While it is down its routes are away.

        With it they come back, the given ones too (the kernel has lost those for good: whoever set them has to again).
        """
        link = self.links[name]
        flags = link.flags
        if up is not None:
            flags = flags | IFF_UP if up else flags & ~IFF_UP
            carrier = up if carrier is None else carrier
        if carrier is not None:
            flags = flags | IFF_LOWER_UP | IFF_RUNNING if carrier else flags & ~(IFF_LOWER_UP | IFF_RUNNING)
        changed = replace(link, flags=flags, mtu=link.mtu if mtu is None else mtu)
        self._replace({**self.links, name: changed}, self.given)

    def remove_link(self, name: str) -> None:
        """Delete a link, and with it its addresses, switches and neighbours, and the routes through it."""
        index = self.links[name].index
        given = self.given
        self._replace(
            {n: link for n, link in self.links.items() if n != name},
            replace(
                given,
                addresses={n: a for n, a in given.addresses.items() if n != name},
                routes=[r for r in self._routes() if all(hop.oif != index for hop in r.hops)],
                neighbours=[n for n in self._snapshot.neighbours.values() if n.index != index],
                sysctls={k: v for k, v in (given.sysctls or {}).items() if f".conf.{name}." not in k},
            ),
        )

    def _replace(self, links: dict[str, Link], given: Given) -> None:
        before = self.links, self.given
        self.links, self.given = links, given
        try:
            new = self._build(self._snapshot.generation + 1)
        except BaseException:
            self.links, self.given = before
            raise
        self._changes += differences(self._snapshot, new)
        self._snapshot = new
