"""Capabilities of this thread, and the exception that names those that are missing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from xdpstack.errors import PrivilegeError

#: linux/capability.h
CAPABILITIES = {
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
#: What CAP_SYS_ADMIN stands in for, as it did before they were split off it.
INCLUDED_IN_SYS_ADMIN = {"CAP_BPF", "CAP_PERFMON"}


def effective() -> frozenset[str]:
    """The effective capabilities of this thread, of those that matter here."""
    status = Path("/proc/thread-self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    mask = int(line.split()[1], 16)
    held = {name for name, bit in CAPABILITIES.items() if mask >> bit & 1}
    return frozenset(held | (INCLUDED_IN_SYS_ADMIN if "CAP_SYS_ADMIN" in held else set()))


def missing(what: str, needed: Collection[str]) -> PrivilegeError:
    """The exception for an attempt at `what` that the kernel refused with EPERM."""
    lacking = sorted(set(needed) - effective())
    if lacking:
        return PrivilegeError(
            f"not permitted to {what}: {' and '.join(lacking)} missing",
            "The kernel asks for these capabilities, in the network namespace's user namespace.",
            f"Run as root, or: setcap {','.join(each.lower() for each in lacking)}+ep on the interpreter.",
        )
    return PrivilegeError(
        f"not permitted to {what}, though this thread has {' and '.join(sorted(needed))}",
        "A security module, a seccomp filter, kernel lockdown, or a user namespace that is not the initial one refuses it.",
        "Look for a denial in the kernel's log: dmesg, journalctl -k.",
    )
