"""Who drives the workers of a stack, and who runs its Python hooks. docs/workers.md says which to take.

inline      whoever receives, sends, polls or is in run(): one thread at a time drives a worker, and runs the hooks it meets
threads     a C thread for each worker, without the GIL (csrc/worker_thread.c):
                worker 0 --- parked packets ---+
                worker 1 --- parked packets ---+--> who is in run(), else the thread `xdpstack-hooks` --> hooks
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from xdpstack.arguments import whole
from xdpstack.errors import ConfigurationError, no_thread
from xdpstack.hook import run_hooks
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import BUDGET, MOST_WORKERS, Core
from xdpstack.walk import Walk

log = logging.getLogger("xdpstack")

#: As many as cpu_set_t has room for.
LARGEST_CPU = 1023
#: How long run() sleeps at most before it looks whether it is to end, in seconds.
SLICE_SECONDS = 0.1
#: When to look again for packets that another thread is just running the hooks of, in seconds.
BUSY_SECONDS = 0.01


def threads_of(workers: int | None, cpus: Sequence[int]) -> int:
    """How many workers a stack has of which `workers` and `cpus` were asked. Raises ConfigurationError."""
    if cpus and len(cpus) != workers:
        raise ConfigurationError(
            f"{len(cpus)} CPUs for {workers or 'no'} workers",
            "Each worker that has a thread is pinned to one of them.",
            f"workers={len(cpus)}, or as many CPUs as workers.",
        )
    for cpu in cpus:
        whole("a number in cpus", cpu, 0, LARGEST_CPU)
    return 1 if workers is None else whole("workers", workers, 1, MOST_WORKERS)


class Driving:
    """The driving of one stack. Any thread may call anything.

    `threads` says whether each worker has a thread of its own, from `start()` to `end()`; `cpus` what these are pinned to.
    """

    def __init__(self, core: Core, walk: Walk) -> None:
        self.threads = False
        self.cpus: tuple[int, ...] = ()
        self._core = core
        self._walk = walk
        self._stopping = False  # no Event, whose lock a signal handler could find taken by the code that it interrupts
        self._running: list[int] = []  # threads in run()
        self._serving = False  # the thread for hooks is running some
        self._ending = False
        self._changed = threading.Condition()  # of these three
        self._hooks_thread: threading.Thread | None = None

    # ---- threads ----

    def start(self, cpus: Sequence[int] = ()) -> None:
        """A thread for each worker, pinned to a CPU each if `cpus` says so. Raises ConfigurationError, OutOfMemory."""
        result = lib.xs_stack_start_threads(self._core.pointer, ffi.new("int[]", list(cpus)) if cpus else ffi.NULL)
        if result == -errno.EAGAIN:
            raise no_thread("start a worker")
        if result == -errno.EINVAL:
            raise ConfigurationError(
                f"no worker can be pinned to one of the CPUs {', '.join(map(str, cpus))}",
                "It is offline, not there, or not for this process (cpuset).",
                "os.sched_getaffinity(0) has those there are.",
            )
        check(result, "start the workers")
        self.threads, self.cpus = True, tuple(cpus)

    def end(self) -> None:
        """No thread drives any more, and none runs hooks. What is parked stays parked. Idempotent."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        lib.xs_stack_stop_threads(self._core.pointer)
        self.threads = False
        if self._hooks_thread is not None:
            lib.xs_stack_wake_hooks(self._core.pointer)
            self._hooks_thread.join()

    # ---- whoever calls ----

    @property
    def driven(self) -> bool:
        """Whether threads poll, of the stack's own or in `run()`: then whoever waits need not."""
        return self.threads or bool(self._running)

    def poll(self, budget: int) -> int:
        """One round over all workers, hooks included; packets received."""
        total = 0
        for worker in self._core.workers:
            got = lib.xs_worker_poll(worker, budget)
            if got >= 0:
                total += got
            elif got not in (-errno.EBUSY, -errno.EAGAIN):
                check(got, "poll")
            if lib.xs_worker_parked(worker):
                run_hooks(self._walk, worker, self._core)
        return total

    def run(self, seconds: float | None) -> None:
        """Drive, or with threads run hooks, until `stop()`, `refuse_runs()` or for `seconds`. Raises what a hook raises."""
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._registered(deadline):
            while not self._stopping and not self._ending:
                left = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, deadline - time.monotonic())
                if left <= 0:
                    return
                if self.threads:
                    self._wait_for_hooks(left)
                    self._run_hooks()
                else:
                    self._drive(left)

    @contextmanager
    def _registered(self, deadline: float | None) -> Iterator[None]:
        with self._changed:
            self._running.append(threading.get_ident())
        try:
            while self._serving and not self._stopping and not self._ending:
                left = SLICE_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    break
                with self._changed:
                    self._changed.wait(min(left, SLICE_SECONDS))  # what it has begun it ends; then all is ours
            else:
                self._run_hooks()
            yield
        finally:
            with self._changed:
                self._running.remove(threading.get_ident())
                if not self._running:
                    self._stopping = False
                self._changed.notify_all()

    def _drive(self, seconds: float) -> None:
        workers = self._core.workers
        for worker in workers:
            if check(lib.xs_worker_run(worker, BUDGET, max(1, int(seconds * 1000 / len(workers)))), "run"):
                run_hooks(self._walk, worker, self._core)

    def stop(self) -> None:
        """Make `run()` return, in every thread that is in it. For signal handlers too: it takes no lock."""
        self._stopping = True
        for worker in self._core.workers:
            lib.xs_worker_wake(worker)

    def refuse_runs(self) -> None:
        """Have every other thread leave `run()`, for good; returns when they have."""
        me = threading.get_ident()
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for worker in self._core.workers:
            lib.xs_worker_wake(worker)
        with self._changed:
            self._changed.wait_for(lambda: all(thread == me for thread in self._running))

    def stop_hooks(self, seconds: float) -> bool:
        """No thread is in run() any more, for good, and no other thread runs a hook; False: `seconds` were over before."""
        deadline, me = time.monotonic() + seconds, threading.get_ident()
        self._ending = True  # at the end of the interpreter: who has the lock may never let go of it
        self.stop()
        while any(thread != me for thread in self._running) or any(
            turn.thread is not None for turn in self._walk.turns
        ):
            if time.monotonic() > deadline:
                return False
            time.sleep(BUSY_SECONDS)
        return True

    def stop_threads(self) -> None:
        """The threads of the workers end. Nobody is waited for but them."""
        lib.xs_stack_stop_threads(self._core.pointer)

    # ---- Python hooks of workers that have threads ----

    def serve_hooks(self) -> None:
        """There are Python hooks: with threads, somebody runs them from now on, though nobody is in `run()`."""
        with self._changed:
            if not self.threads or self._ending or self._hooks_thread is not None:
                return
            self._hooks_thread = threading.Thread(target=self._serve, name="xdpstack-hooks", daemon=True)
            self._hooks_thread.start()

    def _serve(self) -> None:
        while not self._ending:
            try:
                with self._its_turn() as mine:
                    if mine:
                        self._run_hooks()
            except Exception:
                log.exception("a hook failed, and its packets were dropped; nobody is in run() to be told")
            if self._wait_for_hooks(None) and self._running:
                lib.xs_stack_wake_hooks(self._core.pointer)  # theirs

    @contextmanager
    def _its_turn(self) -> Iterator[bool]:
        """While nobody is in `run()`, and nobody comes to be: the thread for hooks. False when all ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending or not self._running)
            self._serving = not self._ending
        try:
            yield self._serving
        finally:
            with self._changed:
                self._serving = False
                self._changed.notify_all()

    def _wait_for_hooks(self, seconds: float | None) -> bool:
        """Until packets are parked, at most `seconds`. Whether the caller is the one who was told."""
        if self._is_parked():  # of a worker whose hooks another thread is running
            seconds = BUSY_SECONDS
        milliseconds = -1 if seconds is None else max(1, int(seconds * 1000))
        return bool(check(lib.xs_stack_wait_hooks(self._core.pointer, milliseconds), "wait for packets of hooks"))

    def run_parked(self) -> None:
        """For who has sent: run the hooks that have packets. With threads nobody waits here for hooks that others run."""
        for worker in self._core.workers:
            if lib.xs_worker_parked(worker):
                run_hooks(self._walk, worker, self._core, wait=not self.threads)
        if self.threads and self._is_parked():
            lib.xs_stack_wake_hooks(self._core.pointer)

    def _is_parked(self) -> bool:
        return any(lib.xs_worker_parked(worker) for worker in self._core.workers)

    def _run_hooks(self) -> None:
        """Run the hooks that have packets, but for those of workers whose hooks another thread is running."""
        for worker in self._core.workers:
            if lib.xs_worker_parked(worker):
                run_hooks(self._walk, worker, self._core, wait=False)
