"""A thread for each worker: what they do by themselves, who runs hooks then, and that all of it ends."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

import xdpstack
from tests.driving import worker_threads
from xdpstack.errors import ClosedError, ConfigurationError, ForkedError
from xdpstack.testing import MemoryDevice, MemoryStack, check_open, memory_stack, until

#: Without a checksum, so that the last bytes can be any number.
TEMPLATE = bytes(
    Ether(dst="02:00:00:00:00:01") / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=5, dport=7, chksum=0) / bytes(4)
)
PEER = ("10.0.0.2", 5)


def datagram(number: int) -> bytes:
    return TEMPLATE[:-4] + number.to_bytes(4)


def number_of(data: bytes) -> int:
    return int.from_bytes(data[-4:])


def opened(workers: int = 2, **options: Any) -> MemoryStack:
    return memory_stack(
        MemoryDevice("a0", queues=workers),
        addresses={"a0": ["10.0.0.1/24"]},
        neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99"],
        workers=workers,
        threads=True,
        **options,
    )


@pytest.fixture(autouse=True)
def of_one_test() -> None:
    """A thread is among the process's for a moment after whoever waited for its end was told: here of an earlier test's."""
    until(lambda: not worker_threads())


@contextmanager
def running(stack: MemoryStack, threads: int = 1) -> Iterator[list[BaseException]]:
    """So many threads are in run(); what they raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            stack.run()
        except Exception as error:
            failures.append(error)

    made = [threading.Thread(target=run) for _ in range(threads)]
    for thread in made:
        thread.start()
    until(lambda: (len(stack._driving._running) == threads and not stack._driving._serving) or failures)
    try:
        yield failures
    finally:
        if stack._driving._running:  # else it would end the next run()
            stack.stop()
        for thread in made:
            thread.join(10)
            assert not thread.is_alive()


def test_each_worker_has_a_thread_and_serves_its_queue() -> None:
    with opened() as stack, stack.udp(("10.0.0.1", 7)) as sock:
        assert set(worker_threads()) == {"xdpstack/0", "xdpstack/1"}
        assert (stack.info()["workers"], stack.info()["threads"], stack.driven) == (2, True, True)
        sock.settimeout(10)
        for number in range(500):
            assert stack.inject("a0", datagram(number), queue=number % 2) == 1
            data, peer = sock.recvfrom(100)
            assert (number_of(data), peer) == (number, PEER)
            assert sock.sendto(data, peer) == 4
            until(lambda: len(answers := stack.sent("a0")) == 1 and number_of(answers[0]) == number)  # noqa: B023
        stack.backend.service()
    until(lambda: worker_threads() == {})
    assert stack.ledger().missing == 0


def test_the_descriptor_is_readable_only_when_there_is_something() -> None:
    with opened() as stack, stack.udp(("10.0.0.1", 7)) as sock, select.epoll() as epoll:
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)
        for number in range(200):
            assert epoll.poll(0) == []
            stack.inject("a0", datagram(number), queue=number % 2)
            assert len(epoll.poll(10)) == 1
            assert number_of(sock.recv(100)) == number
            with pytest.raises(BlockingIOError):
                sock.recv(100)


