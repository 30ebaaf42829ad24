"""A walk wired as a test wants it, of scripted C stages (tests/csrc/scripted_stage.c) and Python hooks."""

import ctypes
from collections.abc import Sequence
from typing import Any, Self

from tests.csrc.compile import load
from xdpstack.device.memory_queue import MemoryQueue, Rings
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.testing.ledger import check_closed, check_open

KEEP, EMIT, DROP = 0x40, 0x80, 0xFF
REASONS = {ffi.string(lib.xs_reason_name(i)).decode(): i for i in range(200) if lib.xs_reason_name(i) != ffi.NULL}


def packet(*script: int, size: int = 60) -> bytes:
    """A frame with this script; the bytes behind it count up."""
    body = bytes(12) + b"\x88\xb5" + bytes(script) + bytes(32 - len(script))
    return body + bytes(i & 0xFF for i in range(len(body), size))


class Graph:
    """Nodes 0 (napi.rx, edge to node 1), 1 to n (stages or hooks), n + 1 (napi.tx, back out of device 0).

    `stages[i]` is the edges of node i + 1: to which nodes they lead. `python` are the nodes that are Python hooks.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        python: Sequence[int] = (),
        ticks: int = 0,
        frames: int = 1024,
        stage: str = "scripted",
    ) -> None:
        self.library = load("scripted_stage.c")
        ctypes.c_uint32.in_dll(self.library, "log_entries").value = 0
        self.core = Core(frames=frames, manual_clock=True)
        self.worker = self.core.workers[0]
        self.python = set(python)
        self.states = []
        size = ctypes.c_uint32.in_dll(self.library, "scripted_bytes").value
        assert lib.xs_worker_add_stage(self.worker, b"napi.rx") == 0
        for at, edges in enumerate(stages, 1):
            state = ctypes.create_string_buffer(size)
            ctypes.memmove(state, at.to_bytes(4, "little") + ticks.to_bytes(4, "little"), 8)
            self.states.append(state)
            functions = [
                ffi.cast("void *", ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value)
                for name in (stage, "scripted_tick")
            ]
            if at in self.python:
                made = lib.xs_worker_add_hook(self.worker, ffi.NULL, ffi.NULL, ffi.NULL, len(edges))
            else:
                where = ffi.cast("void *", ctypes.addressof(state))
                made = lib.xs_worker_add_hook(self.worker, *functions, where, len(edges))
            assert made == at
        self.last = lib.xs_worker_add_stage(self.worker, b"napi.tx")
        check(lib.xs_worker_wire(self.worker, 0, 0, 1), "wire")
        for at, edges in enumerate(stages, 1):
            for edge, to in enumerate(edges):
                check(lib.xs_worker_wire(self.worker, at, edge, to), "wire")
        lib.xs_worker_set_entry(self.worker, 0, 0)
        self.queue = MemoryQueue(self.core, 0, Rings(rx=256, tx=1024, fill=512, completion=1024), True)
        check(lib.xs_worker_attach(self.worker, self.queue.pointer, 0), "attach")

    def poll(self) -> int:
        """One poll, after the kernel had its turn."""
        self.queue.service()
        return check(lib.xs_worker_poll(self.worker, 64), "poll")

    def walk(self, *frames: bytes) -> list[bytes]:
        """Inject, poll, and take what was sent."""
        assert self.queue.inject(frames) == len(frames)
        self.poll()
        return self.queue.sent()

    def parked(self, node: int) -> list[int]:
        """Frames parked at a Python hook."""
        room = ffi.new("uint32_t[]", 256)
        n = check(lib.xs_worker_parked_frames(self.worker, node, room, 256), "look at parked packets")
        return list(room[0:n])

    def resume(self, node: int, next_: Sequence[int], reasons: Sequence[int] = ()) -> int:
        """Take on the oldest parked packets of a node."""
        return int(lib.xs_worker_resume(self.worker, node, bytes(next_), list(reasons) or [0] * len(next_), len(next_)))

    def run_python(self) -> None:
        """Do at Python hooks what the scripts say, until nothing is parked."""
        while parked := lib.xs_worker_parked(self.worker):
            node = (parked & -parked).bit_length() - 1
            frames = self.parked(node)
            actions = [self._action(frame) for frame in frames]
            next_ = [lib.XS_DROP if a == DROP else a & 0x3F for a in actions]
            assert self.resume(node, next_, [REASONS["HOOK"]] * len(next_)) == len(frames)

    def _action(self, frame: int) -> int:
        pkt = self.core.packets[frame]
        at = frame * self.core.frame_bytes + pkt.data_off + 14 + pkt.mark
        pkt.mark += 1
        return self.core.umem[at] if pkt.mark <= 32 and 14 + pkt.mark <= pkt.len else 0

    def settle(self) -> list[bytes]:
        """Poll until nothing is held and nothing comes; what was sent meanwhile."""
        sent = []
        for _ in range(200):
            got = self.poll()
            self.run_python()
            sent += self.queue.sent()
            counts = self.core.frame_counts()
            if not got and not counts["held"] and not counts["transmitting"]:
                return sent
        raise AssertionError(f"does not settle: {counts}")

    def batches(self, node: int) -> int:
        """How often the node ran."""
        return int(lib.xs_node_batches(self.worker, node))

    def packets(self, node: int) -> int:
        """Packets that went through the node."""
        return int(lib.xs_node_packets(self.worker, node))

    def drops(self, node: int | None = None) -> dict[str, int]:
        """Drops by reason, at one node or all."""
        nodes = range(self.last + 1) if node is None else [node]
        counts = {name: sum(lib.xs_node_drops(self.worker, at, n) for at in nodes) for name, n in REASONS.items()}
        return {name: count for name, count in counts.items() if count}

    def log(self) -> list[tuple[int, int]]:
        """(stage, packets) of each run of a scripted stage, in order."""
        entries = ctypes.c_uint32.in_dll(self.library, "log_entries").value
        columns = [(ctypes.c_uint32 * 65536).in_dll(self.library, name) for name in ("log_level", "log_packets")]
        return list(zip(*(list(column[:entries]) for column in columns), strict=True))

    def check(self) -> None:
        """Both ledgers are exact."""
        check_open(self.core)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *rest: Any) -> None:
        if kind is None:
            self.check()
            self.settle()
            lib.xs_worker_detach(self.worker, 0)
            check_closed(self.core)
