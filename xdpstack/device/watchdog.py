"""The dead-man watchdog of a stack, from Python: a C thread that never takes the GIL (csrc/watchdog.h)."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from xdpstack.device.deadman import Deadman
from xdpstack.errors import ConfigurationError, no_thread
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core

#: How long packets may wait, with no progress, before the kernel has the traffic, in seconds.
WINDOW_SECONDS = 0.5
#: What it can be: at least a millisecond, as the workers are looked at eight times in a window; at most a day.
LEAST_SECONDS, MOST_SECONDS = 0.001, 86_400.0


@dataclass(frozen=True, slots=True)
class WatchdogCounters:
    """How often it looked at the workers, found all of them alive, and let the window pass because one was not."""

    looks: int
    renewals: int
    lapses: int


class Watchdog:
    """Puts off the deadlines of the programs given to it, while the workers of `core` make progress.

    Not for a forked child, where it does nothing. Raises OutOfMemory when no thread can be had, ConfigurationError.
    """

    def __init__(self, core: Core, window_seconds: float = WINDOW_SECONDS) -> None:
        if isinstance(window_seconds, bool) or not LEAST_SECONDS <= window_seconds <= MOST_SECONDS:
            raise ConfigurationError(
                f"deadman_seconds is {window_seconds!r}",
                "Packets that wait for longer go to the kernel; that is between a millisecond and a day.",
                f"deadman_seconds={WINDOW_SECONDS}",
            )
        out = ffi.new("struct xs_watchdog **")
        result = lib.xs_watchdog_start(core.pointer, int(window_seconds * 1e9), out)
        if result == -errno.EAGAIN:
            raise no_thread("start the watchdog")
        check(result, "start the watchdog")
        self._pointer = out[0]
        self._core = core  # the thread looks at it
        self.window_seconds = window_seconds

    def add(self, deadman: Deadman) -> None:
        """Renew this deadline from now on; when this returns it is in the future."""
        check(lib.xs_watchdog_add(self._pointer, _deadline(deadman)), "watch a deadline")

    def remove(self, deadman: Deadman) -> None:
        """Set the deadline to 0, so that the program passes everything, and leave it alone. Before the map is closed."""
        check(lib.xs_watchdog_remove(self._pointer, _deadline(deadman)), "forget a deadline")

    def counters(self) -> WatchdogCounters:
        """Since it was started."""
        values = ffi.new("struct xs_watchdog_values *")
        lib.xs_watchdog_read(self._pointer, values)
        return WatchdogCounters(values.looks, values.renewals, values.lapses)

    def stop(self) -> None:
        """End the thread; the deadlines it still has are over at once. Idempotent."""
        if self._pointer != ffi.NULL:
            pointer, self._pointer = self._pointer, ffi.NULL
            lib.xs_watchdog_stop(pointer)


def _deadline(deadman: Deadman) -> Any:
    return ffi.addressof(deadman.pointer, "deadline_ns")
