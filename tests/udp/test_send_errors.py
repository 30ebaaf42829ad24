"""What a sender is told, over memory devices: the errno of what the walk refuses, and back-pressure."""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Iterator

import pytest

from tests.csrc.compile import load
from tests.udp.by_hand_host import ByHandHost
from xdpstack.errors import SendBatchError
from xdpstack.native import ffi
from xdpstack.routing.reasons import SEND_ERRNO
from xdpstack.testing import MemoryStack, memory_stack

NEAR, FAR = "10.0.0.2 dev a0 lladdr 02:00:00:00:00:99", "10.0.1.2 dev b0 lladdr 02:00:00:00:00:98"


@pytest.fixture
def stack() -> Iterator[MemoryStack]:
    with memory_stack(
        "a0",
        "b0",
        addresses={"a0": ["10.0.0.1/24"], "b0": ["10.0.1.1/24"]},
        routes=["prohibit 10.9.0.0/16", "unreachable 10.8.0.0/16", "blackhole 10.7.0.0/16"],
        neighbours=[NEAR, FAR],
        frames=4096,
    ) as made:
        yield made


@pytest.mark.parametrize(
    "destination, expected",
    [
        ("10.9.0.1", errno.EACCES),
        ("10.8.0.1", errno.EHOSTUNREACH),
        ("10.7.0.1", errno.EINVAL),
        ("192.0.2.1", errno.ENETUNREACH),
    ],
)
def test_the_errno_of_a_refusal(stack: MemoryStack, destination: str, expected: int) -> None:
    sock = stack.udp(("0.0.0.0", 7))
    with pytest.raises(OSError) as raised:  # noqa: PT011
        sock.sendto(b"x", (destination, 9))
    assert raised.value.errno == expected


def test_the_errno_of_what_is_rare() -> None:
    """No source address (ipv6_dev_get_saddr); a neighbour that does not answer is no error of the send call."""
    assert SEND_ERRNO["NO_SOURCE_ADDRESS"] == errno.EADDRNOTAVAIL
    assert not {"NEIGH_FAILED", "NEIGH_QUEUEFULL"} & set(SEND_ERRNO)


def test_too_large_for_the_device_is_told_from_unreachable(stack: MemoryStack) -> None:
    """Without a kernel socket behind it, which would send either."""
    sock = stack.udp(("0.0.0.0", 7), reserve=False)
    for payload, host, expected in (
        (bytes(1473), "10.0.0.2", errno.EMSGSIZE),
        (bytes(1450), "10.0.0.1", errno.ENETUNREACH),
        (bytes(3000), "10.0.0.2", errno.EMSGSIZE),
    ):
        with pytest.raises(OSError) as raised:  # noqa: PT011
            sock.sendto(payload, (host, 9))
        assert raised.value.errno == expected
    assert stack.ledger().missing == 0


def fill(stack: MemoryStack) -> None:
    """Nothing more fits on a0: its kernel takes nothing off the ring."""
    stack.faults("a0", kick_errno=errno.EBUSY)
    stack.udp(("10.0.0.1", 1)).setblocking(False)
    first = stack._sockets.sockets[0]
    with contextlib.suppress(BlockingIOError):
        while True:
            first.sendto(b"x", ("10.0.0.2", 9))


def test_a_full_device_is_back_pressure_from_the_first_datagram_on(stack: MemoryStack) -> None:
    fill(stack)
    sock = stack.udp(("0.0.0.0", 7))
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.sendto(b"first", ("10.0.0.2", 9))
    stack.faults("a0", kick_errno=0)
    stack.step(20)
    assert sock.sendto(b"second", ("10.0.0.2", 9)) == 6


def test_what_leaves_by_another_device_is_sent_once(stack: MemoryStack) -> None:
    fill(stack)
    sock = stack.udp(("0.0.0.0", 7))
    sock.setblocking(False)
    with pytest.raises(SendBatchError) as raised:
        sock.send_batch([b"one", b"two", b"three"], [("10.0.0.2", 9), ("10.0.1.2", 9), ("10.0.0.2", 9)])
    assert (raised.value.sent, raised.value.errors) == (1, {0: errno.EAGAIN})
    stack.step()
    assert len(stack.sent("b0")) == 1


def test_each_datagram_of_a_batch_fails_for_itself() -> None:
    host = ByHandHost([b"\x0a\0\0\1"])
    sock = host.udp.open(("10.0.0.1", 7))
    with pytest.raises(SendBatchError) as raised:
        sock.send_batch([b"a", b"b", bytes(65536), b"d"], [("10.0.0.2", port) for port in (9, 0, 9, 9)])
    assert (raised.value.sent, raised.value.errors) == (2, {1: errno.EINVAL, 2: errno.EMSGSIZE})
    assert [udp[8:] for udp, _, _ in host.take_sent()] == [b"a", b"d"]


def test_a_pending_error_is_raised_before_a_batch_is_sent() -> None:
    host = ByHandHost([b"\x0a\0\0\1"])
    sock = host.udp.open(("10.0.0.1", 7))
    load("feed_harness.c").set_error(
        ctypes.c_void_p(int(ffi.cast("uintptr_t", sock._endpoint.pointer))), errno.ECONNREFUSED
    )
    with pytest.raises(ConnectionRefusedError):
        sock.send_batch([b"a"], ("10.0.0.2", 9))
    assert host.take_sent() == []
    assert sock.send_batch([b"a"], ("10.0.0.2", 9)) == 1
    host.take_sent()
