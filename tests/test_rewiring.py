"""The path changes under traffic: packets see it as it was or as it is, hooks see what was parked for them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.driving import driven
from xdpstack.device.claims import PrefixClaim
from xdpstack.errors import ConfigurationError
from xdpstack.hook import HookBatch
from xdpstack.native import lib
from xdpstack.testing import MemoryStack, memory_stack
from xdpstack.testing.wait import until
from xdpstack.walk import Hook

CLAIM = PrefixClaim("10.0.0.9/32")


def nothing(batch: HookBatch) -> None:
    """Lets all through."""


def datagram(number: int = 0, port: int = 7) -> bytes:
    ip = IP(src="10.0.0.2", dst="10.0.0.1")
    return bytes(Ether(dst="02:00:00:00:00:01") / ip / UDP(sport=1234, dport=port) / number.to_bytes(4))


@pytest.fixture
def stack() -> Iterator[MemoryStack]:
    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}, frames=2048) as made:
        yield made
        assert made.ledger().missing == 0


def park(stack: MemoryStack, *frames: bytes) -> None:
    """Have packets parked for a Python hook, as they are between a poll and the hook."""
    stack.inject("a0", *frames)
    for worker in stack._core.workers:
        assert lib.xs_worker_poll(worker, 64) == len(frames)
        assert lib.xs_worker_parked(worker)


def test_a_hook_comes_while_packets_are_parked_for_another(stack: MemoryStack) -> None:
    seen: list[int] = []
    sock = stack.udp(("10.0.0.1", 7))
    stack.hook("netfilter.input", lambda batch: seen.append(len(batch)), name="first")
    park(stack, datagram(), datagram())
    second = stack.hook("netfilter.input", nothing, name="second")
    assert (seen, sock.stats()["queued"]) == ([2], 2)
    park(stack, datagram())
    stack.unhook(second)
    assert (seen, sock.stats()["queued"]) == ([2, 1], 3)
    assert stack.counters()["ip.rx.packets"] == 3


def test_a_hook_goes_when_it_has_seen_what_was_parked_for_it(stack: MemoryStack) -> None:
    seen: list[int] = []
    hook = stack.hook("netfilter.input", lambda batch: seen.append(len(batch)), name="look")
    park(stack, datagram(port=9))
    stack.unhook(hook)
    assert seen == [1]
    assert stack.reasons() == {"NO_SOCKET": 1}
    with pytest.raises(ConfigurationError, match="not on the path"):
        stack.unhook(hook)


def test_claims_come_and_go_while_packets_are_parked(stack: MemoryStack) -> None:
    stack.hook("netfilter.input", nothing)
    park(stack, datagram(port=9))
    with stack.frames(CLAIM):
        park(stack, datagram(port=9))
    assert stack.reasons() == {"NO_SOCKET": 2}
    assert stack.counters()["ip.rx.packets"] == 2


def test_what_the_last_packets_do_to_a_hook_does_not_keep_it(stack: MemoryStack) -> None:
    def fails(batch: HookBatch) -> None:
        raise RuntimeError("no")

    hook = stack.hook("netfilter.input", fails)
    park(stack, datagram())
    stack.unhook(hook)
    assert stack.reasons() == {"HOOK_EXCEPTION": 1}


@pytest.mark.parametrize("edges", [{"out": "udp.nowhere"}, {f"e{n}": "ip.rx" for n in range(9)}])
def test_a_hook_that_cannot_be_changes_nothing(stack: MemoryStack, edges: dict[str, str]) -> None:
    stack.inject("a0", datagram())
    stack.step()
    before, nodes = stack.counters(), [node.name for node in stack._walk.nodes]
    with pytest.raises(ConfigurationError):
        stack.hook("netfilter.input", nothing, edges=edges)
    assert stack.counters() == before
    assert [node.name for node in stack._walk.nodes] == nodes
    stack.inject("a0", datagram())
    stack.step()
    assert stack.reasons() == {"NO_SOCKET": 2}


def test_a_hook_cannot_change_its_own_path(stack: MemoryStack) -> None:
    refused: list[str] = []
    frames = stack.frames(CLAIM)

    def hooks(batch: HookBatch) -> None:
        for change in (
            lambda: stack.hook("tc.rx", nothing),
            lambda: stack.unhook(made),
            lambda: stack.frames(CLAIM),
            frames.close,
            stack.close,
        ):
            with pytest.raises(ConfigurationError) as raised:
                change()
            refused.append(str(raised.value))

    made = stack.hook("netfilter.input", hooks)
    stack.inject("a0", datagram())
    stack.step()
    assert len(refused) == 5
    assert "outside of hooks" in refused[0]
    frames.close()


def test_a_change_waits_for_the_hook_that_another_thread_runs(stack: MemoryStack) -> None:
    running, let_go = threading.Event(), threading.Event()

    def slow(batch: HookBatch) -> None:
        running.set()
        assert let_go.wait(10)
        stack.events()  # needs the lock of the control side, which the change must not have

    stack.hook("netfilter.input", slow)
    stack.inject("a0", datagram())
    polls = threading.Thread(target=stack.poll)
    polls.start()
    assert running.wait(10)
    done: list[Hook] = []
    changes = threading.Thread(target=lambda: done.append(stack.hook("tc.rx", nothing, name="late")))
    changes.start()
    assert not done
    let_go.set()
    polls.join()
    changes.join()
    assert len(done) == 1


def test_nothing_is_lost_while_hooks_come_and_go(stack: MemoryStack) -> None:
    """Two threads poll while a third changes the path; every packet comes to its end, and is counted once."""
    injected = 0
    with driven(stack.poll, stack.poll):
        for turn in range(60):
            injected += stack.inject("a0", *[datagram(turn)] * 20)
            hook = stack.hook("netfilter.input", nothing, name="a")
            injected += stack.inject("a0", *[datagram(turn)] * 20)
            with stack.frames(CLAIM), contextlib.ExitStack() as hooks:
                other = stack.hook("tc.rx", nothing, name="b", edges={"again": "ip.rx"})
                hooks.callback(stack.unhook, other)
                injected += stack.inject("a0", *[datagram(turn)] * 20)
            stack.unhook(hook)
        until(lambda: stack.reasons().get("NO_SOCKET", 0) == injected)
    assert stack.counters()["napi.rx.packets"] == stack.counters()["routing.rx.packets"] == injected


def test_a_trace_finds_packets_by_hook_and_by_reason(stack: MemoryStack) -> None:
    def no_nines(batch: HookBatch) -> None:
        for packet in batch:
            if packet.dport == 9:
                packet.drop("NETFILTER_DROP")

    stack.hook("netfilter.input", no_nines)
    with stack.udp(("10.0.0.1", 7)):
        for asked, ends in (
            ({"reason": "NETFILTER_DROP"}, ["dropped: NETFILTER_DROP"]),
            ({"row": "no_nines", "reason": "NETFILTER_DROP"}, ["dropped: NETFILTER_DROP"]),
            ({"row": "udp.rx", "reason": "NETFILTER_DROP"}, []),
            ({"row": "udp.rx"}, ["kept by udp.rx"] * 2),
        ):
            stack.trace_start(8, **asked)
            stack.inject("a0", datagram(), datagram(port=9), datagram())
            stack.step()
            walked = stack.trace_read()
            assert [packet.end for packet in walked] == ends
            assert {packet.steps[0].stage for packet in walked} <= {"napi.rx"}
            stack.trace_stop()
    for asked in ({"row": "udp"}, {"reason": "CSUM"}):
        with pytest.raises(ConfigurationError, match=r"UDP_CSUM|udp\.rx"):
            stack.trace_start(**asked)


def test_a_trace_names_stages_as_they_were(stack: MemoryStack) -> None:
    stack.trace_start(2)
    stack.inject("a0", datagram())
    stack.step()
    (before,) = stack.trace_read()
    stack.unhook(stack.hook("gro.rx", nothing))
    stack.hook("gro.rx", nothing, name="other")
    stack.inject("a0", datagram())
    stack.step()
    assert stack.trace_read() == [before]
    assert before.steps[-1].stage == "udp.rx"
