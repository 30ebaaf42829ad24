"""One queue of a memory device: an AF_XDP socket whose kernel is a fake one in plain memory (csrc/fake/fake.h)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from xdpstack.errors import ConfigurationError
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core

#: For the fault `completion_delay_ns`: completions are held back until the fault is changed.
FOREVER_NS = 2**64 - 1

#: What the fake kernel says of a frame that did not arrive, by errno: why it was not put on the RX ring.
REFUSALS: Mapping[int, str] = MappingProxyType(
    {
        errno.ENXIO: "the device is gone",
        errno.ENETDOWN: "the device is down",
        errno.ENOSPC: "larger than a chunk, and the socket takes no packets of several",
        errno.ENOMEM: "no frame in the fill ring",
        errno.ENOBUFS: "no room in the RX ring",
    }
)

_FAULTS = "struct xs_fake_faults"
_FAULT_NAMES = tuple(name for name, _ in ffi.typeof(_FAULTS).fields)


@dataclass(frozen=True, slots=True)
class Rings:
    """Slots of the four rings, powers of two, and where their free-running 32-bit indices start."""

    rx: int = 512
    tx: int = 512
    fill: int = 1024
    completion: int = 512
    first_index: int = 0


class MemoryQueue:
    """The socket of one queue. Ends with `destroy()`, after its stack has detached it or is closed.

    `headroom` bytes are left before a received frame, beyond the kernel's 256; `fill_target` frames are kept with the
    kernel to receive into, as many as the fill ring has slots for 0. `zc_max_segs`: as a zero-copy queue whose driver sends
    packets of so many frames, 0: as one in copy mode.
    """

    def __init__(
        self,
        core: Core,
        queue: int,
        rings: Rings,
        multi_buffer: bool,
        headroom: int = 0,
        fill_target: int = 0,
        zc_max_segs: int = 0,
    ) -> None:
        options = ffi.new(
            "struct xs_fake_options *",
            {
                "rx_size": rings.rx,
                "tx_size": rings.tx,
                "fill_size": rings.fill,
                "comp_size": rings.completion,
                "fill_target": min(fill_target, rings.fill),
                "first_index": rings.first_index,
                "queue": queue,
                "headroom": headroom,
                "multi": multi_buffer,
                "zero_copy": zc_max_segs > 0,
                "zc_max_segs": zc_max_segs,
            },
        )
        out = ffi.new("struct xs_xsk **")
        result = lib.xs_fake_create(core.pointer, options, out)
        if result == -errno.EINVAL:
            raise ConfigurationError(f"a memory device cannot have {rings}", fix="Ring sizes are powers of two.")
        check(result, "make a memory device")
        self.pointer: Any = ffi.gc(out[0], lib.xs_fake_destroy)
        self.queue = queue

    def inject(self, frames: Iterable[bytes], partial: bool = False) -> int:
        """Frames arrive, in order. Returns how many the kernel could put on the RX ring; `refusal()` says why not."""
        frames = list(frames)
        flags = lib.XS_FAKE_PARTIAL if partial else 0
        return int(
            lib.xs_fake_inject_many(self.pointer, b"".join(frames), [len(f) for f in frames], len(frames), flags)
        )

    def inject_one(self, frame: bytes, partial: bool = False) -> int:
        """One frame arrives. Returns 0, or the errno that says why it did not (REFUSALS)."""
        flags = lib.XS_FAKE_PARTIAL if partial else 0
        result = lib.xs_fake_inject(self.pointer, bytes(frame), len(frame), flags)
        if result == -errno.EINVAL:
            raise ConfigurationError("a frame of no bytes cannot arrive")
        return -int(result)

    def sent(self) -> list[bytes]:
        """Takes the frames sent since the last call, oldest first."""
        size = lib.xs_fake_sent_bytes(self.pointer)
        room = bytearray(size)
        size = lib.xs_fake_take_sent(self.pointer, ffi.from_buffer("uint8_t[]", room), size)
        frames: list[bytes] = []
        at = 0
        while at < size:
            (length,) = struct.unpack_from("=I", room, at)
            frames.append(bytes(room[at + 4 : at + 4 + length]))
            at += 4 + length
        return frames

    def say(self, options: int, **hints: int) -> None:
        """What the device says of frames from now on: fields of struct xs_xdp_hints. `options` of it are read."""
        lib.xs_fake_set_hints(self.pointer, ffi.new("struct xs_xdp_hints *", hints))
        lib.xs_xsk_set_hints(self.pointer, options)

    def service(self) -> None:
        """Let the kernel do what it does without being asked: report completions that are due, send if it needs no kick."""
        lib.xs_fake_service(self.pointer)

    def faults(self, **changes: int) -> dict[str, int]:
        """Change faults by the names of struct xs_fake_faults (csrc/ffi/40_fake.cdef.h); all as they are now.

        Raises ConfigurationError for a name that is none, or a value that does not fit.
        """
        faults = ffi.new(_FAULTS + " *")
        lib.xs_fake_get_faults(self.pointer, faults)
        for name, value in changes.items():
            if name not in _FAULT_NAMES:
                raise ConfigurationError(f"there is no fault {name!r}", fix=f"One of: {', '.join(_FAULT_NAMES)}.")
            try:
                setattr(faults, name, value)
            except (OverflowError, TypeError) as error:
                raise ConfigurationError(f"fault {name} cannot be {value!r}", cause=str(error)) from None
        if changes:
            lib.xs_fake_set_faults(self.pointer, faults)
        return {name: int(getattr(faults, name)) for name in _FAULT_NAMES}

    def values(self) -> dict[str, int]:
        """What the fake kernel has done: received, sent, tx_dropped, completed, lost, pending, kicks."""
        return _fields("struct xs_fake_values", lib.xs_fake_values, self.pointer)

    def statistics(self) -> dict[str, int]:
        """XDP_STATISTICS, as the kernel counts, and the socket's own counters."""
        counters = _fields("struct xs_xsk_stats", lib.xs_xsk_read_stats, self.pointer)
        own = _fields("struct xs_xsk_values", lib.xs_xsk_read, self.pointer)
        names = ("kicks", "kicks_spared", "kick_errors", "rx_wakeups", "rx_bad_descs", "bad_completions")
        return {**counters, **{name: own[name] for name in names}}

    def indices(self) -> dict[str, tuple[int, int]]:
        """(producer, consumer) of each ring, as shared between the two sides."""
        out = ffi.new("uint32_t[8]")
        lib.xs_fake_indices(self.pointer, out)
        return {ring: (out[2 * i], out[2 * i + 1]) for i, ring in enumerate(("rx", "tx", "fill", "completion"))}

    def destroy(self) -> None:
        """Free the socket and what was sent and not taken. No stack may have it attached."""
        ffi.release(self.pointer)


def _fields(struct_name: str, read: Any, pointer: Any) -> dict[str, int]:
    out = ffi.new(struct_name + " *")
    read(pointer, out)
    return {name: int(getattr(out, name)) for name, _ in ffi.typeof(struct_name).fields}
