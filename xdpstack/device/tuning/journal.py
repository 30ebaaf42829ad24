"""The journal of what was changed: written before each change, so that whoever comes after a kill -9 can undo it.

One file per process and interface, `DIRECTORY/tuned-<namespace>-<ifindex>-<pid>.jsonl`, a line of JSON each: first who and
what (`Owner`), then for each change what is about to be written (`knob`, `old`, `asked`), and when it was done what the
device has now (`knob`, `granted`). When its process could not put all of it back, the last line says so (`released`), and it
is a leftover, as that of a dead process. Each line is on the disk (fsync) before the next step. A last line that is not
whole was being written when the machine stopped: its change was not made.

A namespace is told by its cookie, which is given once in the life of a machine, and found by its inode. Linux before 5.14
has no cookies; there the inode alone, which may be given again, has to do.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xdpstack.device.tuning.knobs import Value

DIRECTORY = Path(os.environ.get("XDPSTACK_RUN", "/run/xdpstack"))
SO_NETNS_COOKIE = 71
#: Of the layout of these files.
VERSION = 1

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Owner:
    """Who changed which device: `pid` with its start (clock ticks since boot), the namespace, the interface."""

    boot: str
    pid: int
    started: int
    netns_inode: int
    netns_cookie: int
    ifindex: int
    name: str
    physical: bool

    @property
    def alive(self) -> bool:
        """Whether the process is still there, and not another one of the same number."""
        return self.boot == boot_id() and started(self.pid) == self.started


@dataclass(slots=True)
class Entry:
    """One change. `granted` is what the device said afterwards; `done` False: nothing is known of afterwards."""

    knob: str
    old: Value
    asked: Value
    granted: Value = None
    done: bool = False


@dataclass(slots=True)
class Journal:
    """One file: `entries` in the order in which they were made."""

    path: Path
    owner: Owner
    entries: list[Entry] = field(default_factory=list)
    released: bool = False

    @property
    def left(self) -> bool:
        """Whether nobody will undo it by himself: its process is dead, or has tried and not been able to."""
        return self.released or not self.owner.alive

    @classmethod
    def create(cls, owner: Owner, directory: Path | None = None) -> Journal:
        """A new one. Raises OSError when the directory cannot be made or written."""
        folder = directory or DIRECTORY
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # not to be mistaken for a journal by who looks while its first line is written
        name = f"tuned-{owner.netns_inode}-{owner.ifindex}-{owner.pid}-{next(_numbers)}"
        made, final = folder / f".{name}", folder / f"{name}.jsonl"
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps({"journal": VERSION, **asdict(owner)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        made.rename(final)
        _sync(folder)
        return cls(final, owner)

    def begin(self, knob: str, old: Value, asked: Value) -> Entry:
        """What is about to be changed; it is on the disk when this returns."""
        entry = Entry(knob, old, asked)
        self._write({"knob": knob, "old": old, "asked": asked})
        self.entries.append(entry)
        return entry

    def done(self, entry: Entry, granted: Value) -> None:
        """It was changed, and is `granted` now."""
        self._write({"knob": entry.knob, "granted": granted})
        entry.granted, entry.done = granted, True

    def release(self) -> None:
        """Its process will not try again; whoever comes may."""
        self._write({"released": True})
        self.released = True

    def remove(self) -> None:
        """All is as it was. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def journals(directory: Path | None = None) -> list[Journal]:
    """All that there are, oldest first. What cannot be read as one is left out."""
    folder = directory or DIRECTORY
    found = []
    for path in folder.glob("tuned-*.jsonl") if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found.append((path.stat().st_mtime_ns, read(path)))
    return [journal for _, journal in sorted(found, key=lambda each: each[0])]


def read(path: Path) -> Journal:
    """One journal. Raises OSError, or ValueError, TypeError or KeyError for a file that is none."""
    lines = list(_lines(path.read_text()))
    head = dict(lines[0]) if lines else {}
    if head.pop("journal", None) != VERSION:
        raise ValueError(f"{path} is no journal of version {VERSION}")
    journal = Journal(path, Owner(**head))
    for line in lines[1:]:
        if "released" in line:
            journal.released = True
        elif "asked" in line:
            journal.entries.append(Entry(line["knob"], line["old"], line["asked"]))
        else:
            entry = next(each for each in reversed(journal.entries) if each.knob == line["knob"])
            entry.granted, entry.done = line["granted"], True
    return journal


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def myself(ifindex: int, name: str, physical: bool) -> Owner:
    """This process, and the interface in the calling thread's network namespace."""
    inode, cookie = namespace()
    return Owner(boot_id(), os.getpid(), started(os.getpid()) or 0, inode, cookie, ifindex, name, physical)


def namespace() -> tuple[int, int]:
    """Inode and cookie (0: the kernel has none) of the calling thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:
            raw = bytes(8)
    return Path("/proc/thread-self/ns/net").stat().st_ino, int.from_bytes(raw, sys.byteorder)


def boot_id() -> str:
    """Of the running kernel; another one after each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if there is none (proc_pid_stat(5), field 22)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
