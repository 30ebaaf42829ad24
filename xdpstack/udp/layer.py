"""udp: from IP to the socket, and back.

What a received datagram meets is defined in `semantics.py`; what a socket is to its user, in `socket.py` and
docs/sockets.md. Below are the contracts of the layer's two rows.

udp.rx
======
Does: checks a datagram, finds its socket, and puts it on the socket's receive queue.
Mirrors: udp_rcv, udpv6_rcv, __udp4_lib_lookup, __udp6_lib_lookup, compute_score, __udp4_lib_mcast_deliver,
    __udp_enqueue_schedule_skb, udp_rmem_release; RFC 768, RFC 8200 8.1, RFC 6935.
Reads: data_off, len, pkt_len, l3_off, l4_off, device, frag, csum, flags IPV6, VLAN, ROUTED_BROADCAST and ROUTED_MULTICAST;
    vlan_tci of the cold descriptor with flag VLAN.
Writes: csum, sport, dport, payload_off, payload_len, socket, owner QUEUED, owner_device (the feeding worker),
    truesize (the bytes charged, in the place of nexthop); stamp_ns and scratch[1] of the cold descriptor for sockets that
    want them (SO_TIMESTAMPNS, SO_RXQ_OVFL).
Next:
Drops:
    PKT_TOO_SMALL: shorter than a UDP header, or than the length in it; a length below 8 (0 over IPv6 means all there is).
    UDP_CSUM: wrong checksum; none over IPv6, and the socket does not allow that.
    NO_SOCKET: no socket is bound to the destination.
    SOCKET_FILTER: the socket's filter (classic BPF) returned 0.
    SOCKET_RCVBUFF: the socket's receive buffer is full.
    PROTO_MEM: the sockets together have all of the worker's frames but what its rings, and sending, are to have.
    NOMEM: frames ran out within the copy that one of several sockets gets. A copy that could not even be begun is no
        packet yet: the counter clones_lost has both.
Holds: nothing. What is queued is the reader's; the tick publishes it, once per poll.
State: the table of sockets, published by this layer (native.py); each socket's counters, by their one writer each.
Cost: benchmarks/stages/bench_udp.py
Differs from Linux:
    - The checksum is verified before the datagram is queued. Linux puts that off to the reader beyond 76 bytes, so that
      wrong ones take up receive buffer until they are read.
    - The headers must be in the first frame of a packet of several.
    - No ICMP port unreachable is sent: what has no socket is not lifted.
    - net.ipv4.udp_mem has no counterpart in pages; frames of the worker are what runs out (PROTO_MEM).
    - A datagram's cost is that of a packet from a local sender, whatever the driver would have used.
    - Filters: classic BPF alone, without the facts on vlan, hash, cpu, hardware type, netlink and random; no eBPF.
    - Early demultiplexing only chooses between sockets of one peer, for any frame; its switches are read as these change.
    - Not there: SO_REUSEPORT groups, source filters, encapsulation, UDP_GRO.
    - A socket bound to a VRF's device is none here. One in a VLAN is bound to it by number: there are no VLAN devices.

udp.tx
======
Does: puts the UDP header and its checksum before the payload.
Mirrors: udp_send_skb, udp_v6_send_skb.
Reads: payload_off, payload_len, len, pkt_len, sport, dport; src and dst of the cold descriptor.
Writes: data_off, len, pkt_len, l4_off, l4_proto, csum, the header.
Next:
    output: always.
Drops:
Holds: nothing.
State: none.
Cost: benchmarks/stages/bench_udp.py
Differs from Linux:
    - The checksum is computed in software, unless all devices of the stack were asked, and grant, to do it (offloads=):
      SO_NO_CHECK and UDP_NO_CHECK6_TX are refused by setsockopt().
    - No UDP_SEGMENT.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpstack.device.claims import Vlan, check_vlan, vlan_number, vlan_of
from xdpstack.errors import AddressInUse, ForkedError
from xdpstack.native import check, lib
from xdpstack.udp import binding, effects, native, precedence, shadow
from xdpstack.udp.address import Address, bare, choose_family, is_any, is_scoped, mapped, named, packed, resolve
from xdpstack.udp.bpf import Instruction
from xdpstack.udp.claims import Claims
from xdpstack.udp.endpoint import Endpoint, view_of
from xdpstack.udp.host import Host
from xdpstack.udp.semantics import Bound, Family, header, is_multicast, receive
from xdpstack.udp.socket import UdpSocket
from xdpstack.udp.waiting import Waiting

if TYPE_CHECKING:
    from xdpstack.udp.engine import UdpBatch

log = logging.getLogger("xdpstack.udp")


class UdpLayer:
    """The UDP layer of one stack: its sockets, and what the workers know of them.

    `host` is the stack. Any thread may call anything. `unread_at_close` counts datagrams that were on the queue, or in the
    kernel socket, of a socket that was closed. `waiting` is for sockets. `sends_through` puts something between a socket and
    its view (stepwise.py), where Python has a part in sending.
    """

    def __init__(self, host: Host, sends_through: Callable[[int, Any], Any] | None = None) -> None:
        self.host = host
        self.sends_through = sends_through
        self.unread_at_close = 0
        self._lock = threading.RLock()
        self._sockets: dict[Endpoint, UdpSocket] = {}  # oldest first
        self.waiting = Waiting(host)
        self._claims = Claims(host)
        self._next_index = 0

    @property
    def sockets(self) -> tuple[UdpSocket, ...]:
        """The open sockets, newest first."""
        return tuple(reversed(list(self._sockets.values())))

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """What the lookup knows of the open sockets, in order of precedence."""
        return tuple(bound for _, bound in precedence.ordered(list(self._sockets), self.host))

    def process(self, batch: UdpBatch) -> None:
        """Decide what nobody has decided yet of a batch of udp.rx or udp.tx, by the definition (semantics.py)."""
        for packet in batch.undecided():
            if batch.row == "udp.rx":
                packet.decide(receive(packet.datagram, batch.sockets))
            else:
                packet.prepend(header(packet.outgoing))

    # ---- opening ----

    def open(
        self,
        address: Address,
        *,
        family: socket.AddressFamily | None = None,
        device: str | None = None,
        vlan: Vlan | None = None,
        v6only: bool = False,
        reserve: bool = True,
        reuse_address: bool = False,
        recverr: bool = False,
        broadcast: bool = False,
    ) -> UdpSocket:
        """A socket bound to `address`; when this returns, its datagrams are lifted.

        `address` is (host, port), for IPv6 (host, port[, flowinfo, scope_id]); port 0 takes a free one; host "" is the
        wildcard of `family` (default: the host's, else IPv4). An IPv6 wildcard carries IPv4 too, unless `v6only`.
        `device` names the one that datagrams must come by (SO_BINDTODEVICE); `vlan` the VLAN (1 to 4094, or two for a
        service VLAN and one within) that they are tagged with, and all that is sent; then there is no kernel socket
        behind it, as with `reserve=False` (default: untagged datagrams). `broadcast` takes broadcast and multicast too,
        and allows to send there. `reserve=False`: no kernel socket behind it; then whatever is not lifted is lost, and
        so are ICMP errors. `recverr` raises every ICMP error (IP_RECVERR).

        Raises AddressInUse, AddressNotAvailable (it lists what there is), ClaimTaken, ConfigurationError, OSError.
        """
        self.host.check()
        kind = choose_family(address, family)
        wanted = resolve(address, kind, passive=True)
        index = binding.device_of(self.host.devices, device, wanted[3] if is_scoped(packed(wanted, kind)) else 0)
        ifindex = 0 if index is None else self.host.devices[index].ifindex
        if vlan is not None:
            check_vlan(vlan)
            reserve = False  # the kernel has no such VLAN here: its socket would take, and send, what is untagged
        with self._lock:
            kernel = None
            if reserve:
                name = None if index is None else self.host.devices[index].name
                kernel = shadow.create(
                    self.host,
                    kind,
                    wanted,
                    device=name if device else None,
                    v6only=v6only,
                    reuse_address=reuse_address,
                    broadcast=broadcast,
                )
            try:
                bound = self._bound(wanted, kind, kernel, index, v6only, reuse_address, vlan_number(vlan))
                return self._open(bound, kernel, ifindex, broadcast, recverr)
            except BaseException:
                if kernel is not None:
                    kernel.close()
                raise

    def _bound(
        self,
        wanted: Address,
        family: Family,
        kernel: socket.socket | None,
        device: int | None,
        v6only: bool,
        reuse: bool,
        vlan: int,
    ) -> Bound:
        address = packed(wanted, family)
        port = kernel.getsockname()[1] if kernel is not None else wanted[1]
        bound = Bound(self._next_index, family, address, port, device=device, vlan=vlan, v6only=v6only)
        if kernel is not None:
            return bound
        if not is_any(address) and not is_multicast(address) and bare(address) not in self.host.local_addresses():
            raise shadow.not_available(self.host, wanted)
        taken = self.bounds
        if not port:
            return binding.with_free_port(bound, taken)
        other = None if reuse else binding.conflict(bound, taken)
        if other is not None:
            cause = f"{binding.text(other)} is bound to it, in this stack."
            raise AddressInUse(f"{wanted[0]} port {port} is in use", cause=cause, fix="Take another port.")
        return bound

    def _open(
        self,
        bound: Bound,
        kernel: socket.socket | None,
        ifindex: int,
        broadcast: bool,
        recverr: bool,
    ) -> UdpSocket:
        rcvbuf, sndbuf = self._buffers(kernel)
        pointer = native.create(self.host.core, bound, rcvbuf, sndbuf)
        native.set_sending(
            pointer,
            source=bytes(16) if is_any(bound.address) or self._is_group(bound.address) else bound.address,
            device=native.ANY_DEVICE if bound.device is None else bound.device,
            vlan=bound.vlan,
        )
        lib.xs_socket_set_flags(
            pointer,
            (lib.XS_SOCKET_RECVERR | lib.XS_SOCKET_RECVERR_6 if recverr else 0)
            | (lib.XS_SOCKET_V6ONLY if bound.v6only else 0),
            0,
        )
        view = view_of(self.host, pointer)
        if self.sends_through is not None:
            view = self.sends_through(bound.index, view)
        made = Endpoint(self.host, bound, pointer, view, kernel, ifindex)
        native.set_sending(pointer, discover=effects.discovery(made))
        self._sockets[made] = UdpSocket(self, made, broadcast)
        self._next_index += 1
        try:
            self._publish()
            if kernel is not None:
                check(
                    lib.xs_socket_set_shadow(self.host.core.pointer, pointer, kernel.fileno()), "read the kernel socket"
                )
            self._claims.add(made, vlan_of(bound.vlan), broadcast)
        except BaseException:
            self._forget(made)
            raise
        return self._sockets[made]

    def _is_group(self, address: bytes) -> bool:
        """Datagrams come to it, and none are sent from it: __inet_bind leaves the choice of the source to routing."""
        return is_multicast(address) or self.host.is_broadcast(bare(address))

    def _buffers(self, kernel: socket.socket | None) -> tuple[int, int]:
        if kernel is None:
            return self.host.sysctl("core.rmem_default"), self.host.sysctl("core.wmem_default")
        return (
            kernel.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
            kernel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        )

    def _publish(self) -> None:
        native.publish(self.host.core, [(b, one.pointer) for one, b in precedence.ordered(self._sockets, self.host)])

    # ---- connecting ----

    def connect(self, one: Endpoint, peer: Address) -> Address:
        """For a socket: fix its peer; returns it as the kernel has it. Raises OSError as the system call does."""
        with self._lock:
            before = one.bound
            peer_before = None if one.shadow is None else shadow.peer(one.shadow)
            try:
                local, peer = self._route(one, peer)
            except OSError:
                if one.bound != before:
                    self._publish()
                raise
            undo = ExitStack()  # the last first
            if one.shadow is not None:
                undo.callback(shadow.connect_again, one.shadow, peer_before)
            with undo:
                undo.callback(setattr, one, "bound", one.bound)
                undo.callback(setattr, one, "place", one.place)
                other = packed(peer, before.family), peer[1]
                one.place, bound = precedence.connect(one.place, one.bound, local, other)
                one.bound = bound  # both claims for a moment, so that nothing falls between
                self._claims.add_for(bound)
                undo.callback(self._claims.end_for, bound)
                self._publish()
                undo.pop_all()
            self._claims.end_for(before)
            native.set_sending(
                one.pointer,
                source=self._source(one, peer) if self._is_group(local) else local,
                peer=one.bound.peer,
                peer_port=peer[1],
                peer_scope=peer[3] if before.family == 6 else 0,
            )
            lib.xs_socket_set_flags(one.pointer, lib.XS_SOCKET_CONNECTED, 0)
            return peer

    def _bind_to_device(self, one: Endpoint, ifindex: int) -> None:
        """Follow the kernel socket, which connecting to a link-local peer binds to a device even where it then fails."""
        devices = {0: None} | {each.ifindex: each.index for each in self.host.devices}
        index = devices.get(ifindex, native.OTHER_DEVICE)
        native.set_sending(one.pointer, device=native.ANY_DEVICE if index is None else index)
        one.bound = replace(one.bound, device=index)
        one.ifindex = ifindex

    def _route(self, one: Endpoint, peer: Address) -> tuple[bytes, Address]:
        """Our address towards `peer`, and the peer as the kernel understood it."""
        bound = one.bound
        if one.shadow is not None:
            try:
                one.shadow.connect(peer)
            finally:
                self._bind_to_device(one, one.shadow.getsockopt(socket.SOL_SOCKET, shadow.SO_BINDTOIFINDEX))
            local = packed(one.shadow.getsockname(), bound.family)
            own = _source_of(one) if self._is_group(local) else local
            return local, one.shadow.getpeername() if peer[1] else named(peer, own, bound.family)
        if bound.family == 6 and is_scoped(packed(peer, bound.family)) and peer[3]:
            self._bind_to_device(one, peer[3])
        if not is_any(bound.address):
            return bound.address, peer
        source = self.host.source_address(bare(packed(peer, bound.family)), bound.device)
        if source is None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        return mapped(source), peer

    def _source(self, one: Endpoint, peer: Address) -> bytes:
        """The source that a connected socket has from routing although it is bound to a group; all zero: none."""
        if not is_any(had := _source_of(one)):
            return had  # from connecting before: that stays
        kind = socket.AF_INET if one.bound.family == 4 else socket.AF_INET6
        asked = self.host.kernel_socket(kind, socket.SOCK_DGRAM) if one.shadow is not None else None
        if asked is not None and one.shadow is not None:
            with asked:
                return packed(shadow.source(one.shadow, asked, peer), one.bound.family)
        source = self.host.source_address(bare(packed(peer, one.bound.family)), one.bound.device)
        return mapped(source) if source else bytes(16)

    # ---- options, for sockets ----

    def apply_option(self, one: Endpoint, level: int, name: int, value: Any) -> None:
        """Do to our side of a socket what an option says that now has `value`."""
        with self._lock:
            if effects.apply(one, level, name, value):
                self._publish()

    def attach_filter(self, one: Endpoint, program: Sequence[Instruction]) -> None:
        """Have a checked program judge what comes for a socket, by either way in."""
        with self._lock:
            if one.shadow is not None:
                shadow.attach_filter(one.shadow, program)
            native.set_filter(self.host.core, one.pointer, program)
            one.bound = replace(one.bound, filter=tuple(program))

    # ---- closing ----

    def close_socket(self, one: Endpoint) -> None:
        """Claim out, what is under way onto the queue, then nothing feeds it any more; what nobody read is counted."""
        try:
            self.host.check()
        except ForkedError:  # the parent's rings and frames are not ours to touch; the descriptors are
            if one.shadow is not None:
                one.shadow.close()
            return
        except ValueError:
            pass  # the stack is closed: there is still this to give back
        with self._lock:
            closed = self._sockets.get(one)
            if closed is None:
                return
            self._claims.remove(one)
            self.waiting.take_in()
            unread = self._forget(one)
            if one.shadow is not None:
                unread += shadow.close(one.shadow)
        if unread:
            self.unread_at_close += unread
            log.info("%r closed with %d datagrams that nobody had read", closed, unread)

    def _forget(self, one: Endpoint) -> int:
        """Out of the table, away from its worker; returns how many datagrams were on its queue."""
        self._sockets.pop(one, None)
        self._publish()
        if one.shadow is not None:
            lib.xs_socket_set_shadow(self.host.core.pointer, one.pointer, -1)
        unread = one.end()
        lib.xs_socket_close(one.pointer)
        return unread

    def close(self) -> None:
        """Close all sockets."""
        for one in self.sockets:
            one.close()


def _source_of(one: Endpoint) -> bytes:
    """The source of what is sent, as far as it is settled."""
    return bytes(lib.xs_socket_sending(one.pointer).source)
