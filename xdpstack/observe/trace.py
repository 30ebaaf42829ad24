"""A packet's walk, read back from the C trace: which stages it passed, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from xdpstack.arguments import whole
from xdpstack.errors import ConfigurationError
from xdpstack.native import check, ffi, lib
from xdpstack.walk import Node, Walk, reasons

#: Packets that may be asked for: XS_TRACE_MOST.
MOST = 4096


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


def start(walk: Walk, packets: int, row: str | None = None, reason: str | None = None) -> None:
    """Record the next `packets` packets of every worker; or those that come to `row`, or are dropped for `reason`.

    `row` may also name a hook; with both, packets that are dropped there. Then every packet is followed until enough are
    found, 512 at a time: one that waits in a stage while others pass is followed from there on.

    When the path changes, as a hook comes or goes, recording ends. Raises ConfigurationError for a name that is none, and
    beyond 4,096 packets.
    """
    whole("packets", packets, 1, MOST)
    with walk.looking:
        names = [node.name for node in walk.nodes]
        number = lib.XS_TRACE_ANY if row is None else _number("row", row, names)
        why = lib.XS_TRACE_ANY if reason is None else _number("drop reason", reason, reasons())
        for worker in walk.workers:
            check(lib.xs_worker_trace_start(worker, packets, number, why), "start the trace")
        walk.traced = walk.nodes


def _number(what: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ConfigurationError(f"there is no {what} {name!r}", fix=f"One of: {', '.join(names)}.")
    return names.index(name)


def stop(walk: Walk) -> None:
    """Stop tracing and forget what was recorded."""
    for worker in walk.workers:
        lib.xs_worker_trace_stop(worker)


def read(walk: Walk) -> list[Walked]:
    """What was recorded since `start`, packet by packet in the order they were found."""
    walked: list[Walked] = []
    out = ffi.new("struct xs_trace_values *")
    for worker in walk.workers:
        number = 0
        while lib.xs_worker_trace_read(worker, number, out):
            steps = tuple(_step(walk.traced, s.node, s.next, s.reason, s.now_ns) for s in out.step[0 : out.nsteps])
            walked.append(Walked(number, bytes(out.bytes[0 : out.len]), out.len, steps))
            number += 1
    return walked


def _step(nodes: Sequence[Node], at: int, taken: int, reason: int, now_ns: int) -> Step:
    node = nodes[at]
    if taken == lib.XS_DROP:
        return Step(node.name, "DROP", "", reasons()[reason], now_ns)
    if taken == lib.XS_KEPT:
        return Step(node.name, "KEPT", "", "", now_ns)
    return Step(node.name, node.edges[taken], node.targets[taken], "", now_ns)
