"""The end of a stack, and of run()."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from xdpstack import closing
from xdpstack.errors import ClosedError
from xdpstack.native import lib
from xdpstack.testing import memory_stack
from xdpstack.testing.wait import until


def test_run_can_be_called_again_after_stop() -> None:
    with memory_stack() as stack:
        for _ in range(3):
            thread = threading.Thread(target=stack.run)
            thread.start()
            until(lambda: stack.driven)
            stack.stop()
            thread.join()
        thread = threading.Thread(target=stack.run)
        thread.start()
        polls = stack.counters  # it goes on until it is stopped
        until(lambda: stack.driven)
        assert polls() is not None
        assert thread.is_alive()
        stack.stop()
        thread.join()


def test_a_stop_before_run_ends_it_at_once() -> None:
    with memory_stack() as stack:
        stack.stop()
        stack.run()
        stack.run(seconds=0.01)


def test_stop_may_interrupt_run_anywhere() -> None:
    """As a signal handler does, which runs between any two lines of the thread that it interrupts."""
    lines = 0

    def interrupt(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            sys.settrace(None)
            stack.stop()
            sys.settrace(interrupt)
        return interrupt

    def run() -> None:
        sys.settrace(interrupt)
        try:
            stack.run()
        finally:
            sys.settrace(None)

    with memory_stack() as stack:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert lines > 10


def test_close_waits_for_the_threads_that_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    """They use descriptors that are closed at the end."""
    stack = memory_stack()
    ended: list[str] = []
    hold = threading.Event()

    def slow(batch: object) -> None:
        hold.set()
        until(lambda: stack._closing)

    stack.hook("tc.rx", slow)
    stack.inject("a0", bytes(60))
    driver = threading.Thread(target=lambda: (stack.run(), ended.append("run")))
    driver.start()
    assert hold.wait(10)
    withdraw = stack.backend.withdraw
    monkeypatch.setattr(stack.backend, "withdraw", lambda: (ended.append("withdrawn"), withdraw()))
    stack.close()
    driver.join()
    assert ended == ["run", "withdrawn"]


def test_what_stays_held_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker does nothing while packets of it are parked for a Python hook."""
    monkeypatch.setattr(closing, "DRAIN_SECONDS", 0.01)
    with memory_stack(addresses={"a0": ["10.0.0.1/24"]}) as stack:
        [worker] = stack._core.workers
        with stack.udp(("10.0.0.1", 7), reserve=False) as sock:
            sock.sendto(b"to nobody", ("10.0.0.2", 7))
        assert stack._neigh.held() == 1
        stack.hook("tc.rx", lambda batch: None)
        stack.inject("a0", bytes(60))
        assert lib.xs_worker_poll(worker, 64) == 1
        assert lib.xs_worker_parked(worker)
        closing.drop_held(stack._core, stack._neigh)
        assert stack._neigh.held() == 1
        monkeypatch.undo()  # closing has its time


def test_what_fails_at_the_end_does_not_keep_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = memory_stack()

    def fails() -> None:
        raise OSError("no")

    monkeypatch.setattr(stack._frames, "close", fails)
    with pytest.raises(OSError, match="no"):
        stack.close()
    with pytest.raises(ClosedError):
        stack.poll()
    assert lib.xs_worker_epoll_fd(stack._core.workers[0]) == -1
    stack.close()
