"""The C stack as a Python object: its memory, its workers, its ledgers."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any, Literal

from xdpstack.arguments import power_of_two, whole
from xdpstack.errors import ConfigurationError, OutOfMemory
from xdpstack.native import check, ffi, lib
from xdpstack.native.huge_pages import huge_pages as there_are
from xdpstack.native.huge_pages import shortage, transparent_bytes

#: Packets that one poll takes from a queue at most, unless the caller says otherwise.
BUDGET = 256
#: XS_WORKERS_MAX.
MOST_WORKERS = 64
#: Sizes of a frame, in bytes; frames per worker, a power of two.
FRAME_SIZES = (2048, 4096)
LEAST_FRAMES, MOST_FRAMES = 64, 1 << 24
HugePagesAsked = bool | Literal["auto"]
#: Names of enum xs_owner, in the numbers' order: where a frame can be.
OWNERS = ("free", "filled", "walking", "held", "queued", "lent", "transmitting")


@dataclass(frozen=True, slots=True)
class Ledger:
    """The packet ledger: `received + created + split == delivered + sent + merged + punted + dropped + held`, always."""

    received: int
    created: int
    split: int
    delivered: int
    sent: int
    merged: int
    punted: int
    dropped: int
    held: int

    @property
    def missing(self) -> int:
        """Packets that began and have no end: 0 unless there is a defect."""
        ended = self.delivered + self.sent + self.merged + self.punted + self.dropped + self.held
        return self.received + self.created + self.split - ended


#: Who polls so long in vain, in microseconds, is not let sleep at all: waits have slices of that length.
ALWAYS_US = 100_000


class Core:
    """Owns the C stack. The memory is unmapped with the last view on it, which may outlive `close()`.

    `hints`: what devices say of frames is wanted (xs_meta.hints). `spin_us`: so long who drives polls in vain before it
    sleeps. `pointer` is the struct xs_stack, `workers` its
    workers, `umem` a writable memoryview on all frames. `huge_pages`: True demands pages of 2 MiB for the frames, "auto"
    takes them if there are enough; `huge_pages_asked`, `huge_pages` (granted) and `huge_pages_why` say what became of it.
    Raises OutOfMemory, or ConfigurationError for sizes that cannot be.
    """

    def __init__(
        self,
        workers: int = 1,
        frames: int = 16384,
        frame_bytes: int = 2048,
        huge_pages: HugePagesAsked = False,
        manual_clock: bool = False,
        hints: bool = False,
        spin_us: int = 0,
    ) -> None:
        whole("workers", workers, 1, MOST_WORKERS)
        power_of_two("frames", frames, LEAST_FRAMES, MOST_FRAMES)
        if frame_bytes not in FRAME_SIZES:
            raise ConfigurationError(
                f"frame_bytes is {frame_bytes!r}",
                "AF_XDP has aligned frames of 2048 and 4096 bytes.",
                "frame_bytes=2048",
            )
        if huge_pages not in (True, False, "auto"):
            raise ConfigurationError(
                f"huge_pages is {huge_pages!r}", 'It can be True, False or "auto".', "huge_pages=True"
            )
        size = workers * frames * frame_bytes
        whole("spin_us", spin_us, 0, ALWAYS_US)  # from sleeping at once to never
        self.huge_pages_asked, self.huge_pages, self.huge_pages_why = huge_pages, bool(huge_pages), ""
        options = ffi.new(
            "struct xs_stack_options *",
            {
                "workers": workers,
                "frames_per_worker": frames,
                "frame_bytes": frame_bytes,
                "huge_pages": self.huge_pages,
                "manual_clock": manual_clock,
                "hints": hints,
                "spin_us": spin_us,
            },
        )
        out = ffi.new("struct xs_stack **")
        result = lib.xs_stack_create(options, out)
        if result == -errno.ENOBUFS:
            why, fix = shortage(size, there_are())
            if huge_pages != "auto":
                raise OutOfMemory(f"no {size} bytes of huge pages for {workers * frames} frames", why, fix)
            self.huge_pages, self.huge_pages_why = False, f"{why} {fix}".strip()
            options.huge_pages = 0
            result = lib.xs_stack_create(options, out)
        if result < 0 and result != -errno.ENOMEM:
            check(result, f"make {workers} worker(s)")
        if result < 0:
            raise OutOfMemory(
                f"no {size} bytes for {workers * frames} frames", "The memory is not there.", "Ask for fewer frames."
            )
        stack = out[0]
        self.pointer: Any = stack
        self.frames = workers * frames
        self.frame_bytes = frame_bytes
        self.hints, self.spin_us = hints, spin_us
        self.workers: list[Any] = [lib.xs_stack_worker(stack, i) for i in range(workers)]
        # Every view is a slice of this one: the C stack goes when the last of them has gone.
        self._owner = ffi.gc(lib.xs_stack_umem(stack), lambda _: lib.xs_stack_destroy(stack), size)
        self.umem = memoryview(ffi.buffer(self._owner, size))
        self.packets = ffi.cast("struct xs_pkt *", lib.xs_stack_pkts(stack))
        self.metas = ffi.cast("struct xs_meta *", lib.xs_stack_metas(stack))

    def huge_pages_info(self) -> dict[str, Any]:
        """What was asked for and granted, and how many bytes of the frames lie on transparent huge pages."""
        return {
            "asked": self.huge_pages_asked,
            "granted": self.huge_pages,
            "why": self.huge_pages_why,
            "transparent_bytes": transparent_bytes(int(ffi.cast("uintptr_t", self._owner)), len(self.umem)),
        }

    def destroy(self) -> None:
        """Give memory and descriptors back at once, of a stack that could not be opened: nobody has a view of it."""
        self.umem.release()
        self.workers = []
        self.pointer = self.packets = self.metas = ffi.NULL
        ffi.release(self._owner)

    def frame_counts(self) -> dict[str, int]:
        """Frames by owner; the values sum to the number of frames."""
        out = ffi.new("uint64_t[8]")
        lib.xs_stack_frames(self.pointer, out)
        return dict(zip(OWNERS, out, strict=False))

    def ledger(self) -> Ledger:
        """The packet ledger over all workers."""
        total = [0] * 9
        values = ffi.new("struct xs_ledger_values *")
        for worker in self.workers:
            lib.xs_worker_ledger(worker, values)
            for i, name in enumerate(Ledger.__slots__):
                total[i] += getattr(values, name)
        return Ledger(*total)
