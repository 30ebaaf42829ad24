"""Visiting another network namespace."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import pytest

from xdpstack.netlink import HeldNamespace

pytestmark = pytest.mark.root
HERE = "/proc/self/ns/net"


class Interrupted(Exception):
    """A signal has come."""


@pytest.mark.parametrize("settled", [False, True], ids=["visiting", "settled"])
def test_who_is_interrupted_waits_for_what_is_under_way(settled: bool) -> None:
    """What he gives up then, as memory and devices that were being opened, is not taken from who still uses it."""
    begun, interrupted, gone = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        raise Interrupted

    def visit() -> None:
        begun.set()
        assert interrupted.wait(10)
        seen.append(gone.wait(0.2))

    def send() -> None:
        assert begun.wait(10)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = threading.Thread(target=send)
    try:
        with HeldNamespace(HERE) as place:
            if settled:
                place.settle()
            sender.start()
            with pytest.raises(Interrupted):
                place.run(visit)
            gone.set()
            assert place.run(lambda: seen) == [False]
    finally:
        signal.signal(signal.SIGUSR1, before)
        sender.join()


@pytest.mark.parametrize("settled", [False, True], ids=["visiting", "settled"])
def test_what_is_raised_there_is_raised_here(settled: bool) -> None:
    def fail() -> None:
        raise TimeoutError("there")

    with HeldNamespace(HERE) as place:
        if settled:
            place.settle()
        for _ in range(3):
            with pytest.raises(TimeoutError, match="there"):
                place.run(fail)
            assert place.run(threading.get_ident) != threading.get_ident()


def test_what_cannot_begin_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with HeldNamespace(HERE) as place:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                place.run(list)
        assert place.run(list) == []
