"""A veth pair with a stack on the near end and kernel programs on the far one: what the tests of whole paths stand on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import xdpstack
from xdpstack.device.device import KernelBackend
from xdpstack.stack import Stack
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import PATIENCE
from xdpstack.udp.socket import UdpSocket

MakeNetns, MakeVeth, MakePeer = Callable[..., Namespace], Callable[..., Veth], Callable[..., Peer]

NEAR = ("10.0.0.1/24", "fd00::1/64")
FAR = ("10.0.0.2/24", "fd00::2/64")
PORT = 7777
#: Our two addresses, as a client names them.
OURS = (("10.0.0.1", PORT), ("fd00::1", PORT))
#: Small memory and rings: opening takes milliseconds.
SMALL: dict[str, Any] = {"frames": 2048, "rx_ring": 256, "tx_ring": 256}


def devices_of(stack: Stack) -> KernelBackend:
    """The devices of a stack that is not in memory."""
    assert isinstance(stack._backend, KernelBackend)
    return stack._backend


def opened(*ends: End, **options: Any) -> Stack:
    """A stack over devices of one namespace."""
    return xdpstack.open(*(end.name for end in ends), netns=ends[0].netns.name, **{**SMALL, **options})


def kernel_udp(netns: Namespace, address: tuple[Any, ...] | None = None, to: tuple[Any, ...] | None = None) -> Any:
    """An ordinary UDP socket in a namespace, bound to `address`, connected to `to`; calls wait for at most PATIENCE."""
    host = str((address or to or ("0.0.0.0",))[0])
    made = netns.call(lambda: socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    made.settimeout(PATIENCE)
    if address is not None:
        made.bind(address)
    if to is not None:
        made.connect(to)
    return made


def echo_once(sock: UdpSocket) -> tuple[bytes, Any]:
    """Answers one datagram with itself; what it was, and whose."""
    data, address = sock.recvfrom(65535)
    assert sock.sendto(data, address) == len(data)
    return data, address


def exchange(sock: UdpSocket, client: socket.socket, data: bytes) -> None:
    """`client`, which is connected to us, gets `data` back."""
    client.send(data)
    got, _ = echo_once(sock)
    assert got == data
    assert client.recv(65535) == data
