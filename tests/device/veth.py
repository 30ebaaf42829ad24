"""Veth pairs in namespaces of their own, and raw sockets at the peer's end."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from xdpstack.netlink.namespace import run_in

_numbers = count()


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Returns as soon as the condition holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not come true in {seconds} s"
        time.sleep(0.001)


@dataclass
class Veth:
    """`near` in namespace `netns`, where the stack is; `far` in `peer`, where the traffic comes from."""

    netns: str
    peer: str
    near: str = "near0"
    far: str = "far0"
    _sockets: list[socket.socket] = field(default_factory=list)

    @property
    def ifindex(self) -> int:
        return self.link()["ifindex"]

    def link(self, far: bool = False) -> dict:
        where, name = (self.peer, self.far) if far else (self.netns, self.near)
        return json.loads(ip("-j", "-d", "-n", where, "link", "show", name))[0]

    def mac(self, far: bool = False) -> bytes:
        return bytes.fromhex(self.link(far)["address"].replace(":", ""))

    def raw(self) -> socket.socket:
        """An AF_PACKET socket on the far end: whole frames out, and in what arrives there (not what it sends itself)."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            made.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
            made.bind((self.far, 0))
            made.settimeout(5.0)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            return made

        self._sockets.append(run_in(self.peer, make))
        return self._sockets[-1]

    def close(self) -> None:
        for each in self._sockets:
            each.close()


@contextmanager
def namespace() -> Iterator[str]:
    name = f"xsk-{os.getpid()}-{next(_numbers)}"
    ip("netns", "add", name)
    try:
        # no IPv6: its neighbour discovery and router solicitation would be among what is counted
        ip("netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        ip("netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        yield name
    finally:
        ip("netns", "delete", name)


@contextmanager
def veth(queues: int = 1, mtu: int = 1500, netns: str | None = None, number: int = 0) -> Iterator[Veth]:
    """A pair; with `netns` the near end is there, under another name for each `number`."""
    if netns is None:
        with namespace() as own, veth(queues, mtu, own, number) as pair:
            yield pair
        return
    with namespace() as peer:
        pair = Veth(netns, peer, near=f"near{number}", far=f"far{number}")
        counts = ["numrxqueues", str(queues), "numtxqueues", str(queues), "mtu", str(mtu)]
        ip(
            "-n",
            netns,
            "link",
            "add",
            pair.near,
            *counts,
            "type",
            "veth",
            "peer",
            "name",
            pair.far,
            *counts,
            "netns",
            peer,
        )
        for where, name in ((netns, pair.near), (peer, pair.far)):
            ip("-n", where, "link", "set", name, "up")
        until(lambda: pair.link()["operstate"] == "UP")
        try:
            yield pair
        finally:
            pair.close()


def frame(source: bytes, destination: bytes, payload: bytes, ethertype: int = 0x88B5) -> bytes:
    """An Ethernet frame of an ethertype that no protocol handles (IEEE local experimental)."""
    return destination + source + ethertype.to_bytes(2, "big") + payload
