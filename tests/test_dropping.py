"""Root that gives up to be root while its stack is open: no thread keeps a capability, and everything goes on."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import xdpstack
from tests.device.broker_client import USER, Client
from xdpstack.dropping import _check_namespace, _identity, threads_with_capabilities
from xdpstack.errors import ConfigurationError, PrivilegeError
from xdpstack.observe.server import DIRECTORY, running
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

MakeVeth = Callable[..., Veth]
NONE = "0" * 16


@pytest.fixture
def kernel() -> Iterator[Callable[[End], socket.socket]]:
    """Makes UDP sockets of the kernel at an end, which wait for at most 10 s."""
    made: list[socket.socket] = []

    def make(end: End) -> socket.socket:
        made.append(end.netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        made[-1].settimeout(10.0)
        return made[-1]

    yield make
    for each in made:
        each.close()


def exchange(client: Client, sender: socket.socket, to: tuple[str, int], count: int = 5) -> int:
    """Datagrams there and back; how many in all the program has lifted by then."""
    for number in range(count):
        sender.sendto(b"number %d" % number, to)
    counters = client.ask("echo", count=count)
    assert sorted(sender.recv(100) for _ in range(count)) == [b"number %d" % number for number in range(count)]
    return int(counters.get("xdp.rx.redirect_socket", 0))


@pytest.mark.root
@pytest.mark.parametrize("where", ["inside", "netns"])
@pytest.mark.parametrize("workers", [None, 2])
def test_everything_goes_on_without_a_capability(
    where: str, workers: int | None, veth: MakeVeth, kernel: Callable[[End], socket.socket]
) -> None:
    """In the namespace of the process, and in another one, which the process could not enter any more."""
    pair = veth(queues=2)
    far = kernel(pair.far)
    options = {"netns": pair.near.netns.name} if where == "netns" else {}
    with Client(pair.near if where == "inside" else pair.far, user=0) as client:
        client.ask("open", interfaces=["near0"], mode="native", workers=workers, observable=True, **options)
        client.ask("udp", address=["0.0.0.0", 7007])
        lifted = exchange(client, far, ("10.0.0.1", 7007))
        assert lifted >= 5
        client.ask("drop", user=USER, group=USER)

        threads = client.ask("threads")
        assert len(threads) >= 3 + (workers or 0), threads
        assert "xdpstack-dog" in {name for name, *_ in threads}
        for name, users, groups, capabilities in threads:
            assert users == groups == [str(USER)] * 4, name
            assert capabilities == [NONE], name
        assert client.ask("capabilities") == []

        # packets, both ways; a further socket, and its claim
        assert exchange(client, far, ("10.0.0.1", 7007)) >= lifted + 5
        client.ask("udp", address=["10.0.0.1", 7008])
        before = exchange(client, far, ("10.0.0.1", 7008))
        # what Linux knows is followed: an address that comes is lifted for
        pair.near.netns.ip("address add 10.0.0.9/24 dev near0")
        client.ask("udp", address=["0.0.0.0", 7009])

        def followed() -> bool:
            nonlocal before
            last, before = before, exchange(client, far, ("10.0.0.9", 7009), 1)
            return before > last

        until(followed)
        # neighbours are resolved
        pair.far.netns.ip("address add 10.0.0.77/24 dev far0")
        pair.near.netns.ip("neighbour flush dev near0")
        stranger = kernel(pair.far)
        stranger.bind(("10.0.0.77", 9000))
        client.ask("send", to=["10.0.0.77", 9000], payload="found")
        assert stranger.recv(100) == b"found"
        # the dead-man deadline is kept in the future
        until(lambda: client.ask("deadline") > 0)
        first = client.ask("deadline")
        assert 0 < first < 1_000_000_000
        assert exchange(client, far, ("10.0.0.9", 7009)) >= before + 5
        # it is found by `xdpstack show`, and leaves no socket
        [path] = map(Path, client.ask("observed"))
        assert path.parent == DIRECTORY / str(USER)
        assert path in running()
        assert client.ask("close") == 0
        assert not path.exists()
        assert not pair.near.has_xdp()
        assert client.end() == 0


@pytest.mark.root
def test_what_then_cannot_be_done_is_said(veth: MakeVeth, kernel: Callable[[End], socket.socket]) -> None:
    pair = veth()
    with Client(pair.near, user=0) as client:
        client.ask("open", interfaces=["near0"], mode="native")
        client.ask("drop", user=USER, group=USER)
        answer = client.try_to("udp", address=["10.0.0.1", 100])
        assert answer["errno"] == 13, answer  # EACCES
        assert "ip_unprivileged_port_start" in answer["error"]
        client.ask("udp", address=["10.0.0.1", 100], reserve=False)  # which the kernel does not see
        exchange(client, kernel(pair.far), ("10.0.0.1", 100))
        answer = client.try_to("drop", user=USER, group=USER)
        assert "PrivilegeError: only root can become another user" in answer["error"]
        pair.near.netns.ip("link set near0 down")
        until(lambda: ["down", ""] in client.ask("events"))
        pair.near.netns.ip("link set near0 up")
        said: list[list[str]] = []

        def told() -> bool:
            said.extend(client.ask("events"))
            return any(what == "queue-error" and "CAP_NET_RAW is missing" in detail for what, detail in said)

        until(told)
        assert client.ask("close") == 0
        answer = client.try_to("open", interfaces=["near0"])
        assert (
            "PrivilegeError: not permitted to open near0: CAP_BPF and CAP_NET_ADMIN and CAP_NET_RAW" in answer["error"]
        )
    assert not pair.near.has_xdp()


@pytest.mark.root
def test_a_device_that_could_not_be_put_back(veth: MakeVeth) -> None:
    """Is a reason not to drop; the process is root as before."""
    pair = veth()
    pair.near.netns.run("ethtool", "-K", "near0", "gro", "on")
    with Client(pair.near, user=0) as client:
        client.ask("open", interfaces=["near0"], mode="generic")
        answer = client.try_to("drop", user=USER, group=USER)
        assert "ConfigurationError: near0 is tuned, and only root could put it back: " in answer["error"]
        assert "CAP_NET_RAW" in client.ask("capabilities")
        client.ask("close")
        client.ask("open", interfaces=["near0"], mode="native")
        client.ask("drop", user=USER, group=USER)
        assert client.ask("close") == 0
    assert "generic-receive-offload: on" in pair.near.netns.run("ethtool", "-k", "near0")


@pytest.mark.root
def test_a_dropped_process_that_is_killed(veth: MakeVeth) -> None:
    pair = veth()
    with Client(pair.near, user=0) as client:
        client.ask("open", interfaces=["near0"], mode="native", observable=True)
        client.ask("drop", user=USER, group=USER)
        [path] = map(Path, client.ask("observed"))
        client.kill()
    until(lambda: not pair.near.has_xdp())
    assert path.exists()
    assert path not in running()
    assert not path.exists()  # whoever looks removes it


@pytest.mark.root
def test_who_it_can_be() -> None:
    for user in (0, "root", -1, "nobody at all", 2**32 - 1):
        with pytest.raises(ConfigurationError):
            xdpstack.drop_privileges(user)
    with pytest.raises(ConfigurationError, match="no group 'none at all'"):
        xdpstack.drop_privileges("nobody", "none at all")
    with pytest.raises(ConfigurationError, match="his group is not known"):
        xdpstack.drop_privileges(54321)
    assert os.geteuid() == 0
    assert threads_with_capabilities()
    assert _identity("nobody", None)[:2] == (65534, 65534)
    assert _identity(54321, 77) == (54321, 77, [77])
    assert _identity("daemon", "nogroup")[1:] == (65534, [65534])


def test_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PrivilegeError, match="only root can become another user"):
        xdpstack.drop_privileges("nobody")


@pytest.mark.parametrize(
    "uids, setgroups, said",
    [
        ("0 0 4294967295", "allow", ""),
        ("0 1000 1", "allow", "uid 7 is nobody in this user namespace"),
        ("0 1000 1\n5 2000 3", "allow", ""),
        ("0 1000 1\n5 2000 2", "allow", "uid 7 is nobody"),
        ("0 0 100", "deny", "denies setgroups"),
    ],
)
def test_who_is_there_in_the_user_namespace(uids: str, setgroups: str, said: str, tmp_path: Path) -> None:
    """Asked before anything is changed: the kernel would refuse half way."""
    for name, text in (("uid_map", uids), ("gid_map", "0 0 4294967295"), ("setgroups", setgroups)):
        (tmp_path / name).write_text(text + "\n")
    found = ""
    try:
        _check_namespace(7, {8}, tmp_path)
    except ConfigurationError as error:
        found = f"{error.message} {error.cause}"
    assert bool(said) == bool(found)
    assert said in found


@pytest.mark.root
def test_a_change_of_user_that_fails_half_way_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "setgroups", lambda _: None)
    monkeypatch.setattr(os, "setresgid", lambda *_: None)
    monkeypatch.setattr(os, "setresuid", refuse)
    with pytest.raises(PrivilegeError, match="could not become user") as raised:
        xdpstack.drop_privileges("nobody")
    assert raised.value.fix == "End the process."
