"""What can be tuned on a device, as it is now. Only reads, in the calling thread's network namespace."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xdpstack.device import ethtool, ethtool_set, netdev
from xdpstack.device.ethtool import Channels, Offload, RingSizes
from xdpstack.device.ethtool_set import Rss
from xdpstack.device.tuning.irqs import named_irqs
from xdpstack.device.tuning.knobs import FILES, knob


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


def online_cpus(file: Path = Path("/sys/devices/system/cpu/online")) -> frozenset[int]:
    """The CPUs that can be given an interrupt."""
    found: set[int] = set()
    for part in file.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)
