"""libxdp in Python's terms: the dispatcher of an interface, what it calls, joining and leaving it.

All in the calling thread's network namespace. libxdp 1.3 leaves descriptors of programs open, two or so with each call: they
are told by what they are of, and closed. So calls of several threads come one after the other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xdpstack.device.attached import DISPATCHER, interface_index, program_descriptors, program_ids, program_name
from xdpstack.device.libbpf import BpfObject, collected_log
from xdpstack.native import ffi, lib

MODES = {"native": lib.XS_LIBXDP_NATIVE, "generic": lib.XS_LIBXDP_GENERIC}
#: Programs of libxdp's own: the dispatcher, and one that it tries the kernel with.
ITS_OWN = (DISPATCHER, "xdp_pass")


@dataclass(frozen=True, slots=True)
class Called:
    """A program that a dispatcher calls."""

    id: int
    name: str
    priority: int


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Of an interface: its mode, "native" or "generic", whether it sees frames of several buffers, its programs in order."""

    mode: str
    frags: bool
    programs: tuple[Called, ...]


def dispatcher(interface: str) -> Dispatcher | None:
    """What the interface has; None if it has none, or another program. Raises OSError, NoSuchInterface."""
    if not _has_dispatcher(interface):
        return None
    with _tidied(interface):
        return _read(interface)


def attach(made: BpfObject, program: str, section: str, interface: str, mode: str) -> None:
    """Load the program, the one of that section of the object, and have the dispatcher call it.

    Raises what BpfObject.load raises; OSError(EOPNOTSUPP) where there can be no dispatcher: nothing is attached then.
    """
    index = interface_index(interface)

    def join(pointer: object) -> int:
        with _tidied(interface, lambda: made.program_fd(program)):
            return int(lib.xs_libxdp_attach(pointer, section.encode(), index, MODES[mode]))

    made.load(program, by=join)


def remove(interface: str, program_id: int, mode: str) -> None:
    """Have it called no more. Raises OSError (ENOENT: it is not called), NoSuchInterface."""
    with _tidied(interface), collected_log() as said:
        result = lib.xs_libxdp_remove(interface_index(interface), program_id, MODES[mode])
    if result < 0:
        raise OSError(-result, f"libxdp cannot take a program out: {os.strerror(-result)}\n{said()}")


def _has_dispatcher(interface: str) -> bool:
    return any(program_name(each) == DISPATCHER for each in program_ids(interface).values())


def _read(interface: str) -> Dispatcher | None:
    found = ffi.new("struct xs_libxdp_dispatcher *")
    with collected_log() as said:
        result = lib.xs_libxdp_list(interface_index(interface), found)
    if result in (-errno.ENOENT, -errno.EOPNOTSUPP):  # it went meanwhile
        return None
    if result < 0:
        raise OSError(-result, f"libxdp cannot read the dispatcher: {os.strerror(-result)}\n{said()}")
    mode = next((name for name, number in MODES.items() if number == found.mode), "")
    programs = [
        Called(each.id, ffi.string(each.name).decode(), each.priority) for each in found.program[0 : found.count]
    ]
    return Dispatcher(mode, bool(found.frags), tuple(programs))


@contextmanager
def _tidied(interface: str, keep: Callable[[], int] = lambda: -1) -> Iterator[None]:
    """No other call meanwhile; then what it has left open is closed, but for `keep()`."""
    with program_descriptors:
        before = _open_programs()
        called = _called(interface)
        try:
            yield
        finally:
            called |= _called(interface)
            left = {fd: program for fd, program in _open_programs().items() if fd not in before}
            with suppress(OSError):  # it was not loaded
                left.pop(keep(), None)
            for fd, program in left.items():
                if program in called or program_name(program) in ITS_OWN:
                    os.close(fd)


def _called(interface: str) -> set[int]:
    """The programs that are called now, by number."""
    try:
        there = _read(interface) if _has_dispatcher(interface) else None
    except OSError:  # the interface, or the dispatcher, is gone
        there = None
    return {each.id for each in there.programs} if there else set()


def _open_programs() -> dict[int, int]:
    """The descriptors of BPF programs that this process has, and of which program each is."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()) == "anon_inode:bpf-prog":
                lines = Path("/proc/self/fdinfo", entry.name).read_text().splitlines()
                found[int(entry.name)] = int(next(line.split()[1] for line in lines if line.startswith("prog_id:")))
        except OSError:  # closed meanwhile
            continue
    return found
