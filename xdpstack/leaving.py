"""The end of the interpreter with stacks still open: after sys.exit(), an exception out of main, Ctrl-C, the last line.

    atexit --> every stack that is open: close()
                 a Python hook in another thread does not come back: only what would outlive the process is given back

So what was tuned is put back at once, and not by whoever comes after. A signal that ends the process ends it before anything
of this could run: SIGKILL always, SIGTERM unless the program handles it. For that there is the journal
(xdpstack.device.tuning.journal).

Callers of atexit run after all threads that are no daemons have ended, and since Python 3.12 none can be started any more.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
import weakref
from typing import Protocol

from xdpstack.netlink import namespace

log = logging.getLogger("xdpstack")

#: How long the hooks of other threads are waited for, in seconds.
HOOKS_SECONDS = 2.0


class Leavable(Protocol):
    """A stack, as it is left."""

    def _leave(self, hooks_seconds: float) -> bool:
        """Close, and True; or False where a hook is not back in time, and only what outlives the process was given back."""
        ...


_open: weakref.WeakSet[Leavable] = weakref.WeakSet()


def watch(stack: Leavable) -> None:
    """It is open: see to it at the end."""
    _open.add(stack)


def forget(stack: Leavable) -> None:
    """It is being closed. Idempotent."""
    _open.discard(stack)


def close_all() -> None:
    """Close what is open, each for itself; what fails is logged, and told by `xdpstack doctor` where it can be mended."""
    namespace.visit_in_place()
    for stack in list(_open):
        try:
            if not stack._leave(HOOKS_SECONDS):
                log.warning("%r: a hook does not come back, what it uses is left to the end of the process", stack)
        except Exception:
            log.exception("%r could not be closed at the end: xdpstack doctor --undo puts back what it tuned", stack)
        warnings.warn(f"{stack!r} was never closed", ResourceWarning, stacklevel=1, source=stack)


atexit.register(close_all)
#: A child has no stacks of its parent's.
os.register_at_fork(after_in_child=_open.clear)
