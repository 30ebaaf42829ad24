"""Where figures were taken: kernel, CPU, NIC, versions. Figures of two environments are not to be compared."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from xdpstack.bench.counting import counting
from xdpstack.bench.wire import Wire


def has_hardware_counters() -> bool:
    """Whether the CPU counts instructions for us (many virtual machines do not)."""
    with counting(os.getpid()) as counted:
        pass
    return counted.user_instructions is not None


def environment(wire: Wire) -> dict[str, Any]:
    """All that can be known before the run."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "nic": wire.near.name,
        "driver": wire.near.driver,
        "kernel": platform.release(),
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "load_average": os.getloadavg()[0],
        "hardware_counters": has_hardware_counters(),
        "versions": {"python": platform.python_version(), **dict(_versions(("xdpstack", "scapy")))},
    }


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
