"""UDP run from Python: the same datagrams through the C stages and through semantics.py, to the same queues and counters;
and a layer of the user's in its place."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.driving import driven
from tests.udp.by_hand import UdpRx
from tests.udp.datagrams import datagram
from tests.udp.programs import programs
from tests.udp.strategies import datagrams, worlds
from xdpstack.device.backend import Device
from xdpstack.errors import ConfigurationError
from xdpstack.hook import _run_hook
from xdpstack.layer import LayerBatch, stand_in
from xdpstack.native import check, lib
from xdpstack.testing import FOREVER_NS, MemoryDevice, MemoryStack, check_open, memory_stack
from xdpstack.udp import bpf
from xdpstack.udp.engine import UdpBatch
from xdpstack.udp.layer import UdpLayer
from xdpstack.udp.semantics import ANY, Bound, Datagram, Outgoing, header, receive
from xdpstack.walk import Turn

# ---- udp.rx, datagram by datagram ----


@dataclass
class PythonRx(UdpRx):
    """UdpRx whose work is done by the definition."""

    def __post_init__(self) -> None:
        super().__post_init__()
        lib.xs_worker_reset_nodes(self.worker)
        self.node = check(lib.xs_worker_add_engine(self.worker, b"udp.rx"), "add udp.rx")
        layer: Any = SimpleNamespace(bounds=())
        layer.process = partial(UdpLayer.process, layer)
        names = [
            Device(f"d{n}", n, n + 2, bytes(6), (0,), partial_checksums=n in self.partial) for n in range(self.devices)
        ]
        batch = partial(UdpBatch, layer=layer, host=SimpleNamespace(devices=names))
        self.hook = stand_in("udp.rx", layer, "python", batch)
        self.hook.node = self.node
        self.layer = layer

    def bind(self, sockets: Sequence[Bound], rcvbuf: int = 212992) -> None:
        super().bind(sockets, rcvbuf)
        self.layer.bounds = tuple(sockets)

    def walk(self, frames: Sequence[int]) -> None:
        super().walk(frames)
        while lib.xs_worker_parked(self.worker):
            _run_hook(self.hook, self.worker, self.core, Turn())


def counts(rx: UdpRx) -> list[Any]:
    """Everything that is counted, of the stage, by reason, by socket, and in the ledger."""
    drops = [lib.xs_node_drops(rx.worker, rx.node, reason) for reason in range(80)]
    stage = [lib.xs_node_counter(rx.worker, rx.node, counter) for counter in range(7)]
    sockets = [(one.datagrams, one.drops, one.rmem, one.queued) for one in map(rx.stats, rx.sockets)]
    return [drops, stage, sockets, rx.core.ledger(), rx.core.frame_counts()]


PARTIAL = frozenset({1})


@settings(max_examples=150, deadline=None)
@given(worlds(), st.lists(st.tuples(datagrams(), st.lists(st.integers(8, 1500), max_size=3)), min_size=1, max_size=6))
def test_the_same_datagrams_to_the_same_sockets(world: list[Bound], stream: list[tuple[Datagram, list[int]]]) -> None:
    native, python = UdpRx(partial=PARTIAL), PythonRx(partial=PARTIAL)
    for rx in (native, python):
        rx.bind(world, rcvbuf=4608)
    for one, split in stream:
        assert native.receive(one, split) == python.receive(one, split)
    assert counts(native) == counts(python)
    assert python.core.ledger().missing == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(programs(), min_size=1, max_size=3), datagrams())
def test_the_same_filters(filters: list[list[bpf.Instruction]], one: Datagram) -> None:
    """Of one socket, or of several that get a broadcast: each drops, or cuts, its own."""
    world = [
        Bound(n, 6, ANY[6], 7, no_check6_rx=True, filter=tuple(bpf.checked(each))) for n, each in enumerate(filters)
    ]
    native, python = UdpRx(partial=PARTIAL), PythonRx(partial=PARTIAL)
    for rx in (native, python):
        rx.bind(world)
    assert native.receive(one) == python.receive(one)
    assert counts(native) == counts(python)


@pytest.mark.parametrize("refusing", [0, 1, 2])
def test_the_last_that_takes_a_datagram_gets_the_packet_whoever_refuses(refusing: int) -> None:
    takes, refuses = (tuple(bpf.checked([bpf.Instruction(6, 0, 0, keep)])) for keep in (9, 0))
    world = [Bound(n, 4, ANY[4], 7, filter=refuses if n == refusing else takes) for n in range(3)]
    both = UdpRx(), PythonRx()
    for rx in both:
        rx.bind(world)
    one = Datagram(4, *_addresses(), _to_7(), to_many=True)
    outcome = both[0].receive(one)
    assert outcome == both[1].receive(one)
    assert outcome.reason == ("SOCKET_FILTER" if refusing == 2 else None)
    assert counts(both[0]) == counts(both[1])


def test_clones_stop_when_frames_do() -> None:
    both = UdpRx(frames=64), PythonRx(frames=64)
    for rx in both:
        rx.bind([Bound(n, 4, ANY[4], 7) for n in range(100)])
        rx.walk([rx.put(Datagram(4, *_addresses(), _to_7(), to_many=True))])
    assert counts(both[0]) == counts(both[1])


def _addresses() -> tuple[bytes, bytes]:
    one = datagram(b"x")
    return one.source, one.destination


def _to_7() -> bytes:
    return datagram(b"x").data[:6] + b"\0\0x"  # no checksum


# ---- udp.tx ----


@given(datagrams(partial=False))
def test_the_header_is_what_a_receiver_accepts(one: Datagram) -> None:
    sent = Outgoing(one.family, one.source, one.destination, 1000, 7, one.data)
    made = header(sent)
    got = Datagram(one.family, one.source, one.destination, made + one.data)
    verdict = receive(got, [Bound(0, 6, ANY[6], 7)])
    assert verdict.payloads == (one.data,)
    assert verdict.accepted is not None
    assert verdict.accepted.checksum == "verified"


# ---- whole stacks, side by side ----

BOTH = {"routing": "python", "udp": "python"}
US = ("10.0.0.1", "fd00::1")
PEER = {False: "10.0.0.2", True: "fd00::2"}


def stack_with(engines: dict[str, Any] | None = None) -> MemoryStack:
    return memory_stack(
        MemoryDevice("a0", partial_checksums=True),
        "b0",
        addresses={"a0": ["10.0.0.1/24", "fd00::1/64"], "b0": ["10.1.0.1/24"]},
        routes=["192.0.2.0/24 via 10.1.0.2 dev b0", "unreachable 198.51.100.0/24", "prohibit 203.0.113.0/24"],
        neighbours=[
            "10.0.0.2 dev a0 lladdr 02:00:00:00:00:99",
            "fd00::2 dev a0 lladdr 02:00:00:00:00:99",
            "10.1.0.2 dev b0 lladdr 02:00:00:00:00:98",
        ],
        sysctls={"ipv4.conf.a0.rp_filter": 1},
        engines=engines,
    )


def arrives(ipv6: bool, sport: int, dport: int, payload: int | bytes, near: bool = True, spoil: int = 0) -> bytes:
    """A frame for a0, from the peer on its link or from far away; `spoil` flips bits of one of its last bytes."""
    far = "2001:db8::9" if ipv6 else "172.16.0.1"
    source = PEER[ipv6] if near else far
    ip = (IPv6 if ipv6 else IP)(src=source, dst=US[ipv6])
    frame = bytearray(bytes(Ether(dst="02:00:00:00:00:01") / ip / UDP(sport=sport, dport=dport) / bytes(payload)))
    frame[-1 - spoil % 8] ^= spoil
    return bytes(frame)


def without_chance(frame: bytes) -> bytes:
    """A sent frame without what each stack draws at random: IPv4's id (and checksum with it), IPv6's flow label."""
    if frame[12:14] == b"\x08\x00":
        return frame[:18] + bytes(2) + frame[20:24] + bytes(2) + frame[26:]
    return frame[:15] + bytes(3) + frame[18:]


DESTINATIONS = ["10.0.0.2", "fd00::2", "192.0.2.9", "198.51.100.1", "203.0.113.1", "8.8.8.8", "10.0.0.255", "10.0.0.1",
                "2001:db8::1", "10.0.0.77"]  # fmt: skip
frames = st.builds(
    arrives,
    st.booleans(),
    st.sampled_from([1, 1000, 1001]),
    st.sampled_from([7, 8, 9]),
    st.sampled_from([0, 1, 40, 1400]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 0, 0, 1, 255]),
)
sends = st.tuples(st.sampled_from(DESTINATIONS), st.sampled_from([0, 6, 1400, 1473, 1800]))
actions = st.lists(
    st.tuples(st.just("arrive"), st.lists(frames, max_size=20))
    | st.tuples(st.just("send"), sends)
    | st.tuples(st.just("batch"), st.lists(sends, min_size=1, max_size=80)),
    min_size=1,
    max_size=8,
)


def play(stack: MemoryStack, script: list[tuple[str, Any]]) -> list[Any]:
    """What a program sees that does what `script` says, and what is on the wires."""
    seen: list[Any] = []
    four, six = stack.udp(("10.0.0.1", 7)), stack.udp(("::", 8))
    four.setblocking(False)
    six.setblocking(False)
    for what, arguments in script:
        if what == "arrive":
            stack.inject("a0", *arguments)
            stack.step(3)
        elif what == "send":
            host, size = arguments
            seen.append(attempt(six.sendto, bytes(size), (mapped(host), 9)))
        else:
            payloads, to = [bytes(size) for _, size in arguments], [(mapped(host), 9) for host, _ in arguments]
            seen.append(attempt(six.send_batch, payloads, to))
        for sock in (four, six):
            while isinstance(got := attempt(sock.recvfrom, 2000), tuple):
                seen.append(got)
        stack.step()
    seen += [[without_chance(frame) for frame in stack.sent(name)] for name in ("a0", "b0")]
    return seen


def mapped(host: str) -> str:
    return host if ":" in host else f"::ffff:{host}"


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """Its result, or what it raised in a comparable form."""
    try:
        return call(*arguments)
    except OSError as error:
        return [type(error).__name__, str(error), getattr(error, "errors", None)]


@pytest.mark.parametrize("engines", [BOTH, {"routing": "python"}, {"udp": "python"}], ids=str)
@settings(max_examples=25, deadline=None)
@given(script=actions)
def test_a_program_sees_no_difference(engines: dict[str, str], script: list[tuple[str, Any]]) -> None:
    with stack_with() as native, stack_with(engines) as python:
        assert play(native, script) == play(python, script)
        before, after = (
            {name: n for name, n in stack.counters().items() if not name.endswith((".batches", ".same"))}
            for stack in (native, python)
        )
        assert before == after
        assert native.reasons() == python.reasons()
        assert native.ledger() == python.ledger()
        for stack in (native, python):
            check_open(stack._core)
        native.clock.advance(FOREVER_NS // 2)  # what waits for a neighbour does no longer
        python.clock.advance(FOREVER_NS // 2)


# ---- how it shows ----


def test_it_is_seen_which_engine_a_layer_has() -> None:
    with stack_with({"udp": "python"}) as stack:
        assert stack.info()["engines"] == {"routing": "native", "udp": "python"}
        stack.trace_start()
        stack.inject("a0", arrives(False, 1000, 9, b"for nobody"))
        stack.step()
        (walked,) = stack.trace_read()
        assert [step.stage for step in walked.steps][-2:] == ["ip.local", "udp.rx"]
        assert walked.end == "dropped: NO_SOCKET"
        assert stack.counters()["udp.rx.drop.NO_SOCKET"] == 1
    with stack_with() as stack:
        assert stack.info()["engines"] == {"routing": "native", "udp": "native"}


def test_the_path_is_shown_with_the_engine() -> None:
    from xdpstack.answers import answers
    from xdpstack.cli.show import path_rows

    with stack_with({"udp": "python"}) as stack:
        rows = {row["name"]: row for row in path_rows(stack.counters(), answers(stack, stack._walk)["nodes"]())}
        assert rows["udp.rx"]["what"].endswith("(engine: python)")
        assert rows["udp.rx"]["present"]
        assert "engine" not in rows["routing.rx"]["what"]


@pytest.mark.parametrize(
    "engines, message",
    [
        ({"gro": "python"}, r"no layer 'gro'[\s\S]*routing, udp"),
        ({"udp": "rust"}, r"'rust' is no engine for the layer udp[\s\S]*\"native\", \"python\", or an object"),
        ({"udp": None}, r"None is no engine"),
        ({"udp": UdpLayer}, r"is no engine for the layer udp"),
    ],
)
def test_what_is_no_engine(engines: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        memory_stack("a0", engines=engines)


# ---- a layer of the user's ----


class EvenPorts:
    """Drops what comes from odd ports; the rest is as ever."""

    def process(self, batch: UdpBatch) -> None:
        if batch.row == "udp.rx":
            for packet in batch:
                if packet.sport % 2:
                    packet.drop("HOOK")
        batch.layer.process(batch)


def test_an_object_in_the_place_of_the_layer() -> None:
    with stack_with({"udp": EvenPorts()}) as stack:
        assert stack.info()["engines"]["udp"] == "EvenPorts"
        sock = stack.udp(("::", 7))
        sock.setblocking(False)
        for ipv6 in (False, True):
            stack.inject("a0", *(arrives(ipv6, 1000 + n, 7, bytes([n])) for n in range(4)))
        stack.step()
        got = [sock.recvfrom(9) for _ in range(4)]
        assert [(data[0], address[1]) for data, address in got] == [(0, 1000), (2, 1002)] * 2
        assert stack.counters()["udp.rx.drop.HOOK"] == 4
        sock.sendto(b"and out", got[0][1])
        assert Ether(stack.sent("a0")[0])[UDP].payload.load == b"and out"


def test_an_object_that_says_nothing_of_a_packet_is_told() -> None:
    class Idle:
        def process(self, batch: LayerBatch) -> None:
            pass

    with stack_with({"udp": Idle()}) as stack:
        stack.inject("a0", arrives(False, 1, 7, b"x"))
        with pytest.raises(ConfigurationError, match=r"Idle left 1 of 1 packets of udp.rx undecided"):
            stack.step()
        assert stack.reasons() == {"HOOK_EXCEPTION": 1}


def test_an_object_cannot_send_while_it_decides_what_is_sent() -> None:
    class Chatty:
        def __init__(self) -> None:
            self.raised: list[OSError] = []

        def process(self, batch: UdpBatch) -> None:
            if batch.row == "udp.tx":
                with pytest.raises(OSError, match=r"udp.tx is run by .*Chatty") as raised:
                    sock.sendto(b"me too", ("10.0.0.2", 9))
                self.raised.append(raised.value)
            batch.layer.process(batch)

    chatty = Chatty()
    with stack_with({"udp": chatty}) as stack:
        sock = stack.udp(("10.0.0.1", 7))
        sock.sendto(b"x", ("10.0.0.2", 9))
        assert [error.errno for error in chatty.raised] == [errno.EDEADLK]
        assert len(stack.sent("a0")) == 1


def test_hooks_come_and_go_while_another_thread_polls() -> None:
    """Packets are parked most of the time; the walk is wired anew all the same."""
    with stack_with(BOTH) as stack:
        sock = stack.udp(("10.0.0.1", 7))
        sock.setblocking(False)

        def turn() -> None:
            stack.inject("a0", arrives(False, 1000, 7, b"x"))
            stack.poll()
            attempt(lambda: sock.recv_batch(64).release())

        with driven(turn):
            for _ in range(20):
                stack.unhook(stack.hook("netfilter.input", lambda batch: None, name="look"))
        stack.step(2)
        attempt(lambda: sock.recv_batch(256).release())
        assert stack.ledger().missing == 0
