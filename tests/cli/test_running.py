"""show, trace and lab beside a running stack, and with none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.paths.server import Server
from tests.paths.world import FAR, NEAR, OURS, MakeVeth, kernel_udp
from xdpstack.observe.server import Server as Answering
from xdpstack.path import PATH
from xdpstack.testing.veth import Veth

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command; it sees the stacks of this test alone."""
    monkeypatch.setenv("XDPSTACK_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        full = [sys.executable, "-m", "xdpstack", *words]
        return subprocess.run(full, capture_output=True, text=True, timeout=60, check=False)

    return command


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    return veth(near=NEAR, far=FAR)


@pytest.fixture
def server(run: Run, pair: Veth) -> Iterator[Server]:
    """A stack in another process that has answered three datagrams and dropped one."""
    with Server(pair.near) as server:
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            for _ in range(3):
                client.send(b"hello")
                assert client.recv(99) == b"hello"
        yield server


def send_with_wrong_checksum(pair: Veth) -> None:
    pair.far.netns.run(
        sys.executable,
        "-c",
        "from scapy.all import *; "
        f"sendp(Ether(dst='{pair.near.mac}') / IP(src='10.0.0.2', dst='10.0.0.1') / UDP(dport=7777, chksum=1) / b'x', "
        f"iface='{pair.far.name}', verbose=0)",
    )


# ---- with none ----


@pytest.mark.parametrize("words", [["show", "counters"], ["show", "reasons"], ["show", "info"], ["trace"]])
def test_without_a_stack_it_is_said(run: Run, words: list[str], tmp_path: Path) -> None:
    for more in ([], ["--pid", "1"]):
        done = run(*words, *more)
        assert (done.returncode, done.stdout) == (1, "")
        assert "is running" in done.stderr
        assert str(tmp_path / "run") in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("columns", [80, 200])
def test_the_path_is_shown_without_a_stack(run: Run, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = run("show", "path")
    assert done.returncode == 0
    begins = [words[1] for words in map(str.split, done.stdout.splitlines()) if len(words) > 1 and "." in words[1]]
    assert begins == [row.name for row in PATH]
    assert "ndo_start_xmit" in done.stdout, "no word is cut"


def test_the_path_is_shown_as_json(run: Run) -> None:
    rows = json.loads(run("show", "path", "--json").stdout)
    assert all(row["packets"] == 0 for row in rows)
    assert {row["name"] for row in rows if row["present"]} >= {"napi.rx", "ip.rx", "udp.rx", "udp.tx", "napi.tx"}


def test_a_killed_process_is_not_running(run: Run, server: Server, tmp_path: Path) -> None:
    assert list((tmp_path / "run").iterdir())
    server.kill()
    done = run("show", "counters")
    assert done.returncode == 1
    assert "is running" in done.stderr
    assert not list((tmp_path / "run").iterdir())


def test_what_killed_processes_left_goes_with_the_next_stack(tmp_path: Path) -> None:
    """But for what still answers: its process is in another PID namespace."""
    gone, there = (tmp_path / f"{number}-0.sock" for number in (2**22 + 1, 2**22 + 2))
    with socket.socket(socket.AF_UNIX) as left, socket.socket(socket.AF_UNIX) as listening:
        left.bind(str(gone))
        listening.bind(str(there))
        listening.listen()
        answering = Answering({}, tmp_path)
        assert set(tmp_path.iterdir()) == {there, answering.path}
        answering.close()


def test_a_brokers_socket_is_no_stacks(run: Run, tmp_path: Path) -> None:
    """It is in the same directory, and stays there."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/broker.sock").touch()
    for words in (["show", "counters"], ["trace"]):
        done = run(*words)
        assert done.returncode == 1
        assert "is running" in done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "run/broker.sock").exists()


# ---- with one ----


def test_show_path(run: Run, server: Server) -> None:
    done = run("show", "path")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(run("show", "path", "--json").stdout)}
    assert [rows[name]["packets"] for name in ("napi.rx", "udp.rx", "udp.tx", "napi.tx")] == [3] * 4


def test_show_counters(run: Run, server: Server) -> None:
    table = run("show", "counters").stdout
    assert table.index("napi.rx.packets") < table.index("udp.rx.packets") < table.index("napi.tx.packets")
    values = json.loads(run("show", "counters", "--json", "--pid", str(server.process.pid)).stdout)
    assert values["udp.rx.packets"] == values["napi.tx.packets"] == values["xdp.rx.redirect_socket"] == 3


def test_show_reasons(run: Run, server: Server, pair: Veth) -> None:
    assert run("show", "reasons").stdout.strip() == "no packet was dropped"
    with kernel_udp(pair.far.netns, to=OURS[0]) as client:
        client.setsockopt(1, 11, 1)  # SO_NO_CHECK
        client.send(b"no checksum is allowed over IPv4")
        assert client.recv(99)
    send_with_wrong_checksum(pair)
    assert json.loads(run("show", "reasons", "--json").stdout) == {"UDP_CSUM": [1, "wrong UDP checksum"]}
    assert "wrong UDP checksum" in run("show", "reasons").stdout


def test_show_info(run: Run, server: Server, pair: Veth) -> None:
    info = json.loads(run("show", "info").stdout)
    assert info["devices"][0]["name"] == pair.near.name
    assert sum(info["frames"].values()) == info["frames_total"]
    assert info["packets"]["missing"] == 0


def test_trace(run: Run, server: Server, pair: Veth) -> None:
    words = [sys.executable, "-m", "xdpstack", "trace", "-n", "2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert tracer.stderr.readline() == "waiting for 2 packets\n"
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            client.send(b"follow me")
            assert client.recv(99) == b"follow me"
        said, errors = tracer.communicate(timeout=30)
    assert (tracer.returncode, errors) == (0, "")
    received, sent = said.split("packet 1")
    for stages, text in ((("napi.rx", "ip.rx", "udp.rx", "took it"), received), (("udp.tx", "ip.tx", "napi.tx"), sent)):
        places = [text.index(stage) for stage in stages]
        assert places == sorted(places), said
    assert "10.0.0.2" in received


def test_trace_of_a_rare_drop(run: Run, server: Server, pair: Veth) -> None:
    """The one among many."""
    words = [sys.executable, "-m", "xdpstack", "trace", "--drop", "UDP_CSUM", "--seconds", "20"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert tracer.stderr.readline() == "waiting for 1 packet dropped for UDP_CSUM\n"
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            for _ in range(20):
                client.send(b"not me")
                assert client.recv(99) == b"not me"
        send_with_wrong_checksum(pair)
        said, errors = tracer.communicate(timeout=30)
    assert (tracer.returncode, errors) == (0, "")
    assert "dropped: UDP_CSUM" in said
    assert said.index("napi.rx") < said.index("ip.rx") < said.index("udp.rx")


def test_trace_of_what_there_is_not(run: Run, server: Server) -> None:
    done = run("trace", "--drop", "CSUM")
    assert done.returncode == 1
    assert "there is no drop reason 'CSUM'" in done.stderr
    assert "UDP_CSUM" in done.stderr
    done = run("trace", "--row", "udp")
    assert "there is no row 'udp'" in done.stderr
    assert "udp.rx" in done.stderr
    assert "Traceback" not in done.stderr


def test_trace_of_what_does_not_come(run: Run, server: Server) -> None:
    done = run("trace", "--seconds", "0.2")
    assert done.returncode == 1
    assert "0 of 1 packets came within 0.2 s" in done.stderr


def test_with_two_it_must_be_said_which(run: Run, server: Server, veth: MakeVeth) -> None:
    other = veth()
    with Server(other.near) as second:
        done = run("show", "counters")
        assert done.returncode == 1
        assert "--pid" in done.stderr
        assert str(second.process.pid) in done.stderr
        assert str(server.process.pid) in done.stderr
        assert run("show", "counters", "--pid", str(second.process.pid)).returncode == 0
        assert run("show", "path").returncode == 0


# ---- lab ----


def labs() -> set[str]:
    return {path.name for path in Path("/run/netns").glob("xdplab-*")}


@pytest.mark.parametrize("command, status", [(["true"], 0), (["sh", "-c", "exit 7"], 7)])
def test_lab(run: Run, command: list[str], status: int) -> None:
    before = labs()
    done = run("lab", "--", *command)
    assert done.returncode == status, done.stderr
    assert "10.77.0.1/24" in done.stdout
    assert not labs() - before


def test_lab_has_a_peer_that_answers_and_a_stack_can_be_opened(run: Run) -> None:
    code = "import xdpstack; print(xdpstack.open('veth0', frames=2048).addresses())"
    done = run(
        "lab", "--", "sh", "-c", f'ping -c1 -W5 10.77.0.2 && ping -c1 -W5 fd77::2 && {sys.executable} -c "{code}"'
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10.77.0.1" in done.stdout.splitlines()[-1]
    assert os.environ.get("XDPSTACK_LAB_PEER") is None


def test_lab_of_a_command_that_is_not_there(run: Run) -> None:
    before = labs()
    done = run("lab", "--", "no-such-command")
    assert done.returncode != 0
    assert "no-such-command" in done.stderr
    assert not labs() - before
