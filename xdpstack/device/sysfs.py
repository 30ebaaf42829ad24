"""/sys/class/net of a network namespace other than that of the mounted /sys.

sysfs shows the devices of the namespace it was mounted in; `ip netns exec` therefore mounts it anew. A mount that is never
attached to the tree (fsopen(2), fsmount(2), Linux 5.2) does the same without touching anybody's mounts.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # the same on every architecture
CLOEXEC, FSCONFIG_CMD_CREATE = 1, 6


@contextmanager
def class_net() -> Iterator[int | None]:
    """A descriptor of /sys/class/net as the calling thread's network namespace has it; None without CAP_SYS_ADMIN."""
    mount = _mount()
    if mount is None:
        yield None
        return
    try:
        folder = os.open("class/net", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        try:
            yield folder
        finally:
            os.close(folder)
    finally:
        os.close(mount)


def queue_numbers(name: str) -> list[int]:
    """The numbers of the active receive queues of a device; empty if they cannot be read."""
    with class_net() as folder:
        try:
            queues = os.open(f"{name}/queues", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        except (OSError, TypeError):
            return []
        try:
            with os.scandir(queues) as entries:
                return sorted(int(each.name[3:]) for each in entries if each.name.startswith("rx-"))
        finally:
            os.close(queues)


def _mount() -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    context = libc.syscall(FSOPEN, b"sysfs", CLOEXEC)
    if context < 0:
        return None
    try:
        if libc.syscall(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            return None
        mount = libc.syscall(FSMOUNT, context, CLOEXEC, 0)
        return int(mount) if mount >= 0 else None
    finally:
        os.close(context)
