"""An unmodified kernel client talks to a socket of ours over a real veth pair; what is not ours stays with the kernel."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

import xdpstack
from tests.paths.world import FAR, NEAR, OURS, PORT, MakeNetns, MakeVeth, echo_once, exchange, kernel_udp, opened
from xdpstack.errors import AddressInUse, AddressNotAvailable, ClosedError
from xdpstack.stack import Stack
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, until
from xdpstack.udp.socket import UdpSocket

pytestmark = pytest.mark.root


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    return veth(near=NEAR, far=FAR)


@pytest.fixture
def stack(pair: Veth) -> Iterator[Stack]:
    with opened(pair.near) as stack:
        yield stack


def serving(stack: Stack, address: tuple[str, int] = ("::", PORT), **options: bool) -> UdpSocket:
    """A socket; the default is for both families and every address of ours."""
    sock = stack.udp(address, **options)
    sock.settimeout(PATIENCE)
    return sock


def is_quiet(sock: UdpSocket, epoll: select.epoll) -> bool:
    """Nothing to receive, and no descriptor says otherwise. What wakes a worker makes it readable now and then."""
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    return epoll.poll(0) == []


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("to", OURS)
def test_datagrams_come_and_go_by_af_xdp(pair: Veth, mode: str, to: tuple[str, int], ledger: Ledger) -> None:
    with opened(pair.near, mode=mode) as stack, stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        largest = 1500 - (48 if ":" in to[0] else 28)
        with kernel_udp(pair.far.netns, to=to) as client:
            for size in (0, 1, 17, 18, 64, 512, largest):
                exchange(sock, client, os.urandom(size))
            ledger.check()
        assert (stack.ledger().delivered, stack.ledger().dropped) == (7, 0)
        assert stack.counters()["xdp.rx.redirect_socket"] == 7
        assert sock.stats()["slow_sent"] == 0
        assert stack.reasons() == {}


@pytest.mark.parametrize("to", OURS)
def test_a_fragmented_datagram_comes_through_the_same_object(pair: Veth, stack: Stack, to: tuple[str, int]) -> None:
    with serving(stack) as sock:
        with kernel_udp(pair.far.netns, to=to) as client:
            exchange(sock, client, os.urandom(30_000))
            client.send(bytes(9000))
            with sock.recv_batch() as batch:
                assert [batch.slow[0], batch.devices[0], batch.lengths[0]] == [True, 255, 9000]
            exchange(sock, client, b"and small ones still come by AF_XDP")
        assert sock.stats()["slow_sent"] == 1


@pytest.mark.parametrize("to", OURS)
def test_a_client_on_the_same_host_is_answered(pair: Veth, stack: Stack, to: tuple[str, int]) -> None:
    with serving(stack) as sock:
        with kernel_udp(pair.near.netns, to=to) as client:
            for size in (0, 100, 30_000):
                exchange(sock, client, os.urandom(size))
        assert "xdp.rx.redirect_socket" not in stack.counters()


def test_both_families_and_many_clients_at_once(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    with serving(stack) as sock:
        clients = [kernel_udp(pair.far.netns, to=OURS[i % 2]) for i in range(16)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        for _ in clients:
            echo_once(sock)
        assert [client.recv(9) for client in clients] == [b"%d" % i for i in range(16)]
        for client in clients:
            client.close()
        ledger.check()


def test_an_answer_has_the_address_that_was_asked(netns: MakeNetns, veth: MakeVeth) -> None:
    """Of several addresses of ours, the client's connected socket takes an answer only from the one it sent to."""
    pair = veth(near=("10.0.0.1/24", "10.0.0.9/24", "fd00::1/64", "fd00::9/64"), far=FAR)
    with opened(pair.near) as stack:
        for address in ("10.0.0.1", "10.0.0.9", "fd00::1", "fd00::9"):
            with stack.udp((address, PORT)) as sock, kernel_udp(pair.far.netns, to=(address, PORT)) as client:
                sock.settimeout(PATIENCE)
                exchange(sock, client, b"who are you?")


@pytest.mark.parametrize("ours", OURS)
def test_a_connected_socket_hears_its_peer_alone(pair: Veth, stack: Stack, ours: tuple[str, int]) -> None:
    theirs = "fd00::2" if ":" in ours[0] else "10.0.0.2"
    far = pair.far.netns
    with stack.udp(ours) as sock, kernel_udp(far, (theirs, 4000)) as friend, kernel_udp(far, (theirs, 4001)) as other:
        sock.settimeout(PATIENCE)
        sock.connect((theirs, 4000))
        assert sock.getpeername()[:2] == (theirs, 4000)
        assert sock.send(b"hello") == 5
        assert friend.recvfrom(9)[0] == b"hello"
        other.sendto(b"not me", ours)
        friend.sendto(b"hello yourself", ours)
        assert sock.recv(99) == b"hello yourself"
        assert stack.reasons() == {"NO_SOCKET": 1}


