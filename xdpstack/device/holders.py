"""Who has the AF_XDP socket on a queue.

The kernel tells exactly through sock_diag, if it has CONFIG_XDP_SOCKETS_DIAG. If not, nothing says which queue a socket is
bound to; then all processes with AF_XDP sockets are named. Other users' processes are seen with privileges only.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from xdpstack.device.attached import Holder
from xdpstack.device.netdev import NETLINK_SOCK_DIAG, NLM_F_DUMP, ask
from xdpstack.netlink import decode

AF_XDP = 44
SOCK_DIAG_BY_FAMILY = 20
XDP_DIAG_SHOW_INFO, XDP_DIAG_INFO = 1, 1
REQUEST = struct.Struct("=BBHII2I")  # family, protocol, pad, inode, show, cookie
ANSWER = struct.Struct("=BBHI2I")  # family, type, pad, inode, cookie


@dataclass(frozen=True, slots=True)
class Holders:
    """`exact`: these have the queue. Else: these have AF_XDP sockets, and one of them may have it.

    `nobody`: none has it, and none was there that this process may not look at.
    """

    processes: tuple[Holder, ...]
    exact: bool
    nobody: bool = False

    def __str__(self) -> str:
        names = ", ".join(map(str, self.processes))
        if self.exact:
            return f"held by {names}" if names else "held by a process that this one may not look at"
        return f"processes with AF_XDP sockets: {names}" if names else "no process that this one may look at has one"


def holders(ifindex: int, queue: int, ours: Collection[int] | None = None) -> Holders:
    """The processes with an AF_XDP socket on the queue, in the calling thread's network namespace.

    This process is left out, unless `ours` are its descriptors that are not meant: another stack of it may have the queue.
    """
    inodes = bound_inodes(ifindex, queue)
    unseen: list[int] = []
    processes = tuple(_processes(inodes, ours, unseen))
    return Holders(processes, inodes is not None, nobody=not processes and (not unseen or inodes == frozenset()))


def bound_inodes(ifindex: int, queue: int) -> frozenset[int] | None:
    """The inodes of the sockets bound to the queue; None if the kernel does not tell."""
    request = REQUEST.pack(AF_XDP, 0, 0, 0, XDP_DIAG_SHOW_INFO, 0, 0)
    try:
        answers = ask(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request)
    except OSError:
        return None
    found = set()
    for each in answers:
        inode = ANSWER.unpack_from(each, decode.HEADER.size)[3]
        info = decode.attributes(each, decode.HEADER.size + ANSWER.size).get(XDP_DIAG_INFO)
        if info is not None and struct.unpack_from("=II", info) == (ifindex, queue):
            found.add(inode)
    return frozenset(found)


def _processes(inodes: frozenset[int] | None, ours: Collection[int] | None, unseen: list[int]) -> Iterator[Holder]:
    """Those with one of the sockets; with any AF_XDP socket for None. `unseen` gets those that may not be looked at."""
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        if pid == os.getpid() and ours is None:
            continue
        known = set(map(str, ours or ())) if pid == os.getpid() else ()
        try:
            if any(entry.name not in known and _is_meant(entry, inodes) for entry in process.joinpath("fd").iterdir()):
                yield Holder(pid, process.joinpath("comm").read_text().strip())
        except PermissionError:
            unseen.append(pid)
        except OSError:  # it ended meanwhile
            continue


def _is_meant(entry: Path, inodes: frozenset[int] | None) -> bool:
    try:
        target = str(entry.readlink())
        if not target.startswith("socket:["):
            return False
        if inodes is not None:
            return int(target[8:-1]) in inodes
        return os.getxattr(entry, "system.sockprotoname").rstrip(b"\0") == b"XDP"
    except OSError:  # closed meanwhile
        return False
