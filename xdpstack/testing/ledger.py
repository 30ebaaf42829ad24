"""The two ledgers of a stack, checked: nothing is lost, nothing is there twice, nothing is left behind."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing the plugin must not import the package
    from xdpstack.native.core import Core
    from xdpstack.stack import Stack


def check_open(core: Core) -> None:
    """Between two polls: frames by owner sum to the pool and none is walking; packets that began have an end.

    Raises AssertionError with both ledgers.
    """
    frames, packets = core.frame_counts(), core.ledger()
    assert sum(frames.values()) == core.frames, f"{core.frames} frames, but by owner there are {frames}"
    assert frames["walking"] == 0, f"a poll left frames in no one's hands: {frames}"
    assert packets.missing == 0, f"packets began and have no end ({packets.missing}): {packets}; frames: {frames}"


def check_closed(core: Core) -> None:
    """After all devices are detached and all sockets closed: every frame is home. Raises AssertionError."""
    check_open(core)
    if core.frame_counts()["lent"]:
        gc.collect()  # views in reference cycles
    frames = core.frame_counts()
    away = {owner: n for owner, n in frames.items() if n and owner != "free"}
    assert not away, f"frames that did not come home: {away}"


class Ledger:
    """The stacks that a test has opened. `check()` may be called at any time between two polls."""

    def __init__(self) -> None:
        self.stacks: list[Stack] = []

    def check(self) -> None:
        """Both ledgers of every stack of the test are exact. Raises AssertionError."""
        for stack in self.stacks:
            check_open(stack._core)

    def close(self) -> list[str]:
        """Close the stacks that are open; names of their devices."""
        forgotten = [stack for stack in self.stacks if not stack._closed and stack._pid == os.getpid()]
        for stack in forgotten:
            stack.close()
        return [device.name for stack in forgotten for device in stack.devices]

    def finish(self) -> None:
        """At the end of a test: ledgers exact, stacks closed, frames home. Closes what is open. Raises AssertionError."""
        self.check()
        left_open = self.close()
        for stack in self.stacks:
            if stack._pid == os.getpid():
                check_closed(stack._core)
        assert not left_open, f"the test left a stack open, over {', '.join(left_open)}"


@contextmanager
def watched() -> Iterator[Ledger]:
    """Notes every Stack that is opened inside. Does nothing while xdpstack is not imported."""
    ledger = Ledger()
    module = sys.modules.get("xdpstack.stack")
    if module is None:
        yield ledger
        return
    stack_class = module.Stack
    opening = stack_class.__init__

    @functools.wraps(opening)
    def noted(self: Stack, *arguments: Any, **options: Any) -> None:
        opening(self, *arguments, **options)
        ledger.stacks.append(self)

    stack_class.__init__ = noted
    try:
        yield ledger
    finally:
        stack_class.__init__ = opening


def descriptors() -> dict[int, str]:
    """The sockets and kernel objects that this process has open: file descriptor -> what it is."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            what = str(path.readlink())
        except FileNotFoundError:
            continue  # the directory's own
        if what.startswith(("socket:", "anon_inode:")):
            found[int(path.name)] = what
    return found


def check_descriptors(before: dict[int, str]) -> None:
    """Nothing was opened since `before` that is still open. Raises AssertionError with what is."""
    left = {fd: what for fd, what in descriptors().items() if before.get(fd) != what}
    if left:
        gc.collect()
        now = descriptors()
        left = {fd: what for fd, what in left.items() if now.get(fd) == what}
    assert not left, f"file descriptors were left open: {left}"
