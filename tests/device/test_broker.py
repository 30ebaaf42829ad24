"""A stack of an ordinary user by way of a broker: what it may have, and that it all goes back, whoever dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import xdpstack
from tests.device.broker_client import USER, Client
from xdpstack.device.broker import wire
from xdpstack.device.claims import EverythingBut, SocketClaim
from xdpstack.errors import BrokerError, ConfigurationError
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root
MakeNetns, MakeVeth = Callable[..., Namespace], Callable[..., Veth]
POLICY = f"""
[[allow]]
users = [{USER}]
interfaces = ["near0"]
ports = ["7007-7009"]
"""


class Running:
    """`xdpstack broker` in the namespace of an end; its socket is where everybody may reach it."""

    def __init__(self, folder: Path, end: End, policy: str) -> None:
        (folder / "policy.toml").write_text(policy)
        self.path = str(folder / "broker.sock")
        words = [
            sys.executable,
            "-m",
            "xdpstack",
            "broker",
            "--policy",
            str(folder / "policy.toml"),
            "--socket",
            self.path,
        ]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", end.netns.name, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"listening at {self.path}\n"

    def end(self, number: int = signal.SIGTERM) -> str:
        """What it said; its socket is gone unless it was killed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        if number != signal.SIGKILL:
            assert self.process.returncode == 0, said
            assert not Path(self.path).exists()
        return said


@pytest.fixture
def broker() -> Iterator[Callable[..., Running]]:
    """Starts brokers: broker(end, policy). They end with the test."""
    folder = Path(tempfile.mkdtemp(prefix="xdpstack-broker-"))
    folder.chmod(0o711)
    started: list[Running] = []

    def start(end: End, policy: str = POLICY) -> Running:
        started.append(Running(folder, end, policy))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end()
    shutil.rmtree(folder)


MakeBroker = Callable[..., Running]


def kernel_client(end: End, to: tuple[str, int]) -> socket.socket:
    made = end.netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.settimeout(10.0)
    made.connect(to)
    return made


def exchange(client: Client, pair: Veth, count: int = 3) -> dict[str, int]:
    """Echoes datagrams; the client's counters."""
    kernel = kernel_client(pair.far, ("10.0.0.1", 7007))
    for number in range(count):
        kernel.send(b"hello %d" % number)
    counters: dict[str, int] = client.ask("echo", count=count)
    assert sorted(kernel.recv(100) for _ in range(count)) == [b"hello %d" % number for number in range(count)]
    kernel.close()
    return counters


Served = tuple[Veth, Running, Client]
MakeServed = Callable[..., AbstractContextManager[Served]]


@pytest.fixture
def served(veth: MakeVeth, broker: MakeBroker) -> MakeServed:
    """A pair, a broker on its near end, and a client of it that has near0; with an `address` an echo on port 7007 too."""

    @contextmanager
    def make(policy: str = POLICY, address: str = "") -> Iterator[Served]:
        pair = veth()
        running = broker(pair.near, policy)
        with Client(pair.near) as client:
            client.ask("open", interfaces=["near0"], broker=running.path)
            if address:
                client.ask("udp", address=[address, 7007])
                exchange(client, pair)
            yield pair, running, client

    return make


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_without_any_capability(mode: str, veth: MakeVeth, broker: MakeBroker) -> None:
    pair = veth(queues=2)
    running = broker(pair.near)
    assert stat.S_IMODE(Path(running.path).stat().st_mode) == 0o666
    with Client(pair.near) as client:
        assert client.ask("capabilities") == []
        assert client.try_to("raw")["errno"] == 1  # EPERM: it cannot make such a socket
        said = client.ask("open", interfaces=["near0"], broker=running.path, mode=mode)
        assert (said["mode"], said["queues"]) == (mode, [0, 1])
        assert pair.near.has_xdp()
        client.ask("udp", address=["10.0.0.1", 7007])
        counters = exchange(client, pair)
        assert counters["xdp.rx.redirect_socket"] >= 3, counters
        assert "udp.rx.slow" not in counters
        assert client.ask("close") == 0
        assert not pair.near.has_xdp()
        client.ask("open", interfaces=["near0"], broker=running.path, mode=mode)  # and again
        client.ask("udp", address=["10.0.0.1", 7007])
        exchange(client, pair)
        assert client.end() == 0
    assert not pair.near.has_xdp()


