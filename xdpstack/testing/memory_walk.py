"""A walk over memory devices, for tests of stages: no privilege, no kernel, no layers above.

    with MemoryWalk("a0", present={"napi.rx", "ip.rx"}, catch={"routing.rx"}) as walk:
        walk.inject("a0", frame)
        walk.step()
        assert [p.l4_proto for p in walk.caught["routing.rx"]] == [17]
        assert walk.drops() == {}

Devices, rings, workers, walk and stages are the production code. On leaving the `with` block both ledgers are checked: each
packet that began has ended, and each frame is home.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from xdpstack.device.memory_clock import ManualClock
from xdpstack.device.memory_queue import MemoryQueue, Rings
from xdpstack.hook import HookBatch, run_hooks
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.path import BY_NAME
from xdpstack.testing.ledger import check_closed, check_open
from xdpstack.walk import CStage, Hook, Walk, c_stages

#: The fields of struct xs_pkt that are copied for a caught packet.
_FIELDS = tuple(name for name, _ in ffi.typeof("struct xs_pkt").fields)
BUDGET = 64
SMALL_RINGS = Rings(rx=256, tx=256, fill=256, completion=256)


@dataclass(frozen=True, slots=True)
class TestDevice:
    """A device of a MemoryWalk. `flags` are the XS_DEV_* of csrc/tables/config.h."""

    __test__ = False

    name: str
    mac: bytes = b""
    mtu: int = 1500
    queues: int = 1
    flags: int | None = None
    rp_filter: int = 0
    ttl: int = 64
    hop_limit: int = 64
    multi_buffer: bool = True
    zc_max_segs: int = 0
    rings: Rings = SMALL_RINGS


class Caught:
    """One packet that reached a `catch` row: the descriptor's fields as attributes, and `data`, all its bytes."""

    def __init__(self, packet: Any, pkt: Any) -> None:
        self.data: bytes = packet.tobytes()
        self.fields: dict[str, int] = {name: int(getattr(pkt, name)) for name in _FIELDS}

    def __getattr__(self, name: str) -> int:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return f"Caught({len(self.data)} bytes, {self.fields})"


