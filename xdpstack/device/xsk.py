"""One AF_XDP socket, bound to one queue of one device: what was granted, its counters, its end.

The rings themselves are C's (csrc/xsk/). How a socket comes to be, and on whose memory, is umem.py's.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from xdpstack.device.kernel import kernel_version
from xdpstack.device.modes import SocketModes
from xdpstack.errors import (
    InterfaceDown,
    ModeRefused,
    NoSuchInterface,
    OutOfMemory,
    PrivilegeError,
    QueueTaken,
    XdpstackOSError,
)
from xdpstack.native import check, ffi, lib

#: Bytes that the kernel keeps free before each received frame (XDP_PACKET_HEADROOM).
HEADROOM_BYTES = 256

# bind flags, uapi/linux/if_xdp.h
XDP_COPY = 1 << 1
XDP_ZEROCOPY = 1 << 2
XDP_USE_NEED_WAKEUP = 1 << 3
XDP_USE_SG = 1 << 4
#: The first kernel whose bind(2) says which NAPI a socket's packets come from; before, their first packet did.
NAPI_AT_BIND_KERNEL = (6, 14)

STATISTICS = (
    "rx_dropped",
    "rx_invalid_descs",
    "tx_invalid_descs",
    "rx_ring_full",
    "rx_fill_ring_empty_descs",
    "tx_ring_empty_descs",
)
COUNTERS = ("kicks", "kicks_spared", "kick_errors", "rx_wakeups", "rx_bad_descs", "busy_polls")


@dataclass(frozen=True, slots=True)
class Rings:
    """Slots of the four rings of one socket, powers of two.

    `fill_target` is how many frames to keep with the kernel for receiving, at most `fill`.
    """

    rx: int = 2048
    tx: int = 2048
    fill: int = 4096
    completion: int = 2048
    fill_target: int = 4096


@dataclass(frozen=True, slots=True)
class XskState:
    """What our side knows of a socket; counters of a running worker may be a poll behind.

    `error` is the errno of its last fault (0: none); a socket that is `dead` is not polled any more. `filled` and
    `transmitting` are frames the kernel has; `unkicked` are those to send that it was not told of yet. `completed` counts
    those that it gave back and we took, `reported` those that it gave back, both modulo 2^32.
    """

    dead: bool
    error: int
    filled: int
    transmitting: int
    unkicked: int
    kicks: int
    kicks_spared: int
    kick_errors: int
    rx_wakeups: int
    rx_bad_descs: int
    busy_polls: int
    completed: int = 0
    reported: int = 0


@dataclass(frozen=True, slots=True)
class XskModes:
    """What a socket was granted of how it is driven (modes.py); the errors are an errno each, 0 for none."""

    always_kick: bool
    busy_poll: bool
    busy_poll_error: int
    tx_budget: int
    tx_budget_error: int


class BindFailed(Exception):
    """How far the kernel let a socket come: `step` is enum xs_xsk_step, `errno` what it answered there."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(f"{STEPS[step]}: {errno_name(number)}")
        self.step = step
        self.errno = number


def errno_name(number: int) -> str:
    """EOPNOTSUPP and the like; that one by the name that the kernel's sources have, unlike Python's own table."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


STEPS = {
    lib.XS_XSK_SOCKET: "socket(AF_XDP)",
    lib.XS_XSK_MEMORY: "XDP_UMEM_REG",
    lib.XS_XSK_RINGS: "making the rings",
    lib.XS_XSK_BIND: "bind",
}


class Xsk:
    """An open socket. Owned by who opened it; a worker that it is attached to uses it until it is detached.

    `flags` are the bind flags that it (or the socket whose memory it shares) was bound with. A packet that it sends has at
    most `frags_max` frames.
    """

    def __init__(self, pointer: Any, ifindex: int, queue: int, rings: Rings, flags: int) -> None:
        self.pointer = pointer
        self.ifindex = ifindex
        self.queue = queue
        self.rings = rings
        self.flags = flags
        values = self._values()
        self.zero_copy = bool(values.zero_copy)
        self.multi_buffer = bool(values.multi)
        self.frags_max = int(values.frags_max)

    def _values(self) -> Any:
        values = ffi.new("struct xs_xsk_values *")
        lib.xs_xsk_read(self.pointer, values)
        return values

    def fileno(self) -> int:
        """The descriptor, for the XSKMAP; -1 once closed. In a forked child too, which has no rings."""
        return int(lib.xs_xsk_fd(self.pointer))

    def state(self) -> XskState:
        """Faults, frames, and the counters of our side."""
        values = self._values()
        return XskState(
            **{name: int(getattr(values, name)) for name in XskState.__slots__ if name != "dead"},
            dead=bool(values.dead),
        )

    def modes(self) -> XskModes:
        """How it is driven."""
        values = self._values()
        return XskModes(
            always_kick=bool(values.always_kick),
            busy_poll=bool(values.busy_poll),
            busy_poll_error=int(values.busy_poll_error),
            tx_budget=int(values.tx_budget),
            tx_budget_error=int(values.tx_budget_error),
        )

    def statistics(self) -> dict[str, int]:
        """The six counters of XDP_STATISTICS; of a closed socket as they were last."""
        out = ffi.new("struct xs_xsk_stats *")
        check(lib.xs_xsk_read_stats(self.pointer, out), "XDP_STATISTICS")
        return {name: getattr(out, name) for name in STATISTICS}

    def counters(self) -> dict[str, int]:
        """All that is counted of it: the kernel's `statistics`, and our own, COUNTERS."""
        state: Any = self.state()
        return {**self.statistics(), **{name: getattr(state, name) for name in COUNTERS}}

    def close(self) -> None:
        """Unmap the rings and close the descriptor; idempotent. The kernel frees the queue some time later."""
        lib.xs_xsk_close(self.pointer)

    def free(self) -> None:
        """Close, and give the memory of the socket's own bookkeeping back. It must be detached from its worker."""
        lib.xs_xsk_free(self.pointer)
        self.pointer = ffi.NULL


