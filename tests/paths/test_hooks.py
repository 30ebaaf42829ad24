"""Custom stages on real traffic: a Python hook and a C hook, seen in the walk, in the counters and by the command."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import xdpstack
from tests.paths.world import FAR, NEAR, OURS, PORT, MakeVeth, exchange, kernel_udp, opened
from xdpstack.errors import ClosedError, ConfigurationError
from xdpstack.stack import Stack
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, until

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
CC = shlex.split(sysconfig.get_config_var("CC") or "cc")


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    return veth(near=NEAR, far=FAR)


@pytest.fixture
def stack(pair: Veth) -> Iterator[Stack]:
    with opened(pair.near) as stack:
        yield stack


@pytest.fixture(scope="module")
def min_ttl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's C stage, built as its head says."""
    built = tmp_path_factory.mktemp("stage") / "min_ttl.so"
    source = ROOT / "examples/c_stage/min_ttl.c"
    words = [*CC, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", xdpstack.get_include()]
    subprocess.run([*words, "-o", str(built), str(source)], check=True)
    return built


def show(*words: str) -> object:
    """What `xdpstack show WORDS --json` prints of this process's stack."""
    done = subprocess.run([sys.executable, "-m", "xdpstack", "show", *words, "--json"], capture_output=True, check=True)
    return json.loads(done.stdout)


def test_a_python_hook_drops_and_lets_through(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    seen: list[tuple[int, int, int]] = []

    def no_odd_ones(batch: xdpstack.HookBatch) -> None:
        for packet in batch:
            payload = bytes(packet.data[-1:])
            seen.append((packet.l3_proto, packet.l4_proto, packet.pkt_len))
            if payload == b"1":
                packet.drop()

    stack.hook("netfilter.input", no_odd_ones)
    with stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        for to, ethertype, headers in ((OURS[0], 0x0800, 42), (OURS[1], 0x86DD, 62)):
            with kernel_udp(pair.far.netns, to=to) as client:
                client.send(b"drop: 1")
                exchange(sock, client, b"keep: 0")
            assert seen[-2:] == [(ethertype, 17, headers + 7)] * 2
        assert stack.reasons() == {"HOOK": 2}
        counters = stack.counters()
        assert (counters["no_odd_ones.packets"], counters["no_odd_ones.drop.HOOK"]) == (4, 2)
        assert counters["udp.rx.packets"] == 2
        ledger.check()


def test_a_hook_may_say_why_and_change_what_is_in_the_packet(pair: Veth, stack: Stack) -> None:
    def strict(batch: xdpstack.HookBatch) -> None:
        for packet in batch:
            if packet.data[-1] == ord("!"):
                packet.drop("NETFILTER_DROP")
            else:
                packet.data[-1] ^= 1  # the checksum is wrong now

    stack.hook("netfilter.input", strict, name="strict")
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        sock.setblocking(False)
        pair.far.ethtool("-K", "tx", "off")  # so that the client's kernel computes checksums
        client.send(b"no!")
        client.send(b"changed")
        until(lambda: stack.poll() >= 0 and stack.reasons() == {"NETFILTER_DROP": 1, "UDP_CSUM": 1})


def test_a_hook_may_send_packets_another_way(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    """An edge of its own, here past the rows that would look for a socket: back out of the device."""

    def bounce(batch: xdpstack.HookBatch) -> None:
        for packet in batch:
            packet.data[0:12] = bytes(packet.data[6:12]) + bytes(packet.data[0:6])
            packet.go("back")

    from xdpstack.testing.peer import Peer

    stack.hook("netfilter.input", bounce, edges={"back": "napi.tx"})
    with (
        stack.udp(OURS[0]),
        kernel_udp(pair.far.netns, to=OURS[0]) as client,
        contextlib.closing(Peer(pair.far)) as raw,
    ):
        client.send(b"bounced")
        until(lambda: stack.poll() >= 0 and stack.ledger().sent == 1)
        got = raw.expect(lambda frame: frame.haslayer("UDP"))
        assert got["UDP"].dport == PORT  # it is the client's own datagram
        ledger.check()


def test_the_exception_of_a_hook_is_raised_by_recvfrom(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    class Defect(Exception):
        pass

    broken = True

    def fails(batch: xdpstack.HookBatch) -> None:
        if broken:
            raise Defect("in the hook")

    stack.hook("netfilter.input", fails)
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        sock.settimeout(PATIENCE)
        client.send(b"lost")
        with pytest.raises(Defect, match="in the hook"):
            sock.recvfrom(99)
        assert stack.reasons() == {"HOOK_EXCEPTION": 1}
        ledger.check()
        broken = False
        exchange(sock, client, b"and goes on")


def test_the_exception_reaches_whoever_runs_the_stack(pair: Veth, stack: Stack) -> None:
    def fails(batch: xdpstack.HookBatch) -> None:
        raise ZeroDivisionError

    stack.hook("netfilter.input", fails)
    with stack.udp(OURS[0]), kernel_udp(pair.far.netns, to=OURS[0]) as client:
        client.send(b"lost")
        with pytest.raises(ZeroDivisionError):
            stack.run(PATIENCE)
        assert stack.reasons() == {"HOOK_EXCEPTION": 1}


def test_a_hook_on_the_way_out(pair: Veth, stack: Stack) -> None:
    out: list[bytes] = []
    stack.hook("netfilter.output", lambda batch: out.extend(packet.tobytes() for packet in batch), name="watch")
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        sock.settimeout(PATIENCE)
        exchange(sock, client, b"there and back")
    assert len(out) == 1
    assert out[0].endswith(b"there and back")


def test_a_packet_is_not_to_be_kept(pair: Veth, stack: Stack) -> None:
    kept: list[xdpstack.Packet] = []
    stack.hook("netfilter.input", kept.extend, name="keeps")
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        sock.settimeout(PATIENCE)
        exchange(sock, client, b"x")
    with pytest.raises(ClosedError):
        _ = kept[0].data


def test_a_c_hook(pair: Veth, stack: Stack, min_ttl: Path, ledger: Ledger) -> None:
    """A datagram whose TTL is not 255 has come over a router."""
    hook = stack.hook("netfilter.input", xdpstack.load_stage(min_ttl))
    with stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        for to, level, option in ((OURS[0], 0, 2), (OURS[1], 41, 16)):  # IP_TTL, IPV6_UNICAST_HOPS
            with kernel_udp(pair.far.netns, to=to) as client:
                client.send(b"64")
                client.setsockopt(level, option, 255)
                exchange(sock, client, b"255")
        counters = stack.counters()
        assert (counters["min_ttl.packets"], counters["min_ttl.too_far"], counters["min_ttl.drop.HOOK"]) == (4, 2, 2)
        stack.unhook(hook)
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            exchange(sock, client, b"64 will do")
        ledger.check()


def test_both_are_seen(pair: Veth, stack: Stack, min_ttl: Path) -> None:
    def looks(batch: xdpstack.HookBatch) -> None:
        pass

    stack.hook("netfilter.input", looks, priority=10)
    stack.hook("netfilter.input", xdpstack.load_stage(min_ttl), priority=-10)
    names = [node.name for node in stack._walk.nodes]
    at = names.index("min_ttl")
    assert names[at : at + 2] == ["min_ttl", "looks"]
    assert names.index("ip.local") < at < names.index("udp.rx") or names.index("routing.rx") < at
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        sock.settimeout(PATIENCE)
        client.setsockopt(0, 2, 255)
        stack.trace_start()
        exchange(sock, client, b"x")
        [walked] = stack.trace_read()
        stages = [step.stage for step in walked.steps]
        assert stages.index("min_ttl") + 1 == stages.index("looks") < stages.index("udp.rx")
    counters = show("counters", "--pid", str(os.getpid()))
    assert isinstance(counters, dict)
    assert counters["min_ttl.packets"] == counters["looks.packets"] == 1
    rows = show("path")
    assert isinstance(rows, list)
    if any(row["name"] == "min_ttl" for row in rows):  # with another stack on this machine, the path alone is shown
        by_name = {row["name"]: row for row in rows}
        assert by_name["min_ttl"]["packets"] == by_name["looks"]["packets"] == 1
        assert by_name["min_ttl"]["what"] == "custom stage on netfilter.input"


def test_what_cannot_be_a_hook(stack: Stack, tmp_path: Path) -> None:
    def hook(batch: xdpstack.HookBatch) -> None:
        pass

    with pytest.raises(ConfigurationError, match=r"no custom stage can go on 'nowhere'[\s\S]*netfilter.input"):
        stack.hook("nowhere", hook)
    with pytest.raises(ConfigurationError, match="leads to"):
        stack.hook("netfilter.input", hook, edges={"out": "nowhere"})
    stack.hook("netfilter.input", hook)
    with pytest.raises(ConfigurationError, match="already"):
        stack.hook("netfilter.input", hook)
    empty = tmp_path / "empty.so"
    subprocess.run([*CC, "-shared", "-fPIC", "-x", "c", "/dev/null", "-o", str(empty)], check=True)
    with pytest.raises(ConfigurationError, match="exports no stage"):
        xdpstack.load_stage(empty)
    with pytest.raises(ConfigurationError, match="cannot load"):
        xdpstack.load_stage(tmp_path / "missing.so")


def test_a_hook_comes_and_goes_under_traffic(pair: Veth, stack: Stack, ledger: Ledger) -> None:
    counted = 0

    def count(batch: xdpstack.HookBatch) -> None:
        nonlocal counted
        counted += len(batch)

    ending = threading.Event()
    with stack.udp(OURS[0]) as sock, kernel_udp(pair.far.netns, to=OURS[0]) as client:
        sock.settimeout(PATIENCE)

        def serve() -> None:
            while not ending.is_set():
                with contextlib.suppress(TimeoutError):
                    sock.sendto(*sock.recvfrom(99))

        server = threading.Thread(target=serve)
        server.start()
        try:
            for number in range(30):
                made = stack.hook("netfilter.input", count)
                for _ in range(5):
                    client.send(b"%d" % number)
                    assert client.recv(99) == b"%d" % number
                stack.unhook(made)
                client.send(b"none")
                assert client.recv(99) == b"none"
        finally:
            ending.set()
            client.send(b"end")
            server.join(PATIENCE)
        assert counted == 150
        assert stack.counters()["count.packets"] == 150
        ledger.check()
