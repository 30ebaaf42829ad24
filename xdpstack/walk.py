"""Wires the C walk of every worker from the path table, and puts the user's hooks in between.

`Walk` knows names; the C walk knows numbers. Nodes are added in the table's order, so that a lower number is earlier on
the path; hooks come just before the row they are hooked on, lowest priority first (as nf_register_net_hook orders them).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from xdpstack.errors import ConfigurationError
from xdpstack.native import check, ffi, lib, text
from xdpstack.path import BY_NAME, PATH, resolve

#: Entries of packets into the walk: number for xs_worker_set_entry, and the row (or where its absence leads).
ENTRIES = {0: "napi.rx", 1: "routing.tx", 2: "tc.tx", 3: "taps.rx"}

#: Nodes of a walk, and edges of a node, that C has room for (XS_NODES_MAX, XS_EDGES_MAX of csrc/walk.h).
MOST_NODES, MOST_EDGES = 64, 8


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


@cache
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
    hook were not there). `node` is its number in the walk while wired. `batch` makes what a callable is given of a hook, a
    worker and a core; None: a HookBatch. `engine` is set for what stands in the place of the row itself, under its name
    (`Walk.replace_row`): what info() calls it.
    """

    row: str
    name: str
    stage: Callable[[Any], None] | CStage
    edges: Mapping[str, str]
    priority: int = 0
    node: int = -1
    batch: Callable[[Any, Any, Any], Any] | None = None
    engine: str = ""

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

    `busy` has a bit for each node whose hook is running: a hook may send, and so come by hooks itself. `thread` runs them,
    by threading.get_ident(). `followed` is of senders that wait for the outcome of packets which Python has to do with, the
    innermost last: by frame, what became of it (None: not known yet).
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    busy: int = 0
    thread: int | None = None
    followed: list[dict[int, Outcome | None]] = field(default_factory=list)

    @contextmanager
    def following(self, frames: Iterable[int]) -> Iterator[dict[int, Outcome | None]]:
        """Have the outcomes of the packets in `frames` noted while the hooks run inside. The caller has the lock."""
        self.followed.append(dict.fromkeys(frames))
        try:
            yield self.followed[-1]
        finally:
            self.followed.pop()

    def note(self, frame: int, outcome: Outcome) -> None:
        """A walk of the packet is over; a frame whose outcome is known is another packet's by now."""
        for senders in reversed(self.followed):
            if senders.get(frame, outcome) is None:
                senders[frame] = outcome
                return


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a packet: the number of the reason why it was dropped (0: it was not), the device it left by."""

    reason: int
    device: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wired: nodes by number, the number that each edge of each leads to, and the node behind each of ENTRIES."""

    nodes: list[Node]
    wires: list[list[int]]
    entries: dict[int, int]


#: Every node in order: its name, and the hook that it is.
Chain = list[tuple[str, Hook | None]]


