"""The dead-man deadline: past it the XDP program leaves every frame to the kernel.

The deadline is in memory that the program reads too. In a running stack the watchdog thread of the workers, in C, renews it
through `pointer` while they make progress; here it is set by hand.
"""

from __future__ import annotations

import os
from typing import Any

from xdpstack.errors import ClosedError, ForkedError
from xdpstack.native import check, ffi, lib

#: A deadline that never comes.
NEVER = 2**64 - 1


class Deadman:
    """The mapping of xs_deadman. All times are CLOCK_MONOTONIC, in ns: time.monotonic_ns().

    The program reads it as of the last tick (CLOCK_MONOTONIC_COARSE): up to 10 ms late, 4 where CONFIG_HZ is 250.
    """

    def __init__(self, map_fd: int) -> None:
        out = ffi.new("struct xs_xdp_deadman **")
        check(lib.xs_deadman_map(map_fd, out), "xs_deadman")
        self._pointer = out[0]
        self._pid = os.getpid()

    @property
    def pointer(self) -> Any:
        """`struct xs_xdp_deadman *` for C; valid until `close`. Raises ClosedError, and ForkedError in a forked child."""
        if self._pid != os.getpid():  # not mapped there
            raise ForkedError("the dead-man deadline belongs to the parent process")
        if self._pointer == ffi.NULL:
            raise ClosedError("the XDP program is closed")
        return self._pointer

    @property
    def deadline_ns(self) -> int:
        """The program lifts while the clock is below this. 0, the state after loading: it lifts nothing."""
        return int(self.pointer.deadline_ns)

    @deadline_ns.setter
    def deadline_ns(self, value: int) -> None:
        self.pointer.deadline_ns = value

    @property
    def first_pass_ns(self) -> int:
        """When the program first found the deadline over, the last time that it was; 0: it never was."""
        return int(self.pointer.first_pass_ns)

    @property
    def lapses(self) -> int:
        """How many times the deadline was over before it was renewed, and a frame came meanwhile."""
        return int(self.pointer.lapses)

    def close(self) -> None:
        """Unmap; idempotent."""
        if self._pid == os.getpid() and self._pointer != ffi.NULL:
            pointer, self._pointer = self._pointer, ffi.NULL
            lib.xs_deadman_unmap(pointer)
