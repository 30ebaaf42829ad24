"""Which interface the SSH sessions of this machine come in on."""

from __future__ import annotations

import os
import sys
from ipaddress import ip_address
from pathlib import Path

from xdpstack.device.ssh import ssh_endpoints
from xdpstack.netlink import Link, Snapshot, packed

ESTABLISHED = 1


def sessions_through(link: Link, snapshot: Snapshot) -> set[str]:
    """The SSH sessions whose address on this host is one of the interface's, as "this session" and "an SSH session from X".

    Seen are the session this process runs in (also below sudo), and every established connection to an SSH port in the
    calling thread's network namespace. A session that reaches the host by another way is not: the route may change.
    """
    own = {address.local for address in snapshot.addresses_of(link.index)}
    found: set[str] = set()
    mine = connection()
    for client, server in established({endpoint.port for endpoint in ssh_endpoints()}):
        if packed(server) in own:
            found.add("this SSH session" if mine and client == mine[0] else f"an SSH session from {client}")
    if mine and packed(mine[1]) in own:
        found.add("this SSH session")
    return found


def connection() -> tuple[str, str] | None:
    """The addresses (client's, ours) of the SSH session that this process runs in; None if it runs in none.

    sudo takes SSH_CONNECTION away, so that the environments of the parents are looked at as well.
    """
    words = os.environ.get("SSH_CONNECTION", "").split()
    process = os.getppid()
    while len(words) != 4 and process > 1:
        try:
            environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # another user's, or gone
            return None
        for each in environment:
            if each.startswith(b"SSH_CONNECTION="):
                words = each.decode(errors="replace").partition("=")[2].split()
    return (plain(words[0]), plain(words[2])) if len(words) == 4 else None


def established(ports: set[int]) -> list[tuple[str, str]]:
    """The addresses (client's, ours) of each established TCP connection to one of the ports."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/thread-self/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            (server, port), (client, _) = endpoint(fields[1]), endpoint(fields[2])
            if int(fields[3], 16) == ESTABLISHED and port in ports:
                found.append((client, server))
    return found


def endpoint(text: str) -> tuple[str, int]:
    """An address and port as /proc/net/tcp has them: 32-bit words in the machine's order, in hexadecimal."""
    words, _, port = text.partition(":")
    raw = b"".join(int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8))
    return plain(str(ip_address(raw))), int(port, 16)


def plain(address: str) -> str:
    """The address without zone, and an IPv4 address as such where it is mapped into IPv6."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
