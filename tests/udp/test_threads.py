"""Sockets fed by several workers, used by several threads, and seen by a forked child."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from tests.udp.by_hand import ETHERNET, ip_header
from tests.udp.by_hand_host import ByHandHost
from tests.udp.datagrams import HERE, PEER, datagram, packed
from xdpstack.errors import ForkedError
from xdpstack.native import check, ffi, lib, views
from xdpstack.native.core import Core
from xdpstack.testing import memory_stack
from xdpstack.udp import native
from xdpstack.udp.semantics import Bound, Datagram, truesize


class TwoWorkers:
    """A core of two workers, each with udp.rx, and one socket fed by both."""

    def __init__(self, rcvbuf: int) -> None:
        self.core = Core(workers=2, frames=256, manual_clock=True)
        for worker in self.core.workers:
            check(lib.xs_worker_add_stage(worker, b"udp.rx"), "add udp.rx")
        values = ffi.new("struct xs_device_values[]", 1)
        check(lib.xs_stack_set_devices(self.core.pointer, values, 1), "set devices")
        bound = Bound(0, 4, packed(HERE), 7)
        self.pointer = native.create(self.core, bound, rcvbuf, 4096)
        native.publish(self.core, [(bound, self.pointer)])
        self.view = views.Socket(
            int(ffi.cast("uintptr_t", self.pointer)),
            int(ffi.cast("uintptr_t", self.core.pointer)),
            (self.core.umem, self.pointer),
        )

    def arrive(self, worker: int, one: Datagram) -> None:
        frames = ffi.new("uint32_t[1]")
        assert lib.xs_worker_take(self.core.workers[worker], frames, 1) == 1
        pkt = self.core.packets[frames[0]]
        data = bytes(ETHERNET) + ip_header(one) + one.data
        pkt.data_off, pkt.len, pkt.pkt_len = 128, len(data), len(data)
        pkt.l3_off, pkt.l4_off = 128 + ETHERNET, 128 + ETHERNET + 20
        start = frames[0] * self.core.frame_bytes + 128
        self.core.umem[start : start + len(data)] = data
        check(lib.xs_worker_walk(self.core.workers[worker], 0, frames, 1), "walk")

    def stats(self) -> tuple[int, int, int]:
        out = ffi.new("struct xs_socket_stats *")
        lib.xs_socket_stats(self.pointer, out)
        return out.queued, out.drops, out.rmem


def test_two_workers_share_one_receive_buffer() -> None:
    """What one has charged the other counts; every frame goes home to its own partition."""
    two = TwoWorkers(rcvbuf=10 * truesize(1, 4))
    for n in range(16):
        two.arrive(n % 2, datagram(bytes([n])))
    assert two.stats() == (10, 6, 10 * truesize(1, 4))
    got = []
    while (one := two.view.recvfrom(9)) is not None:
        got.append(one[0][0])
    assert sorted(got) == list(range(10))
    assert [n for n in got if n % 2 == 0] == [0, 2, 4, 6, 8]  # in order by worker
    assert two.stats()[2] == 0
    two.arrive(1, datagram(b"again"))
    assert two.stats()[0] == 1
    with_batch = two.view.recv_batch(9)
    assert with_batch is not None
    with_batch.release()
    del with_batch
    for worker in two.core.workers:
        lib.xs_worker_walk(worker, 0, ffi.NULL, 0)
        frames = ffi.new("uint32_t[256]")
        assert lib.xs_worker_take(worker, frames, 256) == 256  # all came home
    assert two.core.ledger().missing == 0


def test_many_threads_lose_and_double_nothing() -> None:
    """Two readers, one feeder, one who binds and closes other sockets: each datagram is read once."""
    host = ByHandHost([packed(HERE)[12:]], frames=2048)
    sock = host.udp.open((HERE, 7))
    sock.settimeout(10)
    total, seen, lock = 5000, [], threading.Lock()

    def read() -> None:
        mine = []
        while True:
            payload = sock.recv(9)
            if payload == b"end":
                break
            mine.append(int.from_bytes(payload))
        with lock:
            seen.extend(mine)

    def churn() -> None:
        while not done.is_set():
            other = host.udp.open((HERE, 0))
            other.sendto(b"x", (PEER, 9))
            other.close()

    done = threading.Event()
    readers = [threading.Thread(target=read) for _ in range(2)]
    churner = threading.Thread(target=churn)
    for thread in (*readers, churner):
        thread.start()
    sent = 0
    while sent < total:
        if sock.stats()["queued"] > 100:
            os.sched_yield()
            continue
        host.arrive(datagram(sent.to_bytes(4)))
        sent += 1
        if sent % 100 == 0:
            host.take_sent()
    done.set()
    churner.join(10)
    host.take_sent()
    host.arrive(datagram(b"end"), datagram(b"end"))
    for reader in readers:
        reader.join(10)
    assert sorted(seen) == list(range(total))
    host.udp.close()
    assert host.core.ledger().missing == 0


def test_a_forked_child_is_told() -> None:
    host = ByHandHost([packed(HERE)[12:]])
    sock = host.udp.open((HERE, 7))
    sock.setblocking(False)
    host.arrive(datagram(b"the parent's"))
    in_a_child_raises_forked(lambda: sock.recv(9), lambda: sock.sendto(b"x", (PEER, 9)), sock.recv_batch)
    assert sock.recv(99) == b"the parent's"


def test_a_batch_is_the_parents_and_a_view_of_it_shows_a_child_zeros() -> None:
    host = ByHandHost([packed(HERE)[12:]])
    sock = host.udp.open((HERE, 7))
    host.arrive(datagram(b"one"), datagram(b"two"), datagram(b"three"))
    batch = sock.recv_batch(2)
    other = sock.recv_batch(1)
    view = batch.view(0)
    in_a_child_raises_forked(batch.payloads, batch.views, lambda: batch.view(1), lambda: memoryview(view.obj))
    assert in_a_child(lambda: bytes(view) == bytes(3)) == 0
    assert in_a_child(lambda: batch.release() or other.__exit__(None, None, None) or True) == 0

    def collect() -> bool:
        nonlocal batch, other, view
        del batch, other, view
        return gc.collect() >= 0

    assert in_a_child(collect) == 0
    assert batch.payloads() == [b"one", b"two"]
    assert bytes(view) == b"one"


def in_a_child(call: Callable[[], object]) -> int:
    """Calls it in a forked child; the exit status: 0 when it returned something true."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if call() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_a_child_raises_forked(*calls: Callable[[], object]) -> None:
    def all_raise() -> bool:
        for call in calls:
            with pytest.raises(ForkedError):
                call()
        return True

    assert in_a_child(all_raise) == 0