@pytest.mark.parametrize("ours", OURS)
def test_the_peers_port_unreachable_reaches_the_program(pair: Veth, stack: Stack, ours: tuple[str, int]) -> None:
    """The datagram leaves by AF_XDP; the ICMP message comes to the kernel, and through the shadow socket to us."""
    theirs = "fd00::2" if ":" in ours[0] else "10.0.0.2"
    with stack.udp(ours) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((theirs, 9))
        sock.send(b"is there anybody?")
        assert sock.stats()["slow_sent"] == 0
        with pytest.raises(ConnectionRefusedError):
            sock.recv(99)
        [error] = sock.errors
        assert (error.error, error.origin[:4], error.offender) == (errno.ECONNREFUSED, "icmp", theirs)
        assert error.destination[:2] == (theirs, 9)


def test_an_unconnected_socket_finds_it_in_errors(pair: Veth, stack: Stack) -> None:
    with stack.udp(("10.0.0.1", PORT)) as sock:
        sock.setblocking(False)
        sock.sendto(b"is there anybody?", ("10.0.0.2", 9))

        def told() -> bool:
            with pytest.raises(BlockingIOError):
                sock.recv(9)
            return bool(sock.errors)

        until(told)
        assert sock.errors[0].destination == ("10.0.0.2", 9)


def test_ping_and_tcp_stay_with_the_kernel(pair: Veth, stack: Stack) -> None:
    with serving(stack) as sock:
        for address in ("10.0.0.1", "fd00::1"):
            assert "3 received" in pair.far.netns.run("ping", "-c", "3", "-i", "0.01", "-W", "5", address)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = pair.near.netns.call(lambda f=family: socket.create_server(("", PORT), family=f))
            client = pair.far.netns.call(lambda a=address: socket.create_connection((a, PORT), PATIENCE))
            with server, client, closing(server.accept()[0]) as connection:
                connection.settimeout(PATIENCE)
                client.sendall(b"x" * 10_000)
                got = b""
                while len(got) < 10_000:
                    got += connection.recv(65536)
            with kernel_udp(pair.far.netns, to=(address, PORT)) as kernel_client:
                exchange(sock, kernel_client, b"and UDP with us")
        assert stack.ledger().received == stack.ledger().delivered == 2


def test_an_address_that_the_device_has_not(stack: Stack) -> None:
    for host, those in (("10.0.0.77", "10.0.0.1"), ("fd00::77", "fd00::1")):
        with pytest.raises(AddressNotAvailable) as caught:
            stack.udp((host, PORT))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        assert host in caught.value.message
        assert those in caught.value.cause
        with pytest.raises(AddressNotAvailable):
            stack.udp((host, PORT), reserve=False)
    assert stack._sockets.sockets == ()


def test_a_port_that_is_taken(pair: Veth, stack: Stack) -> None:
    with serving(stack) as sock:
        with pytest.raises(AddressInUse):
            stack.udp(("10.0.0.1", PORT))
        with kernel_udp(pair.near.netns, ("10.0.0.1", 7778)), pytest.raises(AddressInUse) as caught:
            stack.udp(("10.0.0.1", 7778))
        assert caught.value.errno == errno.EADDRINUSE
        with kernel_udp(pair.near.netns) as rival, pytest.raises(OSError, match="in use"):
            rival.bind(("10.0.0.1", PORT))
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            exchange(sock, client, b"the failures changed nothing")


def test_a_namespace_that_is_not_there(pair: Veth) -> None:
    with pytest.raises((xdpstack.XdpstackError, OSError), match="nowhere"):
        xdpstack.open(pair.near.name, netns="nowhere")


def test_epoll(pair: Veth, stack: Stack) -> None:
    with serving(stack) as sock:
        sock.setblocking(False)
        with closing(select.epoll()) as epoll, kernel_udp(pair.far.netns, to=OURS[0]) as client:
            epoll.register(sock.fileno(), select.EPOLLIN)
            until(lambda: is_quiet(sock, epoll))
            for size in (1, 20_000, 2):
                client.send(bytes(size))
                got: list[bytes] = []

                def taken(got: list[bytes] = got) -> bool:
                    assert epoll.poll(PATIENCE) == [(sock.fileno(), select.EPOLLIN)]
                    try:
                        got.append(sock.recv(65535))
                    except BlockingIOError:  # it may be spurious
                        return False
                    return True

                until(taken)
                assert len(got[0]) == size
            until(lambda: is_quiet(sock, epoll))


