"""Interrupts of a device by the names that its driver gives them, which stay when their numbers do not."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from xdpstack.device.sysfs import class_net

PROC_INTERRUPTS = Path("/proc/interrupts")
#: A queue's interrupt by its name behind the device's: eth0-TxRx-3, eth0-rx-3, ens1f0-3, virtio2-input.3.
QUEUE = re.compile(r"(?:-(?:TxRx|rx|input|comb|rxtx|Rx|RxTx))?[-.](\d+)")


def interrupts(device: str, table: Path | None = None) -> dict[str, int]:
    """Number of each interrupt of the device, by its name without the device's: "-TxRx-3", "-input.0", "" of one for all."""
    prefixes = [device, _virtio(device)]
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in (table or PROC_INTERRUPTS).read_text().splitlines()[1:]:
            number, _, rest = line.partition(":")
            action = rest.split()[-1] if rest.split() else ""
            for prefix in filter(None, prefixes):
                name = action.removeprefix(prefix)
                if action.startswith(prefix) and name[:1] in ("", "-", ".") and number.strip().isdecimal():
                    found.setdefault(name, int(number))
    return found


def named_irqs(device: str, table: Path | None = None) -> dict[int, int]:
    """The interrupt of each receive queue, by what drivers call them: for kernels that do not say (before 6.8)."""
    found: dict[int, int] = {}
    for name, number in interrupts(device, table).items():
        if match := QUEUE.fullmatch(name):
            found.setdefault(int(match[1]), number)
    return found


def _virtio(name: str) -> str:
    with class_net() as folder:
        if folder is None:
            return ""
        try:
            target = Path(os.readlink(f"{name}/device", dir_fd=folder)).name
        except OSError:
            return ""
    return target if target.startswith("virtio") else ""
