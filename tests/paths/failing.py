"""A process in which the n-th call of the C library fails while a stack is opened, for n from 1 until none does.

    LD_PRELOAD=failing_calls.so python -m tests.paths.failing NETNS INTERFACE

Prints a list of Attempt as JSON. What an attempt left behind ends the process with an AssertionError.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import asdict, dataclass

from tests.paths.left import check_left, held
from tests.paths.soak import existing
from tests.paths.world import opened
from xdpstack.testing.veth import End


@dataclass
class Attempt:
    """`call` is what failed; `kind` and `said` are of the exception that came of it.

    Where it opened all the same `kind` is empty, and `said` what the device has for why redirects that fail are not counted.
    """

    call: str
    kind: str = ""
    said: str = ""


def attempts(end: End) -> list[Attempt]:
    preloaded = ctypes.CDLL(None)
    preloaded.failing_calls_fired.restype = ctypes.c_char_p
    opened(end).close()
    before = held()
    out: list[Attempt] = []
    while True:
        attempt = Attempt("")
        preloaded.failing_calls_arm(len(out) + 1)
        try:
            stack = opened(end)
        except Exception as error:
            attempt.kind, attempt.said = type(error).__name__, str(error)
        else:
            fired = preloaded.failing_calls_fired()
            attempt.said = stack.devices[0].why.get("redirect_errors", "")
            preloaded.failing_calls_arm(0)
            stack.close()
            if not fired:
                return out
            del stack
        attempt.call = preloaded.failing_calls_fired().decode() if attempt.kind else fired.decode()
        preloaded.failing_calls_arm(0)
        check_left(before)
        assert not end.has_xdp()
        out.append(attempt)


if __name__ == "__main__":
    print(json.dumps([asdict(attempt) for attempt in attempts(End(existing(sys.argv[1]), sys.argv[2]))]))
