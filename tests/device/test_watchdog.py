"""The dead-man watchdog: work that waits and no progress loses the traffic; idleness, sleep and a busy interpreter do not.

Windows are short, and everything is judged by deadlines and time stamps, not by how long a test slept.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from tests.device.harness import EXPERIMENTAL, Harness, frame
from tests.device.server import Server
from xdpstack.device.claims import EthertypeClaim
from xdpstack.device.device import KernelBackend
from xdpstack.device.watchdog import Watchdog
from xdpstack.device.xdp import XdpProgram
from xdpstack.native import lib
from xdpstack.native.core import Core
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import tick_ns, until

pytestmark = pytest.mark.root
MakeVeth, MakePeer = Callable[..., Veth], Callable[..., Peer]
CLAIM = EthertypeClaim(EXPERIMENTAL)
WINDOW = 0.5


def program_of(backend: KernelBackend) -> XdpProgram:
    program = backend.interfaces[0].program
    assert program is not None
    return program


def left(backend: KernelBackend) -> float:
    """Seconds until the deadline; negative: it is over."""
    return program_of(backend).deadman.deadline_ns / 1e9 - time.monotonic()


def over(backend: KernelBackend) -> bool:
    """Whether the program finds that it is."""
    return program_of(backend).deadman.deadline_ns <= tick_ns()


def renewals(backend: KernelBackend) -> int:
    assert backend.watchdog is not None
    return backend.watchdog.counters().renewals


def test_an_idle_worker_is_alive(veth: MakeVeth) -> None:
    """Nobody polls, and nothing waits."""
    pair = veth()
    with Harness() as harness:
        backend = harness.open(pair.near, window_seconds=WINDOW)
        backend.claim(CLAIM)
        assert left(backend) > 0
        before = renewals(backend)
        until(lambda: renewals(backend) > before + 16)  # two windows long
        assert WINDOW * 0.5 < left(backend) <= WINDOW
        assert backend.watchdog is not None
        assert backend.watchdog.counters().lapses == 0


def test_packets_that_nobody_fetches_end_it_and_a_poll_brings_it_back(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        backend = harness.open(pair.near, window_seconds=WINDOW)
        backend.claim(CLAIM)
        raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: lib.xs_worker_wait(harness.worker, 0))
        until(lambda: over(backend))
        assert backend.stats()["xdp.rx.redirect_ethertype"] == 1
        raw.send(frame(pair.far, pair.near, b"y" * 60))  # the kernel's
        until(lambda: backend.stats().get("xdp.rx.pass_deadman") == 1)
        assert program_of(backend).deadman.lapses == 1
        assert backend.watchdog is not None
        until(lambda: backend.watchdog.counters().lapses == 1)
        assert harness.receive(1)[0][14:] == b"x" * 60
        until(lambda: left(backend) > 0)
        raw.send(frame(pair.far, pair.near, b"z" * 60))
        assert harness.receive(1)[0][14:] == b"z" * 60


def test_a_worker_that_polls_under_load_is_alive(veth: MakeVeth, peer: MakePeer) -> None:
    """Its RX ring is hardly ever seen empty; it is its polls that count."""
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        backend = harness.open(pair.near, window_seconds=WINDOW)
        backend.claim(CLAIM)
        sent = frame(pair.far, pair.near, b"x" * 60)
        end = time.monotonic() + 4 * WINDOW
        for _ in range(8):
            raw.send(sent)
        while time.monotonic() < end:
            raw.send(sent)
            harness.poll(budget=1)
            harness.resume([lib.XS_DROP] * len(harness.parked()))
            assert left(backend) > 0
        harness.receive(1)


def test_a_hook_that_hangs_ends_it(veth: MakeVeth, peer: MakePeer) -> None:
    """Packets are parked for a Python hook that never answers: polls come back at once and fetch nothing."""
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        backend = harness.open(pair.near, window_seconds=WINDOW)
        backend.claim(CLAIM)
        raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: harness.poll() == 1)
        raw.send(frame(pair.far, pair.near, b"y" * 60))
        until(lambda: over(backend) or harness.poll() >= 0)
        assert over(backend)
        harness.resume([lib.XS_DROP])
        harness.receive(1)
        until(lambda: left(backend) > 0)


def test_a_busy_interpreter_does_not_stop_it(veth: MakeVeth) -> None:
    """The thread never takes the GIL."""
    pair = veth()
    with Harness() as harness:
        backend = harness.open(pair.near, window_seconds=WINDOW)
        before = sys.getswitchinterval()
        sys.setswitchinterval(10.0)
        try:
            end = time.monotonic() + 3 * WINDOW
            deadman = program_of(backend).deadman
            pointer = deadman.pointer
            while time.monotonic() < end:  # only calls that keep the GIL
                assert pointer.deadline_ns / 1e9 > time.monotonic()
        finally:
            sys.setswitchinterval(before)


def test_it_ends_promptly_and_leaves_the_deadline_over(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        backend = harness.open(pair.near, window_seconds=3600.0)
        deadman = program_of(backend).deadman
        assert deadman.deadline_ns / 1e9 > time.monotonic() + 3000
        watchdog = backend.watchdog
        assert watchdog is not None
        began = time.monotonic()
        watchdog.remove(deadman)
        assert deadman.deadline_ns == 0
        watchdog.add(deadman)
        assert deadman.deadline_ns > 0
        watchdog.stop()
        watchdog.stop()
        assert time.monotonic() - began < 60.0  # a look is 450 s away
        assert deadman.deadline_ns == 0
        backend.watchdog = None
        backend.interfaces[0]._watched = False


def test_a_queue_may_come_and_go_while_it_looks(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        watchdog = Watchdog(harness.core, 0.001)  # looks 8,000 times a second
        for _ in range(20):
            harness.attach(pair.near)
            harness.detach()
        assert watchdog.counters().looks > 0
        watchdog.stop()


def test_signals_go_to_the_programs_own_threads() -> None:
    """All are blocked in the watchdog's thread."""
    watchdog = Watchdog(Core(frames=64), 0.1)
    until(lambda: watchdog.counters().looks)
    masks = {}
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - not paths
        with open(f"/proc/self/task/{task}/status") as status:  # noqa: PTH123
            fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        masks[fields["Name"].strip()] = int(fields["SigBlk"], 16)
    blockable = sum(1 << number - 1 for number in range(1, 65)) & ~(1 << signal.SIGKILL - 1 | 1 << signal.SIGSTOP - 1)
    assert masks["xdpstack-dog"] & 0x7FFFFFFF == blockable & 0x7FFFFFFF
    watchdog.stop()


