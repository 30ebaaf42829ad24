"""Which kernel this is."""

from __future__ import annotations

import os


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int(minor.split("-")[0])
