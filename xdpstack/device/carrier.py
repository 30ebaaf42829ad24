"""Waiting for a link that drivers take down when a program comes or goes."""

from __future__ import annotations

import time

from xdpstack.device import ethtool

#: Some drivers reset when a program is attached or detached (igb: 2 to 3 s): how long the carrier is waited for.
CARRIER_SECONDS = 5.0


def await_carrier(name: str) -> str:
    """Return when it is there, with nothing; or with what is to be said of it when CARRIER_SECONDS are over."""
    deadline = time.monotonic() + CARRIER_SECONDS
    while not ethtool.has_link(name):
        if time.monotonic() >= deadline:
            return f"It was lost when the program was attached, and not back {CARRIER_SECONDS:.0f} s later."
        time.sleep(0.01)
    return ""
