"""When frames were sent: what workers were told by devices, sorted by whose frames they were."""

from __future__ import annotations

import itertools
import threading
from collections import deque

from xdpstack.native import ffi, lib
from xdpstack.native.core import Core

#: The number of a stamped frame is its owner's above these bits, and its own below them, counted from 1.
OWNER_SHIFT = 40
#: Stamps that wait to be taken, of one owner; and that are asked a worker for at once.
WAITING, CHUNK = 4096, 1024


class SentStamps:
    """The stamps of all owners of one stack. Any thread, and any hook, may use it: it waits for nobody."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, deque[tuple[int, int]]] = {}

    def register(self) -> int:
        """A new owner: its number, above which it counts its frames."""
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = deque(maxlen=WAITING)
        return number

    def forget(self, number: int) -> None:
        """The owner is gone; stamps that come for it are nobody's. Idempotent."""
        with self._lock:
            self._waiting.pop(number, None)

    def take(self, number: int) -> list[tuple[int, int]]:
        """(frame, ns) of one owner, frames counted from 0; those of others are kept for them."""
        with self._lock:
            self._collect()
            waiting = self._waiting.get(number, deque())
            found = list(waiting)
            waiting.clear()
        return found

    def _collect(self) -> None:
        stamps = ffi.new("struct xs_sent_stamp[]", CHUNK)
        for worker in self._core.workers:
            while n := lib.xs_worker_take_sent_stamps(worker, stamps, CHUNK):
                for i in range(n):
                    owner, frame = divmod(int(stamps[i].id), 1 << OWNER_SHIFT)
                    if stamps[i].stamp_ns and owner in self._waiting:
                        self._waiting[owner].append((frame - 1, int(stamps[i].stamp_ns)))
