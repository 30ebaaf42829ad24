"""Waiting for a condition with a deadline: what a test does instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

#: How long a test waits for what should come at once, in seconds: generous, for machines that are busy.
PATIENCE = 10.0
#: Of <linux/time.h>; `time` has no name for it.
CLOCK_MONOTONIC_COARSE = 6


def until(condition: Callable[[], Value], seconds: float = PATIENCE, message: str | Callable[[], str] = "") -> Value:
    """The first true value of `condition()`, asked again and again. AssertionError with `message` after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.0002
    while not (value := condition()):
        if time.monotonic() > deadline:
            said = message() if callable(message) else message
            raise AssertionError(f"not within {seconds} s: {said or condition}")
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return value


def tick_ns() -> int:
    """CLOCK_MONOTONIC of the last tick, in ns: the time by which the XDP program finds the dead-man deadline over."""
    return time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)
