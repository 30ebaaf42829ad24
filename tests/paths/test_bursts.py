"""While many frames are sent the socket is not in what its worker sleeps on; what comes wakes it all the same."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.paths.world import FAR, NEAR, OURS, PORT, devices_of, kernel_udp, opened
from xdpstack.native import lib
from xdpstack.stack import Stack
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, until
from xdpstack.udp.socket import UdpSocket

pytestmark = pytest.mark.root
#: To nobody that the far end is.
FRAME = bytes.fromhex("020000000001 020000000099 88b5") + bytes(46)
BURST = 256


@pytest.fixture
def pair(veth: Callable[..., Veth]) -> Veth:
    return veth(near=NEAR, far=FAR)


@pytest.fixture
def stack(pair: Veth) -> Iterator[Stack]:
    with opened(pair.near) as made:
        yield made


def watching(stack: Stack) -> int:
    """In how many epoll instances of this process the AF_XDP socket is."""
    [xsk] = devices_of(stack).interfaces[0].sockets
    count = 0
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except OSError:  # it has gone
            continue
        count += sum(line.split()[:2] == ["tfd:", str(lib.xs_xsk_fd(xsk.pointer))] for line in lines)
    return count


def test_what_comes_after_a_burst_wakes_a_sleeper(pair: Veth, stack: Stack) -> None:
    with stack.frames() as frames, stack.udp(("::", PORT)) as sock, closing(select.epoll()) as epoll:
        epoll.register(sock.fileno(), select.EPOLLIN)
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            for number in range(20):
                assert frames.send_packed(FRAME, [len(FRAME)], times=BURST) == BURST
                assert watching(stack) == 1
                client.send(bytes([number]))
                assert received(sock, epoll) == bytes([number])
    until(lambda: stack.ledger().sent >= 20 * BURST)
    assert sum(n for name, n in stack.counters().items() if name.endswith(".kicks")) <= 20 * BURST / 32


def test_what_comes_during_bursts_wakes_a_sleeper(pair: Veth, stack: Stack) -> None:
    over = threading.Event()

    def flood() -> None:
        with stack.frames() as frames:
            while not over.is_set():
                frames.send_packed(FRAME, [len(FRAME)], times=BURST)

    thread = threading.Thread(target=flood)
    with stack.udp(("::", PORT)) as sock, closing(select.epoll()) as epoll:
        epoll.register(sock.fileno(), select.EPOLLIN)
        thread.start()
        try:
            with kernel_udp(pair.far.netns, to=OURS[0]) as client:
                for number in range(200):
                    client.send(bytes([number]))
                    assert received(sock, epoll) == bytes([number])
        finally:
            over.set()
            thread.join(PATIENCE)
    assert not thread.is_alive()
    assert watching(stack) == 1


def received(sock: UdpSocket, epoll: select.epoll) -> bytes:
    """The next datagram; who waits is asleep until the descriptor says that it is there."""
    sock.setblocking(False)
    while True:
        assert epoll.poll(PATIENCE), "nobody was woken"
        try:
            return sock.recv(2000)
        except BlockingIOError:  # it may be spurious
            continue
