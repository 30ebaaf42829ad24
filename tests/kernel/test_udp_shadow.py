"""Shadow sockets against the real kernel: everything here comes and goes by the kernel, none of it by AF_XDP."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.udp_lab import RECEIVER, SENDER, Lab, inside
from tests.udp.by_hand_host import ByHandHost
from tests.udp.datagrams import datagram
from xdpstack.errors import AddressInUse, AddressNotAvailable
from xdpstack.native import ffi, lib
from xdpstack.udp.address import Address
from xdpstack.udp.semantics import truesize
from xdpstack.udp.socket import UdpSocket

pytestmark = pytest.mark.root

V4, V6 = ("10.0.0.1", 7), ("fd00::1", 7, 0, 0)


@pytest.fixture
def host(lab: Lab) -> Iterator[ByHandHost]:
    def kernel(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        with inside(RECEIVER):
            return socket.socket(family, kind)

    host = ByHandHost([socket.inet_aton("10.0.0.1")], kernel)
    yield host
    host.udp.close()
    gc.collect()
    host.rx.walk([])
    assert host.core.ledger().missing == 0
    assert host.core.frame_counts()["free"] == host.core.frames


def kernel_client(where: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    with inside(where):
        client = socket.socket(family, socket.SOCK_DGRAM)
    client.settimeout(5)
    return client


def opened(host: ByHandHost, address: Address, *, recverr: bool = False) -> UdpSocket:
    sock = host.udp.open(address, recverr=recverr)
    sock.settimeout(5)
    return sock


@pytest.mark.parametrize("where", [SENDER, RECEIVER])
@pytest.mark.parametrize("size", [0, 1, 1472, 1473, 30000, 65507])
@pytest.mark.parametrize("to", [V4, V6])
def test_what_the_kernel_receives_is_received(host: ByHandHost, where: str, size: int, to: tuple[object, ...]) -> None:
    """From the other side and from the same host, fragmented or not: the same bytes, through the same object."""
    sock = opened(host, to)
    payload = os.urandom(size)
    with kernel_client(where, sock.family) as client:
        client.sendto(payload, to)
        got, address = sock.recvfrom(65536)
        assert got == payload
        assert address[1] == client.getsockname()[1]
        # and back: what does not fit a frame is sent by the kernel, with the kernel's source
        answer = os.urandom(2000)
        assert sock.sendto(answer, address) == 2000
        back, source = client.recvfrom(65536)
        assert (back == answer, source[:2]) == (True, to[:2])
    assert sock.stats()["slow_sent"] == 1


def test_slow_datagrams_are_marked_and_charged(host: ByHandHost) -> None:
    sock = opened(host, V4)
    with kernel_client(SENDER) as client:
        client.sendto(bytes(5000), V4)
        with sock.recv_batch() as batch:
            assert batch.slow.tolist() == [True]
            assert batch.devices.tolist() == [255]
            assert batch.payload(0) == bytes(5000)
            assert bytes(batch.view(0)) == bytes(5000)
        client.sendto(bytes(5000), V4)
        select.select([sock], [], [], 5)
        host.core.ledger()
        lib.xs_worker_poll(host.rx.worker, 64)
        assert sock.stats()["rmem"] == truesize(5000, 4, slow=True)


def test_a_wildcard_socket_knows_where_it_was_sent_to(host: ByHandHost) -> None:
    sock = opened(host, ("::", 7))
    for to, seen in ((("10.0.0.2", 7), "::ffff:10.0.0.2"), (("fd00::2", 7), "fd00::2")):
        family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
        with kernel_client(RECEIVER, family) as client:
            client.sendto(b"x", to)
            with sock.recv_batch() as batch:
                assert bytes(batch.destinations)[:16] == socket.inet_pton(socket.AF_INET6, seen)


def test_the_port_is_reserved(host: ByHandHost) -> None:
    sock = opened(host, V4)
    with kernel_client(RECEIVER) as rival, pytest.raises(OSError, match="in use"):
        rival.bind(V4)
    with pytest.raises(AddressInUse, match=r"ss -ulpn"):
        host.udp.open(V4)
    with pytest.raises(AddressInUse):
        host.udp.open(("", 7))
    with pytest.raises(AddressNotAvailable, match=r"10\.0\.0\.1"):
        host.udp.open(("10.77.0.1", 7))
    with kernel_client(RECEIVER) as rival:
        rival.bind(("10.0.0.1", 0))
        with pytest.raises(AddressInUse):
            host.udp.open(rival.getsockname())
    sock.close()
    with kernel_client(RECEIVER) as rival:
        rival.bind(V4)


def test_without_reserve_the_port_is_free(host: ByHandHost) -> None:
    sock = host.udp.open(V4, reserve=False)
    assert not sock.reserved
    with kernel_client(RECEIVER) as rival:
        rival.bind(V4)


def test_port_0_is_the_kernels_choice(host: ByHandHost) -> None:
    one, two = opened(host, ("10.0.0.1", 0)), opened(host, ("10.0.0.1", 0))
    assert 0 not in (one.getsockname()[1], two.getsockname()[1])
    assert one.getsockname() != two.getsockname()


def test_options_are_the_kernels(host: ByHandHost) -> None:
    sock = opened(host, V4)
    assert sock._endpoint.shadow is not None
    for level, name, value, held in (
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 5000, 10000),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 1, 2304),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, 9000, 18000),
        (socket.IPPROTO_IP, socket.IP_TTL, 9, 9),
    ):
        sock.setsockopt(level, name, value)
        assert sock.getsockopt(level, name) == sock._endpoint.shadow.getsockopt(level, name) == held
    assert sock.stats()["rcvbuf"] == 2304
    with pytest.raises(OSError, match="Invalid argument"):
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 256)


def test_the_send_buffer_bounds_a_datagram(host: ByHandHost) -> None:
    sock = opened(host, V4)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2304)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        sock.sendto(bytes(65000), ("10.0.0.8", 9))
    assert caught.value.errno == errno.ENOBUFS
    with pytest.raises(OSError) as caught:  # noqa: PT011
        sock.sendto(bytes(65508), ("10.0.0.8", 9))
    assert caught.value.errno == errno.EMSGSIZE


def test_a_full_receive_buffer_drops_with_its_reason(host: ByHandHost) -> None:
    sock = opened(host, V4)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2500)
    with kernel_client(SENDER) as client:
        for _ in range(20):
            client.sendto(b"x", V4)
            lib.xs_worker_poll(host.rx.worker, 64)
        poll_until(host, lambda: sock.stats()["datagrams"] + sock.stats()["drops"] == 20)
    assert sock.stats()["datagrams"] == 5000 // truesize(1, 4)
    reason = [i for i in range(64) if lib.xs_node_drops(host.rx.worker, host.rx.node, i)]
    assert len(reason) == 1


def poll_until(host: ByHandHost, condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        lib.xs_worker_poll(host.rx.worker, 64)
        select.select([], [], [], 0.01)
    raise AssertionError("it never came to be")


def test_a_waiting_reader_is_woken_by_the_kernel(host: ByHandHost) -> None:
    sock = opened(host, V4)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(sock.recv(9)))
    reader.start()
    with kernel_client(SENDER) as client:
        client.sendto(b"wake up", V4)
        reader.join(5)
    assert got == [b"wake up"]


def test_fileno_wakes_for_what_the_kernel_has(host: ByHandHost) -> None:
    sock = opened(host, V4)
    sock.setblocking(False)
    assert not select.select([sock], [], [], 0)[0]
    with kernel_client(SENDER) as client:
        client.sendto(b"x", V4)
        assert select.select([sock], [], [], 5)[0]
        assert sock.recv(9) == b"x"
        with pytest.raises(BlockingIOError):
            sock.recv(9)
        assert not select.select([sock], [], [], 0)[0]


def test_steady_traffic_does_not_starve_the_shadow(host: ByHandHost) -> None:
    """A worker that is never idle looks at its shadows after a millisecond, by the clock."""
    sock = opened(host, V4)
    stack, worker = host.core.pointer, host.rx.worker
    lifted = host.rx.put(datagram(b"lifted"))
    saved = ffi.new("struct xs_pkt *", host.core.packets[lifted])

    def tick(now_ns: int) -> None:
        """One poll in which a datagram is lifted (and its checksum found wrong, so that it goes no further)."""
        lib.xs_stack_set_now(stack, now_ns)
        frame = host.rx.take(1)[0]
        host.core.packets[frame] = saved[0]
        host.rx.walk([frame])

    host.core.umem[lifted * host.core.frame_bytes + saved.l4_off + 8] ^= 1
    tick(5_000_000_000)
    with kernel_client(SENDER) as client:
        client.sendto(b"slow", V4)
        assert sock._endpoint.shadow is not None
        assert select.select([sock._endpoint.shadow], [], [], 5)[0]
        tick(5_000_900_000)
        assert sock.stats()["queued"] == 0
        tick(5_001_000_000)
        assert sock.stats()["queued"] == 1
        lib.xs_worker_poll(worker, 64)
    host.rx.walk([lifted])


# ---- ICMP errors ----


@pytest.mark.parametrize("here", [V4, V6])
def test_a_connected_socket_is_told_of_a_closed_port(host: ByHandHost, here: tuple[object, ...]) -> None:
    sock = opened(host, here)
    nobody = ("10.0.0.2", 9) if here == V4 else ("fd00::2", 9, 0, 0)
    sock.connect(nobody)
    assert sock.getpeername() == nobody
    sock.send(bytes(2000))  # by the kernel: it does not fit a frame
    with pytest.raises(ConnectionRefusedError):
        sock.recv(9)
    [error] = sock.errors
    assert (error.error, error.destination) == (errno.ECONNREFUSED, nobody)
    assert error.offender == nobody[0]
    assert error.origin == ("icmp" if here == V4 else "icmp6")
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(9)  # told once


@pytest.mark.parametrize("recverr", [False, True])
def test_an_unconnected_one_only_if_it_asks(host: ByHandHost, recverr: bool) -> None:
    sock = opened(host, V4, recverr=recverr)
    sock.sendto(bytes(2000), ("10.0.0.2", 9))
    sock.settimeout(0.2)
    with pytest.raises(ConnectionRefusedError if recverr else TimeoutError):
        sock.recv(9)
    assert [error.error for error in sock.errors] == [errno.ECONNREFUSED]
    assert str(sock.errors[0]) == "Connection refused: 10.0.0.2 port 9, says 10.0.0.2"


def test_an_error_is_raised_by_the_next_call_whichever_it_is(host: ByHandHost) -> None:
    sock = opened(host, V4)
    sock.connect(("10.0.0.2", 9))
    for call in (lambda: sock.send(b"x"), lambda: sock.recv_batch(), lambda: sock.recvfrom_into(bytearray(9))):
        sock.send(bytes(2000))
        poll_until(host, lambda: lib.xs_node_counter(host.rx.worker, host.rx.node, 6) > 0)
        with pytest.raises(ConnectionRefusedError):
            call()
    sock.send(bytes(2000))
    poll_until(host, lambda: len(sock.errors) == 4)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_errors_are_kept_within_bounds(host: ByHandHost) -> None:
    sock = opened(host, V4)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    for _ in range(200):
        sock.sendto(bytes(2000), ("10.0.0.2", 9))
        lib.xs_worker_poll(host.rx.worker, 64)
    poll_until(host, lambda: lib.xs_node_counter(host.rx.worker, host.rx.node, 6) >= 100)
    assert len(sock.errors) == 64
    assert sock.stats()["errors_lost"] > 0


# ---- closing ----


def test_what_nobody_read_is_counted(host: ByHandHost) -> None:
    sock = opened(host, V4)
    with kernel_client(RECEIVER) as client:
        for _ in range(3):
            client.sendto(b"x", V4)
    sock.close()
    assert host.udp.unread_at_close == 3
