"""The C stages udp.rx and udp.tx without a device: packets are put into frames and walked from the stage on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.udp import native
from xdpstack.udp.semantics import Bound, Datagram
from xdpstack.walk import reasons

#: flags of struct xs_device_config (csrc/tables/config.h)
PARTIAL_CSUM = 0x80
ETHERNET = 14


@dataclass(frozen=True)
class Outcome:
    """What became of a packet: the sockets that have it (by index), or why not."""

    sockets: tuple[int, ...]
    reason: str | None
    csum: int = 0
    payload: bytes = b""


@dataclass
class UdpRx:
    """A core whose walk is the one stage udp.rx. `partial` names the devices that may leave checksums unfilled."""

    partial: frozenset[int] = frozenset()
    devices: int = 2
    frames: int = 64
    core: Core = field(init=False)
    node: int = field(init=False)
    sockets: dict[int, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.core = Core(frames=self.frames, manual_clock=True)
        self.worker = self.core.workers[0]
        self.node = check(lib.xs_worker_add_stage(self.worker, b"udp.rx"), "add udp.rx")
        values = ffi.new("struct xs_device_values[]", self.devices)
        for index in range(self.devices):
            values[index].ifindex = index + 2
            values[index].mtu = 1500
            values[index].flags = PARTIAL_CSUM if index in self.partial else 0
        check(lib.xs_stack_set_devices(self.core.pointer, values, self.devices), "set devices")

    def bind(self, sockets: Sequence[Bound], rcvbuf: int = 212992) -> None:
        self.sockets = {bound.index: native.create(self.core, bound, rcvbuf, 212992) for bound in sockets}
        native.publish(self.core, [(bound, self.sockets[bound.index]) for bound in sockets])

    def queued(self, index: int) -> int:
        return self.stats(index).queued

    def stats(self, index: int) -> Any:
        out = ffi.new("struct xs_socket_stats *")
        lib.xs_socket_stats(self.sockets[index], out)
        return out

    def take(self, n: int) -> list[int]:
        frames = ffi.new("uint32_t[]", n)
        got = self._in_turn(lambda: lib.xs_worker_take(self.worker, frames, n))
        assert got == n
        return list(frames)

    def put(self, datagram: Datagram, split: Sequence[int] = ()) -> int:
        """Write a datagram's headers and data into frames, cut at the lengths `split`; returns the first frame."""
        header = ip_header(datagram)
        pieces = cut(bytes(ETHERNET) + header + datagram.data, [ETHERNET + len(header) + at for at in split])
        frames = self.take(len(pieces))
        for i, (frame, piece) in enumerate(zip(frames, pieces, strict=True)):
            pkt = self.core.packets[frame]
            pkt.data_off = 0 if i else 128
            pkt.len = len(piece)
            assert pkt.data_off + pkt.len <= self.core.frame_bytes, "a piece is larger than a frame"
            start = frame * self.core.frame_bytes + pkt.data_off
            self.core.umem[start : start + len(piece)] = piece
            if i + 1 < len(frames):
                pkt.frag = frames[i + 1]
        first = self.core.packets[frames[0]]
        first.pkt_len = sum(len(piece) for piece in pieces)
        first.l3_off = 128 + ETHERNET
        first.l4_off = first.l3_off + len(header)
        first.l4_proto = 17
        first.device = datagram.device
        first.flags = lib.XS_PKT_IPV6 if datagram.family == 6 else 0
        if datagram.vlan:
            first.flags |= lib.XS_PKT_VLAN
            service, vlan = datagram.vlan >> 16, datagram.vlan & 0xFFF
            meta = self.core.metas[frames[0]]
            meta.vlan_tci = 0xE000 | (service or vlan)
            meta.vlan_inner_tci = 0x2000 | vlan if service else 0
        if datagram.to_many:
            first.flags |= lib.XS_PKT_ROUTED_MULTICAST
        return frames[0]

    def walk(self, frames: Sequence[int]) -> None:
        self._in_turn(lambda: lib.xs_worker_walk(self.worker, self.node, frames, len(frames)))

    def _in_turn(self, call: Callable[[], int]) -> int:
        """The result of a call that needs the worker, which another thread may be driving at this moment."""
        while (result := call()) == -errno.EBUSY:
            os.sched_yield()
        return check(result, "drive the worker")

    def receive(self, datagram: Datagram, split: Sequence[int] = ()) -> Outcome:
        """Walk one datagram and see where it went."""
        before = {index: self.queued(index) for index in self.sockets}
        frame = self.put(datagram, split)
        self.walk([frame])
        taken = tuple(sorted(index for index in self.sockets if self.queued(index) > before[index]))
        pkt = self.core.packets[frame]
        if pkt.owner == lib.XS_QUEUED:
            return Outcome(taken, None, pkt.csum, self.payload(frame))
        return Outcome(taken, reasons()[self.core.metas[frame].reason], pkt.csum)

    def payload(self, frame: int) -> bytes:
        pkt = self.core.packets[frame]
        offset, left, out = pkt.payload_off, pkt.payload_len, b""
        while frame != lib.XS_NO_FRAME and left:
            pkt = self.core.packets[frame]
            here = min(left, pkt.data_off + pkt.len - offset)
            start = frame * self.core.frame_bytes + offset
            out += bytes(self.core.umem[start : start + here])
            left -= here
            frame = pkt.frag
            offset = self.core.packets[frame].data_off if frame != lib.XS_NO_FRAME else 0
        return out


def ip_header(datagram: Datagram) -> bytes:
    """The addresses where IPv4 and IPv6 headers have them; the rest has been checked by ip.rx and is not looked at."""
    if datagram.family == 4:
        return bytes(12) + datagram.source[12:] + datagram.destination[12:]
    return bytes(8) + datagram.source + datagram.destination


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at the offsets that lie within it."""
    edges = [0, *sorted({edge for edge in at if 0 < edge < len(data)}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]