@dataclass
class Walk:
    """The walk of all workers of one stack: the same nodes with the same numbers on each.

    `present` are the rows that are there, `hooks` the custom stages, `nodes` what is wired. `run_parked` runs the Python
    hooks for which a worker has packets parked; what they raise is theirs. `traced` are the nodes as they were when a trace
    began, whose recording ends when they change. `looking` is held by who looks at the nodes. Any thread may call anything.
    """

    workers: list[Any]
    present: set[str]
    hooks: list[Hook] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    run_parked: Callable[[Any], None] = lambda worker: None
    traced: list[Node] = field(default_factory=list)
    _past: dict[str, int] = field(default_factory=dict)
    _wired: Plan | None = None
    looking: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.turns = [Turn() for _ in self.workers]

    # ---- changing what is wired ----

    def wire(self) -> None:
        """Build the nodes of every worker from `present` and `hooks`. Raises as `add_hook()` does."""
        with self._all_turns():
            self._rewire(set(self.present), list(self.hooks))

    def replace_row(self, hook: Hook) -> None:
        """Have `hook`, a Python one with the name and edges of its row, do the row's work instead of the C stage.

        In counters, traces and drop reasons it is the row. Before the first `wire()` only.
        """
        self.present = self.present - {hook.row}
        self.hooks = [*self.hooks, hook]

    def add_hook(self, hook: Hook) -> None:
        """Put `hook` on its row. Packets see the path with it or without it; on failure nothing is changed.

        Raises ConfigurationError: the name is taken, an edge leads nowhere, or a hook called this.
        """
        with self._all_turns():
            if any(h.name == hook.name for h in self.hooks) or hook.name in BY_NAME:
                raise ConfigurationError(f"there is a stage named {hook.name!r} already", fix="Give it another name.")
            self._rewire(set(self.present), [*self.hooks, hook])

    def remove_hook(self, hook: Hook) -> None:
        """Take `hook` out. Raises ConfigurationError: it is not there, or a hook called this."""
        with self._all_turns():
            if not any(h is hook for h in self.hooks):
                raise ConfigurationError(f"the hook {hook.name!r} is not on the path")
            self._rewire(set(self.present), [h for h in self.hooks if h is not hook])

    def include(self, row: str, present: bool) -> None:
        """Have a row that C implements on the path, or not. Raises as `remove_hook()`."""
        if (row in self.present) == present:
            return
        with self._all_turns():
            self._rewire(self.present | {row} if present else self.present - {row}, list(self.hooks))

    def refuse_inside_hook(self) -> None:
        """Raise ConfigurationError when the calling thread is running a hook, whose own packets are on the path."""
        if any(turn.thread == threading.get_ident() for turn in self.turns):
            raise ConfigurationError(
                "a hook cannot change the path that its packets are on",
                fix="Add and remove hooks, and frames of a claim, from outside of hooks.",
            )

    @contextmanager
    def _all_turns(self) -> Iterator[None]:
        """No hook runs meanwhile, and one thread at a time changes what is wired."""
        self.refuse_inside_hook()
        with ExitStack() as turns:
            for turn in self.turns:
                turns.enter_context(turn.lock)
            yield

    def _rewire(self, present: set[str], hooks: list[Hook]) -> None:
        """Make the plan, which may fail; then have every worker follow it, which may not. Counters go on as they were."""
        plan = self._plan(present, hooks)
        with self.looking, self._standstill():
            past = self.counters()
            before = self._wired
            try:
                for worker in self.workers:
                    self._apply(worker, plan)
            except BaseException:  # a signal's: none of the calls can fail
                if before is not None:
                    for worker in self.workers:
                        self._apply(worker, before)
                raise
            self._past, self._wired = past, plan
            self.present, self.hooks, self.nodes = present, hooks, plan.nodes

    @contextmanager
    def _standstill(self) -> Iterator[None]:
        """Nobody drives any worker meanwhile, and no packets are parked: those that were, their hooks have seen."""
        while True:
            for worker in self.workers:
                self.run_parked(worker)
            with ExitStack() as held:
                for worker in self.workers:
                    lib.xs_worker_hold(worker)
                    held.callback(lib.xs_worker_unhold, worker)
                if not any(lib.xs_worker_parked(worker) for worker in self.workers):
                    yield
                    return

    def _plan(self, present: set[str], hooks: list[Hook]) -> Plan:
        stages = c_stages()
        chain = _chain(present, hooks)
        if len(chain) > MOST_NODES:
            raise ConfigurationError(f"{len(chain)} stages on the path: {MOST_NODES} is the most")
        nodes = [_node(name, hook, stages) for name, hook in chain]
        first = _first_of(chain)
        wires = []
        for at, node in enumerate(nodes):
            node.targets = _targets(node, chain, at, first)
            wires.append([first[target] for target in node.targets])
        reached = {which: _reach(row, first) for which, row in ENTRIES.items()}
        return Plan(nodes, wires, {which: first[row] for which, row in reached.items() if row is not None})

    def _apply(self, worker: Any, plan: Plan) -> None:
        check(lib.xs_worker_reset_nodes(worker), "rewire the walk")
        for node in plan.nodes:
            check(self._add(worker, node), f"add {node.name}")
        for at, wires in enumerate(plan.wires):
            for edge, target in enumerate(wires):
                check(lib.xs_worker_wire(worker, at, edge, target), f"wire {plan.nodes[at].name}")
        for which, at in plan.entries.items():
            check(lib.xs_worker_set_entry(worker, which, at), "enter")

    def _add(self, worker: Any, node: Node) -> int:
        hook = node.hook
        if hook is None:
            return int(lib.xs_worker_add_stage(worker, node.name.encode()))
        if hook.engine:
            hook.node = int(lib.xs_worker_add_engine(worker, node.name.encode()))
            return hook.node
        addresses = [ffi.NULL] * 3
        if isinstance(hook.stage, CStage):
            addresses = [ffi.cast("void *", a) for a in (hook.stage.function, hook.stage.tick, hook.stage.state)]
        hook.node = int(lib.xs_worker_add_hook(worker, *addresses, len(hook.edges)))
        return hook.node

    # ---- counters ----

    def counters(self) -> dict[str, int]:
        """Every counter that is not zero, over all workers: `<row>.packets`, `<row>.<counter>`, `<row>.drop.<reason>`."""
        with self.looking:
            return self._counters()

    def _counters(self) -> dict[str, int]:
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


