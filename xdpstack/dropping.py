"""Giving up root in a process whose stacks stay open: xdpstack.drop_privileges().

    refuse what could not be undone afterwards -> prepare the stacks -> groups, group, user -> see that all threads did it

A process has one user for all of its threads because the C library makes it so: setgroups(3), setresgid(3) and
setresuid(3) are system calls of one thread, which it repeats in all others by a signal. The kernel takes the capabilities
of a thread when its user is not root any more, unless its securebits say otherwise.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
from pathlib import Path

from xdpstack.device import device, privileges
from xdpstack.errors import ConfigurationError, PrivilegeError
from xdpstack.observe import server

PR_GET_SECUREBITS = 27
#: Capabilities stay when the user changes: SECBIT_NO_SETUID_FIXUP and SECBIT_KEEP_CAPS of linux/securebits.h.
KEEPING = 1 << 2 | 1 << 4
#: Lines of /proc/PID/task/TID/status that say what a thread may do, now or by asking for it.
HELD = ("CapPrm", "CapEff", "CapAmb")


def drop_privileges(user: str | int, group: str | int | None = None) -> None:
    """Be another user from now on, in all threads, and without capabilities. The stacks that are open go on.

    `user` and `group` are names or numbers; the group is the user's own if left out, and further groups are those that
    the user is in. The process has to be root. It cannot be taken back.

    Afterwards everything works that needs no privilege: receiving, sending, sockets at ports from 1024 on
    (net.ipv4.ip_unprivileged_port_start), claims, following Linux, resolving neighbours, closing. What does not is in
    docs/without-root.md: no interface is opened any more, and one that was set down comes back without this stack.

    Raises ConfigurationError for a user or group that there is not, also in this user namespace, for root itself, and where
    a stack has tuned a device, which it could not undo; PrivilegeError: the process is not root, or may not change its user.
    Then nothing has been changed; unless the error says that the process is to be ended, as it is half way.
    """
    uid, gid, groups = _identity(user, group)
    _check()
    _check_namespace(uid, {gid, *groups})
    for backend in device.open_backends():
        backend.live_without_privileges()
    for each in server.servers():
        each.hand_over(uid, gid)
    try:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise PrivilegeError(
            f"the process could not become user {uid} altogether",
            f"{error.strerror}: a security module, or a limit of that user (RLIMIT_NPROC), is in the way.",
            "End the process.",
            number=error.errno,
        ) from error
    if left := threads_with_capabilities():
        raise PrivilegeError(
            f"{len(left)} threads still have capabilities: {', '.join(map(str, left))}",
            "They were not made by the C library, or a security module gave them back.",
            "End the process.",
        )


def threads_with_capabilities() -> list[int]:
    """The threads of this process that have a capability, permitted, effective or ambient; their numbers (TID)."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            lines = task.joinpath("status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        values = dict(line.split(":", 1) for line in lines)
        if any(int(values[name], 16) for name in HELD):
            found.append(int(task.name))
    return found


def _check() -> None:
    """Raises what drop_privileges() raises."""
    if os.geteuid() != 0:
        raise PrivilegeError(
            "only root can become another user, and lose its capabilities with that",
            f"This is a process of user {os.geteuid()}; capabilities of its own belong to each thread, and each would "
            "have to give them up by itself.",
            "Start it as root; or with no more than it needs: setpriv, or AmbientCapabilities= of systemd.",
        )
    if lacking := {"CAP_SETUID", "CAP_SETGID"} - privileges.effective():
        raise privileges.missing("become another user", lacking)
    if ctypes.CDLL(None).prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) & KEEPING:
        raise ConfigurationError(
            "the capabilities of this process would stay",
            "Its securebits say so: SECBIT_KEEP_CAPS or SECBIT_NO_SETUID_FIXUP.",
            "Start it without them.",
        )
    for backend in device.open_backends():
        if backend.options.coexist:
            raise ConfigurationError(
                f"{', '.join(backend.names)} has a program that joins others, and only root can take it out",
                "libxdp's dispatcher is attached anew without it, which wants CAP_NET_ADMIN and CAP_BPF.",
                "Open without coexist, or have a process with privileges do it.",
            )
        for interface in backend.interfaces:
            if interface.tuned:
                raise ConfigurationError(
                    f"{interface.name} is tuned, and only root could put it back: {', '.join(interface.tuned)}",
                    "Closing the stack undoes what opening it has changed of the device, and that wants CAP_NET_ADMIN.",
                    "Open with tune=Tuning(merging='keep') after setting up the device yourself, or use a broker.",
                )


def _check_namespace(uid: int, gids: set[int], proc: Path = Path("/proc/self")) -> None:
    """Raises ConfigurationError for who is not there in the user namespace of this process (a container's)."""
    for kind, numbers in (("uid", {uid}), ("gid", gids)):
        ranges = [[int(word) for word in line.split()] for line in (proc / f"{kind}_map").read_text().splitlines()]
        for number in sorted(numbers):
            if not any(first <= number < first + count for first, _, count in ranges):
                raise ConfigurationError(
                    f"{kind} {number} is nobody in this user namespace",
                    f"/proc/self/{kind}_map does not have it.",
                    "Name another, or have the container map it.",
                )
    if (proc / "setgroups").read_text().strip() != "allow":
        raise ConfigurationError(
            "the groups of this process cannot be changed",
            "Its user namespace denies setgroups(2).",
            "Have who makes the namespace map groups with privileges (newgidmap).",
        )


def _identity(user: str | int, group: str | int | None) -> tuple[int, int, list[int]]:
    """Numbers of the user and of his group, and those of all groups he is in."""
    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        entry = None
    if entry is None and not isinstance(user, int):
        raise ConfigurationError(f"there is no user {user!r}", fix="getent passwd lists those there are.")
    uid = entry.pw_uid if entry else int(user)
    if uid <= 0 or uid >= 2**32 - 1:
        raise ConfigurationError(f"user {user!r} has all privileges, or is none", fix="Name another.")
    if isinstance(group, str):
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigurationError(
                f"there is no group {group!r}", fix="getent group lists those there are."
            ) from None
    elif group is not None:
        gid = group
    elif entry is not None:
        gid = entry.pw_gid
    else:
        raise ConfigurationError(f"user {uid} has no entry, so his group is not known", fix="Name it: group=...")
    if not 0 < gid < 2**32 - 1:
        raise ConfigurationError(f"group {gid} is root's, or is none", fix="Name another: group=...")
    return uid, gid, os.getgrouplist(entry.pw_name, gid) if entry else [gid]
