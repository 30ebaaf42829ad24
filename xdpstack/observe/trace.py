"""A packet's walk, read back from the C trace: which stages it passed, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from xdpstack.native import check, ffi, lib
from xdpstack.walk import Node, Walk, reasons

#: Steps read from C at once.
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Step:
    """One stage that a packet passed: its name, the edge taken (or "DROP", "KEPT"), the stage reached, the reason."""

    stage: str
    edge: str
    target: str
    reason: str
    now_ns: int


@dataclass(frozen=True, slots=True)
class Walked:
    """One packet: its first bytes as they were when the walk began, and its steps."""

    number: int
    head: bytes
    length: int
    steps: tuple[Step, ...]

    @property
    def end(self) -> str:
        """What became of it, in a word or two."""
        if not self.steps:
            return "nothing seen"
        last = self.steps[-1]
        if last.edge == "DROP":
            return f"dropped: {last.reason}"
        return "kept by " + last.stage if last.edge == "KEPT" else "in " + last.target

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the wire."""
        return {**asdict(self), "head": self.head.hex(), "end": self.end}


def start(walk: Walk, packets: int) -> None:
    """Mark the next `packets` packets of every worker. Raises OSError(EINVAL) beyond 4,096.

    When the path changes, as a hook comes or goes, recording ends.
    """
    with walk.looking:
        for worker in walk.workers:
            check(lib.xs_worker_trace_start(worker, packets), "start the trace")
        walk.traced = walk.nodes


def stop(walk: Walk) -> None:
    """Stop tracing and forget what was recorded."""
    for worker in walk.workers:
        lib.xs_worker_trace_stop(worker)


def read(walk: Walk) -> list[Walked]:
    """What was recorded since `start`, packet by packet in the order they were marked."""
    walked: list[Walked] = []
    buffer = ffi.new("struct xs_trace_values[]", _CHUNK)
    for worker in walk.workers:
        raw: dict[int, list[Any]] = {}
        heads: dict[int, tuple[bytes, int]] = {}
        start_at = 0
        while n := check(lib.xs_worker_trace_read(worker, start_at, buffer, _CHUNK), "read the trace"):
            for step in buffer[0:n]:
                raw.setdefault(step.packet, []).append((step.node, step.next, step.reason, step.now_ns))
                if step.len:
                    heads[step.packet] = (bytes(step.bytes[0 : step.len]), step.len)
            start_at += n
        for number, steps in raw.items():
            head, length = heads.get(number, (b"", 0))
            walked.append(Walked(number, head, length, tuple(_step(walk.traced, *s) for s in steps)))
    return walked


def _step(nodes: Sequence[Node], at: int, taken: int, reason: int, now_ns: int) -> Step:
    node = nodes[at]
    if taken == lib.XS_DROP:
        return Step(node.name, "DROP", "", reasons()[reason], now_ns)
    if taken == lib.XS_KEPT:
        return Step(node.name, "KEPT", "", "", now_ns)
    return Step(node.name, node.edges[taken], node.targets[taken], "", now_ns)
