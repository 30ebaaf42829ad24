"""A receiver that is too slow is told: what was refused, for which reason, and between which datagrams (SO_RXQ_OVFL)."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import pytest

from tests.udp.by_hand_host import ByHandHost
from tests.udp.datagrams import HERE, HERE6, PEER6, datagram, packed
from xdpstack.native import ffi, lib
from xdpstack.udp.options import SO_RXQ_OVFL, SO_TIMESTAMPNS
from xdpstack.udp.semantics import truesize
from xdpstack.udp.socket import UdpSocket

#: Accepts what begins with "y".
ONLY_Y = [(0x30, 0, 0, 8), (0x15, 0, 1, ord("y")), (6, 0, 0, 65535), (6, 0, 0, 0)]


@pytest.fixture
def host() -> Iterator[ByHandHost]:
    host = ByHandHost([packed(HERE)[12:], packed(HERE6)], frames=64)
    yield host
    host.udp.close()
    gc.collect()
    assert host.core.ledger().missing == 0


def opened(host: ByHandHost, address: str = HERE, rcvbuf: int = 2000) -> UdpSocket:
    sock = host.udp.open((address, 7))
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    return sock


def drops(sock: UdpSocket) -> dict[str, int]:
    """Those that are not zero."""
    return {name: n for name, n in sock.stats().items() if name.startswith("drops") and n}


def read(sock: UdpSocket, most: int = 64) -> list[int]:
    """The column of what has come."""
    with sock.recv_batch(most) as batch:
        column: list[int] = batch.drops.tolist()
    return column


def test_each_datagram_says_how_many_were_refused_before_it(host: ByHandHost) -> None:
    sock = opened(host)
    assert sock.getsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL) == 0
    sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL) == 1
    room = 4000 // truesize(1, 4)
    host.arrive(*[datagram(b"x")] * (room + 3))
    assert read(sock) == [0] * room
    host.arrive(datagram(b"x"))
    host.arrive(*[datagram(b"x")] * (room + 1))
    assert read(sock) == [3] * room
    host.arrive(datagram(b"x"))
    assert read(sock) == [5]
    assert drops(sock) == {"drops": 5, "drops_rcvbuf": 5}


def test_over_ipv6(host: ByHandHost) -> None:
    sock = opened(host, HERE6)
    sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
    six = datagram(b"x", to=HERE6, source=PEER6)
    host.arrive(*[six] * 10)
    room = len(read(sock))
    host.arrive(six)
    assert read(sock) == [10 - room]


def test_who_did_not_ask_is_not_told(host: ByHandHost) -> None:
    sock = opened(host)
    host.arrive(*[datagram(b"x")] * 9)
    assert not any(read(sock))
    host.arrive(datagram(b"x"))
    assert read(sock) == [0]
    assert sock.stats()["drops"] == 5


def test_what_was_queued_before_it_was_asked_for_says_nothing(host: ByHandHost) -> None:
    """Frames are used again and again: what one still says of an earlier use is not taken for an answer."""
    sock = opened(host)
    ffi.memmove(host.core.metas, b"\7" * 64 * host.core.frames, 64 * host.core.frames)
    host.arrive(*[datagram(b"x")] * 6)
    sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    with sock.recv_batch() as batch:
        assert batch.drops.tolist() == batch.stamps_ns.tolist() == [0] * 4
    lib.xs_stack_set_now(host.core.pointer, 99)
    host.arrive(datagram(b"x"))
    with sock.recv_batch() as batch:
        assert (batch.drops.tolist(), batch.stamps_ns.tolist()) == ([2], [99])
    sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 0)
    host.arrive(datagram(b"x"))
    assert read(sock) == [0]


def test_the_workers_frames_are_told_apart_from_the_buffer(host: ByHandHost) -> None:
    """They want opposite cures: more frames, or a larger buffer."""
    sock = opened(host, rcvbuf=1 << 20)
    host.arrive(*[datagram(b"x")] * 60)
    assert drops(sock) == {"drops": 12, "drops_memory": 12}
    assert len(read(sock)) == 48


def test_what_the_filter_refuses_is_counted(host: ByHandHost) -> None:
    """As sk_drops does (udp_queue_rcv_one_skb)."""
    sock = opened(host)
    sock.attach_filter(ONLY_Y)
    sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
    host.arrive(datagram(b"yes"), datagram(b"no"), datagram(b"yes"))
    assert read(sock) == [0, 1]
    assert drops(sock) == {"drops": 1, "drops_filter": 1}
