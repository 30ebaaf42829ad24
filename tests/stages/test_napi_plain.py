"""Plain batches: what napi says of a batch at once, and what each stage finds out for itself, come to the same.

The same frames go through two stacks: alone, so that a batch of plain packets is recognised as such, and behind an ARP
frame, with which no batch is plain and every stage looks for itself. All that can be seen must be the same.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stages.packets import HOST, OTHER, PEER, ipv4, ipv6, udp
from xdpstack.testing import MemoryStack, memory_stack

US4, US6 = bytes([10, 0, 0, 1]), bytes.fromhex("fd000000000000000000000000000001")
OURS = {4: ("10.0.0.1", 7), 6: ("fd00::1", 7)}
ARP = b"\xff" * 6 + PEER + b"\x08\x06" + bytes(28)
#: Counted for how it was done, not for what.
HOW = (".batches", ".slow", ".same", ".plain")


def ethernet(packet: bytes, to: bytes = HOST, padding: int = 0) -> bytes:
    return to + PEER + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet + bytes(padding)


def sender4(number: int) -> bytes:
    return bytes([10, 0, 0, number])


def sender6(number: int) -> bytes:
    return bytes.fromhex("fd0000000000000000000000000000") + bytes([number])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame to our socket, right in most cases, with any byte of its headers changed in some."""
    payload = draw(st.binary(max_size=40))
    number, sport, dport = draw(st.sampled_from([2, 2, 3, 1])), draw(st.sampled_from([1000, 1001])), 7
    dport = draw(st.sampled_from([7, 7, 7, 8]))
    summed = draw(st.sampled_from([True, True, True, False]))
    if draw(st.booleans()):
        source = sender4(number)
        datagram = udp(payload, sport, dport, sum_with=source + US4 if summed else b"")
        packet = ipv4(datagram, src=source, dst=US4, tos=draw(st.sampled_from([0, 0, 8])))
    else:
        source = draw(st.sampled_from([sender6(number), bytes.fromhex("fe80") + bytes(13) + b"\x05"]))
        packet = ipv6(udp(payload, sport, dport, sum_with=source + US6 if summed else b""), src=source, dst=US6)
    frame = bytearray(ethernet(packet, draw(st.sampled_from([HOST, HOST, HOST, OTHER])), draw(st.integers(0, 9))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        frame[draw(st.integers(0, min(63, len(frame) - 1)))] = draw(st.integers(0, 255))
    if draw(st.sampled_from([False] * 9 + [True])):
        del frame[draw(st.integers(14, len(frame))) :]
    return bytes(frame)


def trains() -> st.SearchStrategy[list[bytes]]:
    """Batches: several of one flow, as they come, or any."""
    return st.one_of(
        st.lists(frames(), min_size=1, max_size=12),
        st.tuples(frames(), st.integers(1, 12)).map(lambda pair: [pair[0]] * pair[1]),
    )


class Host:
    """A stack, its sockets, and what they see of a batch."""

    def __init__(self, stack: MemoryStack, partial: bool) -> None:
        self.stack, self.partial = stack, partial
        self.sockets = [stack.udp(OURS[4]), stack.udp(OURS[6])]
        for sock in self.sockets:
            sock.setblocking(False)

    def counts(self) -> dict[str, int]:
        return {name: n for name, n in self.stack.counters().items() if not name.endswith(HOW)}

    def takes(self, batch: list[bytes]) -> tuple[dict[str, int], list[Any]]:
        """Counters that moved, by how much, and what was delivered."""
        before = self.counts()
        assert self.stack.inject("a0", *batch, partial=self.partial) == len(batch)
        self.stack.poll()
        got: list[Any] = []
        for sock in self.sockets:
            while True:
                try:
                    with sock.recv_batch(256) as received:
                        got += zip(received.payloads(), received.addresses(), received.lengths.tolist(), strict=True)
                except BlockingIOError:
                    break
        assert self.stack.ledger().missing == 0
        return {name: n - before.get(name, 0) for name, n in self.counts().items() if n != before.get(name, 0)}, got


def a_host() -> MemoryStack:
    return memory_stack("a0", addresses={"a0": ["10.0.0.1/24", "fd00::1/64"]})


@pytest.fixture(params=[False, True], ids=["full sums", "partial sums"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    with a_host() as one, a_host() as other:
        yield Host(one, request.param), Host(other, request.param)


def without_arp(moved: dict[str, int], host: Host) -> dict[str, int]:
    """Less what the ARP frame moved by itself."""
    alone, _ = host.takes([ARP])
    return {name: n - alone.get(name, 0) for name, n in moved.items() if n != alone.get(name, 0)}


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batch=trains())
def test_alone_and_beside_another(pair: tuple[Host, Host], batch: list[bytes]) -> None:
    plain, mixed = pair
    moved, got = plain.takes(batch)
    moved_beside, got_beside = mixed.takes([ARP, *batch])
    assert got == got_beside
    assert moved == without_arp(moved_beside, mixed)


def test_plain_batches_are_recognised(pair: tuple[Host, Host]) -> None:
    """Or the test above would compare one thing with itself."""
    host, _ = pair
    datagram = ethernet(ipv4(udp(b"x", sum_with=sender4(2) + US4), src=sender4(2), dst=US4))
    host.takes([datagram] * 5)
    assert host.stack.counters()["napi.rx.plain"] == 5
    host.takes([ARP, datagram])
    assert host.stack.counters()["napi.rx.plain"] == 5


def test_who_takes_whole_frames_does_not_pay_for_it() -> None:
    """Without a socket nothing looks at headers that nobody asks for."""
    datagram = ethernet(ipv4(udp(b"x", sum_with=sender4(2) + US4), src=sender4(2), dst=US4))
    with a_host() as stack:
        stack.inject("a0", datagram)
        stack.poll()
        assert stack.counters().get("napi.rx.plain", 0) == 0
