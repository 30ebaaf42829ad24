"""Datagrams of several frames over memory devices: every way that such a chain can end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpstack.device.memory_queue import Rings
from xdpstack.testing import MemoryDevice, MemoryStack, memory_stack

OURS, THEIRS, A0 = ("10.0.0.1", 7000), ("10.0.0.2", 4000), "02:00:00:00:00:01"
#: Bytes of a payload in each frame that is sent: a frame, less the room for headers.
ROOM = 2048 - 128


def jumbo_stack(rx: int = 64, tx: int = 64, **options: Any) -> MemoryStack:
    """10.0.0.2 is known on a0; 10.0.0.3 is not. `rx`, `tx`: slots of the rings."""
    rings = Rings(rx=rx, tx=tx, fill=64, completion=64)
    return memory_stack(
        MemoryDevice("a0", mtu=9000, rings=rings),
        addresses={"a0": ["10.0.0.1/24"]},
        neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:02"],
        **options,
    )


@pytest.fixture
def stack() -> Iterator[MemoryStack]:
    with jumbo_stack() as made:
        yield made
    assert made.ledger().missing == 0
    owners = made.frames_by_owner()
    assert owners["free"] == sum(owners.values())


def datagram(payload: bytes) -> bytes:
    return bytes(Ether(dst=A0) / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=4000, dport=7000) / payload)


def payload_of(frame: bytes) -> bytes:
    """Of a datagram that was sent, whose lengths and checksums are right."""
    packet = Ether(frame)
    again = Ether(frame)
    del again[IP].chksum, again[IP].len, again[UDP].chksum, again[UDP].len
    assert bytes(again) == frame
    return bytes(packet[UDP].payload)


@pytest.mark.parametrize("engines", [{}, {"udp": "python"}, {"udp": "python", "routing": "python"}], ids=str)
@pytest.mark.parametrize("size", [ROOM - 1, ROOM, ROOM + 1, 2 * ROOM, 2 * ROOM + 1, 8971, 8972])
def test_an_echo_whatever_runs_the_layer(engines: dict[str, str], size: int) -> None:
    """Odd and even sizes: a chain is summed over frames of any length."""
    with jumbo_stack(engines=engines) as stack, stack.udp(OURS) as sock:
        data = os.urandom(size)
        assert stack.inject("a0", datagram(data)) == 1
        stack.step()
        sock.settimeout(0)
        assert sock.recvfrom(65535) == (data, THEIRS)
        assert sock.sendto(data, THEIRS) == size
        stack.step(2)
        assert [payload_of(frame) for frame in stack.sent("a0")] == [data]


def test_a_wrong_checksum_over_a_chain_is_seen(stack: MemoryStack) -> None:
    wrong = bytearray(datagram(os.urandom(8000)))
    wrong[-1] ^= 1
    with stack.udp(OURS):
        stack.inject("a0", bytes(wrong))
        stack.step()
    assert stack.reasons() == {"UDP_CSUM": 1}


def test_the_poll_ends_in_the_middle_of_a_chain(stack: MemoryStack) -> None:
    data = os.urandom(8000)
    with stack.udp(OURS) as sock:
        stack.inject("a0", datagram(data))
        for _ in range(4):
            assert stack.step(budget=1) == 1
            assert (stack.ledger().received, stack.ledger().missing) == (0, 0)
            assert stack.frames_by_owner()["walking"] == 0
        assert stack.step(budget=1) == 1
        assert stack.frames_by_owner()["queued"] == 5
        assert sock.recv(65535) == data


def test_chains_around_the_end_of_the_rings() -> None:
    """A ring of 8 slots: chains of 5 wrap, or wait whole until there is room."""
    with jumbo_stack(rx=8, tx=8) as stack, stack.udp(OURS) as sock:
        sock.settimeout(0)
        for _ in range(20):
            data = os.urandom(8000)
            assert stack.inject("a0", datagram(data)) == 1
            stack.step()
            assert sock.recv(65535) == data
            for part in (data, data[::-1]):
                assert sock.sendto(part, THEIRS) == 8000
            stack.step(3)
            assert [payload_of(frame) for frame in stack.sent("a0")] == [data, data[::-1]]


def test_a_chain_longer_than_the_ring_is_refused() -> None:
    with jumbo_stack(tx=4) as stack, stack.udp(OURS, reserve=False) as sock:
        with pytest.raises(OSError, match="too long"):
            sock.sendto(bytes(8000), THEIRS)
        assert sock.sendto(bytes(4 * ROOM - 100), THEIRS)
        assert stack.reasons() == {"TX_TOO_MANY_FRAGS": 1}


def test_too_few_frames_for_a_chain_is_later(stack: MemoryStack) -> None:
    """What was taken for it comes home; when others come home it can be sent."""
    small = jumbo_stack(frames=64)
    with small, small.udp(OURS) as sock:
        sock.settimeout(0)
        small.faults("a0", completion_delay_ns=1 << 40)
        with suppress(BlockingIOError):
            while True:
                sock.sendto(bytes(8000), THEIRS)
        assert small.ledger().sent >= 1
        assert small.frames_by_owner()["walking"] == 0
        small.faults("a0", completion_delay_ns=0)
        small.step(2)
        assert sock.sendto(bytes(8000), THEIRS) == 8000


def test_chains_that_are_held_and_dropped_come_home(stack: MemoryStack) -> None:
    """Unread on a socket, waiting for a neighbour, waiting for room, seen by a hook: at close all frames are free."""
    seen = []
    hook = stack.hook("netfilter.input", lambda batch: seen.append([len(packet.tobytes()) for packet in batch]))
    sock = stack.udp(OURS)
    sock.settimeout(0)
    for _ in range(3):
        stack.inject("a0", datagram(bytes(8000)))
    stack.step()
    assert seen == [[14 + 8028] * 3]
    stack.unhook(hook)
    assert stack.frames_by_owner()["queued"] == 15
    sock.sendto(bytes(8000), ("10.0.0.3", 9))
    stack.faults("a0", kick_errno=105)  # ENOBUFS
    for _ in range(20):
        sock.sendto(bytes(8000), THEIRS)
    owners = stack.frames_by_owner()
    assert owners["transmitting"] == 60  # twelve whole chains: 64 slots have no room for a thirteenth
    assert owners["held"] == 5 * (1 + 8)
    assert stack.ledger().missing == 0


def test_what_a_device_cannot_take_whole_is_the_kernels() -> None:
    """Without a kernel socket behind it, that is an error; nothing is left of the datagram."""
    with (
        memory_stack(
            addresses={"a0": ["10.0.0.1/24"]}, neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:02"]
        ) as stack,
        stack.udp(OURS, reserve=False) as sock,
    ):
        for size in (1473, ROOM, 9000, 65507):
            with pytest.raises(OSError, match="too long"):
                sock.sendto(bytes(size), THEIRS)
        assert stack.frames_by_owner()["walking"] == 0
