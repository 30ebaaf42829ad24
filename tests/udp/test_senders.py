"""Senders whose worker another thread drives: they sleep, without the GIL, and what they send is sent once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from xdpstack.errors import ClosedError
from xdpstack.native import lib
from xdpstack.testing import MemoryStack, memory_stack, until
from xdpstack.udp.socket import UdpSocket

PEER = ("10.0.0.2", 9)
FRAME = bytes.fromhex("020000000099 020000000001 88b5") + bytes(50)


@pytest.fixture
def stack() -> Iterator[MemoryStack]:
    with memory_stack(
        "a0", addresses={"a0": ["10.0.0.1/24"]}, neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99"]
    ) as made:
        yield made


@contextmanager
def held(stack: MemoryStack) -> Iterator[None]:
    """Another thread drives the stack's worker, and does not leave it."""
    (worker,) = stack._core.workers
    lib.xs_worker_hold(worker)
    try:
        yield
    finally:
        lib.xs_worker_unhold(worker)


def started(*calls: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def cpu_seconds(thread: threading.Thread) -> float:
    """How long it has run."""
    assert thread.ident
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def rounds(seconds: float) -> int:
    """How often this thread gets around in so long."""
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        n += 1
    return n


@pytest.mark.parametrize("kind", ["sendto", "send_batch", "frames"])
def test_who_waits_sleeps_and_lets_others_run(stack: MemoryStack, kind: str) -> None:
    """Four wait: neither do they take the processor, nor the GIL from who has it."""
    sock, frames = stack.udp(("10.0.0.1", 7)), stack.frames()
    calls = {
        "sendto": lambda: sock.sendto(b"x", PEER),
        "send_batch": lambda: sock.send_batch([b"x"] * 3, PEER),
        "frames": lambda: frames.send([FRAME] * 3, device="a0"),
    }
    alone = rounds(0.2)
    with held(stack):
        threads = started(*[calls[kind]] * 4)
        before = sum(map(cpu_seconds, threads))
        threading.Event().wait(0.2)  # nobody else wants the GIL: whoever spins has all of it
        spent = sum(map(cpu_seconds, threads)) - before
        beside = rounds(0.2)
        assert all(thread.is_alive() for thread in threads)
        assert stack.sent("a0") == []
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(stack.sent("a0")) == 4 * (1 if kind == "sendto" else 3)
    assert spent < 0.05
    assert beside > alone / 4


def test_who_waits_is_woken_when_the_worker_is_left(stack: MemoryStack) -> None:
    """Not only when he looks again by himself: a hundred turns take less than a hundred looks."""
    sock = stack.udp(("10.0.0.1", 7))
    waiting = threading.Semaphore(0)
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            waiting.acquire()
            sock.sendto(b"x", PEER)

    (sender,) = started(send)
    slowest = 0.0
    for _ in range(100):
        with held(stack):
            waiting.release()
            rounds(0.0005)  # it has gone to sleep, or will; either is right
            begun = time.monotonic()
        until(lambda: bool(stack.sent("a0")))
        slowest = max(slowest, time.monotonic() - begun)
    over.set()
    waiting.release()
    sender.join(10)
    assert slowest < 5


def test_datagrams_of_many_senders_are_each_sent_once(stack: MemoryStack) -> None:
    """Two on one socket, one on another, one of frames, while a fifth polls; whole batches stay in order."""
    one, other, frames = stack.udp(("10.0.0.1", 7)), stack.udp(("10.0.0.1", 8)), stack.frames()
    total = 300

    def number(thread: int) -> Callable[[], None]:
        def send() -> None:
            sock = other if thread == 2 else one
            for n in range(0, total, 3):
                sock.send_batch([bytes([thread]) + m.to_bytes(2) for m in range(n, n + 3)], PEER)

        return send

    def whole() -> None:
        for n in range(total):
            frames.send([FRAME + bytes([3]) + n.to_bytes(2)], device="a0")

    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            stack.poll()

    threads = started(*map(number, range(3)), whole)
    (poller,) = started(poll)
    sent: list[bytes] = []
    while any(thread.is_alive() for thread in threads):
        sent += stack.sent("a0")
    done.set()
    poller.join(10)
    stack.step(3)
    sent += stack.sent("a0")
    for thread in range(4):
        mine = [int.from_bytes(frame[-2:]) for frame in sent if frame[-3] == thread]
        assert mine == list(range(total)), thread
    assert len(sent) == 4 * total
    assert stack.ledger().missing == 0


def test_a_socket_that_is_closed_meanwhile_sends_or_says_so(stack: MemoryStack) -> None:
    def send(sock: UdpSocket, ends: list[object]) -> None:
        try:
            ends.append(sock.sendto(b"x", PEER))
        except ClosedError as error:
            ends.append(error)

    for _ in range(50):
        sock = stack.udp(("10.0.0.1", 7))
        ends: list[object] = []
        with held(stack):
            threads = started(*[partial(send, sock, ends)] * 2, sock.close)
            rounds(0.001)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert len(ends) == 2
        assert all(end == 1 or isinstance(end, ClosedError) for end in ends)
    stack.step()
    assert stack.ledger().missing == 0


class ClosingPort:
    """A port that closes the socket when it is asked for its number."""

    def __init__(self, sock: UdpSocket) -> None:
        self.sock = sock

    def __index__(self) -> int:
        self.sock.close()
        return 9


@pytest.mark.parametrize("batch", [False, True])
def test_a_socket_that_its_arguments_close_says_so(stack: MemoryStack, batch: bool) -> None:
    sock = stack.udp(("10.0.0.1", 7))
    to = ("10.0.0.2", ClosingPort(sock))
    with pytest.raises(ClosedError):
        sock._view.send_batch([b"x"] * 2, to, 0, {}) if batch else sock.sendto(b"x", to)
    assert stack.sent("a0") == []


def test_what_was_set_when_it_was_sent_is_what_it_is_sent_with(stack: MemoryStack) -> None:
    """A sender who waits goes by the socket's settings of the moment of the call."""
    sock = stack.udp(("10.0.0.1", 7))
    sock.setsockopt(0, 2, 11)  # IP_TTL
    with held(stack):
        threads = started(lambda: sock.sendto(b"x", PEER))
        until(lambda: cpu_settled(threads[0]))
        sock.setsockopt(0, 2, 22)
    threads[0].join(10)
    (frame,) = stack.sent("a0")
    assert frame[14 + 8] == 11


def cpu_settled(thread: threading.Thread) -> bool:
    """It waits: it does not get on."""
    before = cpu_seconds(thread)
    rounds(0.02)
    return before > 0 and cpu_seconds(thread) - before < 0.005
