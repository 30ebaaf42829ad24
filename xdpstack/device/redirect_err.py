"""Frames that were redirected to a socket and did not get there, by error: what the kernel tells at a tracepoint alone.

    redirects = RedirectErrors(queues=2)
    watched = redirects.watch(program.maps["xs_xsks"])
    watched.counts()   # {0: {"enobufs": 17}}
    watched.why        # why they are not counted; empty: they are

The program has returned XDP_REDIRECT by then, and counted the frame as lifted. bpf/xdpstack_redirect_err.bpf.c listens at
xdp_redirect_err, once for all that a RedirectErrors watches. No stack needs it: where it cannot be had, nothing fails. What
each error means, and how it goes together with XDP_STATISTICS: docs/device.md.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.resources
import os
import struct
from collections.abc import Iterator
from typing import Protocol

from xdpstack.device import privileges
from xdpstack.device.libbpf import BpfMap, BpfObject
from xdpstack.errors import XdpstackError
from xdpstack.native import check, lib

TRACEPOINT, PROGRAM, TABLE = "xdp_redirect_err", "xs_redirect_err", "xs_redirects"
#: What the kernel asks for: maps and programs, and programs that see what is not this process's.
CAPABILITIES = ("CAP_BPF", "CAP_PERFMON")
#: Names of errors, in small letters as those of counters, by their place in struct xs_redirect_errors.
ERRORS = {
    lib.XS_REDIRECT_OTHER: "other",
    lib.XS_REDIRECT_ENXIO: "enxio",
    lib.XS_REDIRECT_ENOMEM: "enomem",
    lib.XS_REDIRECT_EINVAL: "einval",
    lib.XS_REDIRECT_ENOSPC: "enospc",
    lib.XS_REDIRECT_ENOBUFS: "enobufs",
}
#: Frames by error, of each queue that has lost any.
Counts = dict[int, dict[str, int]]


class CountsRedirects(Protocol):
    """What an interface knows of its redirects that failed."""

    @property
    def why(self) -> str:
        """Why they are not counted; empty: they are."""
        ...

    def counts(self) -> Counts:
        """Since they are watched; the last that was known when that is over. Raises OSError."""
        ...


class RedirectErrors:
    """The program that counts, in the kernel from the first `watch` to `close`. `queues`: how many it can watch.

    Control thread only. In a forked child `close` lets go of its descriptors; the parent's go on.
    """

    def __init__(self, queues: int) -> None:
        self._queues = queues
        self._object: BpfObject | None = None
        self._attached_fd = -1
        self._watched: list[Watched] = []
        self._why = ""

    def watch(self, sockets: BpfMap) -> Watched:
        """Count for each place of a map of AF_XDP sockets, or say in `why` of what is returned why that cannot be."""
        try:
            if self._object is None and not self._why:
                self._start()
            if self._object is not None:
                return self._watch(self._object.maps[TABLE], sockets)
        except (XdpstackError, OSError) as refused:
            return Watched(str(refused))
        return Watched(self._why)

    def _watch(self, table: BpfMap, sockets: BpfMap) -> Watched:
        keys = [struct.pack("=2I", sockets.id, queue) for queue in range(sockets.max_entries)]
        for key in keys:
            table.zero_per_cpu(key)
        self._watched.append(Watched("", table, keys))
        return self._watched[-1]

    def _start(self) -> None:
        self._why = lacking()
        if self._why:
            return
        try:
            self._object = loaded(self._queues)
            self._attached_fd = attach(self._object)
        except (XdpstackError, OSError) as refused:
            self._why = because(refused)
            self.close()

    def close(self) -> None:
        """Out of the kernel; counts stay as they are. Idempotent."""
        for each in self._watched:
            with contextlib.suppress(OSError):
                each.counts()
        self.forget()

    def forget(self) -> None:
        """In a forked child: let go of descriptors, and look at nothing."""
        for each in self._watched:
            each.end()
        self._watched = []
        if self._attached_fd >= 0:
            descriptor, self._attached_fd = self._attached_fd, -1
            os.close(descriptor)
        if self._object is not None:
            made, self._object = self._object, None
            made.close()


class Watched:
    """The places of one map; made by `RedirectErrors.watch`. See CountsRedirects."""

    def __init__(self, why: str = "", table: BpfMap | None = None, keys: list[bytes] | None = None) -> None:
        self.why = why
        self._table = table
        self._keys = keys or []
        self._last: Counts = {}

    def counts(self) -> Counts:
        """See CountsRedirects."""
        if self._table is not None:
            self._last = dict(_read(self._table, self._keys))
        return self._last

    def end(self) -> None:
        """What was known last stays so."""
        self._table = None


def by_name(device: str, counts: Counts) -> dict[str, int]:
    """As counters have them: `<device>.<queue>.redirect_err_<error>`."""
    return {
        f"{device}.{queue}.redirect_err_{error}": frames
        for queue, errors in counts.items()
        for error, frames in errors.items()
    }


def lacking() -> str:
    """Which capability is missing, as a sentence; empty: none."""
    names = sorted(set(CAPABILITIES) - privileges.effective())
    return f"The kernel wants {' and '.join(names)} of who listens at its tracepoints." if names else ""


def loaded(queues: int) -> BpfObject:
    """The program, in the kernel but not attached. Raises PrivilegeError, OutOfMemory, VerifierError, OSError."""
    elf = importlib.resources.files("xdpstack.device").joinpath("bpf/xdpstack_redirect_err.bpf.o").read_bytes()
    made = BpfObject("redirect_err", elf)
    try:
        made.maps[TABLE].set_max_entries(queues)
        made.load(PROGRAM)
    except BaseException:
        made.close()
        raise
    return made


def attach(made: BpfObject) -> int:
    """The descriptor that keeps it attached. Raises OSError."""
    return check(lib.bpf_raw_tracepoint_open(TRACEPOINT.encode(), made.program_fd(PROGRAM)), TRACEPOINT)


def because(refused: XdpstackError | OSError) -> str:
    """A sentence for what kept it from being loaded or attached."""
    if isinstance(refused, XdpstackError):
        return f"A program that listens at {TRACEPOINT} is refused: {refused}"
    said = os.strerror(refused.errno or 0)
    causes = {
        errno.EINVAL: "Before Linux 5.13 the kernel does not tell there by which map a frame was redirected; or it was "
        "built without CONFIG_BPF_EVENTS.",
        errno.ENOENT: "This kernel has no tracepoints.",
    }
    cause = causes.get(refused.errno or 0, "")
    return f"A program that listens at {TRACEPOINT} is refused: {said}. {cause}".rstrip()


def _read(table: BpfMap, keys: list[bytes]) -> Iterator[tuple[int, dict[str, int]]]:
    layout = struct.Struct(f"={lib.XS_REDIRECT_ERRORS}Q")
    for queue, key in enumerate(keys):
        by_cpu = [layout.unpack(value) for value in table.lookup_per_cpu(key)]
        if found := {name: n for at, name in ERRORS.items() if (n := sum(cpu[at] for cpu in by_cpu))}:
            yield queue, found
