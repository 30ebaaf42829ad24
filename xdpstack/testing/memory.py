"""A whole Stack over memory devices, for tests: no privilege, no kernel, time that stands still.

with memory_stack("a0", "b0",
                  addresses={"a0": ["10.0.0.1/24"], "b0": ["10.0.1.1/24"]},
                  routes=["default via 10.0.0.254 dev a0"],
                  neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:02"],
                  sysctls={"ipv4.ip_forward": 1}) as stack:
    stack.inject("a0", frame)
    stack.step()
    assert stack.sent("b0") == [...]
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from typing import Any

from xdpstack.device.memory import MemoryBackend, MemoryDevice
from xdpstack.device.memory_clock import ManualClock
from xdpstack.device.memory_mirror import Given, MemoryMirror
from xdpstack.native import check, lib
from xdpstack.native.core import BUDGET, Core
from xdpstack.netlink import Address, Link, Neighbour, Route, Rule
from xdpstack.stack import Stack


class MemoryStack(Stack):
    """A Stack whose devices are memory. All of Stack, and the other side: what a wire, a kernel and a clock would do."""

    def __init__(self, backend: MemoryBackend, core: Core, **options: Any) -> None:
        self.backend = backend
        super().__init__(backend, core, **options)

    @property
    def clock(self) -> ManualClock:
        """The time; `clock.advance(ns)` moves it."""
        return self.backend.clock

    @property
    def host(self) -> MemoryMirror:
        """What the host knows: `host.change(routes=[...])`, `host.learn("10.0.0.3 dev a0 lladdr ...")`, `host.probed`."""
        return self.backend.host

    def inject(self, name: str, *frames: bytes, queue: int = 0, partial: bool = False) -> int:
        """Frames arrive at a device; how many got onto its RX ring (MemoryBackend.inject)."""
        return self.backend.inject(name, *frames, queue=queue, partial=partial)

    def sent(self, name: str) -> list[bytes]:
        """Takes the frames that were sent on a device since the last call, in order."""
        return self.backend.sent(name)

    def faults(self, name: str, queue: int | None = None, **changes: int) -> dict[str, int]:
        """Change what the device's kernel does wrong (MemoryBackend.faults); all faults as they are now."""
        return self.backend.faults(name, queue, **changes)

    def step(self, times: int = 1, order: Sequence[int] | None = None, budget: int = BUDGET) -> int:
        """One round of everything, `times` times: the control side, then each worker, in `order` (default: by number).

        Returns packets received. Raises what a Python hook raised, after its packets were dropped.
        """
        self._check()
        total = 0
        for _ in range(times):
            self._control.step()
            for index in range(len(self._core.workers)) if order is None else order:
                worker = self._core.workers[index]
                self.backend.service()
                self._run_parked(worker)
                while (got := lib.xs_worker_poll(worker, budget)) == -errno.EBUSY:
                    time.sleep(0)  # another thread is in a poll, which is short
                total += 0 if got == -errno.EAGAIN else check(got, "poll")  # another thread's packets were parked
                self._run_parked(worker)
                self.backend.service()
        return total

    def poll(self, budget: int = BUDGET) -> int:
        """As Stack.poll(), with what the kernels do meanwhile."""
        self.backend.service()
        total = super().poll(budget)
        self.backend.service()
        return total


def memory_stack(
    *devices: str | MemoryDevice,
    addresses: Mapping[str, Sequence[str | Address]] | None = None,
    routes: Sequence[str | Route] = (),
    rules: Sequence[str | Rule] = (),
    neighbours: Sequence[str | Neighbour] = (),
    sysctls: Mapping[str, int] | None = None,
    links: Sequence[str | Link] = (),
    workers: int = 1,
    frames: int = 4096,
    frame_bytes: int = 2048,
    metadata: bool = False,
    spin_us: int = 0,
    **options: Any,
) -> MemoryStack:
    """Open a stack over memory devices; a context manager.

    `devices` are names, or MemoryDevice for more than the defaults; `links` further devices of the host that are not
    the stack's. Addresses, routes, rules and neighbours are in the words of iproute2, or values of xdpstack.netlink;
    what the kernel would add by itself is added. `sysctls` are over those of a fresh namespace, as `ipv4.ip_forward`.
    `frames` and `frame_bytes` are per worker. `metadata`: the stack wants to know what devices say of frames
    (`backend.say()`). `spin_us`: as of `xdpstack.open()`. Other `options` are the Stack's (`engines`). Raises
    ConfigurationError for what cannot be.
    """
    core = Core(workers, frames, frame_bytes, manual_clock=True, hints=metadata, spin_us=spin_us)
    given = Given(addresses or {}, routes, rules, neighbours, sysctls)
    return MemoryStack(MemoryBackend(core, devices or ("a0",), given, links), core, **options)
