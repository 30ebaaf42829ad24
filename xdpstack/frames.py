"""Whole frames in and out: for probes, scrubbers and generators.

    with stack.frames(EverythingBut()) as frames:
        batch = frames.recv_batch()
        for frame, device in zip(batch.frames(), batch.devices):
            ...
        frames.send([answer], device="eth1")
        batch.release()
        frames.send_packed(probe, [len(probe)], device="eth1", times=1000)

What a claim lifts goes to whoever reads its frames, before tc ingress, and no further. What is sent enters at tc egress.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from xdpstack.claimed import Claimed, ClaimedTable
from xdpstack.errors import ClosedError, ConfigurationError
from xdpstack.native import check, ffi, lib, views
from xdpstack.native.core import BUDGET
from xdpstack.sent_stamps import OWNER_SHIFT, SentStamps
from xdpstack.udp import native
from xdpstack.udp.waiting import Waiting

if TYPE_CHECKING:
    from xdpstack.device.backend import Device
    from xdpstack.device.claims import Claim
    from xdpstack.host import StackHost

#: Bytes of receive queue for one claim, by truesize: a few thousand small frames.
RCVBUF = 4 << 20


#: Frames that one call into C sends at most, so that a signal is not held up for long.
CALL = 16384
#: What is wrong with a buffer, by what xs_packed_check() returns.
_NOT_FRAMES = {
    -errno.EINVAL: "a frame has no Ethernet header: it takes 14 bytes",
    -errno.ENODATA: "the lengths do not add up to the bytes there are",
}


def _raise(result: int) -> int:
    """What a call returned, or OSError."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _column(lengths: Any) -> Any:
    """32-bit numbers for C, copied; those of a column at once."""
    with suppress(TypeError):  # no buffer
        view = memoryview(lengths)
        if view.format in ("I", "L") and view.itemsize == 4 and view.contiguous:
            own = ffi.new("uint32_t[]", view.nbytes // 4)  # what is checked is what is read: another thread may write
            ffi.memmove(own, view, view.nbytes)
            return own
    return ffi.new("uint32_t[]", [int(each) for each in lengths])


class FrameBatch:
    """Received frames; a context manager that releases. Their memory is lent: see xdpstack.batch.Batch.

    Columns are read-only memoryviews, one row a frame: `lengths` (bytes, from the Ethernet header on), `devices` (the
    stack's index), `vlan_tcis` (of the outermost tag, which is in the frame too; -1: none); and what the device says:
    `device_stamps_ns`, `hashes`, `hash_types`, as in xdpstack.batch.Batch.
    """

    __slots__ = ("_inner", "_over_wires")

    def __init__(self, inner: Any, devices: Sequence[Device]) -> None:
        self._inner = inner
        self._over_wires = [not device.partial_checksums for device in devices]

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def lengths(self) -> memoryview:
        """Bytes of each frame."""
        return memoryview(self._inner.lengths)

    @property
    def devices(self) -> memoryview:
        """The stack's index of the device each came by."""
        return memoryview(self._inner.devices)

    @property
    def vlan_tcis(self) -> memoryview:
        """Priority and VLAN of each frame's outermost tag, int32; -1 where there is none."""
        return memoryview(self._inner.vlan_tcis)

    @property
    def device_stamps_ns(self) -> memoryview:
        """Arrival by the device's own clock, in ns, uint64; 0 where it said none, or was not asked."""
        return memoryview(self._inner.device_stamps_ns)

    @property
    def hashes(self) -> memoryview:
        """The device's flow hashes, uint32; 0 where it said none, or was not asked."""
        return memoryview(self._inner.hashes)

    @property
    def hash_types(self) -> memoryview:
        """What was hashed, enum xdp_rss_hash_type, uint32."""
        return memoryview(self._inner.hash_types)

    @property
    def partial_checksums(self) -> memoryview:
        """Whether each frame's UDP or TCP checksum was left to hardware by a local sender, as veth hands them over.

        The field then holds the pseudo-header's sum alone, and the rest is as it was sent: TP_STATUS_CSUMNOTREADY of
        packet(7). Told by the sum itself, in frames of devices that may have such: a frame that came over a wire is
        taken at its word.
        """
        told: Any = memoryview(self._inner.partial_checksums)
        if any(self._over_wires):
            rows = zip(told, self.devices, strict=True)
            told = memoryview(bytes(partial and not self._over_wires[device] for partial, device in rows)).cast("?")
        return cast("memoryview[int]", told)

    def frames(self) -> list[bytes]:
        """The frames' bytes, copied."""
        copies: list[bytes] = self._inner.payloads()
        return copies

    def views(self) -> list[memoryview]:
        """The frames where they lie; each keeps its memory lent as long as it lives."""
        found: list[memoryview] = self._inner.views()
        return found

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.frames())

    def release(self) -> None:
        """Give the memory back, but for what views hold."""
        self._inner.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Frames(Claimed):
    """Frames of one claim in, frames of the user's out. Made by `Stack.frames()`; any thread may use it.

    `claim` None: only sending.
    """

    def __init__(self, queues: FrameQueues, claim: Claim | None, index: int) -> None:
        super().__init__(claim)
        self._queues = queues
        self._number = queues.stamps.register()
        self._stamped = 0
        self._host = host = queues.host
        core = host.core
        self.pointer = native.create_queue(core, index, RCVBUF)
        self._view = views.Socket(
            int(ffi.cast("uintptr_t", self.pointer)),
            int(ffi.cast("uintptr_t", core.pointer)),
            (core.umem, self.pointer),
        )
        self._timeout: float | None = None
        self._closed = False
        self._lock = threading.Lock()

    def settimeout(self, seconds: float | None) -> None:
        """None: wait for ever; 0: never wait; else raise TimeoutError after so many seconds."""
        self._timeout = seconds

    def recv_batch(self, most: int = 64) -> FrameBatch:
        """What has come, at least one frame and at most `most` (1,024 at a time).

        Raises TimeoutError or BlockingIOError as the time-out says.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            self._check()
            if (got := self._view.recv_batch(most)) is not None:
                return FrameBatch(got, self._host.devices)
            left = -1 if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
            core = self._host.core
            result = lib.xs_socket_wait(core.pointer, self.pointer, not self._host.driven, BUDGET, left)
            if check(result, "wait for frames") == 2:
                self._host.run_all_parked()
            if left == 0 and (got := self._view.recv_batch(most)) is not None:
                return FrameBatch(got, self._host.devices)
            if deadline is not None and time.monotonic() >= deadline:
                if self._timeout == 0:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                raise TimeoutError("timed out")

    def send(self, frames: Sequence[Any], device: str | int | None = None, *, stamp: bool = False) -> int:
        """Send whole frames (bytes-like, from the Ethernet header on, without FCS) by a device of the stack.

        `device` may be left out when the stack has one. Returns how many were taken: all, unless the time-out is over first;
        BlockingIOError or TimeoutError when none could be. ValueError: no Ethernet header; OSError(EMSGSIZE): larger than
        what fits; OSError(ENETDOWN): the device is gone. `stamp`: have `sent_stamps()` say when each was sent.
        """
        self._check()
        index = self._index(device)
        given = list(frames)
        if not stamp:
            return self._send_all(len(given), lambda done: int(self._view.send_frames(given, done, index)))
        with self._lock:
            first, self._stamped = self._stamped, self._stamped + len(given)
        number = (self._number << OWNER_SHIFT) + first + 1
        return self._send_all(len(given), lambda done: int(self._view.send_frames(given, done, index, number + done)))

    def sent_stamps(self) -> list[tuple[int, int]]:
        """When frames were sent that asked for it: (number, ns), the first that was ever given to be sent so being 0.

        In the order in which the device was done with them, and each told once; those of sent frames that it is not done
        with come later, or never if it gave none. Of those that nobody asks for the last 4,096 are kept. By CLOCK_TAI in
        copy mode, else by the device's own clock. Needs a stack opened with offloads=("timestamp",), which `info()` says
        was granted. SOF_TIMESTAMPING_TX_HARDWARE of sockets is alike.
        """
        self._check()
        return self._queues.stamps.take(self._number)

    def send_packed(self, data: Any, lengths: Any, device: str | int | None = None, *, times: int = 1) -> int:
        """Send frames that lie one behind the other in `data`, of `lengths` bytes each; all of them `times` times, in turn.

        For generators and replays: no object for each frame, and nothing is done in Python between them. `data` is
        bytes-like; `lengths` a sequence of numbers, or a column of 32-bit ones as `FrameBatch.lengths`. What
        changes in `data` before this returns may be sent so. The rest is as with `send()`, and ValueError too when the
        lengths do not add up to the data.
        """
        self._check()
        index = self._index(device)
        column, bytes_ = _column(lengths), ffi.from_buffer("uint8_t[]", data)
        packed = ffi.new("struct xs_packed *", {"data": bytes_, "lengths": column, "n": len(column)})
        stack = self._host.core.pointer
        if not len(column) or times < 1:
            return 0
        wrong = lib.xs_packed_check(stack, index, packed, len(bytes_))
        if wrong in _NOT_FRAMES:
            raise ValueError(_NOT_FRAMES[wrong])
        _raise(wrong)
        total = len(column) * times

        def send(done: int) -> int:
            return _raise(lib.xs_packed_send(stack, index, packed, done, min(total - done, CALL)))

        return self._send_all(total, send)

    def _send_all(self, total: int, attempt: Callable[[int], int]) -> int:
        """`attempt(done)` sends from number `done` on, and returns how many. How many were sent, as the time-out has it."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        done = 0
        while done < total:
            taken = attempt(done)
            done += taken
            if self._host.hooked:
                self._host.run_all_parked()
            if taken:
                continue
            if deadline is not None and time.monotonic() >= deadline:
                if done:
                    return done
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) if not self._timeout else TimeoutError
            Waiting(self._host).for_room(1)
            self._check()
        return done

    def _index(self, device: str | int | None) -> int:
        devices = self._host.devices
        if device is None and len(devices) == 1:
            return 0
        for each in devices:
            if device in (each.name, each.index):
                return each.index
        names = ", ".join(each.name for each in devices)
        raise ConfigurationError(f"device {device!r} is not of this stack", fix=f"Say which: {names}.")

    def _check(self) -> None:
        self._host.check()
        if self._closed:
            raise ClosedError("these frames were closed")

    def close(self) -> None:
        """Claim out, queue emptied. Idempotent. Frames of a claim raise ConfigurationError inside of a hook."""
        if self.claim is not None:
            self._host.walk.refuse_inside_hook()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            self._queues.forget(self)
        finally:
            lib.xs_socket_close(self.pointer)  # whoever waits for frames is told
            self._view.drain()
            self._view.close()


class FrameQueues(ClaimedTable[Frames]):
    """All Frames of one stack, and which claim's frames go to which (csrc/tables/frame_claims.h)."""

    ROW = "taps.rx"

    def __init__(self, host: StackHost) -> None:
        super().__init__(host)
        self.stamps = SentStamps(host.core)

    def open(self, claim: Claim | None) -> Frames:
        """See Stack.frames(). What is lifted before the workers know the reader goes on along the path, as if unread."""
        if claim is None:
            return Frames(self, claim, 0)
        self.host.walk.refuse_inside_hook()
        with self._lock:
            return self.add(Frames(self, claim, len(self._all)), claim)

    def forget(self, one: Frames) -> None:
        """The claim out, then its frames are nobody's. One that only sends has none."""
        self.stamps.forget(one._number)
        super().forget(one)

    def _write(self) -> None:
        entries = [(number, device, each) for each in self._all for device, number in enumerate(each.ids)]
        table = ffi.new("struct xs_frame_claim[]", max(1, len(entries)))
        for row, (number, device, each) in zip(table, entries, strict=False):
            row.claim_id, row.device, row.socket = number, device, each.pointer
        check(lib.xs_stack_set_frame_claims(self.host.core.pointer, table, len(entries)), "publish the frame claims")
