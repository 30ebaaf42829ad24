"""The ports on which SSH comes in: what a wide claim must not take off the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from xdpstack.device.claims import Endpoint

TCP = 6
#: Programs that serve SSH, by their kernel name (comm).
SERVERS = {"sshd", "sshd-session", "sshd-auth", "dropbear", "tinysshd"}


def ssh_endpoints() -> frozenset[Endpoint]:
    """TCP port 22, the port of this session, and every port of this network namespace that an SSH server has.

    Other users' sockets are seen by root only; /proc/net is that of the calling thread.
    """
    ports = {22}
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4 and connection[3].isdecimal():
        ports.add(int(connection[3]))
    inodes = set(_server_inodes())
    for table in ("tcp", "tcp6"):
        ports.update(port for inode, port in _sockets(Path("/proc/thread-self/net", table)) if inode in inodes)
    return frozenset(Endpoint(TCP, port) for port in ports if port)


def _sockets(table: Path) -> Iterator[tuple[str, int]]:
    """(inode, local port) of each socket of /proc/net/tcp or tcp6; its format: Documentation/networking/proc_net_tcp.rst."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        yield fields[9], int(fields[1].rpartition(":")[2], 16)


def _server_inodes() -> Iterator[str]:
    """The inodes of all sockets of SSH servers, as far as we may see them."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("comm").read_text().strip() not in SERVERS:
                continue
            links = [str(each.readlink()) for each in process.joinpath("fd").iterdir()]
        except OSError:  # it ended meanwhile, or is another user's
            continue
        yield from (link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:["))
