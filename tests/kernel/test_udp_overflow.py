"""SO_RXQ_OVFL, and what a slow reader loses: a kernel socket and one of ours get the same datagrams."""

from __future__ import annotations

import random
import socket
import struct

import pytest

from tests.kernel.udp_lab import RECEIVER, SENDER, Lab, inside
from tests.udp.by_hand_host import ByHandHost
from tests.udp.datagrams import HERE, datagram, packed
from tests.udp.test_overflow import ONLY_Y
from xdpstack.native import lib
from xdpstack.testing.wait import until
from xdpstack.udp import bpf, shadow
from xdpstack.udp.options import SO_RXQ_OVFL
from xdpstack.udp.socket import UdpSocket

pytestmark = pytest.mark.root

TO = ("10.0.0.1", 7)


def kernel_socket(where: str) -> socket.socket:
    with inside(where):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def told(sock: socket.socket) -> int:
    """Receive one, and what its control message says; 0: there is none (sock_recv_drops)."""
    _, ancillary, _, _ = sock.recvmsg(1, 64)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_RXQ_OVFL):
            return int(struct.unpack("=I", data)[0])
    return 0


@pytest.mark.parametrize("seed", range(4))
def test_linux_tells_the_same(lab: Lab, seed: int) -> None:
    """Bursts with some that the filter refuses, and readers that take some of what has come."""
    dice = random.Random(seed)
    host = ByHandHost([packed(HERE)[12:]])
    ours = host.udp.open((HERE, 7))
    with kernel_socket(RECEIVER) as linux, kernel_socket(SENDER) as client:
        linux.bind(TO)
        program = [bpf.Instruction(*one) for one in ONLY_Y]
        shadow.attach_filter(linux, program)
        ours.attach_filter(ONLY_Y)
        for sock in (linux, ours):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 3000)
            sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        refused = 0
        for _ in range(30):
            burst = [dice.choice([b"yes", b"yes", b"no"]) for _ in range(dice.randrange(12))]
            for payload in burst:
                client.sendto(payload, TO)
                host.arrive(datagram(payload))
            for _ in range(dice.randrange(8)):
                try:
                    said = told(linux)
                except BlockingIOError:
                    with pytest.raises(BlockingIOError):
                        ours.recv(1)
                    break
                with ours.recv_batch(1) as batch:
                    assert batch.drops.tolist() == [said]
                refused = said
        assert refused > 0
    host.udp.close()


def test_what_the_kernel_socket_refuses_is_told_too(lab: Lab) -> None:
    """What comes by the kernel waits in the shadow's buffer first, and may find that full."""

    def kernel(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        with inside(RECEIVER):
            return socket.socket(family, kind)

    host = ByHandHost([socket.inet_aton("10.0.0.1")], kernel)
    sock = host.udp.open(TO)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2500)
    sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL) == 1
    sock.settimeout(5)
    with kernel_socket(SENDER) as client:
        for _ in range(20):
            client.sendto(b"x", TO)
        poll_until_queued(host, sock, 6)
        with sock.recv_batch() as batch:
            assert (len(batch), any(batch.drops), all(batch.slow)) == (6, False, True)
        client.sendto(b"x", TO)
        with sock.recv_batch() as batch:
            assert batch.drops.tolist() == [14]
    assert (sock.stats()["drops"], sock.stats()["drops_kernel"]) == (14, 14)
    host.udp.close()


def poll_until_queued(host: ByHandHost, sock: UdpSocket, n: int) -> None:
    def queued() -> bool:
        lib.xs_worker_poll(host.rx.worker, 64)
        return sock.stats()["queued"] == n

    until(queued)
