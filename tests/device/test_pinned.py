"""A program that root pins and a process with CAP_NET_RAW alone uses: what it may, what it leaves, who comes next."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xdpstack
from tests.device.broker_client import USER, Client
from tests.house.tree import ROOT, text
from tests.test_dropping import exchange
from xdpstack.device.libbpf import PinnedMap
from xdpstack.device.pins import ABOUT, ABOUT_BYTES, KEY
from xdpstack.errors import ConfigurationError
from xdpstack.native import lib
from xdpstack.testing.namespace import run
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root
MakeVeth = Callable[..., Veth]
CAP_NET_RAW = 13


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """A BPF file system that anybody may pass through; all that is pinned in it goes with the test."""
    place = Path(tempfile.mkdtemp(prefix="xdpstack-bpf-"))
    place.chmod(0o711)
    run("mount", "-t", "bpf", "-o", "mode=0711", "bpf", str(place))
    yield place
    run("umount", str(place))
    place.rmdir()


def command(end: End, *words: str) -> subprocess.CompletedProcess[str]:
    """`xdpstack WORDS` in the namespace of the end."""
    return subprocess.run(
        ["ip", "netns", "exec", end.netns.name, sys.executable, "-m", "xdpstack", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def pin(end: End, directory: Path, *words: str) -> None:
    done = command(end, "pin", end.name, str(directory), *words)
    assert done.returncode == 0, done.stderr
    assert f"{directory}: program " in done.stdout


def unpin(end: End, directory: Path) -> None:
    done = command(end, "unpin", str(directory))
    assert done.returncode == 0, done.stderr
    assert not directory.exists()
    assert not end.has_xdp()


def user(end: End, number: int = USER) -> Client:
    return Client(end, user=number, keeps=[CAP_NET_RAW])


@pytest.fixture
def far(veth: MakeVeth) -> Iterator[tuple[Veth, socket.socket]]:
    """A pair, and a UDP socket of the kernel at its far end."""
    pair = veth(queues=2)
    made = pair.far.netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.settimeout(10.0)
    yield pair, made
    made.close()


Far = tuple[Veth, socket.socket]


def entries(directory: Path, name: str) -> int:
    """How many a pinned hash map has."""
    descriptor = lib.bpf_obj_get(bytes(directory / name))
    assert descriptor >= 0
    try:
        return len(list(PinnedMap(name, descriptor).keys()))
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_with_cap_net_raw_alone(mode: str, far: Far, bpffs: Path) -> None:
    """It opens, claims, echoes, resolves neighbours; and again; the program stays until it is unpinned."""
    pair, kernel = far
    pair.near.netns.run("ethtool", "-K", "near0", "gro", "on")
    pin(pair.near, bpffs / "near", "--user", str(USER), "--mode", mode)
    assert pair.near.has_xdp()
    with user(pair.near) as client:
        assert client.ask("capabilities") == ["CAP_NET_RAW"]
        before = 0
        for _ in range(2):
            said = client.ask("open", interfaces=["near0"], pinned=str(bpffs / "near"))
            assert (said["mode"], said["queues"]) == (mode, [0, 1])
            assert "CAP_BPF and CAP_PERFMON" in said["why"]["redirect_errors"]
            assert ("ethtool -K near0 rx-gro off" in said["why"].get("merging", "")) == (mode == "generic")
            client.ask("udp", address=["10.0.0.1", 7007])
            before, last = exchange(client, kernel, ("10.0.0.1", 7007)), before
            assert before >= last + 5
            assert entries(bpffs / "near", "xs_sockets") == 1
            assert 0 < client.ask("deadline") < 1_000_000_000
            pair.near.netns.ip("neighbour flush dev near0")
            client.ask("send", to=["10.0.0.2", kernel.getsockname()[1]], payload="found")
            assert kernel.recv(100) == b"found"
            assert client.ask("close") == 0
            assert pair.near.has_xdp()
            assert entries(bpffs / "near", "xs_sockets") == 0
        assert client.end() == 0
    unpin(pair.near, bpffs / "near")


def test_a_process_that_is_killed(far: Far, bpffs: Path) -> None:
    """The kernel has what was claimed at once; who comes next starts without those claims."""
    pair, kernel = far
    where = bpffs / "near"
    pin(pair.near, where, "--user", str(USER))
    with user(pair.near) as client:
        client.ask("open", interfaces=["near0"], pinned=str(where))
        client.ask("udp", address=["10.0.0.1", 7007])
        exchange(client, kernel, ("10.0.0.1", 7007))
        client.kill()
    plain = pair.near.netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    plain.bind(("10.0.0.1", 7007))
    plain.settimeout(10.0)
    kernel.sendto(b"to the kernel", ("10.0.0.1", 7007))
    assert plain.recv(100) == b"to the kernel"
    assert entries(where, "xs_sockets") == 1  # of the dead
    with user(pair.near) as client:
        client.ask("open", interfaces=["near0"], pinned=str(where))
        assert entries(where, "xs_sockets") == 0
        client.ask("udp", address=["10.0.0.1", 7008])
        lifted = exchange(client, kernel, ("10.0.0.1", 7008))
        kernel.sendto(b"still", ("10.0.0.1", 7007))
        assert plain.recv(100) == b"still"
        assert exchange(client, kernel, ("10.0.0.1", 7008), 1) == lifted + 1
    plain.close()
    unpin(pair.near, where)


def test_a_process_that_is_stopped(far: Far, bpffs: Path) -> None:
    """Loses the traffic when the deadline is over, and has it back when it goes on and takes what waits."""
    pair, kernel = far
    where = bpffs / "near"
    pin(pair.near, where, "--user", str(USER))
    with user(pair.near) as client:
        client.ask("open", interfaces=["near0"], pinned=str(where))
        client.ask("udp", address=["10.0.0.1", 7007], reserve=False)
        lifted = exchange(client, kernel, ("10.0.0.1", 7007))
        plain = pair.near.netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        plain.bind(("10.0.0.1", 7007))
        plain.settimeout(0.1)
        client.process.send_signal(signal.SIGSTOP)
        try:

            def fallen() -> bool:
                kernel.sendto(b"to whom", ("10.0.0.1", 7007))
                try:
                    return plain.recv(100) == b"to whom"
                except TimeoutError:
                    return False

            until(fallen)
        finally:
            client.process.send_signal(signal.SIGCONT)
        plain.close()
        until(lambda: client.ask("poll") >= 0 and client.ask("deadline") > 0)
        assert lifted >= 5
    unpin(pair.near, where)


def test_who_finds_it_is_told_that_it_is_pinned(far: Far, bpffs: Path) -> None:
    """By the doctor too: no process holds its link, that could be ended."""
    pair, _ = far
    where = bpffs / "near"
    pin(pair.near, where)
    done = command(pair.near, "doctor", pair.near.name, "--json")
    [found] = [each for each in json.loads(done.stdout)["findings"] if each["subject"] == "XDP program"]
    assert found["fix"] == "It is pinned: xdpstack unpin, if xdpstack pin did it, or detach the link."
    assert found["command"].startswith("bpftool link detach id ")
    unpin(pair.near, where)


def test_one_process_at_a_time(far: Far, bpffs: Path) -> None:
    """Whatever queues it takes: it is told who has it. Nor is it unpinned meanwhile."""
    pair, _ = far
    where = bpffs / "near"
    pin(pair.near, where, "--user", str(USER))
    with user(pair.near) as one, user(pair.near) as two:
        one.ask("open", interfaces=["near0"], pinned=str(where), queues=[0])
        answer = two.try_to("open", interfaces=["near0"], pinned=str(where), queues=[1])
        assert answer["errno"] == 16, answer  # EBUSY
        assert "PinError" in answer["error"]
        assert f"(pid {one.process.pid})" in answer["error"]
        done = command(pair.near, "unpin", str(where))
        assert done.returncode == 1
        assert f"(pid {one.process.pid})" in done.stderr
        one.ask("close")
        two.ask("open", interfaces=["near0"], pinned=str(where), queues=[1])
    unpin(pair.near, where)


def test_who_may_use_it(far: Far, bpffs: Path) -> None:
    pair, _ = far
    where = bpffs / "near"
    pin(pair.near, where)
    with user(pair.near) as client:
        answer = client.try_to("open", interfaces=["near0"], pinned=str(where))
        assert "PrivilegeError: not permitted to use the program pinned at" in answer["error"], answer
    unpin(pair.near, where)
    pin(pair.near, where, "--group", str(USER))
    with user(pair.near) as client:
        client.ask("open", interfaces=["near0"], pinned=str(where))
        client.ask("close")
        with pytest.raises(AssertionError):  # the link is root's: the program cannot be detached by who uses it
            client.ask("unlink", path=str(where / "link"))
    with Client(pair.near, user=USER) as client:  # not even CAP_NET_RAW
        answer = client.try_to("open", interfaces=["near0"], pinned=str(where))
        assert "PrivilegeError: not permitted to open near0: CAP_NET_RAW missing" in answer["error"]
    unpin(pair.near, where)


def test_no_such_pin(far: Far, bpffs: Path) -> None:
    pair, _ = far
    with user(pair.near) as client:
        for where in (bpffs / "nowhere", Path("/etc"), Path("/nowhere")):
            answer = client.try_to("open", interfaces=["near0"], pinned=str(where))
            assert f"PinError: no program is pinned at {where}" in answer["error"], answer
            done = command(pair.near, "unpin", str(where))
            assert f"no program is pinned at {where}" in done.stderr
    assert not pair.near.has_xdp()


def test_where_nothing_can_be_pinned(far: Far, bpffs: Path, tmp_path: Path) -> None:
    """Nothing is left: no program, no directory."""
    pair, _ = far
    (bpffs / "taken").mkdir()
    for where, words in (
        (tmp_path / "near", "not in a BPF file system"),
        (bpffs / "near.1", "a dot in its name"),
        (bpffs / "taken", "there is something at"),
        (bpffs / "no" / "where", "not in a BPF file system"),
    ):
        done = command(pair.near, "pin", "near0", str(where))
        assert done.returncode == 1
        assert words in done.stderr, done.stderr
        assert not pair.near.has_xdp()
    done = command(pair.near, "pin", "near0", str(bpffs / "near"), "--user", "nobody at all")
    assert "there is no user 'nobody at all'" in done.stderr
    assert [path.name for path in bpffs.iterdir() if path.is_dir() and path.name == "near"] == []
    (bpffs / "taken").rmdir()


def test_another_release_has_pinned_it(far: Far, bpffs: Path) -> None:
    pair, _ = far
    where = bpffs / "near"
    pin(pair.near, where, "--user", str(USER))
    descriptor = lib.bpf_obj_get(bytes(where / ABOUT))
    about = PinnedMap(ABOUT, descriptor)
    said = about.lookup(KEY)
    assert said is not None
    newer = said.rstrip(b"\0").replace(b'"layout": %d' % lib.XS_XDP_LAYOUT, b'"layout": 77')
    about.update({KEY: newer.ljust(ABOUT_BYTES, b"\0")})
    os.close(descriptor)
    with user(pair.near) as client:
        answer = client.try_to("open", interfaces=["near0"], pinned=str(where))
        assert "is of another release of xdpstack" in answer["error"]
        assert f"number 77; this release has number {lib.XS_XDP_LAYOUT}" in answer["error"]
    unpin(pair.near, where)


def test_what_its_user_has_done_to_it(far: Far, bpffs: Path) -> None:
    """He may write `about`, and into the directory of the lock: neither keeps root from unpinning."""
    pair, _ = far
    where = bpffs / "near"
    pin(pair.near, where, "--user", str(USER))
    descriptor = lib.bpf_obj_get(bytes(where / ABOUT))
    about = PinnedMap(ABOUT, descriptor)
    layout = b'{"layout": %d}' % lib.XS_XDP_LAYOUT
    for nonsense, words in (
        (b"\xff{", "of another release"),
        (b"[1]", "of another release"),
        (b"[" * ABOUT_BYTES, "of another release"),
        (layout, "not said as"),
    ):
        about.update({KEY: nonsense.ljust(ABOUT_BYTES, b"\0")})
        with user(pair.near) as client:
            answer = client.try_to("open", interfaces=["near0"], pinned=str(where))
            assert "PinError" in answer["error"]
            assert words in answer["error"], answer
    os.close(descriptor)
    (where / "lock").chmod(0o700)
    (where / "lock" / "x" / "y").mkdir(parents=True)
    unpin(pair.near, where)


def test_what_is_no_pin_is_not_removed(far: Far, bpffs: Path) -> None:
    pair, _ = far
    empty, foreign = bpffs / "empty", bpffs / "foreign"
    for place in (empty, foreign):
        place.mkdir()
    pin(pair.near, bpffs / "near")
    descriptor = lib.bpf_obj_get(bytes(bpffs / "near" / "link"))
    assert lib.bpf_obj_pin(descriptor, bytes(foreign / "link")) == 0
    os.close(descriptor)
    for place in (empty, foreign):
        assert f"no program is pinned at {place}" in command(pair.near, "unpin", str(place)).stderr
        assert place.exists()
    assert pair.near.has_xdp()
    with user(pair.near) as client:
        answer = client.try_to("unpin", path=str(bpffs / "near"))
        assert "PrivilegeError" in answer["error"]
        assert "unpin an XDP program" in answer["error"]
    unpin(pair.near, bpffs / "near")


def test_a_closed_file_system_is_opened_as_the_error_says(far: Far, bpffs: Path) -> None:
    """systemd mounts it so that root alone can enter, and a remount does not change that."""
    pair, _ = far
    where = bpffs / "near"
    pin(pair.near, where, "--user", str(USER))
    bpffs.chmod(0o700)
    with user(pair.near) as client:
        answer = client.try_to("open", interfaces=["near0"], pinned=str(where))
        assert "chmod 0711 /sys/fs/bpf" in answer["error"]
        bpffs.chmod(0o711)
        client.ask("open", interfaces=["near0"], pinned=str(where))
        client.ask("close")
    unpin(pair.near, where)


def test_another_interface_and_another_program(far: Far, bpffs: Path) -> None:
    pair, _ = far
    where = bpffs / "near"
    pin(pair.near, where, "--user", str(USER))
    with user(pair.near) as client:
        answer = client.try_to("open", interfaces=["lo"], pinned=str(where))
        assert "is not lo's" in answer["error"]
        answer = client.try_to("open", interfaces=["near0"], pinned=str(where), mode="generic")
        assert "ModeRefused" in answer["error"]
        answer = client.try_to("open", interfaces=["near0", "lo"], pinned=str(where))
        assert "a pinned program is one interface's" in answer["error"]
    with Client(pair.near, user=0) as root:  # another stack finds it in its way, and says what it is
        answer = root.try_to("open", interfaces=["near0"])
        assert "ProgramAttached" in answer["error"]
        assert "xdpstack unpin" in answer["error"]
    descriptor = lib.bpf_obj_get(bytes(where / "link"))
    assert lib.bpf_link_detach(descriptor) == 0
    os.close(descriptor)
    with user(pair.near) as client:
        answer = client.try_to("open", interfaces=["near0"], pinned=str(where))
        assert "is not attached any more" in answer["error"]
    unpin(pair.near, where)


def test_what_does_not_go_with_it() -> None:
    tune = xdpstack.Tuning(channels=1)
    refused: list[dict[str, Any]] = [
        {"netns": "x"}, {"transmit_only": True}, {"tune": tune}, {"broker": "/x"}, {"metadata": ["hash"]}
    ]  # fmt: skip
    for options in refused:
        with pytest.raises(ConfigurationError, match="do not go with a"):
            xdpstack.open("lo", pinned="/nowhere", frames=1024, **options)


def test_the_layout_has_the_number_that_it_was_given() -> None:
    """Whoever changes the layout of the maps raises XS_XDP_LAYOUT, and puts the new sum here."""
    bare = re.sub(r"/\*.*?\*/|\s+", " ", text("bpf/xdpstack_layout.cdef.h"), flags=re.DOTALL).split()
    assert (lib.XS_XDP_LAYOUT, hashlib.sha256(" ".join(bare).encode()).hexdigest()[:16]) == (4, "1ccb8b53e54f5738")