def open_xsk(
    memory: Any,
    memory_bytes: int,
    frame_bytes: int,
    ifindex: int,
    queue: int,
    rings: Rings,
    flags: int,
    share: int = -1,
    modes: SocketModes | None = None,
    tx_metadata: bool = False,
    made: int = 0,
    zc_max_segs: int = 0,
) -> Xsk:
    """One attempt, in the network namespace of the calling thread; raises BindFailed.

    `share` is the descriptor of a socket with the same `flags` whose registration of the memory is shared; -1 registers
    it. `tx_metadata`: frames to send may have metadata before them. What `modes` asks for is granted or not, which
    Xsk.modes() says. `made` is the descriptor of an AF_XDP socket to set up, from here on ours in any
    case; 0: one is made. `zc_max_segs`: frames of a packet that the driver sends in zero-copy mode, 0 where it does not say.
    """
    modes = modes or SocketModes()
    busy = modes.busy_poll
    options = ffi.new(
        "struct xs_xsk_options *",
        {
            "memory": memory,
            "memory_bytes": memory_bytes,
            "frame_bytes": frame_bytes,
            "ifindex": ifindex,
            "queue": queue,
            "rx_slots": rings.rx,
            "tx_slots": rings.tx,
            "fill_slots": rings.fill,
            "completion_slots": rings.completion,
            "fill_target": rings.fill_target,
            "bind_flags": flags,
            "share": share,
            "tx_metadata": tx_metadata,
            "zc_max_segs": zc_max_segs,
            "made": made,
            "tx_budget": modes.budget(rings.tx),
            "busy_poll_us": busy.microseconds if busy else 0,
            "busy_poll_budget": busy.budget if busy else 0,
            "prefer_busy_poll": busy.prefer if busy else False,
            "napi_is_learnt": kernel_version() < NAPI_AT_BIND_KERNEL,
        },
    )
    step = ffi.new("uint32_t *")
    out = ffi.new("struct xs_xsk **")
    result = lib.xs_xsk_open(options, step, out)
    if result < 0:
        raise BindFailed(step[0], -result)
    return Xsk(out[0], ifindex, queue, rings, flags)


def explain(failed: BindFailed, name: str, queue: int, memory_bytes: int, zero_copy: bool) -> XdpstackOSError:
    """The exception for a person: what failed on which queue, why, and what mends it."""
    number = failed.errno
    where = f"queue {queue} of {name}"
    if number == errno.EPERM:
        return PrivilegeError(
            f"no AF_XDP socket for {where}: CAP_NET_RAW is missing",
            cause=f"{failed}: the kernel wants CAP_NET_RAW in the user namespace that owns the network namespace.",
            fix="Run as root, or: setcap cap_net_raw,cap_net_admin,cap_bpf+ep on the interpreter.",
        )
    if number == errno.EAFNOSUPPORT:
        return ModeRefused(
            "this kernel has no AF_XDP",
            cause="It was built without CONFIG_XDP_SOCKETS.",
            fix="Use a kernel with CONFIG_XDP_SOCKETS=y; zgrep XDP_SOCKETS /proc/config.gz tells.",
            number=number,
        )
    if failed.step == lib.XS_XSK_MEMORY and number == errno.ENOBUFS:
        return OutOfMemory(
            f"{memory_bytes} bytes of frames cannot be pinned for {where}",
            cause="The user's locked memory would exceed RLIMIT_MEMLOCK.",
            fix="Raise it (ulimit -l unlimited), give the process CAP_IPC_LOCK, or ask for fewer frames.",
            number=number,
        )
    if number in (errno.ENOMEM, errno.ENOBUFS):
        return OutOfMemory(
            f"no memory for the rings or frames of {where}",
            cause=f"{failed}.",
            fix="Ask for fewer frames or smaller rings; see `free -m`.",
            number=number,
        )
    if number == errno.ENODEV:
        return NoSuchInterface(f"{name} went away while its queue {queue} was being bound", cause=f"{failed}.")
    if number == errno.ENETDOWN:
        return InterfaceDown(f"{name} is down", cause=f"{failed}.", fix=f"ip link set {name} up")
    if number == errno.EBUSY:
        return QueueTaken(f"{where} has another AF_XDP socket", cause=f"{failed}.")
    if zero_copy and number in (errno.EOPNOTSUPP, errno.EINVAL):
        return ModeRefused(
            f"zero-copy is refused on {where}",
            cause=f"{failed}: the driver has none, or not for this queue, MTU or frame size.",
            fix="Leave zero_copy out: the kernel then chooses, and info() says what was granted.",
            number=number,
        )
    if failed.step == lib.XS_XSK_BIND and number == errno.EINVAL:
        return ModeRefused(
            f"{where} cannot be bound",
            cause=f"{failed}: there is no active queue of that number, or ring and frame sizes do not fit the device.",
            fix=f"ethtool -l {name} lists how many queues are active.",
            number=number,
        )
    return ModeRefused(f"no AF_XDP socket for {where}", cause=f"{failed}.", number=number)
