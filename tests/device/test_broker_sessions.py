"""What one client, or who is none, may not do to a broker and the others; and a client whose question was interrupted."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xdpstack.device import privileges
from xdpstack.device.broker import server, wire
from xdpstack.device.broker.client import BrokerClient, BrokeredProgram
from xdpstack.device.broker.policy import Peer, parse
from xdpstack.device.broker.server import CAPABILITIES, CLIENTS, OF_ONE_USER, Broker
from xdpstack.device.broker.session import Opened, Session
from xdpstack.device.broker.wire import VERSION
from xdpstack.device.claim_set import Claims
from xdpstack.device.claims import SocketClaim
from xdpstack.device.device import KernelBackend
from xdpstack.device.xdp import Granted
from xdpstack.errors import BrokerError, NetlinkError, PrivilegeError, TableFull
from xdpstack.netlink import Link, Mirror, Neighbour, Snapshot
from xdpstack.netlink.changes import Change
from xdpstack.testing.wait import until

RULE = {"users": [os.getuid()], "interfaces": ["near0"], "ports": [53], "vlans": ["0-4094"]}
HELLO = {"ask": "hello", "version": VERSION}
ATTACH = {"ask": "attach", "interface": "near0", "mode": "auto", "metadata": []}


class StillMirror(Mirror):
    """A mirror of one link, which has changed, or cannot be followed, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptor = os.eventfd(0)
        self.changed = False
        self.failures: list[Exception] = []
        self.resyncs = 0
        self.probed: list[Neighbour | tuple[int, bytes]] = []

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(links={7: Link(7, "near0", rx_queues=2)}, rules=())

    def fileno(self) -> int:
        return self.descriptor

    def process(self) -> tuple[Change, ...]:
        if self.failures:
            raise self.failures.pop()
        changed, self.changed = self.changed, False
        return (Change("link", "changed", None, None),) if changed else ()

    def resync(self) -> tuple[Change, ...]:
        self.resyncs += 1
        return self.process()

    def probe(self, neighbour: Neighbour | tuple[int, bytes]) -> bool:
        self.probed.append(neighbour)
        return True

    def __enter__(self) -> Mirror:
        return self

    def close(self) -> None:
        os.close(self.descriptor)


