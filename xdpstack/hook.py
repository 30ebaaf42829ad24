"""Custom stages: what a Python hook sees of a batch, and how a C stage is loaded.

A Python hook is a callable on a `HookBatch`. It looks at the packets, may change them, and says of each where it goes; what
it says nothing about goes on as if the hook were not there:

    def no_chargen(batch):
        for packet in batch:
            if packet.dport == 19:
                packet.drop()

    stack.hook("netfilter.input", no_chargen)

C never calls Python: the walk parks the packets of the hook, the poll returns, Python runs the hook, the walk resumes. A
hook that raises loses its batch (reason HOOK_EXCEPTION), and the exception is raised to whoever polls.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xdpstack.errors import ClosedError, ConfigurationError
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.path import BY_NAME
from xdpstack.walk import CStage, Hook, Outcome, Turn, Walk, reasons

#: Transport headers that begin with the ports.
_WITH_PORTS = {socket.IPPROTO_UDP, socket.IPPROTO_TCP, socket.IPPROTO_SCTP, socket.IPPROTO_UDPLITE}


#: What the docstring of Packet names of struct xs_pkt.
_FIELDS = ["pkt_len", "l3_proto", "l4_proto", "mark", "device", "queue", "flags", "pkt_type", "hash", "priority"]


class Packet:
    """One packet of a HookBatch. Valid until the hook returns.

    Fields of the descriptor are attributes (host order): `pkt_len` (bytes, from the Ethernet header on), `l3_proto`
    (ethertype), `l4_proto`, `mark`, `device`, `queue`, `flags`, `pkt_type`, `hash`, `priority`; those that a stage has not
    set yet are 0. `mark` and `priority` can be written.
    """

    __slots__ = ("_batch", "_index", "_pkt")
    _batch: HookBatch
    _index: int
    _pkt: Any

    def __init__(self, batch: HookBatch, index: int) -> None:
        put = object.__setattr__  # past our own, which is there for what users write
        put(self, "_batch", batch)
        put(self, "_index", index)
        put(self, "_pkt", batch.pkts + batch.frames[index])

    def __getattr__(self, name: str) -> int:
        self._batch.check()
        value = getattr(self._pkt, name)
        return int(value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Packet.__slots__:
            object.__setattr__(self, name, value)
        elif name in ("mark", "priority"):
            self._batch.check()
            setattr(self._pkt, name, value)
        else:
            raise AttributeError(
                f"{name} cannot be written: a hook may set mark and priority, and change bytes in data"
            )

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_FIELDS]

    def __repr__(self) -> str:
        if not self._batch.is_open:
            return "<Packet, gone with its batch>"
        ports = f", ports {self.sport} > {self.dport}" if self.sport or self.dport else ""
        return f"<Packet {self.pkt_len} bytes, {self.l3_proto:04x}, protocol {self.l4_proto}{ports}>"

    @property
    def data(self) -> memoryview:
        """The bytes in the packet's first frame, from the Ethernet header on; writable, no copy.

        On transmit the headers are put in front as the packet goes along: before ip.tx there is only what was sent.
        """
        return self._batch.bytes_of(self._pkt)

    def tobytes(self) -> bytes:
        """A copy of the whole packet, over all its frames."""
        self._batch.check()
        parts = []
        pkt = self._pkt
        while True:
            parts.append(bytes(self._batch.bytes_of(pkt)))
            if pkt.frag == lib.XS_NO_FRAME:
                return b"".join(parts)
            pkt = self._batch.pkts + pkt.frag

    @property
    def sport(self) -> int:
        """The source port; 0 for a fragment, for what has none, and on receive before ip.rx, which finds the header."""
        return self._port(0)

    @property
    def dport(self) -> int:
        """The destination port, likewise."""
        return self._port(1)

    def _port(self, which: int) -> int:
        self._batch.check()
        pkt = self._pkt
        if pkt.l4_off == 0:  # a sender's: udp.tx is still to make the header of them
            return int(pkt.dport if which else pkt.sport)
        at = pkt.l4_off - pkt.data_off + 2 * which
        if pkt.l4_proto not in _WITH_PORTS or pkt.flags & lib.XS_PKT_FRAGMENT or at + 2 > pkt.len:
            return 0
        return int.from_bytes(self.data[at : at + 2])

    @property
    def l3_offset(self) -> int:
        """Offset of the IP header within `data`."""
        return int(self._pkt.l3_off - self._pkt.data_off)

    @property
    def vlan_tci(self) -> int | None:
        """Priority << 13 | DEI << 12 | VLAN of the outermost tag; None where there is none."""
        return int(self._meta.vlan_tci) if self.flags & lib.XS_PKT_VLAN else None

    @property
    def vlan_proto(self) -> int | None:
        """The ethertype of the outermost tag: 0x8100 (802.1Q) or 0x88a8 (802.1ad); None where there is none."""
        return int(self._meta.vlan_proto) if self.flags & lib.XS_PKT_VLAN else None

    @property
    def vlan_inner_tci(self) -> int | None:
        """The same of the 802.1Q tag behind an 802.1ad one, if neither has a priority alone; None where there is none."""
        return int(self._meta.vlan_inner_tci) or None if self.flags & lib.XS_PKT_VLAN else None

    def vlan_push(self, vlan: int, *, priority: int = 0, proto: int = 0x8100) -> None:
        """Put a tag on, the outermost, as skb_vlan_push() does.

        Raises ConfigurationError: VLAN over 4095, priority over 7, no such `proto`, or no Ethernet header: on transmit it is
        there from "tc.tx" on. OSError(ENOMEM): no room before the frame.
        """
        self._change_tag(lib.xs_stack_vlan_push, vlan, priority, proto)

    def vlan_modify(self, vlan: int, *, priority: int = 0, proto: int = 0x8100) -> None:
        """Another outermost tag in the place of the one there is; nothing where there is none. Raises as `vlan_push`."""
        self._change_tag(lib.xs_stack_vlan_modify, vlan, priority, proto)

    def vlan_pop(self) -> None:
        """Take the outermost tag off, as skb_vlan_pop() does; nothing where there is none.

        Raises ConfigurationError: the frame is cut off within the tag, or has no Ethernet header.
        """
        self._batch.check()
        self._tagged(lib.xs_stack_vlan_pop(self._batch.core.pointer, self._batch.frames[self._index]))

    def _change_tag(self, change: Any, vlan: int, priority: int, proto: int) -> None:
        self._batch.check()
        if not (0 <= vlan <= 0xFFF and 0 <= priority <= 7):
            raise ConfigurationError(f"VLAN {vlan} with priority {priority} cannot be", fix="0 to 4095, 0 to 7.")
        frame = self._batch.frames[self._index]
        self._tagged(change(self._batch.core.pointer, frame, proto & 0xFFFF, priority << 13 | vlan))

    def _tagged(self, result: int) -> None:
        if result == -errno.EPROTONOSUPPORT:
            raise ConfigurationError("a VLAN tag is of ethertype 0x8100 or 0x88a8")
        if result == -errno.EINVAL:
            raise ConfigurationError(
                "this packet has no (whole) Ethernet header", fix='Change tags on receive, or from "tc.tx" on.'
            )
        check(result, "change a VLAN tag")

    @property
    def device_stamp_ns(self) -> int | None:
        """When it was received, by the device's own clock; None where that said nothing, or was not asked (metadata=)."""
        return int(self._meta.device_ns) if self._hints & lib.XS_HINT_TIMESTAMP else None

    @property
    def device_hash(self) -> tuple[int, int] | None:
        """The device's flow hash, and what it is over (enum xdp_rss_hash_type); None where it said nothing."""
        return (int(self.hash), int(self._meta.hash_type)) if self._hints & lib.XS_HINT_HASH else None

    @property
    def _meta(self) -> Any:
        self._batch.check()
        return self._batch.core.metas[self._batch.frames[self._index]]

    @property
    def _hints(self) -> int:
        """What the device has said: of what came by one, that is, and on a stack that has asked."""
        if not self._batch.core.hints or BY_NAME[self._batch.row].direction != "rx":
            return 0
        return int(self._meta.hints)

    def drop(self, reason: str = "HOOK") -> None:
        """Drop the packet; `reason` is one of the drop reasons."""
        self._batch.drop(self._index, reason)

    def go(self, edge: str) -> None:
        """Pass the packet on by one of the hook's edges."""
        self._batch.go(self._index, edge)


