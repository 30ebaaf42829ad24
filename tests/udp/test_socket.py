"""UdpSocket over the C queues: receiving, sending, batches and options, without a kernel behind it."""

from __future__ import annotations

import errno
import gc
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.udp.by_hand_host import SYSCTLS, ByHandHost
from tests.udp.datagrams import HERE, HERE6, PEER, PEER6, datagram, packed
from xdpstack.errors import (
    AddressInUse,
    AddressNotAvailable,
    ClosedError,
    ConfigurationError,
    SendBatchError,
)
from xdpstack.udp.semantics import ANY, Datagram, ones_complement_sum, pseudo_header, receive, truesize
from xdpstack.udp.socket import UdpSocket


@pytest.fixture
def host() -> Iterator[ByHandHost]:
    host = ByHandHost([packed(HERE)[12:], packed(HERE6)])
    yield host
    host.udp.close()
    host.take_sent()
    gc.collect()
    assert host.core.ledger().missing == 0
    counts = host.core.frame_counts()
    host.rx.walk([])  # frames come home
    assert counts["queued"] == 0
    assert sum(counts.values()) == host.core.frames


@pytest.fixture
def sock(host: ByHandHost) -> UdpSocket:
    sock = host.udp.open((HERE, 7))
    sock.setblocking(False)
    return sock


# ---- receiving ----


