"""The packets of udp.rx and udp.tx as a UDP layer in Python has them.

    for packet in batch.undecided():                              udp.rx
        packet.decide(receive(packet.datagram, batch.sockets))
    for packet in batch.undecided():                              udp.tx
        packet.prepend(header(packet.outgoing))

What is left to C (csrc/stages/udp_decided.c) is what no Python can do: queues with the kernel's accounting, copies for
several sockets, waking who waits, and the counters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdpstack.errors import ConfigurationError
from xdpstack.layer import LayerBatch, LayerPacket
from xdpstack.native import lib
from xdpstack.native.core import Core
from xdpstack.udp import bpf
from xdpstack.udp.semantics import HEADER_BYTES, PROTOCOL, V4_MAPPED, Datagram, Family, Outgoing, Verdict, validate
from xdpstack.walk import Hook

if TYPE_CHECKING:
    from xdpstack.udp.layer import UdpLayer

TO_MANY = lib.XS_PKT_ROUTED_BROADCAST | lib.XS_PKT_ROUTED_MULTICAST
CHECKSUM = {"none": lib.XS_CSUM_NONE, "verified": lib.XS_CSUM_VERIFIED, "partial": lib.XS_CSUM_PARTIAL}


class UdpPacket(LayerPacket):
    """A datagram that came in (udp.rx; `sport` and `dport` are set), or a payload that is sent (udp.tx)."""

    __slots__ = ()
    _batch: UdpBatch

    # ---- udp.rx ----

    @property
    def datagram(self) -> Datagram:
        """What was received, from the UDP header on, and what is asked about it."""
        batch, pkt = self._batch, self._pkt
        ipv6 = bool(pkt.flags & lib.XS_PKT_IPV6)
        before = pkt.l4_off - pkt.data_off
        if ipv6:
            addresses = self.bytes_at(pkt.l3_off + 8, 32)
            source, destination = addresses[:16], addresses[16:]
        else:
            addresses = self.bytes_at(pkt.l3_off + 12, 8)
            source, destination = V4_MAPPED + addresses[:4], V4_MAPPED + addresses[4:]
        # as in C, a header that lies in two frames is none
        whole = bytes(self.data) if pkt.len < before + HEADER_BYTES else self.tobytes()
        device = batch.devices[pkt.device]
        return Datagram(
            6 if ipv6 else 4,
            source,
            destination,
            whole[before:],
            device=pkt.device,
            vlan=self._vlan(),
            partial=device.partial_checksums,
            to_many=bool(pkt.flags & TO_MANY),
            headers=whole[:before],
            network=pkt.l3_off - pkt.data_off,
            facts={
                bpf.AD_PROTOCOL: 0x86DD if ipv6 else 0x0800,
                bpf.AD_PKTTYPE: pkt.pkt_type,
                bpf.AD_IFINDEX: device.ifindex,
                bpf.AD_MARK: pkt.mark,
                bpf.AD_QUEUE: pkt.queue,
            },
        )

    def _vlan(self) -> int:
        """xs_vlan_number() of csrc/include/xdpstack_vlan.h."""
        if not self._pkt.flags & lib.XS_PKT_VLAN:
            return 0
        meta = self._batch.meta(self._index)
        outer, inner = int(meta.vlan_tci) & 0xFFF, int(meta.vlan_inner_tci) & 0xFFF
        return outer << 16 | inner if inner else outer

    def decide(self, verdict: Verdict) -> None:
        """The datagram goes to the sockets that `verdict` names, or is dropped for its reason.

        Raises ConfigurationError when a payload is not the datagram's, or as much of it as a filter left.
        """
        self._batch.check()
        accepted = verdict.accepted
        if accepted is None and verdict.sockets:
            found = validate(self.datagram)
            if isinstance(found, str):
                raise ConfigurationError(f"a datagram that is none ({found}) cannot go to a socket")
            accepted = found
        if accepted is not None:
            self._pkt.payload_off = self._pkt.l4_off + HEADER_BYTES
            self._pkt.payload_len = len(accepted.payload)
            self._pkt.csum = CHECKSUM[accepted.checksum]
        elif verdict.reason == "UDP_CSUM":
            self._pkt.csum = lib.XS_CSUM_BAD
        sizes = [len(payload) for payload in verdict.payloads]
        for payload, size in zip(verdict.payloads, sizes, strict=True):
            if accepted is None or payload != accepted.payload[:size]:
                raise ConfigurationError(
                    "a socket gets the datagram's own payload, or as much of it as a filter leaves",
                    fix="Change bytes in packet.data, before the checksum is looked at.",
                )
        taken = list(zip(verdict.sockets, sizes, strict=True))
        taken += [(socket, lib.XS_DELIVERY_REFUSED) for socket in verdict.refused]
        if taken:
            order = {bound.index: place for place, bound in enumerate(self._batch.sockets)}
            taken.sort(key=lambda one: order.get(one[0], len(order)))  # the last gets the packet, the others copies
            self._batch.deliver(self._index, taken)
        else:
            self.drop(verdict.reason or "NO_SOCKET")

    # ---- udp.tx ----

    @property
    def outgoing(self) -> Outgoing:
        """What is sent; routing has chosen the source."""
        pkt, meta = self._pkt, self._batch.meta(self._index)
        start = pkt.payload_off - pkt.data_off
        payload = self.tobytes()[start : start + pkt.payload_len]
        family: Family = 6 if pkt.flags & lib.XS_PKT_IPV6 else 4
        return Outgoing(family, bytes(meta.src), bytes(meta.dst), pkt.sport, pkt.dport, payload)

    def prepend(self, header: bytes) -> None:
        """Put the UDP header before the payload, and pass the datagram on. ConfigurationError unless it has 8 bytes."""
        if len(header) != HEADER_BYTES:
            raise ConfigurationError(f"a UDP header has {HEADER_BYTES} bytes, not {len(header)}")
        self._batch.check()
        pkt = self._pkt
        pkt.data_off = pkt.l4_off = pkt.payload_off - HEADER_BYTES
        pkt.len += HEADER_BYTES
        pkt.pkt_len += HEADER_BYTES
        pkt.l4_proto = PROTOCOL
        pkt.csum = lib.XS_CSUM_VERIFIED
        start = self.start() + pkt.l4_off
        self._batch.core.umem[start : start + HEADER_BYTES] = header
        self.go("output")


class UdpBatch(LayerBatch):
    """The packets of udp.rx or udp.tx. `sockets` are those there were when it was taken, in order of precedence."""

    packet = UdpPacket
    layer: UdpLayer

    def __init__(self, hook: Hook, worker: Any, core: Core, *, layer: UdpLayer, host: Any) -> None:
        super().__init__(hook, worker, core, layer)
        self.sockets = layer.bounds
        self.devices = host.devices
        self._taken: dict[int, list[tuple[int, int]]] = {}
        if self.row == "udp.rx":
            for packet in self.undecided():
                _set_ports(packet)

    def meta(self, index: int) -> Any:
        """The cold descriptor of packet `index`."""
        return self.core.metas[self.frames[index]]

    def deliver(self, index: int, sockets: Sequence[tuple[int, int]]) -> None:
        """Packet `index` goes to sockets: (its index, bytes of the payload or XS_DELIVERY_REFUSED) of each."""
        self._taken[index] = list(sockets)
        self._next[index] = lib.XS_KEPT

    def drop(self, index: int, reason: str = "HOOK") -> None:
        """Drop packet `index`, whatever was said of it before. Raises ConfigurationError for an unknown reason."""
        super().drop(index, reason)
        self._taken.pop(index, None)

    def deliveries(self) -> Sequence[tuple[int, int, int]]:
        """What `deliver()` was told."""
        return [(index, *one) for index in sorted(self._taken) for one in self._taken[index]]


def _set_ports(packet: UdpPacket) -> None:
    pkt = packet._pkt
    if pkt.l4_off + 4 <= pkt.data_off + pkt.len:
        ports = packet.bytes_at(pkt.l4_off, 4)
        pkt.sport, pkt.dport = int.from_bytes(ports[:2]), int.from_bytes(ports[2:])
