"""What can be tuned on a device, as it is now. Only reads, in the calling thread's network namespace."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xdpstack.device import ethtool, ethtool_set, netdev
from xdpstack.device.ethtool import Channels, Offload, RingSizes
from xdpstack.device.ethtool_set import Rss
from xdpstack.device.sysfs import class_net
from xdpstack.device.tuning.knobs import FILES, knob

#: A queue's interrupt by its action in /proc/interrupts: eth0-TxRx-3, eth0-rx-3, ens1f0-3, virtio2-input.3.
ACTION = re.compile(r"(?:-(?:TxRx|rx|input|comb|rxtx|Rx|RxTx))?[-.](\d+)$")


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one device. What is None, empty or missing it has not.

    `rules` are the locations of n-tuple rules, and how many there can be; `irqs` the interrupt of each queue that has one;
    `files` those of knobs.FILES that can be read.
    """

    name: str
    driver: str
    physical: bool
    channels: Channels | None = None
    rings: RingSizes | None = None
    offloads: Mapping[str, Offload] = field(default_factory=dict)
    rss: Rss | None = None
    rules: tuple[tuple[int, ...], int] | None = None
    irqs: Mapping[int, int] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    cpus: frozenset[int] = frozenset()


def read_facts(name: str, ifindex: int) -> Facts:
    """All of them, of an interface."""
    driver = ethtool.driver(name)
    table: Rss | None = None
    with contextlib.suppress(OSError):
        table = ethtool_set.rss(name)
    rules: tuple[tuple[int, ...], int] | None = None
    with contextlib.suppress(OSError):
        used, size = ethtool_set.rule_locations(name)
        rules = tuple(used), size
    return Facts(
        name,
        driver.name if driver else "",
        bool(driver and driver.bus),
        ethtool.channels(name),
        ethtool.ring_sizes(name),
        ethtool.offloads(name) or {},
        table if table and table.table else None,
        rules,
        netdev.queue_irqs(ifindex) or named_irqs(name),
        frozenset(_readable(name)),
        online_cpus(),
    )


def _readable(name: str) -> list[str]:
    found = []
    for file in FILES:
        with contextlib.suppress(OSError):
            knob(name, file).read()
            found.append(file)
    return found


def named_irqs(name: str, table: Path = Path("/proc/interrupts")) -> dict[int, int]:
    """The interrupt of each receive queue, by what drivers call them: for kernels that do not say (before 6.8)."""
    prefixes = [name, _virtio(name)]
    found: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            number, _, rest = line.partition(":")
            action = rest.split()[-1] if rest.split() else ""
            for prefix in filter(None, prefixes):
                match = ACTION.fullmatch(action.removeprefix(prefix)) if action.startswith(prefix) else None
                if match and number.strip().isdecimal():
                    found.setdefault(int(match[1]), int(number))
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


def online_cpus(file: Path = Path("/sys/devices/system/cpu/online")) -> frozenset[int]:
    """The CPUs that can be given an interrupt."""
    found: set[int] = set()
    for part in file.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)
