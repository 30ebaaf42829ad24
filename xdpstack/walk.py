"""Wires the C walk of every worker from the path table, and puts the user's hooks in between.

`Walk` knows names; the C walk knows numbers. Nodes are added in the table's order, so that a lower number is earlier on
the path; hooks come just before the row they are hooked on, lowest priority first (as nf_register_net_hook orders them).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xdpstack.errors import ConfigurationError
from xdpstack.native import check, ffi, lib, text
from xdpstack.path import BY_NAME, PATH, resolve

#: Entries of packets into the walk: number for xs_worker_set_entry, and the row (or where its absence leads).
ENTRIES = {0: "napi.rx", 1: "routing.tx", 2: "tc.tx"}


def c_stages() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """The rows that C implements: name -> (edge names, counter names), in the numbers' order."""
    rows: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    index = 0
    while (name := text(lib.xs_stage_name(index))) is not None:
        rows[name] = (_names(lib.xs_stage_edge, index, 8), _names(lib.xs_stage_counter, index, 16))
        index += 1
    return rows


def _names(read: Callable[[int, int], Any], index: int, most: int) -> tuple[str, ...]:
    names = (text(read(index, i)) for i in range(most))
    return tuple(name for name in names if name is not None)


def reasons() -> tuple[str, ...]:
    """Names of the drop reasons, in the numbers' order."""
    names: list[str] = []
    while (name := text(lib.xs_reason_name(len(names)))) is not None:
        names.append(name)
    return tuple(names)


def reason_text(name: str) -> str:
    """What the drop reason means, in a line."""
    return text(lib.xs_reason_text(reasons().index(name))) or ""


@dataclass(frozen=True, slots=True)
class CStage:
    """A stage of a user's own shared object: addresses of its functions and its state, and who keeps them alive."""

    name: str
    function: int
    tick: int
    state: int
    edges: tuple[str, ...]
    counters: tuple[str, ...]
    library: Any


@dataclass(slots=True)
class Hook:
    """One custom stage on the path: a Python callable on a batch, or a CStage.

    `edges` are the edges by name, in the numbers' order; the first is the default one (the packet goes on as if the
    hook were not there). `node` is its number in the walk while wired.
    """

    row: str
    name: str
    stage: Callable[[Any], None] | CStage
    edges: Mapping[str, str]
    priority: int = 0
    node: int = -1

    @property
    def parks(self) -> bool:
        """Python hooks park packets; C hooks run inside the walk."""
        return not isinstance(self.stage, CStage)


@dataclass(slots=True)
class Node:
    """One wired node: what it is called and the names behind its numbers."""

    name: str
    edges: tuple[str, ...]
    counters: tuple[str, ...]
    targets: tuple[str, ...] = ()
    hook: Hook | None = None


