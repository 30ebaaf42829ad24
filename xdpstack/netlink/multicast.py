"""The multicast groups the host has joined, read from /proc: netlink shows those of IPv4 only since Linux 6.15."""

import sys
from pathlib import Path


def read_groups() -> frozenset[tuple[int, bytes]]:
    """The multicast memberships of the calling thread's namespace."""
    found: set[tuple[int, bytes]] = set()
    index = 0
    for line in read_lines(Path("/proc/thread-self/net/igmp"))[1:]:
        if not line[0].isspace():
            index = int(line.split()[0])
        else:  # the group is printed as a number of the machine's byte order
            found.add((index, int(line.split()[0], 16).to_bytes(4, sys.byteorder)))
    for line in read_lines(Path("/proc/thread-self/net/igmp6")):
        fields = line.split()
        found.add((int(fields[0]), bytes.fromhex(fields[2])))
    return frozenset(found)


def read_lines(path: Path) -> list[str]:
    """The lines of a file of /proc, none where the kernel lacks it."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