def test_a_datagram_comes_as_pythons_sockets_give_it(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(datagram(b"one"), datagram(b""), datagram(b"truncated"))
    assert sock.recvfrom(100) == (b"one", (PEER, 1000))
    assert sock.recvfrom(100) == (b"", (PEER, 1000))
    assert sock.recv(5) == b"trunc"
    with pytest.raises(BlockingIOError):
        sock.recv(5)


def test_into_a_buffer(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(datagram(b"one"), datagram(b"two more"), datagram(b"three"))
    room = bytearray(10)
    assert sock.recvfrom_into(room) == (3, (PEER, 1000))
    assert sock.recvfrom_into(memoryview(room)[3:], 3) == (3, (PEER, 1000))
    assert room[:6] == b"onetwo"
    with pytest.raises(ValueError, match="greater than the length"):
        sock.recvfrom_into(room, 11)
    with pytest.raises((BufferError, TypeError)):
        sock.recvfrom_into(b"read-only")
    assert sock.recv_into(room) == 5


def test_ipv6_addresses_have_four_parts_and_link_local_ones_a_scope(host: ByHandHost) -> None:
    sock = host.udp.open(("::", 7), v6only=True)
    host.arrive(datagram(b"a", source=PEER6, to=HERE6), datagram(b"b", source="fe80::9", to=HERE6))
    assert sock.recvfrom(9) == (b"a", (PEER6, 1000, 0, 0))
    assert sock.recvfrom(9) == (b"b", ("fe80::9", 1000, 0, 2))
    assert sock.getsockname() == ("::", 7, 0, 0)


def test_dual_stack_shows_mapped_addresses(host: ByHandHost) -> None:
    sock = host.udp.open(("::", 7))
    host.arrive(datagram(b"four"), datagram(b"six", source=PEER6, to=HERE6))
    assert sock.recvfrom(9) == (b"four", ("::ffff:" + PEER, 1000, 0, 0))
    assert sock.recvfrom(9) == (b"six", (PEER6, 1000, 0, 0))
    assert [str(claim.address) for claim in host.claims] == ["::", "0.0.0.0"]


def test_an_address_object_is_used_again(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(datagram(b"1"), datagram(b"2"), datagram(b"3", sport=1001))
    first, second, third = (sock.recvfrom(9)[1] for _ in range(3))
    assert first is second
    assert third == (PEER, 1001)


def test_time_outs(host: ByHandHost, sock: UdpSocket) -> None:
    sock.settimeout(0.05)
    before = time.monotonic()
    with pytest.raises(TimeoutError, match="timed out"):
        sock.recv(9)
    assert 0.04 < time.monotonic() - before < 5
    with pytest.raises(BlockingIOError):
        sock.recv(9, socket.MSG_DONTWAIT)
    with pytest.raises(OSError, match="only MSG_DONTWAIT"):
        sock.recv(9, socket.MSG_OOB)
    with pytest.raises(ValueError, match="range"):
        sock.settimeout(-1)
    assert (sock.gettimeout(), sock.getblocking()) == (0.05, True)


def test_a_thread_that_waits_is_woken_by_what_another_polls(host: ByHandHost, sock: UdpSocket) -> None:
    sock.settimeout(10)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(sock.recv(9)))
    reader.start()
    while not reader.is_alive():
        pass
    host.arrive(datagram(b"x"))
    reader.join(5)
    assert got == [b"x"]


def test_a_thread_that_waits_is_told_of_the_end(host: ByHandHost, sock: UdpSocket) -> None:
    sock.settimeout(None)
    raised: list[BaseException] = []

    def read() -> None:
        try:
            sock.recv(9)
        except ClosedError as error:
            raised.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    sock.close()
    reader.join(5)
    assert len(raised) == 1


def descriptors() -> int:
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("waiting", [0, 1, 3])
def test_a_closed_socket_keeps_no_descriptor(host: ByHandHost, waiting: int) -> None:
    """Neither when nobody waits, nor when several threads do: the last to wake up closes it."""
    before = descriptors()
    sock = host.udp.open((HERE, 7))
    sock.settimeout(None)
    told: list[BaseException] = []

    def read() -> None:
        with pytest.raises(ClosedError) as caught:
            sock.recv(9)
        told.append(caught.value)

    readers = [threading.Thread(target=read) for _ in range(waiting)]
    for reader in readers:
        reader.start()
    sock.close()
    for reader in readers:
        reader.join(5)
    assert len(told) == waiting
    assert descriptors() == before
    assert sock.fileno() == -1


def test_fileno_is_readable_while_there_is_something(host: ByHandHost, sock: UdpSocket) -> None:
    def readable() -> bool:
        return bool(select.select([sock], [], [], 0)[0])

    assert not readable()
    host.arrive(datagram(b"1"), datagram(b"2"))
    assert readable()
    sock.recv(9)
    assert readable()
    sock.recv(9)
    with pytest.raises(BlockingIOError):
        sock.recv(9)
    assert not readable()
    host.arrive(datagram(b"3"))
    assert readable()
    sock.close()
    assert sock.fileno() == -1


def test_fileno_of_what_came_before_it_was_asked_for(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(datagram(b"1"))
    assert select.select([sock], [], [], 0)[0]


def test_the_receive_buffer_fills_and_drains_as_linux(host: ByHandHost, sock: UdpSocket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2000)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 4000
    host.arrive(*[datagram(b"x")] * 6)
    assert sock.stats()["queued"] == 4
    assert sock.stats()["drops"] == 2
    assert sock.stats()["rmem"] == 4 * truesize(1, 4)
    sock.recv(9)
    assert sock.stats()["rmem"] == 4 * truesize(1, 4)  # released by quarters of the buffer
    sock.recv(9)
    assert sock.stats()["rmem"] == 2 * truesize(1, 4)


def test_a_larger_buffer_keeps_what_is_queued(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(*[datagram(bytes([n])) for n in range(100)])
    for size in (1, 100000, 1 << 22, 1):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    assert [sock.recv(9)[0] for _ in range(100)] == list(range(100))


def test_time_stamps(host: ByHandHost, sock: UdpSocket) -> None:
    lib_now = 5_000_000_000
    sock.setsockopt(socket.SOL_SOCKET, 35, 1)
    from xdpstack.native import lib

    lib.xs_stack_set_now(host.core.pointer, lib_now)
    host.arrive(datagram(b"x"))
    with sock.recv_batch() as batch:
        assert batch.stamps_ns.tolist() == [lib_now]


# ---- batches ----


def test_a_batch_has_columns_and_payloads(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(datagram(b"one"), datagram(b"three", sport=2000, source="10.0.0.8"))
    with sock.recv_batch() as batch:
        assert list(batch) == [(b"one", (PEER, 1000)), (b"three", ("10.0.0.8", 2000))]
        assert np.asarray(batch.lengths).tolist() == [3, 5]
        assert np.asarray(batch.lengths).dtype == np.uint32
        assert np.asarray(batch.source_ports).tolist() == [1000, 2000]
        assert np.asarray(batch.sources).shape == (2, 16)
        assert np.asarray(batch.sources)[1].tobytes() == packed("10.0.0.8")
        assert np.asarray(batch.destinations)[0].tobytes() == packed(HERE)
        assert batch.slow.tolist() == [False, False]
        assert batch.devices.tolist() == [0, 0]
        assert not np.asarray(batch.lengths).flags.writeable
        assert batch.payload(-1) == b"three"
        assert batch.address(0) == (PEER, 1000)
        with pytest.raises(IndexError):
            batch.payload(2)
        lengths = batch.lengths
    assert lengths.tolist() == [3, 5]
    with pytest.raises(ClosedError):
        batch.payloads()
    batch.release()
    assert batch.released


def test_views_keep_their_frames_lent(host: ByHandHost, sock: UdpSocket) -> None:
    def counts() -> tuple[int, int]:
        host.rx.take(0)  # frames come home
        found = host.core.frame_counts()
        return found["queued"], found["lent"]

    host.arrive(*[datagram(bytes([n])) for n in range(4)])
    assert counts() == (4, 0)
    batch = sock.recv_batch(3)
    assert counts() == (1, 3)
    views = batch.views()
    again = batch.view(0)
    batch.release()
    assert counts() == (1, 3)
    assert [bytes(view) for view in views] == [b"\0", b"\1", b"\2"]
    assert all(view.readonly for view in views)
    array = np.asarray(views[1])
    del views
    assert counts() == (1, 2)  # one in `again`, one under the array
    assert array.tolist() == [1]
    del again
    assert counts() == (1, 1)
    del array
    assert counts() == (1, 0)


def test_a_collected_batch_is_released(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(datagram(b"x"))
    batch = sock.recv_batch()
    view = batch.view(0)
    del batch
    assert host.core.frame_counts()["lent"] == 1
    del view
    assert host.core.frame_counts()["lent"] == 0


def test_views_outlive_everything() -> None:
    host = ByHandHost([packed(HERE)[12:]])
    sock = host.udp.open((HERE, 7))
    host.arrive(datagram(b"still here"))
    view = sock.recv_batch().view(0)
    sock.close()
    host.closed = True
    del sock, host
    gc.collect()
    assert bytes(view) == b"still here"


def test_a_payload_of_several_frames_is_whole(host: ByHandHost, sock: UdpSocket) -> None:
    payload = bytes(range(256)) * 12
    host.rx.walk([host.rx.put(datagram(payload), split=[1000, 2501])] * 1)
    host.rx.walk([host.rx.put(datagram(payload), split=[999, 2500])])
    with sock.recv_batch() as batch:
        assert batch.payload(0) == payload
        assert bytes(batch.view(1)) == payload


# ---- sending ----


def test_what_is_sent(host: ByHandHost, sock: UdpSocket) -> None:
    for level, name, value in (
        (socket.IPPROTO_IP, socket.IP_TOS, 0x2E << 2),
        (socket.IPPROTO_IP, socket.IP_TTL, 9),
        (socket.SOL_SOCKET, socket.SO_MARK, 77),
        (socket.SOL_SOCKET, socket.SO_PRIORITY, 5),
        (socket.IPPROTO_IP, 10, 2),
    ):
        sock.setsockopt(level, name, value)
        assert sock.getsockopt(level, name) == value
    assert sock.sendto(b"payload", (PEER, 53)) == 7
    [(udp, pkt, meta)] = host.take_sent()
    assert struct.unpack(">HHH", udp[:6]) == (7, 53, 15)
    assert udp[8:] == b"payload"
    assert ones_complement_sum(pseudo_header(4, packed(HERE), packed(PEER), 15) + udp) == 0xFFFF
    assert (pkt.tos, pkt.mark, pkt.priority, meta.ttl) == (0xB8, 77, 5, 9)
    assert (pkt.l4_proto, pkt.pkt_len, pkt.l4_off) == (17, 15, pkt.data_off)


def test_a_checksum_of_zero_is_sent_as_ffff(host: ByHandHost, sock: UdpSocket) -> None:
    head = pseudo_header(4, packed(HERE), packed(PEER), 10) + struct.pack(">HHHH", 7, 53, 10, 0)
    payload = (0xFFFF - ones_complement_sum(head)).to_bytes(2)
    sock.sendto(payload, (PEER, 53))
    assert host.take_sent()[0][0][6:8] == b"\xff\xff"


def test_over_ipv6_and_dual_stack(host: ByHandHost) -> None:
    sock = host.udp.open((HERE6, 7))
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 8)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 3)
    sock.sendto(b"six", (PEER6, 53))
    [(udp, pkt, meta)] = host.take_sent()
    assert ones_complement_sum(pseudo_header(6, packed(HERE6), packed(PEER6), 11) + udp) == 0xFFFF
    assert (pkt.tos, meta.ttl) == (8, 3)
    both = host.udp.open(("::", 8))
    both.sendto(b"four", ("::ffff:" + PEER, 53))
    assert bytes(host.take_sent()[0][2].src) == bytes(16)  # routing is to choose
    only = host.udp.open(("::", 9), v6only=True)
    with pytest.raises(OSError, match="unreachable"):
        only.sendto(b"x", ("::ffff:" + PEER, 53))


def test_a_link_local_scope_names_the_device(host: ByHandHost) -> None:
    sock = host.udp.open(("::", 7))
    sock.sendto(b"x", ("fe80::9", 53, 0, 3))
    assert host.take_sent()[0][1].device == 1


@pytest.mark.parametrize(
    "address, error",
    [
        ((PEER, 0), OSError),
        ((PEER, 65536), OverflowError),
        ((PEER, -1), OverflowError),
        ((PEER,), TypeError),
        ((PEER, 1, 2), TypeError),
        ([PEER, 1], TypeError),
        ((PEER, "1"), TypeError),
        ((7, 7), TypeError),
    ],
)
def test_addresses_that_are_none(host: ByHandHost, sock: UdpSocket, address: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        sock.sendto(b"x", address)
    assert host.take_sent() == []


def test_names_are_looked_up(host: ByHandHost, sock: UdpSocket) -> None:
    sock.sendto(b"x", ("localhost", 53))
    assert bytes(host.take_sent()[0][2].dst) == packed("127.0.0.1")


def test_names_are_looked_up_with_flags_too(host: ByHandHost, sock: UdpSocket) -> None:
    assert sock.sendto(b"x", socket.MSG_DONTWAIT, ("localhost", 9)) == 1
    assert [bytes(meta.dst[12:16]) for _, _, meta in host.take_sent()] == [b"\x7f\0\0\1"]


def test_too_long_without_a_kernel_says_why(host: ByHandHost, sock: UdpSocket) -> None:
    for size in (1921, 65507, 65508, 100000):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            sock.sendto(bytes(size), (PEER, 53))
        assert caught.value.errno == errno.EMSGSIZE
    assert sock.sendto(bytes(1920), (PEER, 53)) == 1920
    host.take_sent()


def test_a_batch_is_sent(host: ByHandHost, sock: UdpSocket) -> None:
    payloads = [bytes([n]) * n for n in range(150)]
    assert sock.send_batch(payloads, (PEER, 53)) == 150
    assert [udp[8:] for udp, _, _ in host.take_sent()] == payloads
    assert sock.send_batch([b"a", b"b"], [(PEER, 1), (PEER, 2)]) == 2
    assert [pkt.dport for _, pkt, _ in host.take_sent()] == [1, 2]
    assert sock.send_batch([]) == 0


def test_a_batch_is_answered(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(datagram(b"a", sport=11), datagram(b"b", sport=12, source="10.0.0.8"))
    with sock.recv_batch() as batch:
        assert sock.send_batch(batch.views(), batch) == 2
    answers = host.take_sent()
    assert [(udp[8:], pkt.dport, bytes(meta.dst)) for udp, pkt, meta in answers] == [
        (b"a", 11, packed(PEER)),
        (b"b", 12, packed("10.0.0.8")),
    ]


def test_errors_in_a_batch_do_not_stop_the_others(host: ByHandHost, sock: UdpSocket) -> None:
    with pytest.raises(SendBatchError) as caught:
        sock.send_batch([b"a", bytes(3000), b"c"], (PEER, 53))
    assert (caught.value.sent, caught.value.errors) == (2, {1: errno.EMSGSIZE})
    assert [udp[8:] for udp, _, _ in host.take_sent()] == [b"a", b"c"]


def test_no_frames_is_back_pressure(host: ByHandHost) -> None:
    """256 are parked for the hook, the frames are gone: then it would block; a batch says how far it came."""
    small = ByHandHost([packed(HERE)[12:]], frames=64)
    sock = small.udp.open((HERE, 7))
    sock.setblocking(False)
    assert sock.send_batch([b"x"] * 100, (PEER, 53)) == 64
    with pytest.raises(BlockingIOError):
        sock.sendto(b"x", (PEER, 53))
    with pytest.raises(BlockingIOError):
        sock.send_batch([b"x"], (PEER, 53))
    sock.settimeout(0.02)
    with pytest.raises(TimeoutError):
        sock.sendto(b"x", (PEER, 53))
    assert len(small.take_sent()) == 64
    assert sock.sendto(b"x", (PEER, 53)) == 1
    small.take_sent()


# ---- connecting ----


def test_connected(host: ByHandHost) -> None:
    sock = host.udp.open(("", 7))
    sock.setblocking(False)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        sock.send(b"x")
    assert caught.value.errno == errno.EDESTADDRREQ
    with pytest.raises(OSError, match="not connected"):
        sock.getpeername()
    sock.connect((PEER, 1000))
    assert sock.getsockname() == (HERE, 7)
    assert sock.getpeername() == (PEER, 1000)
    host.arrive(datagram(b"peer"), datagram(b"other port", sport=1001), datagram(b"other", source="10.0.0.8"))
    assert sock.recv(99) == b"peer"
    with pytest.raises(BlockingIOError):
        sock.recv(99)
    sock.send(b"x")
    [(_, pkt, meta)] = host.take_sent()
    assert (pkt.dport, bytes(meta.dst), bytes(meta.src)) == (1000, packed(PEER), packed(HERE))
    assert [str(claim.address) for claim in host.claims] == [HERE]
    sock.sendto(b"elsewhere", (PEER, 5))
    assert host.take_sent()[0][1].dport == 5


@pytest.mark.parametrize("peer, fails", [(None, "publish"), (None, "claim"), (("127.0.0.1", 1000), "publish")])
def test_what_cannot_be_connected_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, peer: tuple[str, int] | None, fails: str
) -> None:
    """Our side and the kernel's: claims, the lookup, the kernel socket."""
    kernels: list[socket.socket] = []

    def kernel(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        kernels.append(socket.socket(family, kind))
        return kernels[-1]

    host = ByHandHost([packed(HERE)[12:]], kernel)
    with host.udp.open(("", 0)) as sock:
        if peer:
            sock.connect(peer)
        before = (sock._endpoint.bound, sock.getsockname(), list(host.claims), kernels[0].getsockname())

        def refuses(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as patched:
            patched.setattr(*(("xdpstack.udp.native.publish",) if fails == "publish" else (host, "claim")), refuses)
            with pytest.raises(OSError, match="full"):
                sock.connect(("127.0.0.2", 1001))
        assert (sock._endpoint.bound, sock.getsockname(), list(host.claims), kernels[0].getsockname()) == before
        if peer:
            assert kernels[0].getpeername() == sock.getpeername() == peer
        else:
            with pytest.raises(OSError, match="not connected"):
                kernels[0].getpeername()
        sock.connect(("127.0.0.1", 1002))
        assert kernels[0].getpeername() == ("127.0.0.1", 1002)


# ---- opening, options, closing ----


def test_a_claim_with_broadcasts_serves_sockets_without(host: ByHandHost) -> None:
    with host.udp.open((HERE, 7), reuse_address=True):
        assert [claim.broadcast for claim in host.claims] == [False]
        with host.udp.open((HERE, 7), reuse_address=True, broadcast=True):
            assert [claim.broadcast for claim in host.claims] == [True]
        with host.udp.open((HERE, 7), reuse_address=True):
            assert len(host.claims) == 1
    assert host.claims == []


def test_claims_come_and_go(host: ByHandHost) -> None:
    one = host.udp.open((HERE, 7), reuse_address=True)
    two = host.udp.open((HERE, 7), reuse_address=True)
    assert len(host.claimed) == 1
    one.close()
    assert len(host.claims) == 1
    two.close()
    assert host.claims == []


def test_the_newest_of_equals_gets_it(host: ByHandHost) -> None:
    first, second = (host.udp.open((HERE, 7), reuse_address=True) for _ in range(2))
    host.arrive(datagram(b"x"))
    assert (first.stats()["queued"], second.stats()["queued"]) == (0, 1)


def test_addresses_that_are_taken_or_not_there(host: ByHandHost) -> None:
    host.udp.open((HERE, 7))
    for wanted in ((HERE, 7), ("", 7), ("::", 7)):
        with pytest.raises(AddressInUse):
            host.udp.open(wanted)
    host.udp.open(("::", 7), v6only=True)
    with pytest.raises(AddressNotAvailable, match=r"10\.0\.0\.1, fd00::1"):
        host.udp.open(("10.9.9.9", 7))
    with pytest.raises(ConfigurationError, match="d0, d1"):
        host.udp.open((HERE, 8), device="eth7")
    assert host.udp.open((HERE, 0)).getsockname()[1] >= 32768


def test_options_that_are_none_say_what_there_is(host: ByHandHost, sock: UdpSocket) -> None:
    with pytest.raises(OSError, match="IP_TOS") as caught:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert caught.value.errno == errno.ENOPROTOOPT
    with pytest.raises(OSError, match="v6only="):
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    with pytest.raises(OSError, match="IP_TTL is -1, or 1 to 255"):
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 0)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", 4))
    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 4


def test_no_checksum_over_ipv6_needs_the_option(host: ByHandHost) -> None:
    sock = host.udp.open((HERE6, 7))
    none = datagram(b"x", source=PEER6, to=HERE6)
    none = Datagram(6, none.source, none.destination, none.data[:6] + b"\0\0" + none.data[8:])
    host.arrive(none)
    assert sock.stats()["queued"] == 0
    sock.setsockopt(socket.IPPROTO_UDP, 102, 1)
    host.arrive(none)
    assert sock.stats()["queued"] == 1


def test_what_nobody_read_is_counted(host: ByHandHost, sock: UdpSocket) -> None:
    host.arrive(datagram(b"1"), datagram(b"2"))
    sock.close()
    assert host.udp.unread_at_close == 2
    for call in (lambda: sock.recv(9), lambda: sock.sendto(b"x", (PEER, 9)), lambda: sock.recv_batch()):
        with pytest.raises(ClosedError):
            call()
    sock.close()
    assert repr(sock) == "<UdpSocket 10.0.0.1 port 7, closed>"
    host.arrive(datagram(b"late"))
    assert host.core.frame_counts()["queued"] == 0


def test_the_layer_says_what_becomes_of_a_datagram(host: ByHandHost) -> None:
    """By its definition in Python, over its live sockets; and C does that."""
    both, exact = host.udp.open(("::", 7), reuse_address=True), host.udp.open((HERE, 7), reuse_address=True)
    only6 = host.udp.open(("::", 8), v6only=True)
    exact.connect((PEER, 1000))
    stream = [
        datagram(b"peer"),
        datagram(b"other", sport=1001),
        datagram(b"six", source=PEER6, to=HERE6),
        datagram(b"", port=8, source=PEER6, to=HERE6),
        datagram(b"four", port=8),
    ]
    verdicts = [receive(one, host.udp.bounds) for one in stream]
    index = [one._endpoint.bound.index for one in (exact, both, both, only6)]
    assert [verdict.sockets for verdict in verdicts] == [(n,) for n in index] + [()]
    assert verdicts[-1].reason == "NO_SOCKET"
    host.arrive(*stream)
    assert [one.stats()["queued"] for one in (exact, both, only6)] == [1, 2, 1]


@pytest.mark.parametrize("early_demux", [1, 0])
def test_two_sockets_of_one_peer(host: ByHandHost, monkeypatch: pytest.MonkeyPatch, early_demux: int) -> None:
    """One is bound last, the other had the peer at first: which is found depends on whether Linux looks early."""
    monkeypatch.setitem(SYSCTLS, "ipv4.udp_early_demux", early_demux)
    first, last = (host.udp.open((HERE, 7), reuse_address=True) for _ in range(2))
    first.connect((PEER, 1000))
    last.connect((PEER, 1001))
    last.connect((PEER, 1000))
    host.arrive(datagram(b"x"))
    assert [one.stats()["queued"] for one in (first, last)] == [1 - early_demux, early_demux]
    last.close()
    host.arrive(datagram(b"y"))
    assert first.stats()["queued"] == 2 - early_demux


def test_any_is_known_by_its_address() -> None:
    assert set(ANY.values()) == {packed("0.0.0.0"), packed("::")}
