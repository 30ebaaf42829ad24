"""Undoing what a journal has: by the stack that made it, or by `xdpstack doctor --undo` when that was killed."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xdpstack.device.tuning.journal import Entry, Journal, boot_id, journals, namespace
from xdpstack.device.tuning.knobs import Knob, Value, knob
from xdpstack.errors import XdpstackError
from xdpstack.netlink import run_in
from xdpstack.netlink.namespace import NAMED

#: How long a queue that is to go, and is taken still, is waited for.
BUSY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of one change. `outcome` is "restored", "as it was", "left alone" or "failed"; `text` says it in words."""

    interface: str
    knob: str
    outcome: str
    text: str


def restore(journal: Journal, interface: str) -> list[Restored]:
    """Undo, the last change first, in the calling thread's network namespace.

    A value is put back if it still is what was set, or if what was granted was never noted: a driver may have rounded. One
    that somebody else has changed since is left alone. The journal is removed unless something could not be put back.
    """
    results = [_restore(entry, interface) for entry in reversed(journal.entries)]
    if all(result.outcome != "failed" for result in results):
        journal.remove()
    return results


def _restore(entry: Entry, interface: str) -> Restored:
    def said(outcome: str, text: str) -> Restored:
        return Restored(interface, entry.knob, outcome, text)

    try:
        turned = knob(interface, entry.knob)
        now = turned.read()
        if now == entry.old:
            return said("as it was", f"is {shown(now)}, as it was before")
        if entry.done and now != entry.granted:
            return said(
                "left alone",
                f"is {shown(now)}: set to {shown(entry.granted)}, and then changed by somebody else "
                f"(before: {shown(entry.old)})",
            )
        _write(turned, entry.old)
        if (after := turned.read()) != entry.old:
            return said("failed", f"is {shown(after)} although {shown(entry.old)} was written")
    except (OSError, ValueError) as error:
        return said("failed", f"cannot be put back to {shown(entry.old)}: {error}")
    return said("restored", f"{shown(now)} is {shown(entry.old)} again")


def _write(turned: Knob, value: Value) -> None:
    """Write, and again while a queue that goes is still taken: closing an AF_XDP socket is asynchronous in the kernel."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            turned.write(value)
            return
        except OSError as error:
            if (
                turned.name != "channels"
                or error.errno not in (errno.EINVAL, errno.EBUSY)
                or time.monotonic() > deadline
            ):
                raise
        time.sleep(0.01)


def shown(value: Value) -> str:
    """A value for a person, shortened."""
    text = "none" if value is None else {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def leftovers(name: str | None = None) -> list[Journal]:
    """Journals that nobody will undo by himself (`Journal.left`): of all interfaces, or of those of that name."""
    return [each for each in journals() if each.left and name in (None, each.owner.name)]


def undo_leftovers(name: str | None = None) -> list[Restored]:
    """Undo what processes have left behind, in whichever namespace it is; what came of each change."""
    return [result for journal in reversed(leftovers(name)) for result in undo(journal)]


def undo(journal: Journal) -> list[Restored]:
    """Undo one journal, wherever its interface is now.

    A NIC that is not found may be elsewhere, as it was tuned: its journal stays. What is virtual is gone with its settings.
    """
    owner = journal.owner

    def lost(why: str) -> list[Restored]:
        journal.remove()
        return [Restored(owner.name, entry.knob, "as it was", why) for entry in reversed(journal.entries)]

    def elsewhere(why: str) -> list[Restored]:
        by_hand = f"put it back by hand, and remove {journal.path}"
        return [
            Restored(owner.name, entry.knob, "failed", f"{why}; it had {shown(entry.old)}: {by_hand}")
            for entry in reversed(journal.entries)
        ]

    if owner.boot != boot_id():
        return lost("the machine was booted since")
    place = find_namespace(owner.netns_inode, owner.netns_cookie)
    if place is None and owner.physical:
        return elsewhere(
            "its network namespace is gone; the kernel has moved the device to the first one, under a name of its own"
        )
    if place is None:
        return lost("the interface is gone with its network namespace")

    def there() -> list[Restored] | None:
        try:
            return restore(journal, socket.if_indextoname(owner.ifindex))
        except OSError:
            return None

    results = run_in(place, there)
    if results is None and owner.physical:
        return elsewhere("the device is not in its network namespace any more: it was moved to another, or taken out")
    return lost("the interface is gone") if results is None else results


def find_namespace(inode: int, cookie: int) -> str | None:
    """The path of a network namespace: this one's, one with a name, or that of any process. None if it is not found."""
    for path in _namespaces():
        with contextlib.suppress(OSError, XdpstackError):
            if path.stat().st_ino == inode and run_in(str(path), namespace)[1] == cookie:
                return str(path)
    return None


def _namespaces() -> Iterator[Path]:
    yield Path("/proc/thread-self/ns/net")
    if Path(NAMED).is_dir():
        yield from Path(NAMED).iterdir()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            yield process / "ns/net"