def test_hooks_run_though_nobody_is_in_run(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def look(batch: Any) -> None:
        seen.append(threading.current_thread().name)
        if any(number_of(packet.tobytes()) == 13 for packet in batch):
            raise ValueError("13")

    with opened() as stack, stack.udp(("10.0.0.1", 7)) as sock, caplog.at_level(logging.ERROR):
        stack.hook("netfilter.input", look)
        sock.settimeout(10)
        for number in (1, 13, 2):
            stack.inject("a0", datagram(number), queue=number % 2)
            if number != 13:
                assert number_of(sock.recv(100)) == number
            else:
                until(lambda: stack.reasons() == {"HOOK_EXCEPTION": 1})
        assert set(seen) == {"xdpstack-hooks"}
        assert "nobody is in run()" in caplog.text
    assert "xdpstack-hooks" not in {thread.name for thread in threading.enumerate()}


def test_who_is_in_run_runs_the_hooks_and_is_told_what_they_raise() -> None:
    seen: list[str] = []

    def look(batch: Any) -> None:
        seen.append(threading.current_thread().name)
        if number_of(batch[0].tobytes()) == 13:
            raise ValueError("13")

    with opened() as stack, stack.udp(("10.0.0.1", 7)) as sock:
        stack.hook("netfilter.input", look)
        sock.settimeout(10)
        for _ in range(20):  # the thread for hooks steps back, and comes again
            with running(stack) as failures:
                stack.inject("a0", datagram(1))
                assert number_of(sock.recv(100)) == 1
                stack.inject("a0", datagram(13), queue=1)
                until(lambda: failures)
                assert str(failures[0]) == "13"
            assert "xdpstack-hooks" not in seen
            stack.inject("a0", datagram(2), queue=1)
            assert number_of(sock.recv(100)) == 2
            assert seen.pop() == "xdpstack-hooks"


def test_run_ends_in_time_though_a_hook_that_another_thread_runs_does_not() -> None:
    inside, leave, left = threading.Event(), threading.Event(), threading.Event()

    def blocks(batch: xdpstack.HookBatch) -> None:
        inside.set()
        leave.wait(10)
        left.set()

    with opened() as stack:
        stack.hook("tc.rx", blocks)
        stack.inject("a0", datagram(0))
        assert inside.wait(10)
        stack.run(0.05)
        assert not left.is_set()
        leave.set()


def test_a_hook_that_blocks_holds_up_its_own_worker_alone() -> None:
    release = threading.Event()

    def slow(batch: Any) -> None:
        if batch[0].queue == 0:
            assert release.wait(10)

    with opened() as stack, stack.udp(("10.0.0.1", 7)) as sock:
        stack.hook("netfilter.input", slow)
        sock.settimeout(10)
        with running(stack, threads=2):
            stack.inject("a0", datagram(1), queue=0)
            until(lambda: stack._walk.turns[0].thread)
            for number in range(50):
                stack.inject("a0", datagram(number), queue=1)
                assert number_of(sock.recv(100)) == number
            release.set()
            assert number_of(sock.recv(100)) == 1


def test_who_sends_does_not_wait_for_a_hook_that_another_thread_runs() -> None:
    release, began = threading.Event(), threading.Event()

    def slow(batch: Any) -> None:
        began.set()
        assert release.wait(10)

    with opened(workers=1) as stack, stack.udp(("10.0.0.1", 7)) as sock:
        stack.hook("netfilter.input", slow)
        stack.inject("a0", datagram(1))
        assert began.wait(10)
        for number in range(50):
            assert sock.sendto(number.to_bytes(4), PEER) == 4
        assert [number_of(frame) for frame in stack.sent("a0")] == list(range(50))
        release.set()
        sock.settimeout(10)
        assert number_of(sock.recv(100)) == 1
        stack.backend.service()


def test_a_layer_may_run_in_python() -> None:
    with opened(engines={"udp": "python"}) as stack, stack.udp(("10.0.0.1", 7)) as sock:
        sock.settimeout(10)
        for number in range(100):
            stack.inject("a0", datagram(number), queue=number % 2)
            data, peer = sock.recvfrom(100)
            assert sock.sendto(data, peer) == 4
            until(lambda: [number_of(frame) for frame in stack.sent("a0")] == [number])  # noqa: B023
            stack.backend.service()


def test_the_path_changes_under_traffic() -> None:
    """While three threads send and receive, hooks and frames of a claim come and go: nothing is lost on the way."""
    with opened() as stack, stack.udp(("10.0.0.1", 7)) as sock:
        sock.settimeout(10)
        total, received = 2000, []

        def read() -> None:
            for _ in range(total):
                received.append(number_of(sock.recv(100)))

        def feed() -> None:
            for number in range(total):
                until(lambda: stack.inject("a0", datagram(number), queue=number % 2))  # noqa: B023
                until(lambda: number - len(received) < 100)  # noqa: B023

        threads = [threading.Thread(target=read), threading.Thread(target=feed)]
        for thread in threads:
            thread.start()
        changes = 0
        while any(thread.is_alive() for thread in threads):
            hook = stack.hook("netfilter.input", lambda batch: None, name="nothing")
            with stack.frames(xdpstack.EverythingBut()):
                changes += 1
            stack.unhook(hook)
        assert changes
        assert sorted(received) == list(range(total))
        assert [n for n in received if n % 2] == list(range(1, total, 2)), "one queue's datagrams stay in order"
        stack._driving.end()
        check_open(stack._core)


def test_fifty_opens_and_closes_leave_nothing() -> None:
    def once() -> None:
        with opened() as stack, stack.udp(("10.0.0.1", 7)) as sock:
            stack.hook("tc.rx", lambda batch: None, name="nothing")
            stack.inject("a0", datagram(1), datagram(2))
            sock.settimeout(10)
            assert number_of(sock.recv(100)) == 1

    def open_now() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    once()
    before = open_now()
    for _ in range(50):
        once()
    # threads end a moment after whoever waits for them is told; of an earlier test's, too
    until(lambda: all(now <= then for now, then in zip(open_now(), before, strict=True)))


def test_closing_wakes_whoever_waits() -> None:
    stack = opened()
    sock = stack.udp(("10.0.0.1", 7))
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            sock.recv(1)
        except ClosedError as error:
            raised.append(error)

    reader = threading.Thread(target=wait)
    reader.start()
    with running(stack):
        stack.close()
    reader.join(10)
    assert len(raised) == 1


def test_a_child_has_no_threads_and_is_told_so() -> None:
    with opened() as stack, stack.udp(("10.0.0.1", 7)) as sock:
        sock.settimeout(10)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                refused = [refuses(stack.run), refuses(stack.poll), refuses(lambda: sock.recv(1))]
                stack.close()
                status = 0 if all(refused) and worker_threads() == {} else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stack.inject("a0", datagram(3))
        assert number_of(sock.recv(100)) == 3


def refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except ForkedError:
        return True
    return False


def test_threads_are_pinned_when_asked() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    wanted = (cpus[-1], cpus[0])
    with opened(cpus=wanted) as stack:
        for number, cpu in enumerate(wanted):
            assert os.sched_getaffinity(int(worker_threads()[f"xdpstack/{number}"].name)) == {cpu}
        assert stack.info()["cpus"] == wanted


def test_a_cpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="1000"):
        opened(cpus=(0, 1000))
    until(lambda: worker_threads() == {})


def test_as_many_cpus_as_workers() -> None:
    with pytest.raises(ConfigurationError, match="1 CPUs for 2 workers"):
        xdpstack.open("lo", workers=2, cpus=[0])
    with pytest.raises(ConfigurationError, match="1 CPUs for no workers"):
        xdpstack.open("lo", cpus=[0])