def answered(raw: Peer, pair: Veth, seconds: float) -> bool:
    raw.send(frame(pair.far, pair.near, b"x" * 60))
    try:
        return raw.receive(seconds) == frame(pair.near, pair.far, b"x" * 60)
    except AssertionError:
        return False


def test_a_stopped_process_loses_the_traffic_and_has_it_back_when_it_goes_on(veth: MakeVeth, peer: MakePeer) -> None:
    """Judged by the time stamps that the program stores."""
    pair = veth()
    raw = peer(pair.far)
    server = Server(pair.near, WINDOW)
    try:
        assert answered(raw, pair, 5.0)
        server.signal(signal.SIGSTOP)
        stopped_ns = time.monotonic_ns()
        end = time.monotonic() + 3 * WINDOW
        while time.monotonic() < end:
            raw.send(frame(pair.far, pair.near, b"x" * 60))
            time.sleep(0.005)  # a steady stream, of which the first frame past the deadline is stamped
        server.signal(signal.SIGCONT)
        until(lambda: answered(raw, pair, 0.2))
        first_pass_ns, lapses, stats = server.ask()
        assert lapses == 1
        assert stats["xdp.rx.pass_deadman"] > 0
        late = (first_pass_ns - stopped_ns) / 1e9
        assert WINDOW * 0.7 < late < WINDOW * 1.3 + 0.1
    finally:
        assert server.end() == 0


def test_a_killed_process_gives_the_traffic_back_at_once(veth: MakeVeth, peer: MakePeer) -> None:
    """The link goes with its last descriptor, the program with the link; and a restart works."""
    pair = veth()
    raw = peer(pair.far)
    for _ in range(3):
        server = Server(pair.near, 3600.0)
        assert answered(raw, pair, 5.0)
        assert pair.near.has_xdp()
        server.signal(signal.SIGKILL)
        assert server.end() == -signal.SIGKILL
        until(lambda: not pair.near.has_xdp(), seconds=2.0)
        assert not answered(raw, pair, 0.05)


def test_a_killed_process_gives_it_back_though_a_child_of_it_lives(veth: MakeVeth, peer: MakePeer) -> None:
    """A forked child lets go of what its parent has open."""
    pair = veth()
    raw = peer(pair.far)
    server = Server(pair.near, 3600.0, "fork")
    assert answered(raw, pair, 5.0)
    server.signal(signal.SIGKILL)
    server.process.wait()
    until(lambda: not pair.near.has_xdp(), seconds=2.0)
    server.end()  # the child, with its input


def test_threads_may_ask_while_it_runs() -> None:
    watchdog = Watchdog(Core(frames=64), 0.01)
    threads = [threading.Thread(target=lambda: [watchdog.counters() for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watchdog.stop()
