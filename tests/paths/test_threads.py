"""Worker threads over a real veth pair of two queues: kernel clients are served, whatever happens to the link meanwhile."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.paths.world import FAR, NEAR, OURS, PORT, MakeVeth, exchange, kernel_udp, opened
from xdpstack.errors import ClosedError
from xdpstack.stack import Stack
from xdpstack.testing.ledger import check_open
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, until
from xdpstack.udp.socket import UdpSocket

pytestmark = pytest.mark.root


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    return veth(near=NEAR, far=FAR, queues=2)


@pytest.fixture
def stack(pair: Veth) -> Iterator[Stack]:
    with opened(pair.near, workers=2) as stack:
        yield stack


@contextmanager
def echoing(sock: UdpSocket) -> Iterator[None]:
    """A thread that answers until the socket is closed, which it is in the end."""

    def serve() -> None:
        try:
            while True:
                data, peer = sock.recvfrom(65535)
                sock.sendto(data, peer)
        except ClosedError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        sock.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("to", OURS)
def test_many_clients_over_both_queues(pair: Veth, stack: Stack, to: tuple[str, int]) -> None:
    sock = stack.udp(("::", PORT))
    with echoing(sock), ExitStack() as clients:
        for size in (0, 18, 512, 1400, 20_000):
            for _ in range(8):
                client = clients.enter_context(kernel_udp(pair.far.netns, to=to))
                data = os.urandom(size)
                client.send(data)
                assert client.recv(65535) == data
    counters = stack.counters()
    lifted = {name: n for name, n in counters.items() if name.startswith(pair.near.name) and "rx" in name}
    assert counters["udp.rx.packets"] == 4 * 8, lifted
    assert stack.reasons() == {}


def test_an_event_loop_is_woken_for_datagrams_alone(pair: Veth, stack: Stack) -> None:
    with stack.udp(("::", PORT)) as sock, kernel_udp(pair.far.netns, to=OURS[0]) as client, select.epoll() as epoll:
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)
        for size in (1, 500, 3000):  # the last comes by the kernel socket
            assert epoll.poll(0.01) == []
            client.send(bytes(size))
            assert len(epoll.poll(PATIENCE)) == 1
            assert len(sock.recv(65535)) == size
            with pytest.raises(BlockingIOError):
                sock.recv(1)


def test_the_link_goes_and_comes_back(pair: Veth, stack: Stack) -> None:
    with echoing(stack.udp(("::", PORT))), kernel_udp(pair.far.netns, to=OURS[0]) as client:
        client.settimeout(0.2)

        def answered() -> bool:
            try:
                client.send(b"?")
                return client.recv(9) == b"?"
            except OSError:
                return False

        for _ in range(3):
            until(answered)
            pair.near.netns.run("ip", "link", "set", pair.near.name, "down")
            until(lambda: any(event.what == "down" for event in stack.events()))
            pair.near.netns.run("ip", "link", "set", pair.near.name, "up")
            until(lambda: any(event.what == "up" for event in stack.events()))
        until(answered)
    stack._driving.end()
    check_open(stack._core)


def test_hooks_see_packets_of_both_workers(pair: Veth, stack: Stack) -> None:
    queues: set[int] = set()
    stack.hook("netfilter.input", lambda batch: queues.update(packet.queue for packet in batch), name="look")
    with stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        for _ in range(64):
            with kernel_udp(pair.far.netns, to=OURS[0]) as client:
                exchange(sock, client, b"x")
            if len(queues) == 2:
                break
    assert queues == {0, 1}


def test_one_queue_serves_senders_of_all_workers(veth: MakeVeth) -> None:
    """The socket of a worker that has no queue sends by the one that has."""
    pair = veth(near=NEAR, far=FAR)
    with opened(pair.near, workers=3) as stack, ExitStack() as clients:
        socks = [stack.udp(("::", port)) for port in (PORT, PORT + 1, PORT + 2)]
        for sock, port in zip(socks, (PORT, PORT + 1, PORT + 2), strict=True):
            clients.enter_context(echoing(sock))
            client = clients.enter_context(kernel_udp(pair.far.netns, to=("10.0.0.1", port)))
            for size in (1, 1000):
                client.send(bytes(size))
                assert len(client.recv(2000)) == size
        assert stack.counters()["napi.tx.handed_over"] == 4


@pytest.mark.parametrize("flows", [0, 1024])
def test_one_queue_is_spread_over_the_workers(veth: MakeVeth, flows: int) -> None:
    """RPS, and RFS: clients of many ports, whose datagrams all come by one queue, are answered, each in order."""
    pair = veth(near=NEAR, far=FAR)
    cpus = sorted(os.sched_getaffinity(0))
    with opened(pair.near, workers=2, cpus=[cpus[0], cpus[-1]]) as stack, ExitStack() as clients:
        stack.rps(flows=flows)
        clients.enter_context(echoing(stack.udp(("::", PORT))))
        made = [clients.enter_context(kernel_udp(pair.far.netns, to=OURS[n % 2])) for n in range(16)]
        for round_ in range(20):
            for n, client in enumerate(made):
                for number in range(4):
                    client.send(bytes([round_, n, number]))
            for n, client in enumerate(made):
                assert [client.recv(9) for _ in range(4)] == [bytes([round_, n, number]) for number in range(4)]
        counters = stack.counters()
        assert 0 < counters["rps.rx.steered"] < counters["udp.rx.packets"] == 16 * 4 * 20
        assert stack.reasons() == {}
