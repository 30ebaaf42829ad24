"""The packets of routing.rx and routing.tx as a routing layer in Python has them: a Flow to read, a Verdict to give.

    for packet in batch.undecided():
        packet.decide(route_input(batch.tables, packet.flow))

What a verdict does to a packet is what csrc/stages/routing_rx.c and routing_tx.c do to it: flags, next hop, device, source.
Next hops are those of the published tables (nexthops.py), so that the C stages that follow read the same.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from xdpstack.errors import ConfigurationError
from xdpstack.layer import LayerBatch, LayerPacket
from xdpstack.native import lib
from xdpstack.native.core import Core
from xdpstack.netlink import text
from xdpstack.netlink.ip import ANY
from xdpstack.netlink.uapi import AF_INET, AF_INET6
from xdpstack.routing.flow import Flow, Verdict
from xdpstack.routing.multipath import multipath_hash
from xdpstack.routing.nexthops import NextHop, NextHopIds
from xdpstack.walk import Hook

if TYPE_CHECKING:
    from xdpstack.routing.layer import RoutingLayer

UDP = 17
#: Protocols whose header begins with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
WITH_PORTS = frozenset({6, UDP, 33, 132, 136})
MAPPED = bytes(10) + b"\xff\xff"
UNSPECIFIED = bytes(16)
#: What a verdict on a packet for this host sets.
LOCAL = {
    "local": lib.XS_PKT_ROUTED_LOCAL,
    "broadcast": lib.XS_PKT_ROUTED_BROADCAST,
    "multicast": lib.XS_PKT_ROUTED_MULTICAST,
}
ROUTED = lib.XS_PKT_ROUTED_LOCAL | lib.XS_PKT_ROUTED_BROADCAST | lib.XS_PKT_ROUTED_MULTICAST


class RoutingPacket(LayerPacket):
    """A packet that came in (routing.rx), or a datagram that this host sends and that has no headers yet (routing.tx)."""

    __slots__ = ()
    _batch: RoutingBatch

    @property
    def flow(self) -> Flow:
        """What routing knows of it."""
        flow = self._received() if self._batch.row == "routing.rx" else self._sent()
        fields = self._batch.layer.hash_fields.get(flow.family, 0)
        return flow.but(hasher=partial(multipath_hash, fields)) if fields else flow

    def _received(self) -> Flow:
        pkt, at = self._pkt, self._pkt.l3_off
        if pkt.flags & lib.XS_PKT_IPV6:
            header = self.bytes_at(at, 40)
            source, destination, label = header[8:24], header[24:40], int.from_bytes(header[1:4]) & 0xFFFFF
        else:
            header = self.bytes_at(at, 20)
            source, destination, label = header[12:16], header[16:20], 0
        sport, dport = self._ports()
        return Flow(
            destination,
            source,
            iif=self._batch.ifindexes[pkt.device],
            mark=pkt.mark,
            tos=pkt.tos,
            protocol=pkt.l4_proto,
            source_port=sport,
            destination_port=dport,
            flow_label=label,
        )

    def _ports(self) -> tuple[int, int]:
        """The ports, where no fragment hides them and the first frame has them; else zeros."""
        pkt = self._pkt
        hidden = pkt.flags & lib.XS_PKT_FRAGMENT or not pkt.l4_off or pkt.l4_off + 4 > pkt.data_off + pkt.len
        if hidden or pkt.l4_proto not in WITH_PORTS:
            return 0, 0
        ports = self.bytes_at(pkt.l4_off, 4)
        return int.from_bytes(ports[:2]), int.from_bytes(ports[2:])

    def _sent(self) -> Flow:
        pkt, meta = self._pkt, self._batch.meta(self._index)
        start = 0 if pkt.flags & lib.XS_PKT_IPV6 else 12
        source = bytes(meta.src)
        bound = self._batch.ifindexes.get(pkt.device, 0)
        return Flow(
            bytes(meta.dst)[start:],
            b"" if source in (UNSPECIFIED, MAPPED + bytes(4)) else source[start:],
            oif=bound,
            mark=pkt.mark,
            tos=pkt.tos,
            protocol=UDP,
            source_port=pkt.sport,
            destination_port=pkt.dport,
            user=os.getuid(),
            bound=bool(bound),
        )

    def decide(self, verdict: Verdict) -> None:
        """The packet goes where `verdict` says. Raises ConfigurationError for what cannot be done with it."""
        self._batch.check()
        self._pkt.flags = self._pkt.flags & ~ROUTED
        if self._batch.row == "routing.rx":
            self._decide_received(verdict)
        else:
            self._decide_sent(verdict)

    def _decide_received(self, verdict: Verdict) -> None:
        batch, pkt = self._batch, self._pkt
        pkt.nexthop = lib.XS_NEXTHOP_NONE
        if verdict.action in LOCAL:
            pkt.flags = pkt.flags | LOCAL[verdict.action]
            self.go("local")
        elif verdict.action == "drop":
            self.drop(verdict.reason)
        elif verdict.action != "forward":
            raise ConfigurationError(f"a packet that came in cannot be {verdict.action!r}")
        elif verdict.encap or verdict.oif not in batch.numbers:
            self.drop("NOT_CLAIMED")
        else:
            pkt.nexthop = batch.next_hop(verdict)
            self.go("forward")

    def _decide_sent(self, verdict: Verdict) -> None:
        batch, pkt, meta = self._batch, self._pkt, self._batch.meta(self._index)
        ipv6 = bool(pkt.flags & lib.XS_PKT_IPV6)
        destination = bytes(meta.dst) if ipv6 else bytes(meta.dst)[12:]
        if is_the_kernels(verdict, destination, batch):
            self.drop("TX_SLOW")
        elif verdict.action == "drop":
            self.drop(verdict.reason)
        elif verdict.action not in ("output", "multicast"):
            raise ConfigurationError(f"a datagram that is sent cannot be {verdict.action!r}")
        else:
            pkt.nexthop = batch.next_hop(verdict)
            pkt.device = batch.numbers[verdict.oif]
            if verdict.action == "multicast":
                pkt.flags = pkt.flags | lib.XS_PKT_ROUTED_MULTICAST
            source = verdict.source or ANY[AF_INET6 if ipv6 else AF_INET]
            meta.src = source if ipv6 else MAPPED + source
            self.go("output")


class RoutingBatch(LayerBatch):
    """The packets of routing.rx or routing.tx. `tables` are those in force when it was taken."""

    packet = RoutingPacket
    layer: RoutingLayer

    def __init__(self, hook: Hook, worker: Any, core: Core, *, layer: RoutingLayer, ids: NextHopIds, host: Any) -> None:
        super().__init__(hook, worker, core, layer)
        self.tables = layer.tables
        self.numbers = {device.ifindex: device.index for device in host.devices}
        self.ifindexes = {device.index: device.ifindex for device in host.devices}
        self._ids = ids

    def meta(self, index: int) -> Any:
        """The cold descriptor of packet `index`."""
        return self.core.metas[self.frames[index]]

    def next_hop(self, verdict: Verdict) -> int:
        """The id of a verdict's next hop. ConfigurationError: no route leads there, so that no stage knows it."""
        hop = next_hop(verdict)
        found = self._ids.find(hop)
        if found is None:
            via = f" via {text(hop.gateway)}" if hop.gateway else ""
            raise ConfigurationError(
                f"there is no next hop{via} on device {hop.ifindex} with MTU {hop.mtu}",
                cause="A routing layer chooses among the next hops of the routes there are.",
                fix="Add a route that leads there, in a table of its own if it is for this layer alone.",
            )
        return found


def next_hop(verdict: Verdict) -> NextHop:
    """The next hop of a verdict, as native_tables.py has it of the route."""
    route = verdict.route
    on_link = route is None or (
        route.family == AF_INET and verdict.action == "multicast" and route.destination.length < 4
    )
    locked = route is not None and not on_link and route.mtu_locked
    return NextHop(verdict.oif, verdict.gateway, verdict.mtu, locked, verdict.hop_limit, verdict.encap)


def is_the_kernels(verdict: Verdict, destination: bytes, batch: RoutingBatch) -> bool:
    """A datagram that the stack leaves to the kernel, with whatever error that has for it (TX_SLOW in layer.py)."""
    if destination == ANY[AF_INET6]:
        return True
    if verdict.action == "drop":  # of what is the kernel's, the kernel says what is wrong with it
        return bool(verdict.refused_at) and (verdict.refused_at not in batch.numbers or bool(verdict.encap))
    if verdict.action in ("local", "broadcast") or verdict.oif not in batch.numbers or verdict.encap:
        return True
    joined = (verdict.oif, destination) in batch.tables.groups
    here_only = len(destination) == 16 and destination[1] & 0xF <= 1
    return verdict.action == "multicast" and (joined or here_only)
