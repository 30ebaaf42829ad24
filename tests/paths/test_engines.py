"""Layers run from their plain Python definitions, for clients that know nothing of it: real devices, a real kernel."""

from __future__ import annotations

import errno
import select
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from tests.paths.world import FAR, NEAR, OURS, PORT, MakeVeth, echo_once, exchange, kernel_udp, opened
from xdpstack.errors import SendBatchError
from xdpstack.stack import Stack
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, until
from xdpstack.udp.socket import UdpSocket

pytestmark = pytest.mark.root
BOTH = {"routing": "python", "udp": "python"}


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    return veth(near=NEAR, far=FAR)


@pytest.fixture
def stack(pair: Veth) -> Iterator[Stack]:
    with opened(pair.near, engines=BOTH) as stack:
        yield stack


def test_echo(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    """Small and large, both families: what is larger than the MTU comes, and goes, through the kernel socket."""
    assert stack.info()["engines"] == BOTH
    with stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        for ours in OURS:
            with kernel_udp(pair.far.netns, to=ours) as client:
                for size in (0, 1, 1400, 1473, 20_000, 7):
                    exchange(sock, client, bytes(size))
        counters = stack.counters()
        assert counters["udp.rx.slow"] == 4
        assert sock.stats()["slow_sent"] == 4
        for row in ("routing.rx", "udp.rx"):
            assert counters[f"{row}.packets"] == 8
        assert counters["routing.tx.packets"] >= counters["udp.tx.packets"] >= 8
        ledger.check()


def test_what_cannot_be_sent_is_told(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    pair.near.netns.ip("route add unreachable 192.0.2.0/24")
    pair.near.netns.ip("route add prohibit 198.51.100.0/24")
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, ("10.0.0.2", 4000)) as far:

        def refused(host: str) -> int | None:
            with pytest.raises(OSError, match=r".") as raised:
                sock.sendto(b"x", (host, 9))
            return raised.value.errno

        for host, number in (
            ("192.0.2.1", errno.EHOSTUNREACH),
            ("198.51.100.1", errno.EACCES),
            ("8.8.8.8", errno.ENETUNREACH),
        ):
            until(partial(lambda host, number: refused(host) == number, host, number))  # the table follows the routes
        to = [("10.0.0.2", 4000), ("192.0.2.1", 9), ("10.0.0.2", 4000)]
        with pytest.raises(SendBatchError) as caught:
            sock.send_batch([b"1", b"2", bytes(3000)], to)
        assert caught.value.errors == {1: errno.EHOSTUNREACH}
        assert {far.recv(65535), far.recv(65535)} == {b"1", bytes(3000)}
        ledger.check()


def test_what_waits_for_a_neighbour_goes_though_nobody_drives(pair: Veth, stack: Stack) -> None:
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, ("10.0.0.2", 4000)) as far:
        assert sock.sendto(b"the first ever", ("10.0.0.2", 4000)) == 14
        assert far.recv(99) == b"the first ever"


def test_an_event_loop_is_told_of_each_datagram(pair: Veth, stack: Stack) -> None:
    with stack.udp(("::", PORT)) as sock, closing(select.epoll()) as epoll:
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)
        for ours in OURS:
            with kernel_udp(pair.far.netns, to=ours) as client:
                for number in range(20):
                    client.send(bytes([number]))

                    def echoed() -> bool:
                        assert epoll.poll(PATIENCE)
                        try:
                            return bool(echo_once(sock))
                        except BlockingIOError:
                            return False

                    until(echoed)
                    assert client.recv(9) == bytes([number])


def test_threads(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    """One drives, two serve, two clients ask: nothing is lost or answered twice."""
    answered: list[int] = []
    with stack.udp(("::", PORT)) as sock, stack.udp(("::", PORT + 1)) as other:
        stop = threading.Event()

        def serve(one: UdpSocket) -> None:
            one.settimeout(0.2)
            while not stop.is_set():
                try:
                    echo_once(one)
                except TimeoutError:
                    continue

        threads = [threading.Thread(target=serve, args=(one,)) for one in (sock, other)]
        threads.append(threading.Thread(target=stack.run))
        for thread in threads:
            thread.start()
        try:
            for port, (host, _) in ((PORT, OURS[0]), (PORT + 1, OURS[1])):
                with kernel_udp(pair.far.netns, to=(host, port)) as client:
                    for number in range(100):
                        client.send(number.to_bytes(2))
                        answered.append(int.from_bytes(client.recv(9)))
        finally:
            stop.set()
            stack.stop()
            for thread in threads:
                thread.join(PATIENCE)
        assert answered == [*range(100)] * 2
        ledger.check()
