"""Every example runs, as its user runs it."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths.world import FAR, NEAR, MakeNetns, MakeVeth, kernel_udp
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import PATIENCE, until

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
#: From the description of the demo.
LAST_LINE = re.compile(
    r"demo: (\d+) sent, (\d+) answered, (\d+) lost; frames missing (\d+); kernel ping (\d+)/(\d+); "
    r"(?:native|generic), (?:copy|zero-copy)"
)


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    return veth(near=NEAR, far=FAR)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The tree's package, and a place of their own for the stacks that run."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDPSTACK_RUN": str(tmp_path / "run")}


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0], "it prints nothing"
    return process.stdout.readline()


@contextlib.contextmanager
def example(end: End, environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    command = ["ip", "netns", "exec", end.netns.name, sys.executable, str(EXAMPLES / words[0]), *words[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def code_lines(path: Path) -> int:
    """Lines that are neither blank, nor comment, nor docstring."""
    text = path.read_text()
    words = {
        at
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for at in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    return sum(1 for at, each in lines if each.strip() and not each.strip().startswith("#") and at not in words)


def test_the_echo_server_is_short() -> None:
    assert code_lines(EXAMPLES / "udp_echo.py") <= 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_udp_echo(pair: Veth, environment: dict[str, str], number: signal.Signals) -> None:
    with example(pair.near, environment, "udp_echo.py", pair.near.name, "7777") as server:
        assert line(server).startswith(f"echo on {pair.near.name}, port 7777: 10.0.0.1, fd00::1")
        assert pair.near.has_xdp()
        for host in ("10.0.0.1", "fd00::1"):
            with kernel_udp(pair.far.netns, to=(host, 7777)) as client:
                for size in (0, 1, 1400, 20_000):
                    client.send(bytes(size))
                    assert client.recv(65535) == bytes(size)
        server.send_signal(number)
        assert server.wait(20) == 0
        assert server.stdout is not None
        assert server.stdout.read() == "bye\n"
    assert not pair.near.has_xdp()


def test_udp_client(pair: Veth, environment: dict[str, str]) -> None:
    with example(pair.near, environment, "udp_echo.py", pair.near.name, "7777") as server:
        line(server)
        with example(pair.far, environment, "udp_client.py", "7777", "300", "10.0.0.1", "fd00::1") as client:
            said = line(client)
            assert client.wait(20) == 0
    assert '"sent": 300, "answered": 300, "wrong": 0, "fragmented": 6' in said


def test_python_hook(pair: Veth, environment: dict[str, str]) -> None:
    with example(pair.near, environment, "python_hook.py", pair.near.name, "7777") as server:
        assert line(server) == "ready\n"
        for host in ("10.0.0.1", "fd00::1"):
            with kernel_udp(pair.far.netns, to=(host, 7777)) as client:
                client.send(b"first")
                assert client.recv(99) == b"first"
                client.send(b"too soon")
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(99)
                time.sleep(1.0)  # what the example is about
                client.settimeout(PATIENCE)
                client.send(b"later")
                assert client.recv(99) == b"later"


def test_bridge(veth: MakeVeth, netns: MakeNetns, environment: dict[str, str]) -> None:
    near = netns("near")
    left = veth(netns_near=near, near=(), far=FAR[:1], offloads=("tx off",))
    right = veth(netns_near=near, near=(), far=NEAR[:1], offloads=("tx off",))
    with example(left.near, environment, "bridge.py", left.near.name, right.near.name) as bridge:
        assert line(bridge) == "ready\n"
        with (
            kernel_udp(right.far.netns, ("10.0.0.1", 7777)) as server,
            kernel_udp(left.far.netns, to=("10.0.0.1", 7777)) as client,
        ):
            client.send(b"across")
            data, address = server.recvfrom(99)
            server.sendto(data, address)
            assert client.recv(99) == b"across"


# ---- the demo ----


def start_demo(environment: dict[str, str], datagrams: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / "demo.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        env={**environment, "DEMO_DATAGRAMS": str(datagrams)},
        start_new_session=True,
    )


def left_behind(demo: subprocess.Popen[str]) -> list[str]:
    """Namespaces of the demo, and processes of its session, that are still there."""
    names = [f"netns {path.name}" for path in Path("/run/netns").glob(f"xdplab*-{demo.pid}")]
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, _, session = (path / "stat").read_text().rpartition(") ")[2].split()[:4]
            if session == str(demo.pid) and state != "Z":
                names.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return names


def test_demo(environment: dict[str, str]) -> None:
    demo = start_demo(environment, 2000)
    said, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, said
    found = LAST_LINE.fullmatch(said.splitlines()[-1])
    assert found, said
    sent, answered, lost, missing, pongs, pings = map(int, found.groups())
    assert (sent, answered, lost, missing, pongs) == (2000, 2000, 0, 0, pings)
    for word in ("napi.rx", "udp.rx", "took it", "40 datagrams were fragmented, 0 answers were wrong", "TCP"):
        assert word in said
    assert left_behind(demo) == []


@pytest.mark.parametrize("when", ["at once", "serving"])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "Ctrl-C"])
def test_demo_interrupted(environment: dict[str, str], how: str, when: str) -> None:
    """By a signal to it alone, or from a terminal to all that it started."""
    demo = start_demo(environment, 1_000_000)
    try:
        if when == "serving":
            assert line(demo).startswith("echo on veth0")
        else:
            until(lambda: list(Path("/run/netns").glob(f"xdplab-{demo.pid}")), seconds=30)
        if how == "Ctrl-C":
            os.killpg(demo.pid, signal.SIGINT)
        else:
            demo.send_signal(getattr(signal, how))
        said, _ = demo.communicate(timeout=60)
        assert demo.returncode == 130, said
        until(lambda: left_behind(demo) == [], message=lambda: f"left behind: {left_behind(demo)}")
        assert "demo.py" not in said  # no traceback of its own; a child that was just starting may say what ended it
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()
