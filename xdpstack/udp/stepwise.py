"""Sending on a stack where Python does a part of the way out: the call waits until what it sent has been through that part.

sendto() --> C: frame, walk --> parked at routing.tx --> Python decides --> walk resumes --> ... --> the outcome:
bytes sent, or an OSError; and what is the kernel's (TX_SLOW) goes to the kernel socket.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xdpstack.hook import run_hooks
from xdpstack.native.core import Core
from xdpstack.walk import Walk


class Stepwise:
    """A socket's view (xdpstack.native.views.Socket) whose sending takes turns with the Python layers.

    No other thread runs hooks of the socket's worker from before the datagram is made until its end is known.
    """

    #: Nothing of what was sent is parked when a call returns.
    parked = False

    def __init__(self, view: Any, walk: Walk, core: Core, worker: int) -> None:
        self._view = view
        self._walk = walk
        self._core = core
        self._worker = core.workers[worker]
        self._turn = walk.turns[worker]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def sendto(self, data: Any, address: Any) -> int | None:
        """As the view's. OSError(EDEADLK): called by a Python layer that would have to decide about it itself."""
        with self._our_turn():
            sent: int | None = self._view.sendto(data, address)
            reasons = self._follow()
        if sent is not None and any(reasons):
            sent = self._view.sendto(data, address, reasons[0])
        return sent

    def send_batch(self, payloads: list[Any], addresses: Any, start: int, errors: dict[int, int]) -> int:
        """As the view's."""
        with self._our_turn():
            done: int = self._view.send_batch(payloads, addresses, start, errors)
            reasons = self._follow()[:done]
        if any(reasons):
            done = self._view.send_batch(payloads, addresses, start, errors, reasons)
        return done

    @contextmanager
    def _our_turn(self) -> Iterator[None]:
        """As run_hooks(), a hook does not wait for a thread that runs hooks of another worker, and may wait for this one."""
        inside = any(turn.thread == threading.get_ident() for turn in self._walk.turns)
        if not self._turn.lock.acquire(blocking=not inside):
            raise OSError(errno.EDEADLK, "another thread runs hooks of the worker that this hook would send by")
        try:
            for hook in self._walk.hooks:
                if hook.engine and hook.row.endswith(".tx") and self._turn.busy >> hook.node & 1:
                    raise OSError(errno.EDEADLK, f"{hook.row} is run by {hook.engine}, which cannot send meanwhile")
            yield
        finally:
            self._turn.lock.release()

    def _follow(self) -> list[int]:
        """Run the hooks that have packets. Of each datagram of the last call the reason why it was dropped, or 0."""
        if not self._view.parked:
            return []
        under_way: list[int | None] = self._view.under_way
        with self._turn.following(frame for frame in under_way if frame is not None) as outcomes:
            run_hooks(self._walk, self._worker, self._core)
        ends = [None if frame is None else outcomes[frame] for frame in under_way]
        for end in ends:
            if end is not None and not end.reason:
                self._view.tx_device = end.device
        return [end.reason if end is not None else 0 for end in ends]