def test_one_wake_up_for_two_datagrams_wakes_two_readers() -> None:
    """Both sleep; what wakes them comes once. The first to wake passes it on."""
    host = ByHandHost([packed(HERE)[12:]])
    host.driven = True  # they only sleep: nothing else could wake them
    sock = host.udp.open((HERE, 7))
    sock.settimeout(None)
    got: list[bytes] = []
    for _ in range(200):
        readers = [threading.Thread(target=lambda: got.append(sock.recv(9))) for _ in range(3)]
        for reader in readers:
            reader.start()
        host.arrive(*[datagram(b"x")] * 3)
        for reader in readers:
            reader.join(10)
            assert not reader.is_alive()
    assert len(got) == 600
    host.udp.close()


def test_a_signal_that_interrupts_no_system_call_is_seen() -> None:
    """It came to another thread, or just before the reader slept: Python's handler runs all the same, and may raise."""

    class Seen(Exception):
        pass

    def handler(*_: object) -> None:
        raise Seen

    def send() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    sender = threading.Timer(0.05, send)
    try:
        with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}) as stack, stack.udp(("10.0.0.1", 7)) as sock:
            sock.settimeout(20.0)
            began = time.monotonic()
            sender.start()
            with pytest.raises(Seen):
                sock.recvfrom(100)
            assert time.monotonic() - began < 10.0
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