def test_another_thread_drives(pair: Veth, stack: Stack) -> None:
    with serving(stack) as sock:
        driver = threading.Thread(target=stack.run)
        driver.start()
        try:
            until(lambda: stack.driven)
            with kernel_udp(pair.far.netns, to=OURS[1]) as client:
                for size in (1, 1000, 20_000):
                    exchange(sock, client, bytes(size))
        finally:
            stack.stop()
            driver.join(PATIENCE)
        assert not driver.is_alive()


def test_batches_and_their_columns(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    import numpy

    far = pair.far.netns
    with serving(stack) as sock, kernel_udp(far, to=OURS[0]) as client, kernel_udp(far, to=OURS[1]) as client6:
        for number in range(40):
            (client, client6)[number % 2].send(bytes([number]) * (number + 1))
        seen: list[int] = []
        while len(seen) < 40:
            with sock.recv_batch(32) as batch:
                lengths, ports = numpy.asarray(batch.lengths), numpy.asarray(batch.source_ports)
                sources = numpy.asarray(batch.sources)
                assert (lengths.dtype, ports.dtype, sources.shape) == (numpy.uint32, numpy.uint16, (len(batch), 16))
                assert not numpy.asarray(batch.slow).any()
                for i, (data, address) in enumerate(batch):
                    number = data[0]
                    assert data == bytes([number]) * (number + 1) == bytes(batch.view(i))
                    assert lengths[i] == number + 1
                    assert ports[i] == (client, client6)[number % 2].getsockname()[1] == address[1]
                    host = ("::ffff:10.0.0.2", "fd00::2")[number % 2]
                    assert bytes(sources[i]) == socket.inet_pton(socket.AF_INET6, host)
                    seen.append(number)
                assert sock.send_batch(batch.views(), batch) == len(batch)
            ledger.check()
        assert sorted(seen) == list(range(40))
        for number in range(40):
            assert (client, client6)[number % 2].recv(99) == bytes([number]) * (number + 1)


def test_views_outlive_release_socket_and_stack(pair: Veth) -> None:
    import numpy

    stack = opened(pair.near)
    sock = stack.udp(OURS[0])
    sock.settimeout(PATIENCE)
    with kernel_udp(pair.far.netns, to=OURS[0]) as client:
        client.send(b"still here")
    batch = sock.recv_batch()
    view, lengths = batch.view(0), numpy.asarray(batch.lengths)
    array = numpy.frombuffer(batch.view(0), dtype=numpy.uint8)
    batch.release()
    with pytest.raises(ClosedError):
        batch.view(0)
    assert stack.frames_by_owner()["lent"] == 1
    sock.close()
    stack.close()
    assert bytes(view) == bytes(array) == b"still here"
    assert lengths.tolist() == [10]
    assert stack.frames_by_owner()["lent"] == 1
    del view
    assert stack.frames_by_owner()["lent"] == 1
    del array
    assert stack.frames_by_owner()["lent"] == 0
    for call in (lambda: sock.recv(1), lambda: sock.sendto(b"", OURS[0]), stack.poll):
        with pytest.raises(ClosedError):
            call()


@pytest.mark.parametrize("ours", OURS)
def test_what_waits_for_a_neighbour_goes_though_nobody_drives(pair: Veth, stack: Stack, ours: tuple[str, int]) -> None:
    """A program may send, and then do something else; nothing but the control thread is there to send it."""
    theirs = ("fd00::2" if ":" in ours[0] else "10.0.0.2", 4000)
    with stack.udp(ours) as sock, kernel_udp(pair.far.netns, theirs) as far:
        assert sock.sendto(b"the first ever", theirs) == 14
        assert far.recvfrom(99)[0] == b"the first ever"
        assert stack.counters()["neigh.tx.held"] == 1


def test_what_no_neighbour_answers_for_is_dropped_though_nobody_drives(pair: Veth, stack: Stack) -> None:
    with stack.udp(OURS[0]) as sock:
        sock.sendto(b"nobody", ("10.0.0.99", 4000))
        assert stack.ledger().held == 1
        until(lambda: stack.reasons() == {"NEIGH_FAILED": 1})
        assert stack.ledger().held == 0


def test_closing_returns_the_port_and_the_traffic(pair: Veth, stack: Stack) -> None:
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        sock.settimeout(PATIENCE)
        exchange(sock, client, b"ours")
    with kernel_udp(pair.near.netns, OURS[0]) as kernel, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        client.send(b"the kernel's")
        assert kernel.recv(99) == b"the kernel's"