def _node(name: str, hook: Hook | None, stages: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> Node:
    if hook is not None and not hook.engine:
        if len(hook.edges) > MOST_EDGES:
            raise ConfigurationError(f"hook {name} has {len(hook.edges)} edges: {MOST_EDGES} is the most")
        return Node(name, tuple(hook.edges), hook.stage.counters if isinstance(hook.stage, CStage) else (), hook=hook)
    edges, counters = stages[name]
    if tuple(BY_NAME[name].edges) != edges:
        raise ConfigurationError(f"{name}: edges {edges} in C, {tuple(BY_NAME[name].edges)} in the path table")
    return Node(name, edges, counters, hook=hook)


def _chain(present: set[str], hooks: Sequence[Hook]) -> Chain:
    """Every node in order: per row its hooks by priority, then the row itself when it is present."""
    chain: Chain = []
    for row in PATH:
        on_row = sorted((h for h in hooks if h.row == row.name), key=lambda h: h.priority)
        chain += [(hook.name, hook) for hook in on_row]
        if row.name in present:
            chain.append((row.name, None))
    return chain


def _first_of(chain: Chain) -> dict[str, int]:
    """Row -> the first node on it (a hook, or the row itself)."""
    first: dict[str, int] = {}
    for at, (name, hook) in enumerate(chain):
        first.setdefault(hook.row if hook else name, at)
    return first


def _reach(target: str, first: Mapping[str, int]) -> str | None:
    try:
        return resolve(target, set(first))
    except KeyError:
        return None


def _targets(node: Node, chain: Chain, at: int, first: dict[str, int]) -> tuple[str, ...]:
    """Row names that the node's edges reach; a hook's default edge goes to the next node on its own row first."""
    edges: Mapping[str, str] = BY_NAME[node.name].edges if node.hook is None else node.hook.edges
    targets: list[str] = []
    for number, (edge, wanted) in enumerate(edges.items()):
        if node.hook is not None and number == 0:
            follower = chain[at + 1] if at + 1 < len(chain) else None
            if follower and (follower[1].row if follower[1] else follower[0]) == node.hook.row:
                alias = f"{node.hook.row}#{at + 1}"
                first[alias] = at + 1
                targets.append(alias)
                continue
        reached = _reach(wanted, first)
        if reached is None:
            raise ConfigurationError(f"{node.name}: edge {edge} leads to {wanted}, and nothing there takes packets")
        targets.append(reached)
    return tuple(targets)