class HookBatch:
    """The packets parked for one Python hook: a sequence of Packet. Raises ClosedError once the hook has returned."""

    def __init__(self, hook: Hook, worker: Any, core: Core, most: int = lib.XS_BATCH_CAP) -> None:
        frames = ffi.new("uint32_t[]", most)
        n = lib.xs_worker_parked_frames(worker, hook.node, frames, most)
        self.frames: list[int] = list(frames[0:n])
        self.pkts = core.packets
        self.core = core
        self.row = hook.row
        self._hook = hook
        self._edges = list(hook.edges)
        self._next = bytearray(n)
        self._reason = [0] * n
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether the hook has not returned yet."""
        return self._open

    def __repr__(self) -> str:
        return f"<HookBatch of {len(self)} at {self.row}{'' if self._open else ', over'}>"

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Packet:
        self.check()
        if not 0 <= index < len(self.frames):
            raise IndexError(index)
        return Packet(self, index)

    def __iter__(self) -> Iterator[Packet]:
        return (self[i] for i in range(len(self)))

    def check(self) -> None:
        """Raise ClosedError after the hook has returned: the frames are somebody else's then."""
        if not self._open:
            raise ClosedError("the batch is only valid inside the hook", fix="Copy what you need with tobytes().")

    def bytes_of(self, pkt: Any) -> memoryview:
        """The bytes of one frame that belong to the packet."""
        self.check()
        start = (pkt - self.pkts) * self.core.frame_bytes + pkt.data_off
        return self.core.umem[start : start + pkt.len]

    def drop(self, index: int, reason: str = "HOOK") -> None:
        """Drop packet `index`. Raises ConfigurationError for an unknown reason."""
        self.check()
        names = reasons()
        if reason not in names:
            raise ConfigurationError(f"there is no drop reason {reason!r}", fix=f"One of: {', '.join(names)}.")
        self._next[index] = lib.XS_DROP
        self._reason[index] = names.index(reason)

    def go(self, index: int, edge: str) -> None:
        """Pass packet `index` on by `edge`. Raises ConfigurationError when the hook has no such edge."""
        self.check()
        if edge not in self._edges:
            raise ConfigurationError(f"hook {self._hook.name} has no edge {edge!r}", fix=f"One of: {self._edges}.")
        self._next[index] = self._edges.index(edge)

    def finish(self, failed: bool) -> tuple[bytes, list[int]]:
        """Where each packet goes, in the numbers of the walk: next and reason. Closes the batch."""
        self._open = False
        if failed:
            return bytes([lib.XS_DROP]) * len(self), [reasons().index("HOOK_EXCEPTION")] * len(self)
        return bytes(self._next), self._reason

    def deliveries(self) -> Sequence[tuple[int, int, int]]:
        """Which packets go onto the queues of sockets: struct xs_delivery, by packet. What a hook has none of."""
        return ()