def test_redirects_that_fail_are_counted_by_the_broker(veth: MakeVeth, broker: MakeBroker) -> None:
    """And its client is told, also of what was counted last when the broker is gone."""
    pair = veth()
    running = broker(pair.near)
    with Client(pair.near) as client:
        said = client.ask("open", interfaces=["near0"], broker=running.path)
        assert said["redirect_errors"]
        assert "redirect_errors" not in said["why"]
        client.ask("udp", address=["10.0.0.1", 7007])
        exchange(client, pair)
        kernel = kernel_client(pair.far, ("10.0.0.1", 7007))
        for _ in range(200):  # nobody polls
            kernel.send(b"x")
        kernel.close()
        counters = client.ask("counters")
        failed = {name: n for name, n in counters.items() if ".redirect_err_" in name}
        assert sum(failed.values()) > 0
        assert failed.get("near0.0.redirect_err_enomem", 0) == counters.get("near0.0.rx_dropped", 0)
        assert failed.get("near0.0.redirect_err_enobufs", 0) == counters.get("near0.0.rx_ring_full", 0)
        running.end()
        counters = client.ask("counters")
        assert {name: n for name, n in counters.items() if ".redirect_err_" in name} == failed


def test_the_policy(veth: MakeVeth, broker: MakeBroker) -> None:
    pair = veth(queues=2)
    running = broker(pair.near, POLICY + "queues = [1]\n")
    with Client(pair.near) as client:

        def refused(do: str, *words: str, **values: object) -> None:
            answer = client.try_to(do, **values)
            assert answer["errno"] == 1, answer
            assert all(word in answer["error"] for word in ("PrivilegeError", *words)), answer

        refused("open", "have queue 0 of near0", "allows queues 1", interfaces=["near0"], broker=running.path)
        assert not pair.near.has_xdp()
        client.ask("open", interfaces=["near0"], broker=running.path, queues=[1])
        refused("udp", "claim", "allows UDP ports 7007-7009", address=["10.0.0.1", 10_000])
        refused("claim", "claim", claim=wire.claim_as_json(EverythingBut()))
        refused("claim", "VLANs 0", claim=wire.claim_as_json(SocketClaim("10.0.0.1", 7009, vlan=5)))
        client.ask("udp", address=["10.0.0.1", 7009])
        client.ask("close")
    with Client(pair.near, user=1234) as stranger:
        answer = stranger.try_to("open", interfaces=["near0"], broker=running.path)
        assert "PrivilegeError: the broker does not let process" in answer["error"]
        assert "of user 1234 have anything" in answer["error"]
    assert not pair.near.has_xdp()


def test_a_client_that_is_killed(served: MakeServed) -> None:
    """The kernel has the traffic at once, and another client may have the interface."""
    with served(address="10.0.0.1") as (pair, running, client):
        client.kill()
    until(lambda: not pair.near.has_xdp())
    plain = pair.near.netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    plain.bind(("10.0.0.1", 7007))
    plain.settimeout(10.0)
    kernel = kernel_client(pair.far, ("10.0.0.1", 7007))
    kernel.send(b"to the kernel")
    assert plain.recv(100) == b"to the kernel"
    plain.close()
    kernel.close()
    with Client(pair.near) as client:
        client.ask("open", interfaces=["near0"], broker=running.path)
        client.ask("udp", address=["10.0.0.1", 7007])
        exchange(client, pair)
    assert "is gone, and has nothing any more" in running.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_broker_that_ends(number: int, served: MakeServed) -> None:
    """The kernel has the traffic, the client is told, its shadow socket serves, and it closes in order."""
    with served(address="10.0.0.1") as (pair, running, client):
        running.end(number)
        until(lambda: not pair.near.has_xdp())
        assert exchange(client, pair)["udp.rx.slow"] >= 3
        until(lambda: ["queue-error", "the broker has ended: the kernel has the traffic"] in client.ask("events"))
        assert "BrokerError: the broker at" in client.try_to("udp", address=["10.0.0.1", 7008])["error"]
        assert client.ask("close") == 0
        assert client.end() == 0


def test_an_interface_has_one_client(veth: MakeVeth, broker: MakeBroker) -> None:
    pair = veth()
    running = broker(pair.near)
    with Client(pair.near) as one, Client(pair.near) as two:
        one.ask("open", interfaces=["near0"], broker=running.path)
        assert "ProgramAttached: near0 has another XDP program" in two.try_to(
            "open", interfaces=["near0"], broker=running.path
        )["error"]  # fmt: skip
        one.ask("udp", address=["10.0.0.1", 7007])
        exchange(one, pair)


