"""Huge pages of 2 MiB: how many there are, why they are too few, and what memory lies on. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HUGE_PAGE_BYTES = 2 << 20
FOLDER = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


@dataclass(frozen=True, slots=True)
class HugePages:
    """How many the machine has, and how many of them nobody has, or was promised."""

    total: int
    free: int


def huge_pages(folder: Path = FOLDER) -> HugePages | None:
    """As the kernel says it; None: it has no huge pages of that size."""
    try:
        total, free, promised = (
            int(folder.joinpath(name).read_text()) for name in ("nr_hugepages", "free_hugepages", "resv_hugepages")
        )
    except (OSError, ValueError):
        return None
    return HugePages(total, max(0, free - promised))


def pages_for(size: int) -> int:
    """How many `size` bytes take."""
    return -(-size // HUGE_PAGE_BYTES)


def shortage(size: int, found: HugePages | None) -> tuple[str, str]:
    """Why `size` bytes of huge pages are not to be had, and what mends it: a cause and a command."""
    needed = pages_for(size)
    if found is None:
        return "This kernel has no huge pages of 2 MiB.", ""
    if found.free >= needed:
        return f"{found.free} huge pages of 2 MiB are free, but this control group may not have {needed} (hugetlb).", ""
    cause = f"That is {needed} huge pages of 2 MiB, and {found.free} of {found.total} are free (vm.nr_hugepages)."
    return cause, f"sysctl vm.nr_hugepages={found.total - found.free + needed}"


def transparent_bytes(address: int, size: int, smaps: Path = Path("/proc/self/smaps")) -> int:
    """How much of the memory at `address` lies on transparent huge pages; 0 where the kernel does not say."""
    total, ours = 0, False
    try:
        lines = smaps.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        word, _, rest = line.partition(" ")
        if not word.endswith(":"):  # a mapping: its addresses
            first, _, end = word.partition("-")
            ours = int(first, 16) < address + size and int(end, 16) > address
        elif ours and word == "AnonHugePages:":
            total += int(rest.split()[0]) << 10
    return min(total, size)
