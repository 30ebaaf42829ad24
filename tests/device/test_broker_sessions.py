"""What one client, or who is none, may not do to a broker and the others; and a client whose question was interrupted."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
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
from xdpstack.device.claims import SocketClaim
from xdpstack.device.device import KernelBackend
from xdpstack.errors import BrokerError, PrivilegeError, TableFull
from xdpstack.netlink import Link

RULE = {"users": [os.getuid()], "interfaces": ["near0"], "ports": [53], "vlans": ["0-4094"]}
HELLO = {"ask": "hello", "version": VERSION}


class StillMirror:
    """A mirror of one link, which has changed when the test says so."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0)
        self.changed = False
        self.links = {7: Link(7, "near0", rx_queues=2)}
        self.probed: list[tuple[int, bytes]] = []

    @property
    def snapshot(self) -> Any:
        return SimpleNamespace(links=self.links, routes=(), groups=())

    def fileno(self) -> int:
        return self.descriptor

    def process(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def probe(self, neighbour: tuple[int, bytes]) -> bool:
        self.probed.append(neighbour)
        return True

    def __enter__(self) -> StillMirror:
        return self

    def __exit__(self, *exception: object) -> None:
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


def opened(vlan_raises: Exception | None = None) -> Any:
    """An interface of a client, without a program."""
    made = Opened.__new__(Opened)
    made.name, made.link, made.sockets, made.vlans = "near0", Link(7, "near0", rx_queues=2), {}, {None}

    def follow(snapshot: object) -> None:
        if vlan_raises is not None and made.vlans != {None}:
            raise vlan_raises

    made.follow = follow  # type: ignore[method-assign]
    made.close = lambda: None  # type: ignore[method-assign]
    return made


@pytest.fixture
def session() -> Iterator[tuple[Session, Callable[..., dict[str, Any]]]]:
    """One of this process, with near0 not attached; and what asks it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mirror = StillMirror()
    made = Session(near, Peer(1, os.getuid(), os.getgid()), parse({"allow": [RULE]}), mirror)  # type: ignore[arg-type]

    def ask(question: str, **values: Any) -> dict[str, Any]:
        wire.send(far, {"ask": question, **values})
        made.answer()
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
                serving._mirror.changed = True  # type: ignore[attr-defined]
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


# ---- requests ----


def test_no_socket_without_an_interface_or_for_a_queue_that_is_none(session: Any) -> None:
    made, ask = session
    assert "not attached by this connection" in ask("socket", interface="near0", queue=0)["error"]["message"]
    made._opened["near0"] = opened()
    for queue in (-1, 2, 1 << 70, True, 0.0, "0", None, [0]):
        assert "has no queue" in ask("socket", interface="near0", queue=queue)["error"]["message"], queue
    assert made._opened["near0"].sockets == {}


def test_a_vlan_without_room_is_forgotten(session: Any) -> None:
    made, ask = session
    mine = made._opened["near0"] = opened(TableFull("no room"))
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
    closed: list[int] = []

    def close() -> None:
        closed.append(1)
        raise OSError(errno.EIO, "it went wrong")

    made._opened["near0"] = mine = opened()
    mine.close = close
    assert ask("detach", interface="near0")["error"]["errno"] == errno.EIO
    made.close()
    assert closed == [1]


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


def test_closing_a_program_does_not_mind_what_the_kernel_said_to_the_broker() -> None:
    def ask(question: str, **values: object) -> None:
        raise OSError(errno.EIO, "it went wrong")

    program = BrokeredProgram.__new__(BrokeredProgram)
    program._client = SimpleNamespace(ask=ask)  # type: ignore[assignment]
    program._interface, program._pid, program._closed = "near0", os.getpid(), False
    program.deadman = SimpleNamespace(close=lambda: None)  # type: ignore[assignment]
    program.close()
