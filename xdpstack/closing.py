"""The end of a stack: what is under way comes to an end before the devices go, what is held right after."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from xdpstack.native import check, ffi, lib
from xdpstack.native.core import BUDGET, Core
from xdpstack.stages.neigh import Neigh

log = logging.getLogger("xdpstack")

#: How long frames are waited for that the kernel still has, in seconds.
DRAIN_SECONDS = 1.0


def drain(core: Core, poll: Callable[[], int]) -> None:
    """Poll until nothing comes and nothing is being sent, within DRAIN_SECONDS. Claims are out already."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline:
        try:
            received = poll()
        except Exception:
            log.exception("a hook failed while the stack was closing")
            continue
        if not received and not core.frame_counts()["transmitting"]:
            return


def drop_held(core: Core, neigh: Neigh) -> None:
    """No device is left: what waits for a neighbour, or for another worker, is dropped by who holds it.

    Within DRAIN_SECONDS: a worker with packets parked for a Python hook, which nobody runs any more, drops nothing.
    """
    deadline = time.monotonic() + DRAIN_SECONDS
    check(lib.xs_stack_set_devices(core.pointer, ffi.NULL, 0), "publish no devices")
    taken = 1  # of what is on its way from one worker to another
    while (taken or neigh.held()) and time.monotonic() < deadline:  # a poll drops a batch of them
        taken = sum(max(0, lib.xs_worker_poll(worker, BUDGET)) for worker in core.workers)