def test_addresses_and_mac_are_followed_by_the_broker(served: MakeServed) -> None:
    """What the host has the client has no say in."""
    with served(address="0.0.0.0") as (pair, _running, client):
        pair.near.netns.ip("address add 10.0.0.9/24 dev near0", "link set near0 address 02:00:00:00:00:77")
        pair.far.netns.ip("neighbour replace 10.0.0.9 lladdr 02:00:00:00:00:77 dev far0")
        kernel = pair.far.netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        kernel.settimeout(10.0)
        deadline = time.monotonic() + 10.0
        lifted = 3
        while lifted == 3:  # until the broker has followed, it is the kernel's, and comes all the same
            assert time.monotonic() < deadline
            kernel.sendto(b"there", ("10.0.0.9", 7007))
            lifted = client.ask("echo", count=1)["xdp.rx.redirect_socket"]
            assert kernel.recv(100) == b"there"
        kernel.close()


def test_too_much_memory_for_an_ordinary_user(veth: MakeVeth, broker: MakeBroker) -> None:
    pair = veth()
    running = broker(pair.near)
    with Client(pair.near) as client:
        hard = client.ask("limit", most=8 << 20)
        answer = client.try_to("open", interfaces=["near0"], broker=running.path, frames=hard // 2048 * 2)
        assert "OutOfMemory" in answer["error"]
        assert "RLIMIT_MEMLOCK" in answer["error"]
        assert not pair.near.has_xdp()
        client.ask("open", interfaces=["near0"], broker=running.path)


def test_another_namespace(veth: MakeVeth, broker: MakeBroker) -> None:
    pair = veth()
    running = broker(pair.near)
    with Client(pair.far) as client:
        answer = client.try_to("open", interfaces=["far0"], broker=running.path)
        assert "ConfigurationError: the broker at" in answer["error"]
        assert "serves another network namespace" in answer["error"]


def test_who_talks_nonsense(served: MakeServed) -> None:
    """Is put off or cut off; the others go on."""
    with served(policy=POLICY.replace(f"[{USER}]", f"[{USER}, {os.getuid()}]")) as (pair, running, client):
        for message in (b"{", b"[]", b"\xff", b"x" * 70_000, b"[" * 60_000):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rude:
                rude.settimeout(10.0)
                rude.connect(running.path)
                rude.send(message)
                assert rude.recv(100) == b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rude:
            rude.settimeout(10.0)
            rude.connect(running.path)
            for request in (
                {"ask": "shutdown"},
                {"ask": "hello", "version": 99},
                {"ask": "claim", "interface": "near0", "claim": wire.claim_as_json(SocketClaim("10.0.0.1", 7007))},
                {"ask": "detach", "interface": "near0"},
                {"ask": "socket"},
                {"ask": "attach", "interface": "lo", "mode": "auto", "metadata": []},
            ):
                with Path(os.devnull).open() as file:  # and with descriptors that nobody asked for
                    wire.send(rude, request, (file.fileno(),) * 3)
                answer, _ = wire.receive(rude)
                assert "error" in answer, request
        client.ask("udp", address=["10.0.0.1", 7007])
        exchange(client, pair)


def test_what_does_not_go_with_a_broker() -> None:
    with pytest.raises(BrokerError, match="no broker at /nowhere"):
        xdpstack.open("lo", broker="/nowhere", frames=1024)
    for options in ({"netns": "x"}, {"transmit_only": True}, {"tune": xdpstack.Tuning(channels=1)}):
        with pytest.raises(ConfigurationError, match="do not go with a broker"):
            xdpstack.open("lo", broker="/nowhere", frames=1024, **options)


def test_what_was_asked_of_a_broker_is_told(served: MakeServed) -> None:
    with served() as (_pair, running, client):
        asked = client.ask("asked")
        assert (asked["broker"], asked["tune"]) == (running.path, {"merging": "auto"})


def test_two_brokers_at_one_place(veth: MakeVeth, broker: MakeBroker) -> None:
    pair = veth()
    running = broker(pair.near)
    policy = Path(running.path).with_name("policy.toml")
    words = [sys.executable, "-m", "xdpstack", "broker", "--policy", str(policy), "--socket", running.path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "another broker listens" in done.stderr
    running.end(signal.SIGKILL)
    broker(pair.near)  # a socket that was left behind is no broker
