"""What goes wrong around a running stack: processes killed and stopped, interfaces that go, buffers that are full, forks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import xdpstack
from tests.paths.server import Server
from tests.paths.world import (
    FAR,
    NEAR,
    OURS,
    PORT,
    MakeNetns,
    MakeVeth,
    devices_of,
    echo_once,
    exchange,
    kernel_udp,
    opened,
)
from xdpstack.errors import ClosedError, ForkedError
from xdpstack.observe.server import running
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, tick_ns, until
from xdpstack.udp.socket import UdpSocket

pytestmark = pytest.mark.root
WINDOW = 0.2


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    return veth(near=NEAR, far=FAR)


def answered(client: socket.socket, seconds: float = PATIENCE) -> bool:
    """Whether one datagram comes back; what comes late from before does not count."""
    mark = os.urandom(8)
    client.settimeout(seconds)
    client.send(mark)
    with contextlib.suppress(TimeoutError, ConnectionRefusedError):
        while client.recv(99) != mark:
            pass
        return True
    return False


class Traffic:
    """A thread that sends datagrams without pause, and takes what comes back, until the end of its `with` block."""

    def __init__(self, netns: Namespace, to: tuple[str, int] = OURS[0]) -> None:
        self.sent = 0
        self._client = kernel_udp(netns, to=to)
        self._client.setblocking(False)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(OSError):  # refused, or the device is down
                self._client.send(b"traffic")
                self.sent += 1
            with contextlib.suppress(OSError):
                self._client.recv(99)
            time.sleep(0.0002)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ending.set()
        self._thread.join()
        self._client.close()


# ---- killed, stopped, idle ----


def test_killed_under_traffic_the_kernel_has_it_back_and_a_restart_works(pair: Veth) -> None:
    with kernel_udp(pair.far.netns, to=OURS[0]) as client, Traffic(pair.far.netns):
        for _ in range(2):
            with Server(pair.near, window_seconds=3600.0) as server:
                assert answered(client)
                server.kill()
                until(lambda: not pair.near.has_xdp(), seconds=2.0)
            with kernel_udp(pair.near.netns, OURS[0]) as kernel:
                client.send(b"the kernel's")
                while kernel.recv(99) != b"the kernel's":
                    pass
    assert all(not path.name.startswith(f"{server.process.pid}-") for path in running())  # who looks removes its socket


@pytest.mark.parametrize("how", ["recv", "epoll", "threads"])
def test_stopped_it_loses_the_traffic_and_has_it_back_when_it_goes_on(pair: Veth, how: str) -> None:
    """Judged by the time stamps that the program stores, not by the clock of the test."""
    with Server(pair.near, how, WINDOW) as server, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        assert answered(client)
        with Traffic(pair.far.netns):
            server.signal(signal.SIGSTOP)
            stopped_ns = time.monotonic_ns()
            time.sleep(3 * WINDOW)  # what is tested is that time passes
            server.signal(signal.SIGCONT)
        until(lambda: answered(client, 1.0))
        lifted = server.ask().counters["xdp.rx.redirect_socket"]
        until(lambda: answered(client, 1.0) and server.ask().counters["xdp.rx.redirect_socket"] > lifted)
        facts = server.ask()
        assert facts.lapses == 1
        assert facts.counters["xdp.rx.pass_deadman"] > 0
        assert facts.missing == 0
        assert WINDOW * 0.7 < (facts.first_pass_ns - stopped_ns) / 1e9 < WINDOW * 1.5 + 0.2


@pytest.mark.parametrize("how", ["recv", "epoll", "threads"])
def test_idle_it_stays_served(pair: Veth, how: str) -> None:
    """Longer than the window nothing comes; the next datagram still goes by AF_XDP."""
    with Server(pair.near, how, WINDOW) as server, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        assert answered(client)
        before = server.ask()
        time.sleep(4 * WINDOW)  # what is tested is that time passes
        assert answered(client)
        after = server.ask()
        assert after.counters["xdp.rx.redirect_socket"] == before.counters["xdp.rx.redirect_socket"] + 1
        # A frame that came before the first deadline was set has been passed, without a lapse.
        passed = [facts.counters.get("xdp.rx.pass_deadman", 0) for facts in (before, after)]
        assert (after.lapses, passed[1] - passed[0]) == (0, 0)


def test_what_nobody_reads_comes_by_the_kernel_after_a_while(pair: Veth) -> None:
    """The program does not come to reading; datagrams then go to the shadow socket, and none is lost."""
    with (
        opened(pair.near, deadman_seconds=1.0) as stack,
        stack.udp(OURS[0]) as sock,
        kernel_udp(pair.far.netns, to=OURS[0]) as client,
    ):
        sock.settimeout(PATIENCE)
        client.send(b"0")
        until(lambda: stack.counters().get("xdp.rx.redirect_socket") == 1)
        backend = devices_of(stack)
        [interface] = backend.interfaces
        # A late watchdog lets the deadline pass and renews it: only one that has seen the frame wait will not.
        watchdog = backend.watchdog
        assert watchdog is not None
        until(lambda: watchdog.counters().lapses == 1)
        until(lambda: interface.program.deadman.deadline_ns < tick_ns())
        client.send(b"1")
        until(lambda: stack.counters().get("xdp.rx.pass_deadman", 0) >= 1)  # or more: neighbours are asked for too
        with sock.recv_batch() as first:
            got = dict(zip(first.payloads(), first.slow.tolist(), strict=True))
        while len(got) < 2:
            with sock.recv_batch() as batch:
                got.update(zip(batch.payloads(), batch.slow.tolist(), strict=True))
        assert got == {b"0": False, b"1": True}
        until(lambda: interface.program.deadman.deadline_ns > time.monotonic_ns())
        exchange(sock, client, b"and back again")


# ---- interfaces ----


def serve_until(sock: UdpSocket, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    sock.settimeout(0.02)
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        with contextlib.suppress(TimeoutError, OSError):
            echo_once(sock)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_deleted_under_traffic(pair: Veth, mode: str) -> None:
    with opened(pair.near, mode=mode) as stack, stack.udp(("::", PORT)) as sock:
        with Traffic(pair.far.netns):
            serve_until(sock, lambda: stack.ledger().delivered > 50)
            pair.near.netns.ip(f"link delete {pair.near.name}")
            seen: list[str] = []

            def gone() -> bool:
                seen.extend(event.what for event in stack.events())
                return "gone" in seen

            serve_until(sock, gone)
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on who noticed first
            sock.sendto(b"x", ("10.0.0.2", 9))
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while sock.recv(99):
                pass
        until(lambda: stack.frames_by_owner()["filled"] == 0)  # the table of addresses may rest: it is told of before
    assert stack.ledger().missing == 0


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_set_down_and_up_under_traffic(pair: Veth, mode: str) -> None:
    seen: list[str] = []

    def noticed(stack: xdpstack.Stack, what: str) -> bool:
        seen.extend(event.what for event in stack.events())
        return seen[-1:] == [what]

    with opened(pair.near, mode=mode) as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        with Traffic(pair.far.netns):
            for _ in range(2):
                before = stack.ledger().delivered
                serve_until(sock, lambda before=before: stack.ledger().delivered > before + 50)
                pair.near.netns.ip(f"link set {pair.near.name} down")
                serve_until(sock, lambda: noticed(stack, "down"))
                pair.near.netns.ip(f"link set {pair.near.name} up")
                serve_until(sock, lambda: noticed(stack, "up"))
        assert seen == ["down", "up"] * 2
        assert stack.ledger().missing == 0


def sleeps(thread: threading.Thread) -> bool:
    """The thread is in a system call that waits."""
    return Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(") ")[2].startswith("S")


@pytest.mark.parametrize("what", ["socket", "stack"])
def test_a_reader_that_waits_for_ever_is_told_when_it_is_closed(pair: Veth, what: str) -> None:
    raised: list[BaseException] = []
    with opened(pair.near) as stack, stack.udp(OURS[0]) as sock:

        def read() -> None:
            try:
                sock.recv(99)
            except BaseException as error:
                raised.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: sleeps(reader))
        (sock if what == "socket" else stack).close()
        reader.join(PATIENCE)
        assert not reader.is_alive()
        assert isinstance(raised[0], ClosedError)


# ---- full ----


def test_a_full_receive_buffer_drops_with_the_kernels_reason(pair: Veth) -> None:
    with (
        opened(pair.near) as stack,
        stack.udp(OURS[0]) as sock,
        kernel_udp(pair.far.netns, to=OURS[0]) as client,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4000)
        for _ in range(50):
            client.send(bytes(100))
        until(lambda: stack.poll() >= 0 and stack.ledger().received == 50)
        stats = sock.stats()
        assert 0 < stats["datagrams"] < 50
        assert stats["datagrams"] + stats["drops"] == 50
        assert stack.reasons() == {"SOCKET_RCVBUFF": stats["drops"]}
        assert stack.counters()["udp.rx.drop.SOCKET_RCVBUFF"] == stats["drops"]
        sock.setblocking(False)
        for _ in range(stats["datagrams"]):
            assert sock.recv(200) == bytes(100)
        with pytest.raises(BlockingIOError):
            sock.recv(200)
        client.send(b"room again")
        sock.settimeout(PATIENCE)
        assert sock.recv(200) == b"room again"


# ---- fork ----


def test_a_forked_childs_first_call_raises_and_does_no_harm(pair: Veth) -> None:
    with (
        opened(pair.near) as stack,
        stack.udp(OURS[0]) as sock,
        kernel_udp(pair.far.netns, to=OURS[0]) as client,
    ):
        sock.settimeout(PATIENCE)
        exchange(sock, client, b"before")
        calls = {
            "recvfrom": lambda: sock.recvfrom(99),
            "recv_batch": sock.recv_batch,
            "sendto": lambda: sock.sendto(b"x", ("10.0.0.2", 9)),
            "send_batch": lambda: sock.send_batch([b"x"], ("10.0.0.2", 9)),
            "connect": lambda: sock.connect(("10.0.0.2", 9)),
            "setsockopt": lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 9000),
            "udp": lambda: stack.udp(("10.0.0.1", 0)),
            "poll": stack.poll,
            "run": lambda: stack.run(0.01),
            "hook": lambda: stack.hook("netfilter.input", lambda batch: None),
        }
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            wrong = []
            for name, call in calls.items():
                try:
                    call()
                    wrong.append(f"{name} returned")
                except ForkedError:
                    pass
                except BaseException as error:
                    wrong.append(f"{name}: {error!r}")
            sock.close()
            stack.close()
            os.write(write_end, "; ".join(wrong).encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as said:
            assert said.read() == ""
        assert os.waitpid(child, 0)[1] == 0
        assert pair.near.has_xdp()
        exchange(sock, client, b"after")


# ---- many ----


def test_two_stacks_in_one_process(netns: MakeNetns, veth: MakeVeth) -> None:
    here = netns("here")
    one = veth(netns_near=here, near=("10.0.1.1/24",), far=("10.0.1.2/24",))
    two = veth(netns_near=here, near=("10.0.2.1/24",), far=("10.0.2.2/24",))
    with opened(one.near) as first, opened(two.near) as second:
        with (
            first.udp(("10.0.1.1", PORT)) as sock1,
            second.udp(("10.0.2.1", PORT)) as sock2,
            kernel_udp(one.far.netns, to=("10.0.1.1", PORT)) as client1,
            kernel_udp(two.far.netns, to=("10.0.2.1", PORT)) as client2,
        ):
            sock1.settimeout(PATIENCE)
            sock2.settimeout(PATIENCE)
            for number in range(20):
                exchange(sock1, client1, b"1%d" % number)
                exchange(sock2, client2, b"2%d" % number)
        assert first.ledger().delivered == second.ledger().delivered == 20
        second.close()
        with first.udp(("10.0.1.1", PORT)) as sock1, kernel_udp(one.far.netns, to=("10.0.1.1", PORT)) as client1:
            sock1.settimeout(PATIENCE)
            exchange(sock1, client1, b"the other is closed")


def test_one_stack_over_two_devices(netns: MakeNetns, veth: MakeVeth) -> None:
    here = netns("here")
    one = veth(netns_near=here, near=("10.0.1.1/24",), far=("10.0.1.2/24",))
    two = veth(netns_near=here, near=("10.0.2.1/24",), far=("10.0.2.2/24",))
    with opened(one.near, two.near) as stack, stack.udp(("0.0.0.0", PORT)) as sock:
        sock.settimeout(PATIENCE)
        for number, pair in enumerate((one, two)):
            with kernel_udp(pair.far.netns, to=(pair.near.address, PORT)) as client:
                exchange(sock, client, b"hello")
                client.send(b"by which device?")
                with sock.recv_batch() as batch:
                    assert batch.devices[0] == number
        here.ip(f"link delete {one.near.name}")
        until(lambda: [event.device.name for event in stack.events() if event.what == "gone"] == [one.near.name])
        with kernel_udp(two.far.netns, to=("10.0.2.1", PORT)) as client:
            exchange(sock, client, b"the other device goes on")


def test_a_stack_that_is_closed_is_not_shown_any_more(pair: Veth) -> None:
    with opened(pair.near):
        assert [path.name for path in running() if path.name.startswith(f"{os.getpid()}-")]
    words = [sys.executable, "-m", "xdpstack", "show", "counters", "--pid", str(os.getpid())]
    assert subprocess.run(words, capture_output=True, check=False, timeout=60).returncode == 1
