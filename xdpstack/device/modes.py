"""How the sockets of a device are driven, asked and granted: need_wakeup, busy polling, packets per system call.

None of it keeps a device from being opened; what is not granted has its reason in `Device.why`. docs/modes.md
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpstack.device.tuning.knobs import FILES, knob
from xdpstack.errors import ConfigurationError

if TYPE_CHECKING:
    from xdpstack.device.xsk import Xsk

#: Packets that one system call sends in copy mode unless the kernel grants another number: TX_BATCH_SIZE, net/xdp/xsk.c.
TX_BUDGET = 32
#: SO_BUSY_POLL_BUDGET is a u16, SO_BUSY_POLL an int that is not negative.
LARGEST_BUDGET, LARGEST_MICROSECONDS = 0xFFFF, 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class BusyPoll:
    """Busy polling: a poll of ours that finds an RX ring empty has the NIC's driver polled, by a system call.

    `microseconds`: how long such a call may last (SO_BUSY_POLL). `budget`: packets that it takes at most
    (SO_BUSY_POLL_BUDGET). `prefer`: while we poll, the NIC's interrupts are held back (SO_PREFER_BUSY_POLL), which the
    kernel does only where napi_defer_hard_irqs and gro_flush_timeout of the device are set.

    Raises ConfigurationError for values that cannot be. Source: Documentation/networking/napi.rst.
    """

    microseconds: int = 20
    budget: int = 64
    prefer: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.microseconds <= LARGEST_MICROSECONDS or not 1 <= self.budget <= LARGEST_BUDGET:
            raise ConfigurationError(
                f"busy polling for {self.microseconds} us, {self.budget} packets at a time, cannot be",
                fix=f"1 us or more, and 1 to {LARGEST_BUDGET} packets.",
            )

    @classmethod
    def asked(cls, word: bool | BusyPoll) -> BusyPoll | None:
        """What `open(busy_poll=)` means: True is busy polling with the defaults, False none."""
        return (cls() if word else None) if isinstance(word, bool) else word


@dataclass(frozen=True, slots=True)
class SocketModes:
    """What was asked of every socket.

    `need_wakeup`: the kernel says when it has to be told of packets to send; without, it is told of every batch.
    `busy_poll`: None for none. `tx_budget`: packets that one system call sends in copy mode; None: as many as the TX ring
    has slots.
    """

    need_wakeup: bool = True
    busy_poll: BusyPoll | None = None
    tx_budget: int | None = None

    def budget(self, tx_ring: int) -> int:
        """The budget to ask the kernel for; 0: what it has anyway. Raises ConfigurationError."""
        if self.tx_budget is None:
            return tx_ring if tx_ring > TX_BUDGET else 0
        if not TX_BUDGET <= self.tx_budget <= max(TX_BUDGET, tx_ring):
            raise ConfigurationError(
                f"tx_budget is {self.tx_budget}, and the TX ring has {tx_ring} slots",
                "The kernel takes a budget of 32 or more, up to the slots of the ring.",
                f"tx_budget between {TX_BUDGET} and {max(TX_BUDGET, tx_ring)}, or a larger tx_ring.",
            )
        return self.tx_budget


@dataclass(frozen=True, slots=True)
class GrantedModes:
    """What the sockets of a device were granted, all of them; `why` has what was not."""

    need_wakeup: bool
    busy_poll: BusyPoll | None
    tx_budget: int
    why: dict[str, str]


def granted(asked: SocketModes, sockets: Sequence[Xsk]) -> GrantedModes:
    """Of open sockets."""
    why: dict[str, str] = {}
    states = [xsk.modes() for xsk in sockets]
    if refused := [state.tx_budget_error for state in states if state.tx_budget_error]:
        why["tx_budget"] = f"One system call sends {TX_BUDGET} packets: {_budget_refusal(refused[0])}"
    if refused := [state.busy_poll_error for state in states if state.busy_poll_error]:
        why["busy_poll"] = _busy_poll_refusal(refused[0])
    return GrantedModes(
        need_wakeup=asked.need_wakeup and bool(states) and not any(state.always_kick for state in states),
        busy_poll=asked.busy_poll if states and all(state.busy_poll for state in states) else None,
        tx_budget=min((state.tx_budget for state in states), default=TX_BUDGET),
        why=why,
    )


def interrupts_go_on(name: str) -> str:
    """Why the interrupts of a device are not held back for who prefers busy polling; empty if they are, or nobody says.

    In the calling thread's network namespace. Source: napi_complete_done(), busy_poll_stop().
    """
    try:
        off = [file for file in FILES if knob(name, file).read() == 0]
    except OSError:
        return ""
    if not off:
        return ""
    return (
        f"Interrupts come between polls as ever: {' and '.join(off)} of {name} is 0. "
        "tune=Tuning(napi_defer_hard_irqs=2, gro_flush_timeout_ns=200_000) sets both, and undoes it."
    )


def _budget_refusal(number: int) -> str:
    if number == errno.ENOPROTOOPT:
        return "this kernel has no XDP_MAX_TX_SKB_BUDGET (Linux 6.17)."
    return f"XDP_MAX_TX_SKB_BUDGET was refused with {errno.errorcode.get(number, number)}."


def _busy_poll_refusal(number: int) -> str:
    if number == errno.ENODEV:
        return (
            "The kernel does not say which NAPI feeds the queue: since Linux 6.14 it does for zero-copy sockets alone, of "
            "drivers that link their queues to NAPIs (netif_queue_set_napi)."
        )
    if number == errno.EPERM:
        return "The kernel wants CAP_NET_ADMIN for it (SO_PREFER_BUSY_POLL, SO_BUSY_POLL above net.core.busy_read)."
    if number == errno.ENOPROTOOPT:
        return "This kernel has none: it is older than 5.11, or was built without CONFIG_NET_RX_BUSY_POLL."
    return f"The socket options were refused with {errno.errorcode.get(number, number)}."
