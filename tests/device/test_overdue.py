"""When frames that are to be sent are overdue, and when not."""

from __future__ import annotations

from dataclasses import replace

from xdpstack.device.overdue import DEADLINE_SECONDS, Overdue
from xdpstack.device.xsk import XskState

IDLE = XskState(
    dead=False,
    error=0,
    filled=64,
    transmitting=0,
    unkicked=0,
    kicks=0,
    kicks_spared=0,
    kick_errors=0,
    rx_wakeups=0,
    rx_bad_descs=0,
    busy_polls=0,
)


def test_only_what_does_not_come_back_for_long() -> None:
    now = [100.0]
    overdue = Overdue(lambda: now[0])
    busy = replace(IDLE, transmitting=10, completed=7, reported=7)

    def after(seconds: float, state: XskState) -> int:
        now[0] += seconds
        return overdue.look(state)

    assert after(0, IDLE) == 0
    assert after(100, busy) == 0  # first seen
    assert after(DEADLINE_SECONDS - 1, busy) == 0
    assert after(1, busy) == 10
    assert after(1, busy) == 0  # told once
    assert after(1, replace(busy, transmitting=9, completed=8, reported=8)) == 0  # one came back
    assert (
        after(DEADLINE_SECONDS, replace(busy, transmitting=9, completed=8, reported=17)) == 0
    )  # it is we who are late
    assert after(DEADLINE_SECONDS, replace(busy, unkicked=10)) == 0  # the kernel does not know of them
    assert after(DEADLINE_SECONDS, IDLE) == 0
    assert after(DEADLINE_SECONDS, replace(busy, completed=0, reported=0)) == 0