@dataclass(slots=True)
class Turn:
    """Whose turn it is to run the Python hooks of one worker: the thread's that has the lock.

    `busy` has a bit for each node whose hook is running: a hook may send, and so come by hooks itself.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    busy: int = 0


@dataclass
class Walk:
    """The walk of all workers of one stack: the same nodes with the same numbers on each."""

    workers: list[Any]
    present: set[str]
    hooks: list[Hook] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    _past: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.turns = [Turn() for _ in self.workers]

    def wire(self) -> None:
        """(Re)build the nodes of every worker while none is driven. Counters go on from where they were.

        Raises OSError(EBUSY) when packets are parked for a Python hook, ConfigurationError when the path has a hole.
        """
        self._past = self.counters()
        for worker in self.workers:
            lib.xs_worker_hold(worker)
            try:
                check(lib.xs_worker_reset_nodes(worker), "rewire the walk")
                self._wire_one(worker)
            finally:
                lib.xs_worker_unhold(worker)

    def _wire_one(self, worker: Any) -> None:
        stages = c_stages()
        self.nodes = []
        chain = self._chain()
        for name, hook in chain:
            if hook is None:
                edges, counters = stages[name]
                if tuple(BY_NAME[name].edges) != edges:
                    raise ConfigurationError(
                        f"{name}: edges {edges} in C, {tuple(BY_NAME[name].edges)} in the path table"
                    )
                at = lib.xs_worker_add_stage(worker, name.encode())
                self.nodes.append(Node(name, edges, counters))
            else:
                at = self._add_hook(worker, hook)
            check(at, f"add {name}")
        first = self._first_of(chain)
        for at, node in enumerate(self.nodes):
            node.targets = self._targets(node, chain, at, first)
            for edge, target in enumerate(node.targets):
                check(lib.xs_worker_wire(worker, at, edge, first[target]), f"wire {node.name}")
        for which, row in ENTRIES.items():
            reached = self._reach(row, first)
            if reached is not None:
                check(lib.xs_worker_set_entry(worker, which, first[reached]), f"enter at {row}")

    def _add_hook(self, worker: Any, hook: Hook) -> int:
        stage = hook.stage
        counters: tuple[str, ...] = ()
        addresses = [ffi.NULL] * 3
        if isinstance(stage, CStage):
            counters = stage.counters
            addresses = [ffi.cast("void *", a) for a in (stage.function, stage.tick, stage.state)]
        at: int = lib.xs_worker_add_hook(worker, *addresses, len(hook.edges))
        hook.node = at
        self.nodes.append(Node(hook.name, tuple(hook.edges), counters, hook=hook))
        return at

    def _chain(self) -> list[tuple[str, Hook | None]]:
        """Every node in order: per row its hooks by priority, then the row itself when it is present."""
        chain: list[tuple[str, Hook | None]] = []
        for row in PATH:
            on_row = sorted((h for h in self.hooks if h.row == row.name), key=lambda h: h.priority)
            chain += [(hook.name, hook) for hook in on_row]
            if row.name in self.present:
                chain.append((row.name, None))
        return chain

    def _first_of(self, chain: Iterable[tuple[str, Hook | None]]) -> dict[str, int]:
        """Row -> the first node on it (a hook, or the row itself)."""
        first: dict[str, int] = {}
        for at, (name, hook) in enumerate(chain):
            first.setdefault(hook.row if hook else name, at)
        return first

    def _reach(self, target: str, first: Mapping[str, int]) -> str | None:
        try:
            return resolve(target, set(first))
        except KeyError:
            return None

    def _targets(
        self, node: Node, chain: list[tuple[str, Hook | None]], at: int, first: dict[str, int]
    ) -> tuple[str, ...]:
        """Row names that the node's edges reach; a hook's default edge goes to the next node on its own row first."""
        if node.hook is None:
            edges: Mapping[str, str] = BY_NAME[node.name].edges
        else:
            edges = dict(node.hook.edges)
        targets: list[str] = []
        for number, (edge, wanted) in enumerate(edges.items()):
            if node.hook is not None and number == 0:
                follower = chain[at + 1] if at + 1 < len(chain) else None
                if follower and (follower[1].row if follower[1] else follower[0]) == node.hook.row:
                    alias = f"{node.hook.row}#{at + 1}"
                    first[alias] = at + 1
                    targets.append(alias)
                    continue
            reached = self._reach(wanted, first)
            if reached is None:
                raise ConfigurationError(f"{node.name}: edge {edge} leads to {wanted}, and nothing there takes packets")
            targets.append(reached)
        return tuple(targets)

    # ---- hooks ----

    def add_hook(self, hook: Hook) -> None:
        """Put `hook` on its row and rewire. On failure nothing is changed."""
        if any(h.name == hook.name for h in self.hooks) or hook.name in BY_NAME:
            raise ConfigurationError(f"there is a stage named {hook.name!r} already", fix="Give it another name.")
        self.hooks.append(hook)
        try:
            self.wire()
        except BaseException:
            self.hooks.remove(hook)
            self.wire()
            raise

    def remove_hook(self, hook: Hook) -> None:
        """Take `hook` out and rewire."""
        self.hooks.remove(hook)
        try:
            self.wire()
        except BaseException:
            self.hooks.append(hook)
            raise

    # ---- counters ----

    def counters(self) -> dict[str, int]:
        """Every counter that is not zero, over all workers: `<row>.packets`, `<row>.<counter>`, `<row>.drop.<reason>`."""
        total = dict(self._past)

        def add(name: str, value: int) -> None:
            if value:
                total[name] = total.get(name, 0) + value

        names = reasons()
        for worker in self.workers:
            for at, node in enumerate(self.nodes):
                add(f"{node.name}.packets", lib.xs_node_packets(worker, at))
                add(f"{node.name}.batches", lib.xs_node_batches(worker, at))
                for i, counter in enumerate(node.counters):
                    add(f"{node.name}.{counter}", lib.xs_node_counter(worker, at, i))
                for i, reason in enumerate(names):
                    add(f"{node.name}.drop.{reason}", lib.xs_node_drops(worker, at, i))
        return total

    def drops(self) -> dict[str, int]:
        """Dropped packets by reason, over all stages."""
        out: dict[str, int] = {}
        for name, value in self.counters().items():
            _, drop, reason = name.partition(".drop.")
            if drop:
                out[reason] = out.get(reason, 0) + value
        return out