MakeBroker = Callable[..., Broker]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MakeBroker]:
    """Makes one that serves when the test steps it, with a mirror that stands still: broker(rule, ...)."""
    monkeypatch.setattr(privileges, "effective", lambda: set(CAPABILITIES))
    monkeypatch.setattr(server, "Mirror", StillMirror)
    made: list[Broker] = []

    def make(*rules: dict[str, Any]) -> Broker:
        made.append(Broker(parse({"allow": list(rules or (RULE,))}), tmp_path / "socket"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def connect(to: Broker) -> socket.socket:
    """Let in, if it is."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.settimeout(10.0)
    made.connect(str(to.path))
    to.step(0)
    return made


def serves(serving: Broker, client: socket.socket) -> bool:
    wire.send(client, {"ask": "probe", "ifindex": 7, "address": "0a000001"})
    serving.step(1.0)
    return "ok" in wire.receive(client)[0]


def step_until_answered(serving: Broker, client: socket.socket) -> None:
    client.settimeout(10.0)
    until(lambda: serving.step(0.01) or select.select([client], [], [], 0)[0])


class FakeOpened(Opened):
    """An interface of a client, without a program. Attaching it lasts until `may_attach` is set."""

    may_attach = threading.Event()

    def __init__(self, link: Link, mode: str, hints: tuple[str, ...]) -> None:
        self.name, self.link, self.sockets, self.vlans = link.name, link, {}, {None}
        self.granted, self.why = Granted("near0", "auto", "native", False, 1, 1), ""
        self.tuner: Any = SimpleNamespace(why={})
        self.program: Any = SimpleNamespace(hints=(), deadman_fd=0, claims=())
        self.lost: Any = SimpleNamespace(why="")
        self.raises: Exception | None = None
        self.closed = 0
        assert self.may_attach.wait(10.0)

    def follow(self, snapshot: Snapshot) -> None:
        if self.raises is not None and self.vlans != {None}:
            raise self.raises

    def close(self) -> None:
        self.closed += 1
        if self.raises is not None:
            raise self.raises


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeOpened]]:
    """What sessions open is a FakeOpened, from now on: these."""
    made: list[FakeOpened] = []

    def make(*values: Any) -> FakeOpened:
        made.append(FakeOpened(*values))
        return made[-1]

    monkeypatch.setattr("xdpstack.device.broker.session.Opened", make)
    FakeOpened.may_attach.set()
    yield made
    FakeOpened.may_attach.set()


def has_opened(session: Session, raises: Exception | None = None) -> FakeOpened:
    """near0 is attached by it."""
    FakeOpened.may_attach.set()
    made = FakeOpened(Link(7, "near0", rx_queues=2), "native", ())
    made.raises = raises
    session._opened["near0"] = made
    return made


@pytest.fixture
def session() -> Iterator[tuple[Session, Callable[..., dict[str, Any]]]]:
    """One of this process, with near0 not attached; and what asks it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mirror = StillMirror()
    made = Session(near, Peer(1, os.getuid(), os.getgid()), parse({"allow": [RULE]}), mirror)

    def ask(question: str, **values: Any) -> dict[str, Any]:
        wire.send(far, {"ask": question, **values})
        made.answer()
        if made.slow is not None:
            with ThreadPoolExecutor(1) as other_thread:
                work = other_thread.submit(made.slow)
            made.finish(work)
        answer, descriptors = wire.receive(far)
        for each in descriptors:
            os.close(each)
        return answer

    with near, far, mirror:
        yield made, ask


# ---- the broker, whatever one client does ----


def test_a_message_of_lists_within_lists_ends_its_sender_alone(broker: MakeBroker) -> None:
    serving = broker()
    with connect(serving) as rude, connect(serving) as other:
        rude.send(b"[" * 60_000)
        serving.step(1.0)
        assert rude.recv(100) == b""
        assert serves(serving, other)


@pytest.mark.parametrize("what", ["answer", "follow", "close"])
def test_a_failure_in_one_session_ends_this_one_alone(
    what: str, broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    serving = broker()
    with connect(serving) as one:
        [failing] = serving._sessions.values()
        with connect(serving) as other:
            close = failing.close
            monkeypatch.setattr(failing, what, fail)
            if what == "follow":
                monkeypatch.setattr(serving._mirror, "changed", True)
            elif what == "answer":
                wire.send(one, HELLO)
            else:
                one.close()
            serving.step(0)
            assert failing not in serving._sessions.values()
            assert serves(serving, other)
            close()


def test_who_reads_no_answers_is_not_waited_for(broker: MakeBroker) -> None:
    serving = broker()
    with connect(serving) as silent, connect(serving) as other:
        silent.setblocking(False)
        longest = 0.0
        while len(serving._sessions) == 2:
            wire.send(silent, HELLO)
            before = time.monotonic()
            serving.step(1.0)
            longest = max(longest, time.monotonic() - before)
        assert longest < 1.0
        assert serves(serving, other)


def test_what_is_no_socket_is_not_removed(broker: MakeBroker, tmp_path: Path) -> None:
    (tmp_path / "socket").write_text("somebody's")
    with pytest.raises(BrokerError, match="no socket"):
        broker()
    assert (tmp_path / "socket").read_text() == "somebody's"


def test_whom_no_rule_names_takes_nobodys_place(broker: MakeBroker) -> None:
    """He is told why, whether he has asked something by then or not."""
    serving = broker({"users": [os.getuid() + 1], "interfaces": ["near0"]})
    with connect(serving) as silent, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as early:
        early.settimeout(10.0)
        early.connect(str(serving.path))
        wire.send(early, HELLO)
        serving.step(1.0)
        assert serving._sessions == {}
        for each in (silent, early):
            answer, _ = wire.receive(each)
            error = wire.error_from_json(answer["error"])
            assert isinstance(error, PrivilegeError)
            assert f"of user {os.getuid()} have anything" in str(error)
            assert each.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            wire.send(silent, HELLO)


def test_a_client_is_told_why_it_is_not_let_in(broker: MakeBroker) -> None:
    serving = broker({"users": [os.getuid() + 1], "interfaces": ["near0"]})
    thread = threading.Thread(target=serving.run)
    thread.start()
    try:
        for _ in range(20):  # the broker hangs up before it asks, or after
            with pytest.raises(PrivilegeError, match="have anything"):
                BrokerClient(str(serving.path))
    finally:
        serving.stop()
        thread.join()


def test_one_user_does_not_take_all_places(broker: MakeBroker) -> None:
    serving = broker()
    clients = [connect(serving) for _ in range(OF_ONE_USER + 1)]
    assert OF_ONE_USER < CLIENTS
    assert len(serving._sessions) == OF_ONE_USER
    assert f"has {OF_ONE_USER} connections" in wire.receive(clients[-1])[0]["error"]["message"]
    clients[0].close()
    serving.step(1.0)
    with connect(serving) as again:
        assert serves(serving, again)
    for each in clients:
        each.close()


def test_without_descriptors_nobody_is_let_in_but_those_who_are(
    broker: MakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    serving = broker()
    with connect(serving) as other, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as late:
        late.settimeout(10.0)
        late.connect(str(serving.path))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            for _ in range(3):
                assert serves(serving, other)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [each.message for each in caplog.records if "nobody can connect" in each.message] == [
            f"nobody can connect: [Errno {errno.EMFILE}] Too many open files"
        ]
        serving.step(1.0)
        assert serves(serving, late)


def test_who_attaches_for_long_is_alone_with_it(broker: MakeBroker, opened: list[FakeOpened]) -> None:
    """Some NICs reset for seconds. Others are served meanwhile; his own next request waits."""
    serving = broker()
    FakeOpened.may_attach.clear()
    with connect(serving) as slow, connect(serving) as other:
        wire.send(slow, ATTACH)
        serving.step(1.0)
        for _ in range(3):
            assert serves(serving, other)
        wire.send(slow, {"ask": "socket", "interface": "near0", "queue": 2})
        assert serves(serving, other)
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(100)
        FakeOpened.may_attach.set()
        step_until_answered(serving, slow)
        answer, [deadman] = wire.receive(slow)
        os.close(deadman)
        assert answer["ok"]["granted"]["mode"] == "native"
        step_until_answered(serving, slow)
        assert "has no queue 2" in wire.receive(slow)[0]["error"]["message"]
        wire.send(slow, {"ask": "detach", "interface": "near0"})
        step_until_answered(serving, slow)
        assert wire.receive(slow)[0] == {"ok": {}}
    assert [each.closed for each in opened] == [1]


@pytest.mark.parametrize("how", ["dies", "fails", "broker ends", "fails and broker ends"])
def test_what_was_attached_for_who_is_gone_by_then_is_detached(
    how: str, broker: MakeBroker, opened: list[FakeOpened], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    serving = broker()
    FakeOpened.may_attach.clear()
    with connect(serving) as slow:
        [session] = serving._sessions.values()
        wire.send(slow, ATTACH)
        serving.step(1.0)
        if how == "dies":
            slow.close()
        elif how.startswith("fails"):
            monkeypatch.setattr(session, "follow", fail)
            monkeypatch.setattr(serving._mirror, "changed", True)
            serving.step(0)
            assert slow.recv(100) == b""
        if how.endswith("broker ends"):
            threading.Timer(0.05, FakeOpened.may_attach.set).start()
            serving.close()
            assert [each.closed for each in opened] == [1]
            return
        FakeOpened.may_attach.set()
        until(lambda: serving.step(0.01) or [each.closed for each in opened] == [1])
        assert serving._sessions == {}


def test_a_host_that_cannot_be_followed_is_tried_again(
    broker: MakeBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was known of it stays; who is there is served; it is read anew when it can be, and everyone follows."""
    monkeypatch.setattr(server, "RETRY_SECONDS", 0.01)
    serving = broker()
    mirror = serving._mirror
    assert isinstance(mirror, StillMirror)
    followed: list[int] = []
    with connect(serving) as client:
        [session] = serving._sessions.values()
        monkeypatch.setattr(session, "follow", lambda snapshot: followed.append(1))
        mirror.failures = [NetlinkError("the kernel refused", number=errno.ENOBUFS) for _ in range(3)]
        os.eventfd_write(mirror.descriptor, 1)  # and it stays readable
        serving.step(1.0)
        assert serves(serving, client)
        assert followed == []
        mirror.changed = True
        until(lambda: serving.step(1.0) or followed == [1])
        assert mirror.resyncs == 3
        serving.step(0)
        assert mirror.resyncs == 3, "followed by its events again"
        assert serves(serving, client)
    said = [each.message for each in caplog.records if "followed" in each.message]
    assert [line.split(":")[0] for line in said] == [
        "the host's addresses cannot be followed",
        "the host's addresses are followed again",
    ]


IN_GROUPS = """
import os, socket, sys
os.setgroups([int(each) for each in sys.argv[2:]])
made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
made.connect(sys.argv[1])
sys.stdin.read()
"""


@pytest.mark.root
@pytest.mark.parametrize("groups", [[], [4, 50, 61234], [*range(1000, 1256)], [*range(1000, 1300)]], ids=len)
def test_supplementary_groups_are_of_who_has_connected(groups: list[int], tmp_path: Path) -> None:
    """Of more than can be asked for those of the user's name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        words = [sys.executable, "-c", IN_GROUPS, str(tmp_path / "socket"), *map(str, groups)]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
            connection, _ = listener.accept()
            with connection:
                peer = server.peer_of(connection)
            process.communicate()
    assert (peer.pid, peer.uid) == (process.pid, os.getuid())
    expected = groups if len(groups) <= 256 else os.getgrouplist(pwd.getpwuid(os.getuid()).pw_name, os.getgid())
    assert peer.groups == frozenset(expected)


# ---- requests ----


def test_no_socket_without_an_interface_or_for_a_queue_that_is_none(session: Any) -> None:
    made, ask = session
    assert "not attached by this connection" in ask("socket", interface="near0", queue=0)["error"]["message"]
    mine = has_opened(made)
    for queue in (-1, 2, 1 << 70, True, 0.0, "0", None, [0]):
        assert "has no queue" in ask("socket", interface="near0", queue=queue)["error"]["message"], queue
    assert mine.sockets == {}


def test_claims_that_sleep_are_counted_too(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take no room in the tables of the program, so that these do not bound them."""
    monkeypatch.setattr("xdpstack.device.broker.session.CLAIMS", 3)
    made, ask = session
    mine = has_opened(made)
    mine.program.claims = Claims(SimpleNamespace(update=lambda *entries: None, delete=lambda *keys: None), bytes(6))
    claims = [wire.claim_as_json(SocketClaim(f"10.0.0.{host}", 53)) for host in range(1, 5)]
    for claim in claims[:3]:
        assert "ok" in ask("claim", interface="near0", claim=claim)
    assert len(mine.program.claims.asleep()) == 3
    assert "3 claims, the most" in ask("claim", interface="near0", claim=claims[3])["error"]["message"]
    assert ask("unclaim", interface="near0", claim=claims[0]) == {"ok": {}}
    assert "ok" in ask("claim", interface="near0", claim=claims[3])


def test_a_vlan_without_room_is_forgotten(session: Any) -> None:
    made, ask = session
    mine = has_opened(made, TableFull("no room"))
    claim = wire.claim_as_json(SocketClaim("10.0.0.1", 53, vlan=5))
    assert ask("claim", interface="near0", claim=claim)["error"]["type"] == "TableFull"
    assert mine.vlans == {None}
    made.follow(made._mirror.snapshot)


def test_a_vlan_without_room_is_forgotten_by_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = KernelBackend("near0")
    given: list[set[int | None]] = []

    def set_addresses() -> None:
        given.append(set(backend._vlans))
        if backend._vlans != {None}:
            raise TableFull("no room")

    monkeypatch.setattr(backend, "_set_addresses", set_addresses)
    with pytest.raises(TableFull):
        backend.claim(SocketClaim("10.0.0.1", 53, vlan=5))
    assert backend._vlans == {None}
    assert given == [{None, 5}, {None}]  # interfaces that had room are as before


def test_who_is_probed_has_an_address(session: Any) -> None:
    made, ask = session
    for address in ("", "0a0000", "00" * 5, "00" * 1000):
        assert "4 or 16 bytes" in ask("probe", ifindex=7, address=address)["error"]["message"]
    assert made._mirror.probed == []
    for address in ("0a000001", "fe" * 16):
        assert ask("probe", ifindex=7, address=address) == {"ok": True}
    assert [bytes.hex(address) for _, address in made._mirror.probed] == ["0a000001", "fe" * 16]


def test_what_failed_to_be_detached_is_not_closed_twice(session: Any) -> None:
    made, ask = session
    mine = has_opened(made, OSError(errno.EIO, "it went wrong"))
    assert ask("detach", interface="near0")["error"]["errno"] == errno.EIO
    made.close()
    assert mine.closed == 1


# ---- the client ----


def test_an_interrupted_question_ends_the_connection(broker: MakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer, which comes later, is not taken for that of the next one."""
    serving = broker()
    thread = threading.Thread(target=serving.run)
    thread.start()
    try:
        client = BrokerClient(str(serving.path))
        receive = wire.receive

        def interrupted(connection: socket.socket) -> Any:
            if connection is client._connection:
                raise KeyboardInterrupt
            return receive(connection)

        with monkeypatch.context() as patch:
            patch.setattr(wire, "receive", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.ask("probe", ifindex=7, address="0a000001")
        assert client.gone
        with pytest.raises(BrokerError):
            client.ask("hello", version=VERSION)
    finally:
        serving.stop()
        thread.join()


def test_closing_a_program_does_not_mind_what_the_kernel_said_to_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(question: str, **values: object) -> None:
        raise OSError(errno.EIO, "it went wrong")

    program = BrokeredProgram.__new__(BrokeredProgram)
    program._interface, program._pid, program._closed = "near0", os.getpid(), False
    with monkeypatch.context() as patch:
        patch.setattr(program, "_client", SimpleNamespace(ask=ask), raising=False)
        patch.setattr(program, "deadman", SimpleNamespace(close=lambda: None), raising=False)
        patch.setattr(program, "redirects", SimpleNamespace(counts=dict), raising=False)
        program.close()
