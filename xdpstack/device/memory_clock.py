"""The clock of a stack of memory devices: it stands still until somebody moves it."""

from __future__ import annotations

from collections.abc import Callable

from xdpstack.errors import ConfigurationError
from xdpstack.native import lib
from xdpstack.native.core import Core

#: Where the clock starts: late enough for "an hour ago" to be after zero.
START_NS = 10**13


class ManualClock:
    """Nanoseconds that only `advance()` moves. `core` must have been made with manual_clock=True.

    `moved` is called after each move: the fake kernels look whether completions are due.
    """

    def __init__(self, core: Core, moved: Callable[[], None] = lambda: None) -> None:
        self._core = core
        self._moved = moved
        lib.xs_stack_set_now(core.pointer, START_NS)

    @property
    def now_ns(self) -> int:
        """The time, as the stages see it."""
        return int(lib.xs_stack_clock(self._core.pointer))

    def advance(self, ns: int) -> int:
        """Move on by `ns` nanoseconds; the new time. Stages notice at their next poll (`step()`)."""
        if ns < 0:
            raise ConfigurationError(f"the clock goes forward only, not by {ns} ns")
        lib.xs_stack_set_now(self._core.pointer, self.now_ns + ns)
        self._moved()
        return self.now_ns
