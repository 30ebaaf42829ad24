"""Several threads on one socket, made to meet: a worker that is held keeps whoever wants it waiting."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.udp.by_hand_host import ByHandHost
from xdpstack.native import lib
from xdpstack.testing.wait import until
from xdpstack.udp.address import unpacked


@pytest.fixture
def host() -> Iterator[ByHandHost]:
    yield ByHandHost(addresses=[b"\x0a\0\0\1"])


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