def make_hook(
    row: str,
    stage: Callable[[HookBatch], None] | CStage,
    name: str,
    priority: int,
    edges: Mapping[str, str],
) -> Hook:
    """A hook for `row`, checked (see Stack.hook). Raises ConfigurationError."""
    if row not in BY_NAME or BY_NAME[row].passes is None:
        rows = [each.name for each in BY_NAME.values() if each.passes]
        raise ConfigurationError(f"no custom stage can go on {row!r}", fix=f"One of: {', '.join(rows)}.")
    default, label = "accept", name or getattr(stage, "__name__", "hook")
    if not isinstance(stage, CStage) and not callable(stage):
        raise ConfigurationError(f"{stage!r} is no stage", fix="A function of a batch, or what load_stage() returns.")
    if isinstance(stage, CStage):
        default, label = stage.edges[0] if stage.edges else "accept", name or stage.name
        if set(stage.edges[1:]) != set(edges):
            raise ConfigurationError(f"{stage.name} has the edges {stage.edges[1:]}: say where each of them leads")
    onward = BY_NAME[row].edges[BY_NAME[row].passes or ""]
    return Hook(row=row, name=label, stage=stage, edges={default: onward, **edges}, priority=priority)


def run_hooks(walk: Walk, worker: Any, core: Core, wait: bool = True) -> None:
    """Run the Python hooks for which `worker` has parked packets, the earliest on the path first, until none is left.

    One thread at a time does so. A hook that raises loses its batch (HOOK_EXCEPTION); the first exception is raised when all
    have run. Called by a hook that sends, it leaves out the hooks that are running: what they have is not parked for others;
    and it does not wait for a thread that runs hooks of another worker, which may be waiting for this one. With `wait` False
    it waits for no other thread at all: what that one leaves is for later.
    """
    failure: BaseException | None = None
    turn = walk.turns[walk.workers.index(worker)]
    me = threading.get_ident()
    inside = any(each.thread == me for each in walk.turns)
    if not turn.lock.acquire(blocking=wait and not inside):
        return
    outer, turn.thread = turn.thread, me
    try:
        by_node = {hook.node: hook for hook in walk.hooks if hook.parks}
        while parked := lib.xs_worker_parked(worker) & ~turn.busy:
            bit = parked & -parked
            turn.busy |= bit
            try:
                _run_hook(by_node[bit.bit_length() - 1], worker, core, turn)
            except BaseException as error:
                failure = failure or error
            finally:
                turn.busy &= ~bit
    finally:
        turn.thread = outer
        turn.lock.release()
    if failure is not None:
        raise failure


def _run_hook(hook: Hook, worker: Any, core: Core, turn: Turn) -> None:
    batch: HookBatch = (hook.batch or HookBatch)(hook, worker, core)
    failed = True
    try:
        assert not isinstance(hook.stage, CStage)
        hook.stage(batch)
        failed = False
    finally:
        _give_back(batch, failed, hook, worker, turn)


def _give_back(batch: HookBatch, failed: bool, hook: Hook, worker: Any, turn: Turn) -> None:
    """The walk resumes with the packets of a batch; what became of those that are followed is noted."""
    taken, why = batch.finish(failed)
    given = [] if failed else batch.deliveries()
    deliveries = ffi.new("struct xs_delivery[]", given) if given else ffi.NULL
    outcomes = ffi.new("struct xs_outcome[]", len(batch)) if turn.followed else ffi.NULL
    arguments = (worker, hook.node, taken, why, len(batch), deliveries, len(given), outcomes)
    while (result := lib.xs_worker_resume_decided(*arguments)) == -errno.EBUSY:
        time.sleep(0)  # another thread is in a poll, which is short
    check(result, f"resume {hook.name}")
    if turn.followed:
        for frame, outcome in zip(batch.frames, outcomes, strict=True):
            if not outcome.parked:
                turn.note(frame, Outcome(outcome.reason, outcome.device))
