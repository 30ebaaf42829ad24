"""Stack: devices, walk, layers and sockets put together; opened, driven and closed as one.

Backend (devices) --- queues ---> workers (C) <--- wires --- Walk (path table, hooks)
Control (mirror, events) --- tables ---> workers
sockets, frames() --- claims ---> Backend
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from xdpstack.control import Control
from xdpstack.device.backend import Backend, Device, DeviceEvent
from xdpstack.errors import ClosedError, ConfigurationError, ForkedError
from xdpstack.hook import HookBatch
from xdpstack.native import check, lib
from xdpstack.native.core import Core, Ledger
from xdpstack.netlink import Snapshot, text
from xdpstack.observe import trace
from xdpstack.path import BY_NAME
from xdpstack.walk import CStage, Hook, Walk, c_stages, reason_text

log = logging.getLogger("xdpstack")

#: How long close() waits for frames that the kernel still has, in seconds.
DRAIN_SECONDS = 1.0
#: Packets that one poll takes from each queue at most.
BUDGET = 256


class Stack:
    """One stack over its devices. Made by `xdpstack.open()`; a context manager.

    Any thread may call anything. What drives a worker (`poll()`, `run()`, receiving, sending) is done by one thread at a
    time; another that comes meanwhile does not wait for it but for its packets.
    """

    def __init__(self, backend: Backend, core: Core) -> None:
        self._pid = os.getpid()
        self._closed = False
        self._backend = backend
        self._core = core
        self._stopping = threading.Event()
        self.walk = Walk(core.workers, set(c_stages()) - {"taps.rx"})
        self.walk.wire()
        devices, mirror = backend.open(core)
        self.devices: tuple[Device, ...] = devices
        self.control = Control(core, backend, devices, mirror, ())
        self.control.publish()

    # ---- driving ----

    def poll(self, budget: int = BUDGET) -> int:
        """One round over all queues of all workers; returns packets received. Runs Python hooks that have packets.

        Raises what a hook raised, after its packets were dropped.
        """
        self.check()
        total = 0
        for worker in self._core.workers:
            got = lib.xs_worker_poll(worker, budget)
            if got >= 0:
                total += got
            elif got not in (-errno.EBUSY, -errno.EAGAIN):
                check(got, "poll")
            self.run_parked(worker)
        return total

    def run_parked(self, worker: Any) -> None:
        """Run the Python hooks for which `worker` has parked packets, until none is left."""
        failure: BaseException | None = None
        while mask := lib.xs_worker_parked(worker):
            for hook in self.walk.hooks:
                if not hook.parks or not mask >> hook.node & 1:
                    continue
                batch = HookBatch(hook, worker, self._core)
                raised: BaseException | None = None
                try:
                    assert not isinstance(hook.stage, CStage)
                    hook.stage(batch)
                except BaseException as error:
                    raised = error
                taken, why = batch.finish(failed=raised is not None)
                while lib.xs_worker_resume(worker, hook.node, taken, why, len(batch)) == -errno.EBUSY:
                    time.sleep(0)  # another thread is in a poll, which is short
                failure = failure or raised
        if failure is not None:
            raise failure

    def run(self, seconds: float | None = None) -> None:
        """Drive the stack until `stop()` is called from elsewhere, or for `seconds`."""
        self.check()
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._stopping.is_set() and not self._closed:
            left = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
            if left <= 0:
                return
            for worker in self._core.workers:
                parked = lib.xs_worker_run(worker, BUDGET, max(1, int(left * 1000 / len(self._core.workers))))
                if check(parked, "run"):
                    self.run_parked(worker)

    def stop(self) -> None:
        """Make `run()` return. Any thread, signal handlers included."""
        self._stopping.set()
        self.control.wake_workers()

    # ---- custom stages ----

    def hook(
        self,
        row: str,
        stage: Callable[[HookBatch], None] | CStage,
        *,
        name: str = "",
        priority: int = 0,
        edges: Mapping[str, str] | None = None,
    ) -> Hook:
        """Put a custom stage on `row` of the path ("tc.rx", "netfilter.input", ...): a Python callable or `load_stage()`.

        It runs before the row's own stage; of several on a row, the lowest priority first. `edges` are further ways out
        by name, each to a row; the first edge, "accept", always goes on as if the hook were not there. A C stage's own
        edge names beyond its first must all be given. Raises ConfigurationError when the row takes no hooks.
        """
        self.check()
        if row not in BY_NAME or BY_NAME[row].passes is None:
            rows = [r.name for r in BY_NAME.values() if r.passes]
            raise ConfigurationError(f"no custom stage can go on {row!r}", fix=f"One of: {', '.join(rows)}.")
        passes = BY_NAME[row].passes
        assert passes is not None
        default = "accept"
        extra = dict(edges or {})
        if isinstance(stage, CStage):
            default = stage.edges[0] if stage.edges else "accept"
            if set(stage.edges[1:]) != set(extra):
                raise ConfigurationError(f"{stage.name} has the edges {stage.edges[1:]}: say where each of them leads")
        onward = {default: BY_NAME[row].edges[passes], **extra}
        label = name or (stage.name if isinstance(stage, CStage) else getattr(stage, "__name__", "hook"))
        made = Hook(row=row, name=label, stage=stage, edges=onward, priority=priority)
        with self.control.lock:
            self.walk.add_hook(made)
        return made

    def unhook(self, hook: Hook) -> None:
        """Take a custom stage out again."""
        with self.control.lock:
            self.walk.remove_hook(hook)

    # ---- what can be seen ----

    @property
    def snapshot(self) -> Snapshot:
        """What the mirror knows: links, addresses, routes, rules, neighbours."""
        return self.control.mirror.snapshot

    def addresses(self) -> list[str]:
        """The addresses of the stack's devices, as text."""
        indexes = {device.ifindex for device in self.devices}
        return [text(a.local) for a in self.snapshot.addresses if a.index in indexes]

    def events(self) -> list[DeviceEvent]:
        """What happened to the devices since the last call: "down", "gone", "up", "queue-error"."""
        with self.control.lock:
            out, self.control.events = self.control.events, []
        return out

    def counters(self) -> dict[str, int]:
        """Every counter that is not zero: of the stages, the XDP program and the AF_XDP sockets."""
        return {**self.walk.counters(), **self._backend.stats()}

    def reasons(self) -> dict[str, int]:
        """Dropped packets by reason."""
        return self.walk.drops()

    def frames_by_owner(self) -> dict[str, int]:
        """Where every frame is; sums to the number of frames."""
        return self._core.frame_counts()

    def ledger(self) -> Ledger:
        """The packet ledger; `ledger().missing` is 0 unless there is a defect."""
        return self._core.ledger()

    def info(self) -> dict[str, Any]:
        """What was asked for and what was granted."""
        devices = [{**asdict(device), "mac": device.mac.hex(":")} for device in self.devices]
        return {
            "devices": devices,
            "frames_total": self._core.frames,
            "frame_bytes": self._core.frame_bytes,
            **self._backend.info(),
        }

    def trace_start(self, packets: int = 1) -> None:
        """Record the walk of the next `packets` packets."""
        trace.start(self.walk, packets)

    def trace_read(self) -> list[trace.Walked]:
        """What was recorded so far."""
        return trace.read(self.walk)

    def trace_stop(self) -> None:
        """Forget what was recorded."""
        trace.stop(self.walk)

    def answers(self) -> dict[str, Callable[..., Any]]:
        """What `xdpstack show` and `xdpstack trace` may ask of a running stack, as plain values."""
        return {
            "counters": self.counters,
            "reasons": lambda: {name: (count, reason_text(name)) for name, count in self.reasons().items()},
            "nodes": lambda: [
                {
                    "name": node.name,
                    "row": node.hook.row if node.hook else "",
                    "edges": node.edges,
                    "targets": node.targets,
                }
                for node in self.walk.nodes
            ],
            "info": self._info_and_ledgers,
            "trace_start": self.trace_start,
            "trace_read": lambda: [walked.as_json() for walked in self.trace_read()],
            "trace_stop": self.trace_stop,
        }

    def _info_and_ledgers(self) -> dict[str, Any]:
        ledger = self.ledger()
        packets = {**asdict(ledger), "missing": ledger.missing}
        return {**self.info(), "frames": self.frames_by_owner(), "packets": packets}

    # ---- life ----

    def check(self) -> None:
        """Raise ClosedError or ForkedError when nothing may be called any more."""
        if self._closed:
            raise ClosedError("the stack is closed")
        if os.getpid() != self._pid:
            raise ForkedError(
                f"the stack was opened by process {self._pid}, this is {os.getpid()}",
                cause="A forked child has neither its rings nor its frames.",
                fix="Open a stack in the child, or start the child before opening.",
            )

    def close(self) -> None:
        """Give everything back, in the order that loses nothing: claims, frames under way, program, sockets. Idempotent."""
        if self._closed or os.getpid() != self._pid:
            return
        self.stop()
        self._backend.withdraw()
        self._drain()
        self._closed = True
        self.control.stop()
        self._backend.close()
        self.control.mirror.close()

    def _drain(self) -> None:
        """Poll until nothing comes and nothing is being sent, within DRAIN_SECONDS."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            try:
                received = self.poll()
            except Exception:
                log.exception("a hook failed while the stack was closing")
                continue
            if not received and not self._core.frame_counts()["transmitting"]:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
