"""Several threads on one socket, made to meet: a worker that is held keeps whoever wants it waiting."""

from __future__ import annotations

import ctypes
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.csrc.compile import load
from tests.udp.by_hand_host import ByHandHost
from xdpstack.native import ffi, lib
from xdpstack.routing.ask import source_address
from xdpstack.testing.wait import until
from xdpstack.udp.address import unpacked


@pytest.fixture
def host() -> ByHandHost:
    return ByHandHost(addresses=[b"\x0a\0\0\1"])


@contextmanager
def held(host: ByHandHost) -> Iterator[None]:
    """Nobody drives the worker meanwhile."""
    lib.xs_worker_hold(host.rx.worker)
    try:
        yield
    finally:
        lib.xs_worker_unhold(host.rx.worker)


def is_inside(thread: threading.Thread, function: str) -> bool:
    """Whether a thread is in what a function calls in C: past its first line, where it can be interrupted, and no deeper."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == function and frame.f_lineno > frame.f_code.co_firstlineno


def test_two_threads_that_wait_for_their_turn_send_each_to_its_own_address(host: ByHandHost) -> None:
    sock = host.udp.open(("10.0.0.1", 7), reserve=False)
    threads = []
    with held(host):
        for where in ("10.0.0.2", "10.0.0.3"):
            threads.append(threading.Thread(target=sock.sendto, args=(where.encode(), (where, 9))))
            threads[-1].start()
            until(partial(is_inside, threads[-1], "_send"))
    for thread in threads:
        thread.join()
    sent = {data[8:].decode(): unpacked(bytes(meta.dst), 9, 4)[0] for data, _, meta in host.take_sent()}
    assert sent == {"10.0.0.2": "10.0.0.2", "10.0.0.3": "10.0.0.3"}


def test_the_size_of_a_buffer_can_change_while_another_thread_has_the_worker(host: ByHandHost) -> None:
    """Whoever waits for the worker lets the thread that has it run Python."""
    sock = host.udp.open(("10.0.0.1", 7), reserve=False)
    with held(host):
        thread = threading.Thread(target=sock.setsockopt, args=(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20))
        thread.start()
        until(partial(is_inside, thread, "resize"))
    thread.join()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 << 20


def test_a_queue_that_others_look_at_stays_where_it_is() -> None:
    """Waiting threads, and stats(), look without the GIL: they may still have the ring as it was before."""
    host = ByHandHost(addresses=[b"\x0a\0\0\1"], frames=4096)
    sock = host.udp.open(("10.0.0.1", 7), reserve=False)
    bystander = load("feed_harness.c")
    bystander.feed_ring.restype = ctypes.c_void_p
    queue = ctypes.c_void_p(int(ffi.cast("uintptr_t", sock._endpoint.pointer)))

    def resize(size: int) -> tuple[Any, int]:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        ring = ctypes.c_void_p(bystander.feed_ring(queue))
        return ring, bystander.ring_slots(ring)

    small, slots = resize(1 << 17)
    large, more = resize(1 << 20)
    assert more > slots
    assert resize(1 << 17)[0].value == large.value  # what is large enough goes on serving
    assert resize(1 << 20)[0].value == large.value
    assert (bystander.ring_slots(small), bystander.ring_length(small)) == (slots, 0)


def test_the_source_address_is_asked_for_while_no_table_can_go(host: ByHandHost) -> None:
    """connect() asks the FIB in a worker's place, so that whoever replaces it waits."""
    answers: list[bytes | None] = []
    thread = threading.Thread(target=lambda: answers.append(source_address(host.core.pointer, b"\x0a\0\0\2")))
    with held(host):
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
    thread.join()
    assert answers == [None]
