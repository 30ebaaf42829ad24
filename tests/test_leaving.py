"""The end of the interpreter with a stack open: what was tuned is put back at once, the program is gone, nothing is left."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths.world import kernel_udp
from xdpstack import leaving
from xdpstack.device.ethtool import offloads
from xdpstack.device.tuning import journal
from xdpstack.device.tuning.knobs import knob
from xdpstack.native import lib
from xdpstack.netlink import HeldNamespace, namespace
from xdpstack.testing import memory_stack
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

CHILD = Path(__file__).with_name("left_open.py")
HERE = "/proc/self/ns/net"


def tuned(end: End) -> tuple[object, ...]:
    """napi_defer_hard_irqs, gro_flush_timeout, and whether GRO is on."""

    def look() -> tuple[object, ...]:
        features = offloads(end.name)
        assert features is not None
        files = [knob(end.name, name).read() for name in ("napi_defer_hard_irqs", "gro_flush_timeout")]
        return *files, features["rx-gro"].on

    return end.netns.call(look)


@pytest.mark.root
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "how, status", [("exit", 3), ("exception", 1), ("interrupt", -2), ("run", 3), ("receive", 3), ("run hook", 3)]
)
def test_what_was_tuned_is_put_back(
    how: str, status: int, workers: int, veth: Callable[..., Veth], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `hook` a thread is in a Python hook that never comes back: it is not waited for for ever."""
    monkeypatch.setenv("XDPSTACK_RUN", str(tmp_path))
    pair = veth(offloads=["gro on"])
    words = [pair.near.netns.name, pair.near.name, pair.near.address, how, str(workers)]
    root = str(CHILD.parents[1])
    child = subprocess.Popen(
        [sys.executable, "-W", "always::ResourceWarning", CHILD, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": root, "XDPSTACK_RUN": str(tmp_path)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    assert tuned(pair.near) == (2, 200_000, False)
    assert pair.near.has_xdp()
    if "hook" in how:
        with kernel_udp(pair.far.netns) as client:
            until(lambda: client.sendto(b"x", (pair.near.address, 7)) and child.poll() is not None)
    _, said = child.communicate("\n", timeout=60)
    assert child.returncode == status, said
    assert tuned(pair.near) == (0, 0, True)
    assert not pair.near.has_xdp()
    assert journal.journals(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    assert "ResourceWarning: <Stack near0 (native)" in said
    assert ("a hook does not come back" in said) == ("hook" in how)
    assert "could not be closed" not in said


def test_who_visits_a_namespace_at_the_end_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """He goes himself: no thread can be started there any more."""
    threads: list[int] = []
    monkeypatch.setattr(namespace, "_in_place", True)
    moves: list[str] = []
    monkeypatch.setattr(namespace, "_move", lambda descriptor, name: moves.append(name))
    with HeldNamespace(HERE) as place:
        place.run(lambda: threads.append(threading.get_ident()))
        with pytest.raises(LookupError):
            place.run(lambda: {}["no"])
    assert threads == [threading.get_ident()]
    assert moves == [HERE, "/proc/thread-self/ns/net"] * 2


def test_a_stack_is_watched_until_it_is_closed() -> None:
    with memory_stack() as stack:
        assert not stack.closed
        assert repr(stack) == "<Stack a0 (memory)>"
        assert stack in leaving._open
    assert stack.closed
    assert repr(stack) == "<Stack a0 (memory) closed>"
    assert stack not in leaving._open


def test_what_fails_at_the_end_keeps_no_other_stack_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(namespace, "_in_place", False)  # to be put back
    monkeypatch.setattr(leaving, "_open", type(leaving._open)())
    stacks = [memory_stack() for _ in range(3)]

    def fails() -> None:
        raise OSError("no")

    for stack in stacks:
        monkeypatch.setattr(stack._frames, "close", fails)
    with pytest.warns(ResourceWarning, match="was never closed"):
        leaving.close_all()
    assert all(stack.closed and lib.xs_worker_epoll_fd(stack._core.workers[0]) == -1 for stack in stacks)
    assert caplog.text.count("could not be closed at the end") == 3
    leaving.close_all()


def test_threads_leave_run_for_the_end() -> None:
    with memory_stack() as stack:
        thread = threading.Thread(target=stack.run)
        thread.start()
        until(lambda: stack.driven)
        assert stack._driving.stop_hooks(10)
        thread.join()


def test_a_hook_that_does_not_return_is_not_waited_for() -> None:
    with memory_stack() as stack:
        inside, leave = threading.Event(), threading.Event()

        def hook(batch: object) -> None:
            inside.set()
            leave.wait()

        stack.hook("tc.rx", hook)
        stack.inject("a0", bytes(60))
        thread = threading.Thread(target=stack.poll)
        thread.start()
        try:
            assert inside.wait(10)
            began = time.monotonic()
            assert not stack._driving.stop_hooks(0.05)
            assert time.monotonic() - began < 5
        finally:
            leave.set()
            thread.join()
        assert stack._driving.stop_hooks(10)
