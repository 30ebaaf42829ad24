"""Publishing: each of the tables that are made from what Linux says of the host, and whether it is up to date.

    snapshot ----> devices, routing, neighbours (for the workers), addresses (for the XDP programs)

A table is made and published whole, or not at all. One that cannot be (no memory, more than fits) keeps none of the
others from it: the table before serves on, the failure is counted and logged, and the table is tried again once a
second until it is what the last snapshot says.

Making a table takes the longer the more there is in it (routing: 0.2 s for 10,000 routes), with the GIL. So that changes
that come one after the other do not keep control and the GIL busy, a table rests after it was made, for four times as long
as that took and two seconds at most; what changes meanwhile is published at once when that is over. The first change after a
rest is published right away. One that could not be made rests for a second at least.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from xdpstack.errors import XdpstackError
from xdpstack.netlink import Snapshot

log = logging.getLogger("xdpstack")

#: How long a table rests: so many times what making it took, but no longer than so many seconds.
REST_SHARE = 4
REST_SECONDS = 2.0
#: And if it could not be made, no shorter than that.
RETRY_SECONDS = 1.0


class Publication:
    """One table: its name, what publishes it, and what has come of that.

    `publish` gets a snapshot; when it returns, the workers (or programs) go by it. What it raises says why they do not.
    """

    def __init__(self, name: str, publish: Callable[[Snapshot], object]) -> None:
        self.name = name
        self.published = 0
        self.failed = 0
        #: Why it is not what the last snapshot says; empty when it is, or soon will be.
        self.stale = ""
        #: How long it took last, in seconds.
        self.seconds = 0.0
        #: When it has rested (time.monotonic()).
        self.rested = 0.0
        self._publish = publish
        self._of: Snapshot | None = None

    def is_of(self, snapshot: Snapshot) -> bool:
        """Whether it is what `snapshot` says."""
        return self._of is snapshot

    def bring_to(self, snapshot: Snapshot) -> Exception | None:
        """Make it what `snapshot` says. What stood in the way, counted, and logged when it is something new."""
        begun = time.monotonic()
        error = self._bring_to(snapshot)
        ended = time.monotonic()
        self.seconds = ended - begun
        rest = min(REST_SHARE * self.seconds, REST_SECONDS)
        self.rested = ended + (max(rest, RETRY_SECONDS) if error else rest)
        return error

    def _bring_to(self, snapshot: Snapshot) -> Exception | None:
        try:
            self._publish(snapshot)
        except Exception as error:
            self.failed += 1
            why = f"{type(error).__name__}: {error}"
            if why != self.stale:
                defect = not isinstance(error, (OSError, MemoryError, OverflowError, XdpstackError))
                log.error("%s not published, the table before serves on: %s", self.name, why, exc_info=defect)
            self.stale = why
            return error
        if self.stale:
            log.warning("%s published again", self.name)
        self._of, self.stale = snapshot, ""
        self.published += 1
        return None


class Publications:
    """All tables of a stack, in the order in which they are published."""

    def __init__(self, tables: Sequence[Publication]) -> None:
        self._tables = tuple(tables)

    def bring_to(self, snapshot: Snapshot, at_once: bool = True) -> list[Exception] | None:
        """Make each table that is not yet what `snapshot` says so; if not `at_once`, only those that have rested.

        What stood in the way of some; None: there was nothing to do.
        """
        now = time.monotonic()
        late = [table for table in self._late(snapshot) if at_once or table.rested <= now]
        if not late:
            return None
        return [error for table in late if (error := table.bring_to(snapshot)) is not None]

    def wait(self, snapshot: Snapshot) -> float | None:
        """Seconds until the next of those that are not what `snapshot` says has rested; None: all are."""
        late = [table.rested for table in self._late(snapshot)]
        return max(0.0, min(late) - time.monotonic()) if late else None

    def _late(self, snapshot: Snapshot) -> list[Publication]:
        return [table for table in self._tables if not table.is_of(snapshot)]

    def counters(self) -> dict[str, int]:
        """`control.<table>_not_published`: how often each could not be published."""
        return {f"control.{table.name}_not_published": table.failed for table in self._tables if table.failed}

    def info(self) -> dict[str, Any]:
        """By table: how often it was published, or could not be, how long that took last, and why it is stale if it is."""
        return {
            table.name: {
                "published": table.published,
                "failed": table.failed,
                "seconds": round(table.seconds, 6),
                "stale": table.stale,
            }
            for table in self._tables
        }
