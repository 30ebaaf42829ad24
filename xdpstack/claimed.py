"""What becomes of a claim's frames: objects that users hold, each with its claim, and the table in C that has them all."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from xdpstack.device.claims import Claim
    from xdpstack.host import StackHost


class Claimed(ABC):
    """One of them; a context manager that closes.

    `claim` None: it has none, and no place in the table. `ids` are the claim's, by the stack's index of the device; empty
    before it is made.
    """

    def __init__(self, claim: Claim | None) -> None:
        self.claim = claim
        self.ids: tuple[int, ...] = ()

    @abstractmethod
    def close(self) -> None:
        """The claim out. Idempotent."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.claim or 'to send'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


One = TypeVar("One", bound=Claimed)


class ClaimedTable(Generic[One]):
    """All of one kind, of one stack. `ROW` is on the path while there are any. Any thread may use it."""

    ROW = ""

    def __init__(self, host: StackHost) -> None:
        self.host = host
        self._all: list[One] = []
        # not control's lock: what changes the path waits for hooks to end, and these may wait for control
        self._lock = threading.RLock()

    def add(self, made: One, claim: Claim) -> One:
        """Its claim, then its place in the table; all or nothing. Raises as the backend's `claim`."""
        with self._lock:
            self._all.append(made)
            try:
                made.ids = self.host.claim_frames(claim)
                self._publish()
            except BaseException:
                self.forget(made)
                raise
        return made

    def forget(self, one: One) -> None:
        """The claim out, then its place in the table. For one without a claim there is nothing to do, nor to wait for."""
        if one.claim is None:
            return
        with self._lock:
            if one not in self._all:
                return
            self._all.remove(one)
            try:
                if one.ids:
                    self.host.unclaim(one.claim)
            finally:
                self._publish()

    def close(self) -> None:
        """Close them all."""
        for each in list(self._all):
            each.close()

    def _publish(self) -> None:
        self.host.walk.include(self.ROW, present=bool(self._all))
        self._write()

    def _write(self) -> None:
        """The table in C says what `_all` does, from when this returns."""
        raise NotImplementedError
