"""Sockets that fail. Completions that stop: since when the kernel has had frames to send and gives none back.

The kernel's own watchdog of transmit queues waits for as long (dev_watchdog(), 5 s by default) before it has the driver
reset. Frames that nobody has taken off the completion ring yet are not overdue: then it is we who are late. Nor are those
that the kernel was not told of.

In zero-copy binding anew resets the driver's queue, and the frames are home. In copy mode they are in buffers that somebody
below holds (a queueing discipline, a tap that nobody reads), and so is the queue: it could not be bound as long as they are.
So there it is only told; receiving goes on, and sending when they come back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from xdpstack.device.xsk import Xsk, XskState, errno_name

#: How long a frame may take to be sent, in seconds.
DEADLINE_SECONDS = 5.0


class Overdue:
    """Of one socket. `look` is to be called now and then; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._completed = 0
        self._since: float | None = None
        self._told = False

    def look(self, state: XskState) -> int:
        """How many frames have not come back for DEADLINE_SECONDS, said once; 0 while some do or none is waited for."""
        waiting = state.transmitting - state.unkicked
        now = self._clock()
        if (
            waiting <= 0
            or state.reported != state.completed
            or state.completed != self._completed
            or self._since is None
        ):
            self._completed = state.completed
            self._since = now if waiting > 0 else None
            self._told = False
            return 0
        if self._told or now - self._since < DEADLINE_SECONDS:
            return 0
        self._told = True
        return waiting


class Deadlines:
    """Of all sockets of an interface."""

    def __init__(self) -> None:
        self._of: dict[Xsk, Overdue] = {}

    def stalled(self, sockets: Sequence[Xsk]) -> list[str]:
        """Of each socket whose frames are overdue now, which queue and how many."""
        found = []
        for xsk in sockets:
            if frames := self._of.setdefault(xsk, Overdue()).look(xsk.state()):
                found.append(
                    f"queue {xsk.queue}: {frames} frames to be sent did not come back for {DEADLINE_SECONDS:g} s"
                )
        return found

    def clear(self) -> None:
        """The sockets are closed."""
        self._of.clear()


def taken_away(sockets: Sequence[Xsk]) -> list[str]:
    """Of each socket that the kernel has taken away, which queue and why."""
    states = [(xsk.queue, xsk.state()) for xsk in sockets]
    return [f"queue {queue}: {errno_name(at.error)}, {os.strerror(at.error)}" for queue, at in states if at.dead]