class MemoryWalk:
    """Memory devices, workers and the present rows of the path, wired as in production.

    `devices` are names or TestDevice; `present` the rows that are there (default: all that C implements); `catch` rows
    where packets end in a list instead: `caught[row]`. They stand in for rows that are absent, or come before them.
    """

    def __init__(
        self,
        *devices: str | TestDevice,
        present: Iterable[str] | None = None,
        catch: Iterable[str] = (),
        workers: int = 1,
        frames: int = 1024,
        frame_bytes: int = 2048,
    ) -> None:
        self.core = Core(workers, frames, frame_bytes, manual_clock=True)
        self.devices = [TestDevice(d) if isinstance(d, str) else d for d in devices]
        self.queues: dict[str, list[MemoryQueue]] = {}
        self.clock = ManualClock(self.core, self._service)
        self.caught: Mapping[str, list[Caught]] = defaultdict(list)
        self.walk = Walk(
            self.core.workers, set(c_stages()) if present is None else set(present), run_parked=self.run_hooks
        )
        self.closed = False
        for row in catch:
            self.walk.hooks.append(Hook(row, f"catch {row}", self._catcher(row), {}, priority=2**31))
        self.set_devices()
        self.wire()
        for index, device in enumerate(self.devices):
            self._attach(index, device)

    # ---- building ----

    def set_devices(self, **flags: int) -> None:
        """Publish the device table; `flags` are XS_DEV_* by device name, over those the devices were made with."""
        values = ffi.new("struct xs_device_values[]", max(1, len(self.devices)))
        for index, device in enumerate(self.devices):
            value = values[index]
            value.ifindex = index + 2
            value.mtu, value.nqueues, value.rp_filter = device.mtu, device.queues, device.rp_filter
            value.ttl, value.hop_limit = device.ttl, device.hop_limit
            value.mac = list(self.mac(device.name))
            own = lib.XS_DEV_UP if device.flags is None else device.flags
            value.flags = flags.get(device.name, own)
        check(lib.xs_stack_set_devices(self.core.pointer, values, len(self.devices)), "publish the devices")

    def mac(self, name: str) -> bytes:
        """The MAC of a device: as given, or 02:00:00:00:00:01 for the first, and so on."""
        index = self.index(name)
        return self.devices[index].mac or b"\x02\0\0\0\0" + bytes([index + 1])

    def index(self, name: str) -> int:
        """The stack's index of a device."""
        return [d.name for d in self.devices].index(name)

    def _attach(self, index: int, device: TestDevice) -> None:
        queues = self.queues[device.name] = []
        for queue in range(device.queues):
            worker = self.core.workers[queue % len(self.core.workers)]
            made = MemoryQueue(self.core, queue, device.rings, device.multi_buffer, zc_max_segs=device.zc_max_segs)
            queues.append(made)
            check(lib.xs_worker_attach(worker, made.pointer, index), f"attach {device.name}")

    def wire(self) -> None:
        """Wire the walk anew, after a change of `walk.present` or `walk.hooks`."""
        self.walk.wire()

    def direct(self, source: str, target: str, edge: int = 0) -> None:
        """Lead an edge of row `source` straight to row `target`, against the path, until the walk is wired anew."""
        names = [node.name for node in self.walk.nodes]
        for worker in self.core.workers:
            check(lib.xs_worker_wire(worker, names.index(source), edge, names.index(target)), f"wire {source}")

    def hook(
        self,
        row: str,
        stage: Callable[[Any], None] | CStage,
        edges: Mapping[str, str] | None = None,
        name: str = "",
        priority: int = 0,
    ) -> Hook:
        """Put a custom stage before `row`; its default edge passes packets on to the row."""
        label = name or (stage.name if isinstance(stage, CStage) else getattr(stage, "__name__", "hook"))
        made = Hook(row, label, stage, edges or {"accept": row}, priority)
        self.walk.add_hook(made)
        return made

    def _catcher(self, row: str) -> Callable[[HookBatch], None]:
        def catch(batch: HookBatch) -> None:
            for i, packet in enumerate(batch):
                self.caught[row].append(Caught(packet, batch.pkts + batch.frames[i]))
                packet.drop("HOOK")

        return catch

    # ---- running ----

    def inject(self, name: str, *frames: bytes, queue: int = 0, partial: bool = False) -> int:
        """Frames arrive at a device; how many of them got onto its RX ring."""
        return self.queues[name][queue].inject(frames, partial)

    def sent(self, name: str) -> list[bytes]:
        """Takes what was sent on a device since the last call, queue by queue."""
        return [frame for queue in self.queues[name] for frame in queue.sent()]

    def faults(self, name: str, **changes: int) -> dict[str, int]:
        """Change faults on all queues of a device (see MemoryQueue.faults); those of its first queue as they are now."""
        first, *others = self.queues[name]
        for queue in others:
            queue.faults(**changes)
        return first.faults(**changes)

    def _service(self) -> None:
        for queues in self.queues.values():
            for queue in queues:
                queue.service()

    def step(self, times: int = 1, order: Sequence[int] | None = None, budget: int = BUDGET) -> int:
        """Poll every worker `times` times, in `order` (default: by number), running Python hooks in between.

        Returns the descriptors taken from RX rings. What a hook raises is raised after its packets were dropped.
        """
        taken = 0
        for _ in range(times):
            for index in range(len(self.core.workers)) if order is None else order:
                worker = self.core.workers[index]
                self._service()
                self.run_hooks(worker)
                taken += check(lib.xs_worker_poll(worker, budget), "poll")
                self.run_hooks(worker)
                self._service()
        return taken

    def run_hooks(self, worker: Any) -> None:
        """Run Python hooks until none has packets parked, the earliest on the path first."""
        run_hooks(self.walk, worker, self.core)

    def drain(self, rounds: int = 10_000) -> None:
        """Step until all RX rings are empty and nothing that can be sent waits."""
        for _ in range(rounds):
            if not self.step():
                return
        raise AssertionError(f"after {rounds} steps there is still something to receive")

    # ---- looking ----

    def counters(self) -> dict[str, int]:
        """All counters that are not zero (Walk.counters)."""
        return self.walk.counters()

    def drops(self) -> dict[str, int]:
        """Dropped packets by reason, without those that a catch row ended."""
        drops = self.walk.drops()
        ended = sum(len(caught) for caught in self.caught.values())
        if ended:
            drops["HOOK"] -= ended
        return {reason: n for reason, n in drops.items() if n}

    def check(self) -> None:
        """Both ledgers are exact. Raises AssertionError."""
        check_open(self.core)

    # ---- ending ----

    def close(self) -> None:
        """Detach all queues and check that every frame is home. Idempotent."""
        if self.closed:
            return
        self.closed = True
        for device in range(len(self.devices)):
            for worker in self.core.workers[: self.devices[device].queues]:
                check(lib.xs_worker_detach(worker, device), f"detach {self.devices[device].name}")
        for worker in self.core.workers:
            check(lib.xs_worker_poll(worker, BUDGET), "poll")
        check_closed(self.core)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check()
            self.close()


def rows() -> frozenset[str]:
    """The rows that C implements, for `present=rows() - {...}`."""
    return frozenset(name for name in c_stages() if name in BY_NAME)
