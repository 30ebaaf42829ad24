"""routing: for this host, to forward, or to drop; and which way what this host sends goes.

What it decides is defined in `semantics.py`, over the tables of `tables.py`; docs/stages/routing.md says how the parts fit.
Below are the contracts of the layer's two rows.

routing.rx
==========
Does: decides where a packet that came in goes.
Mirrors: ip_route_input_noref, ip_error, fib_validate_source; ip6_route_input, ip6_pkt_drop, ip6_mc_input, the address
    checks of ip6_forward; fib_rules_lookup, fib_table_lookup, fib6_table_lookup.
Reads: l3_off, l4_off, l4_proto, data_off, len, device, mark, tos, flags IPV6 and FRAGMENT; the addresses, ports and flow
    label in the headers.
Writes: flags ROUTED_LOCAL, ROUTED_BROADCAST and ROUTED_MULTICAST; nexthop of what is forwarded.
Next:
    local: it is for this host: to an address of its own, a broadcast address, or a group it is a member of.
    forward: it is to be forwarded, and the device forwards.
Drops:
    IP_INVALID_SOURCE: IPv4, the source is a multicast or broadcast address, or 0.0.0.0.
    IP_INVALID_DEST: IPv4, the destination is 0.0.0.0, or its route is of a type that nothing is forwarded to.
    IP_LOCALNET: IPv4, an address of 127.0.0.0/8 on a device without route_localnet.
    IP_LOCAL_SOURCE: IPv4, the source is an address of this host, and the device has no accept_local.
    IP_RPFILTER: IPv4, the source is not reached through the device (rp_filter 1), or not at all (2).
    IP_INADDRERRORS: it is not for this host, and the device does not forward; IPv6, the destination is ::, or the source may
        not be forwarded.
    IP_INNOROUTES: there is no route; IPv6, or one that refuses.
    ROUTE_UNREACHABLE: IPv4, the route is of type unreachable.
    ROUTE_PROHIBIT: IPv4, the route is of type prohibit, or a rule says so.
    ROUTE_BLACKHOLE: the route is of type blackhole, or a rule says so.
    NOT_MEMBER: it is for a multicast group that the host has not joined on the device.
    NOT_CLAIMED: it would be forwarded through a device that is none of this stack.
Holds: nothing.
State: the FIB, published by this layer (native.py); the device table, published by the stack.
Cost: benchmarks/stages/bench_routing.py
Differs from Linux:
    - A packet is not a flow that remembers: no cached routes, no path MTUs or redirects that were learned.
    - The multipath hash is another one, over the same fields: flows spread alike, each by a path of its own choice.
    - Routes through tunnels (encapsulation) and resilient next-hop groups: see `RoutingLayer.apply`.
    - VRFs are refused by compile_tables(); their rules (l3mdev) match nothing.
    - Multicast is not forwarded (mc_forwarding), and source filters of memberships (IGMPv3, MLDv2) are not heeded.
    - IPv4: once a route of type local was added by hand, Linux checks sources in full for good; here that is so if it was
      there while the mirror followed.
    - IPv4: several default routes of one metric are told apart by the state of their gateways, as in Linux; Linux also
      remembers which it took last.
    - IPv4: a multipath route knows its sources by the addresses of today, and any route whether its gateway is this host
      itself by the routes of today; Linux by those of when the route was added.
    - No ICMP error is sent, and no redirect.
    - IPv6: of siblings that were added one by one, netlink tells the preference, source and metrics of the first alone,
      and nothing of a route without a gateway that stands between them.
    - An IPv6 gateway that is not known to be reachable is not probed because a better router is wanted (rt6_probe).

routing.tx
==========
Does: decides which way a datagram of this host goes, and from which address.
Mirrors: ip_route_output_flow, inet_select_addr, fib_select_path; ip6_dst_lookup_flow, ipv6_dev_get_saddr, fib6_select_path;
    RFC 6724.
Reads: sport, dport, mark, tos, device (of a bound sender), flags IPV6; src and dst of the cold descriptor.
Writes: device, nexthop, flags ROUTED_MULTICAST; src of the cold descriptor.
Next:
    output: the way is known.
Drops:
    IP_OUTNOROUTES: there is no route, or a rule says unreachable; IPv4, the source is no address of this host; the device is
        down. ENETUNREACH.
    ROUTE_UNREACHABLE: the route is of type unreachable. EHOSTUNREACH.
    ROUTE_PROHIBIT: the route is of type prohibit, or a rule says so. EACCES.
    ROUTE_BLACKHOLE: the route is of type blackhole, or a rule says so. EINVAL.
    INVALID_ARG: IPv4, the source is a multicast or broadcast address; a loopback address would leave the host. EINVAL.
    NO_SOURCE_ADDRESS: IPv6, there is no address that could be the source. EADDRNOTAVAIL.
    TX_SLOW: it is the kernel's to send: to this host itself, a broadcast, to a group that the host is a member of, through a
        device that is none of this stack, through a tunnel.
Holds: nothing.
State: the FIB, published by this layer (native.py); the device table, published by the stack.
Cost: benchmarks/stages/bench_routing.py
Differs from Linux:
    - All that is said of lookups above.
    - The order of devices, where it matters (a source address of another device), is that of their indices; Linux has that
      of their registration.
    - IPv4: of an address that several devices have, Linux takes the device that got it last for broadcast and multicast
      from it; here it is the one with the lowest index.
    - IPv6: the policy table of RFC 6724 is the default one (ip addrlabel is not mirrored), and a sender's preferences
      (IPV6_ADDR_PREFERENCES) are not known.
    - IPv6: no detour through the default router while an optimistic address has an unresolved neighbour.
    - MSG_DONTROUTE is the scope of the flow in `semantics.py`; the C stage does not know it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpstack.netlink import Snapshot
from xdpstack.netlink.uapi import FAMILIES
from xdpstack.routing.flow import Flow, Verdict
from xdpstack.routing.multipath import hash_fields
from xdpstack.routing.semantics import route_input, route_output
from xdpstack.routing.tables import Device, Tables, compile_tables

if TYPE_CHECKING:
    from xdpstack.routing.engine import RoutingBatch

log = logging.getLogger("xdpstack.routing")

#: Gets the tables, and the snapshot they were compiled from.
Publisher = Callable[[Snapshot, Tables], object]


class RoutingLayer:
    """The routing of one stack: the tables in force, and what decides by them.

    Control calls `apply` with each snapshot of the mirror; anybody may ask for a decision at any time. `publishers` get the
    tables before they become the layer's own, so that what is decided here can be done: native.py is one, which hands them
    to the C stages. `forwards` False: the stack is a host and no router, whatever the host's switches say.
    """

    def __init__(self, publishers: Iterable[Publisher] = (), forwards: bool = True) -> None:
        self.publishers = list(publishers)
        self.forwards = forwards
        self.hash_fields: Mapping[int, int] = {}
        """By family what multipath hashes (XS_HASH_*); empty while no route has several paths."""
        self._tables = Tables()
        self._compiled: Snapshot | None = None
        self._warned: frozenset[str] = frozenset()

    @property
    def tables(self) -> Tables:
        """The tables in force; empty, of generation 0, before the first `apply`."""
        return self._tables

    def apply(self, snapshot: Snapshot) -> Tables:
        """Compile `snapshot` to tables, publish them, put them in force, and return them.

        What the tables hold and this stack cannot do is left to the kernel, and logged once: `left_to_kernel`.

        ConfigurationError: compile_tables() refuses the snapshot. The old tables stay in force, here and with every
        publisher.
        """
        if self._compiled is not None and only_neighbours_differ(self._compiled, snapshot):
            tables = replace(self._tables, generation=snapshot.generation, neighbours=snapshot.neighbours)
        else:
            tables = compile_tables(snapshot)
            if not self.forwards:
                tables = replace(tables, devices=without_forwarding(tables.devices))
            self._warn(tables)
        for publish in self.publishers:
            publish(snapshot, tables)
        several = any(len(entry.paths) > 1 for fib in tables.fibs.values() for entry in fib)
        self.hash_fields = {f: hash_fields(snapshot.sysctls, f) for f in FAMILIES} if several else {}
        self._compiled, self._tables = snapshot, tables
        return tables

    def route_input(self, flow: Flow) -> Verdict:
        """Where a packet goes that came in by `flow.iif`."""
        return route_input(self._tables, flow)

    def route_output(self, flow: Flow) -> Verdict:
        """Where a packet of this host goes, and from which address."""
        return route_output(self._tables, flow)

    def process(self, batch: RoutingBatch) -> None:
        """Decide what nobody has decided yet of a batch of routing.rx or routing.tx, by the definition (semantics.py)."""
        decide = route_input if batch.row == "routing.rx" else route_output
        for packet in batch.undecided():
            packet.decide(decide(batch.tables, packet.flow))

    def _warn(self, tables: Tables) -> None:
        """Log what is new in `left_to_kernel`."""
        found = frozenset(left_to_kernel(tables))
        for text in sorted(found - self._warned):
            log.warning("%s", text)
        self._warned = found


def without_forwarding(devices: Mapping[int, Device]) -> dict[int, Device]:
    """The devices of a host that is no router."""
    return {
        index: replace(device, forwarding=False, forwarding6=False, bc_forwarding=False)
        for index, device in devices.items()
    }


def only_neighbours_differ(old: Snapshot, new: Snapshot) -> bool:
    """All that tables are compiled from is the same. The mirror keeps what did not change as it is, so this is quick."""
    return all(
        getattr(old, name) is getattr(new, name)
        for name in ("links", "addresses", "routes", "rules", "nexthops", "sysctls", "groups", "past")
    )


def left_to_kernel(tables: Tables) -> list[str]:
    """What the tables ask for and this stack does not do, in words.

    Packets over a path with encapsulation are left to the kernel (`Verdict.encap`); a resilient group is taken as a plain
    one, so that flows may move between its members when it changes.
    """
    texts = []
    for fib in tables.fibs.values():
        for entry in fib:
            if any(path.encap for path in entry.paths):
                texts.append(f"route {entry.route}: encapsulation is left to the kernel")
            if entry.is_resilient:
                texts.append(f"route {entry.route}: its resilient next-hop group is taken as a plain one")
    return texts
