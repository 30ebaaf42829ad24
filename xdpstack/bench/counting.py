"""Instructions and CPU time of another process, over a window: perf_event_open(2) and /proc."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from xdpstack.bench.results import BenchError

_SYSCALL = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
_LIBC = ctypes.CDLL(None, use_errno=True)
_ATTR_BYTES = 112
_HARDWARE, _INSTRUCTIONS = 0, 1
_INHERIT, _EXCLUDE_USER, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 1, 1 << 4, 1 << 5, 1 << 6


@dataclass
class Counted:
    """What a process did in a window. None where the machine has no hardware counters."""

    user_instructions: int | None = None
    kernel_instructions: int | None = None
    cpu_ns: int = 0
    fds: list[list[int]] = field(default_factory=lambda: [[], []])


def _open(tid: int, flags: int) -> int:
    attr = struct.pack("IIQQQQQ", _HARDWARE, _ATTR_BYTES, _INSTRUCTIONS, 0, 0, 0, flags | _EXCLUDE_HV | _INHERIT)
    buffer = ctypes.create_string_buffer(attr.ljust(_ATTR_BYTES, b"\0"))
    fd: int = _LIBC.syscall(_SYSCALL, buffer, tid, -1, -1, 0)
    return fd


def cpu_ns(pid: int) -> int:
    """CPU time of all threads so far, from schedstat (nanoseconds on the processor). BenchError: there are none."""
    total, threads = 0, 0
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # one that has ended
                total += int((task / "schedstat").read_text().split()[0])
                threads += 1
    if not threads:
        raise BenchError(f"process {pid} has ended while it was measured")
    return total


@contextmanager
def counting(pid: int) -> Iterator[Counted]:
    """Count what process `pid` does while the block runs."""
    counted = Counted()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for kind, flags in enumerate((_EXCLUDE_KERNEL, _EXCLUDE_USER)):
            counted.fds[kind].append(_open(int(task.name), flags))
    before = cpu_ns(pid)
    try:
        yield counted
    finally:
        counted.cpu_ns = cpu_ns(pid) - before
        totals: list[int | None] = []
        for fds in counted.fds:
            totals.append(sum(struct.unpack("Q", os.read(fd, 8))[0] for fd in fds) if min(fds) >= 0 else None)
            for fd in fds:
                if fd >= 0:
                    os.close(fd)
        counted.user_instructions, counted.kernel_instructions = totals
