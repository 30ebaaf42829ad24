"""Everything the mirror knows, at one moment: an immutable value that layers build their tables from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from xdpstack.netlink import derive
from xdpstack.netlink.address import Address
from xdpstack.netlink.link import Link
from xdpstack.netlink.neighbour import Neighbour
from xdpstack.netlink.nexthop import NextHop
from xdpstack.netlink.past import Past
from xdpstack.netlink.route import Route
from xdpstack.netlink.rule import DEFAULT_RULES, Rule
from xdpstack.netlink.sysctl import Sysctls
from xdpstack.netlink.uapi import ARPHRD_LOOPBACK, IF_OPER_UNKNOWN, IFF_LOOPBACK, IFF_LOWER_UP, IFF_RUNNING, IFF_UP


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Devices, addresses, routes, rules and neighbours of one network namespace.

    Two snapshots are equal when all but their generation is.
    """

    links: Mapping[int, Link] = field(default_factory=dict)
    """By interface index."""
    addresses: tuple[Address, ...] = ()
    """In the kernel's order, which source address selection depends on."""
    routes: tuple[Route, ...] = ()
    """Of all tables and both families. Routes of one table to one prefix stand in the kernel's order."""
    rules: tuple[Rule, ...] = DEFAULT_RULES
    """Of both families, in the order they are asked."""
    neighbours: Mapping[tuple[int, bytes], Neighbour] = field(default_factory=dict)
    """By (device index, packed IP address)."""
    nexthops: Mapping[int, NextHop] = field(default_factory=dict)
    """Next-hop objects by id."""
    sysctls: Sysctls = field(default_factory=Sysctls)
    groups: frozenset[tuple[int, bytes]] = frozenset()
    """Multicast memberships of the host: (device index, packed group)."""
    generation: int = field(default=0, compare=False)
    """Counts publications; a larger one is newer."""
    past: Past = field(default_factory=Past)
    """What was once and still counts."""

    @classmethod
    def build(
        cls,
        links: Iterable[Link],
        addresses: Iterable[Address] = (),
        routes: Iterable[Route] = (),
        rules: Iterable[Rule] = DEFAULT_RULES,
        neighbours: Iterable[Neighbour] = (),
        nexthops: Iterable[NextHop] = (),
        sysctls: Mapping[str, int] | None = None,
        groups: Iterable[tuple[int, bytes]] = (),
        generation: int = 1,
    ) -> "Snapshot":
        """A state given by hand, completed as the kernel would.

        Added are a loopback device, loopback and link-local addresses, local, connected and broadcast routes, and the
        host's own multicast groups. Routes whose device is down are left out, as the kernel flushes them; a gateway
        without a device gets that of the connected route to it. `sysctls` are set over those of a fresh namespace.

        ValueError: a route's gateway is on no link, an address or route names an unknown device, or two addresses of
        one prefix differ in scope. KeyError: a switch that is not mirrored.
        """
        known = with_loopback({link.index: link for link in links})
        mtus = {f"ipv6.conf.{link.name}.mtu": link.mtu for link in known.values()}
        switches = Sysctls.build({**mtus, **(sysctls or {})}, [link.name for link in known.values()])
        given = list(addresses)
        for address in given:
            if address.index not in known:
                raise ValueError(f"address {address}: no device has the index {address.index}")
        owned = derive.all_addresses(known, given, switches)
        table = derive.kernel_routes(known, owned, switches)
        for route in routes:
            finished = derive.complete(route, table, known)
            if all(known[hop.oif].is_up for hop in finished.hops):
                table.append(finished)
        return cls(
            MappingProxyType(known),
            owned,
            tuple(table),
            tuple(sorted(rules, key=lambda rule: (rule.family, rule.priority))),
            MappingProxyType({(entry.index, entry.address): entry for entry in neighbours}),
            MappingProxyType({entry.id: entry for entry in nexthops}),
            switches,
            frozenset([*derive.memberships(known, owned, switches), *groups]),
            generation,
        )

    def link(self, name: str) -> Link | None:
        """The device of this name, or None."""
        return next((link for link in self.links.values() if link.name == name), None)

    @property
    def loopback(self) -> Link | None:
        """The namespace's loopback device (index 1 in every namespace that has not been played with)."""
        return next((link for link in self.links.values() if link.is_loopback), None)

    def addresses_of(self, index: int, family: int = 0) -> list[Address]:
        """The addresses of device `index`, in the kernel's order; of one family unless it is 0."""
        return [a for a in self.addresses if a.index == index and family in (0, a.family)]

    def with_generation(self, generation: int) -> "Snapshot":
        """The same state under another generation."""
        return replace(self, generation=generation)


def with_loopback(links: dict[int, Link]) -> dict[int, Link]:
    """`links` in order of index, with a loopback device if there is none: every namespace has one."""
    if not any(link.is_loopback for link in links.values()):
        index = 1 if 1 not in links else max(links) + 1
        flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP
        links = {
            index: Link(
                index, "lo", mtu=65536, flags=flags, type=ARPHRD_LOOPBACK, oper_state=IF_OPER_UNKNOWN,
                broadcast=bytes(6),
            ),
            **links,
        }  # fmt: skip
    return dict(sorted(links.items()))
