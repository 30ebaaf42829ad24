"""The stack's frames as the kernel knows them: which socket registered them, and which sockets share that.

A registration (XDP_UMEM_REG) belongs to the socket that made it and to those bound with XDP_SHARED_UMEM; it lives as long
as any of them, and the kernel gives all of them one mode: zero-copy or copy, multi-buffer or not. So

* a new socket shares through any socket still bound that has the flags it needs;
* if there is none, the same memory is registered anew (the kernel pins the pages once more, and knows nothing of the
  other registration): for the first socket, after the last one was closed, and for a device of another mode.

Frame numbers mean the same in every registration, so a frame received on one device can be sent on any other.

Closing a socket is asynchronous in the kernel: the queue is free some milliseconds after close(2) returned. A bind that
finds it busy is repeated, with growing pauses, until a deadline. Where the frames exceed the limit of locked memory (which
counts for who has no CAP_IPC_LOCK), the soft limit is raised as far as the hard one allows.
"""

from __future__ import annotations

import errno
import resource
import socket
import time
from collections.abc import Iterable, Sequence

from xdpstack.device.broker.client import BrokerClient
from xdpstack.device.modes import SocketModes
from xdpstack.device.xsk import XDP_COPY, XDP_ZEROCOPY, BindFailed, Rings, Xsk, open_xsk
from xdpstack.errors import ConfigurationError
from xdpstack.native import ffi, lib
from xdpstack.native.core import Core

#: How long a busy queue is waited for, and the pauses between attempts, in seconds.
BUSY_SECONDS = 2.0
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
#: Of a device, that can be told from others (xs_pkt.queue).
LAST_QUEUE = 255


class Umem:
    """The frames of one `Core`, and the sockets that use them, all in one network namespace. Control thread only.

    `tx_metadata`: those to send may have metadata before them; set before the first socket is opened. `devices`: how many
    share the frames.
    """

    def __init__(self, core: Core, broker: BrokerClient | None = None, devices: int = 1) -> None:
        self._core = core
        self._broker = broker
        self._devices = devices
        self._queues: dict[str, int] = {}  # how many each device has, or is to have
        self.sockets: list[Xsk] = []
        self.registrations = 0
        self.tx_metadata = False

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return self._core.frames * self._core.frame_bytes

    def fill_share(self, queues: int) -> int:
        """Frames that may wait in the fill ring of each of a device's queues, at least one.

        At most half of a worker's frames wait to be received into, by all its queues of all devices; the others are for
        sending and for sockets' queues.
        """
        workers = len(self._core.workers)
        of_one_worker = -(-queues // workers) * self._devices
        return max(1, self._core.frames // workers // 2 // of_one_worker)

    def reserve(self, name: str, queues: Sequence[int]) -> None:
        """Note the queues that a device is to have, in place of those it had. Raises ConfigurationError.

        Queue i of each device is worker i's, over again, and a worker has room for XS_PORTS_MAX, of all devices.
        """
        asked, workers = {**self._queues, name: len(queues)}, len(self._core.workers)
        if max(queues, default=0) > LAST_QUEUE:
            raise ConfigurationError(
                f"{name} has queues beyond {LAST_QUEUE}",
                "A frame remembers the number of its queue in a byte.",
                f"queues=[...] of those below; or ethtool -L {name} combined {LAST_QUEUE + 1}",
            )
        if of_a_worker(asked.values(), workers) > lib.XS_PORTS_MAX:
            enough = (each for each in range(workers, 65) if of_a_worker(asked.values(), each) <= lib.XS_PORTS_MAX)
            raise ConfigurationError(
                " and ".join(f"{device} has {count} queues" for device, count in asked.items()),
                f"A worker polls {lib.XS_PORTS_MAX} at most, of all devices; workers there are {workers}.",
                f"queues=[...] of some of them; ethtool -L {name} for fewer; or workers={next(enough, 64)}.",
            )
        self._queues = asked

    def open(
        self,
        ifindex: int,
        queue: int,
        rings: Rings,
        flags: int,
        busy_seconds: float = BUSY_SECONDS,
        modes: SocketModes | None = None,
        zc_max_segs: int = 0,
    ) -> Xsk:
        """A socket bound to the queue, in the network namespace of the calling thread. Raises BindFailed.

        `flags` are XDP_COPY, XDP_ZEROCOPY (neither: the kernel chooses), XDP_USE_NEED_WAKEUP and XDP_USE_SG. `modes`: how
        it is to be driven (modes.py). `zc_max_segs`: frames of a packet that the driver sends in zero-copy mode, or 0.
        """
        deadline = time.monotonic() + busy_seconds
        pause = FIRST_PAUSE
        while True:
            try:
                return self._try(ifindex, queue, rings, flags, modes, zc_max_segs)
            except BindFailed as failed:
                if failed.step == lib.XS_XSK_MEMORY and failed.errno == errno.ENOBUFS and raise_memory_limit():
                    continue
                if failed.errno != errno.EBUSY or time.monotonic() >= deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _try(self, ifindex: int, queue: int, rings: Rings, flags: int, modes: SocketModes | None, segments: int) -> Xsk:
        share = self._sharable(ifindex, flags)
        pointer = ffi.cast("void *", lib.xs_stack_umem(self._core.pointer))
        size, each, metadata = self.size, self._core.frame_bytes, self.tx_metadata
        made = self._broker.socket(socket.if_indextoname(ifindex), queue) if self._broker else 0
        xsk = open_xsk(pointer, size, each, ifindex, queue, rings, flags, share, modes, metadata, made, segments)
        self.registrations += share < 0
        self.sockets.append(xsk)
        return xsk

    def _sharable(self, ifindex: int, flags: int) -> int:
        """The descriptor of a bound socket that has what `flags` ask for; -1 if there is none.

        Where the kernel may choose the mode, only sockets of the same device are shared with: another device might be
        granted another mode, and one registration has one.
        """
        for xsk in self.sockets:
            descriptor = xsk.fileno()
            if descriptor < 0 or xsk.flags != flags or xsk.state().dead:
                continue
            if xsk.ifindex == ifindex or flags & (XDP_COPY | XDP_ZEROCOPY):
                return descriptor
        return -1

    def release(self, xsk: Xsk) -> None:
        """Close and forget a socket; it must be detached from its worker."""
        self.sockets.remove(xsk)
        xsk.free()


def of_a_worker(queues: Iterable[int], workers: int) -> int:
    """How many queues the first worker has of devices with so many each; no other has more."""
    return sum(-(-count // workers) for count in queues)


def raise_memory_limit() -> bool:
    """Raise the process's soft limit of locked memory to its hard limit; False if it is there already, or not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == hard:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    except (OSError, ValueError):
        return False
    return True
