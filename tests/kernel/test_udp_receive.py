"""The kernel's sockets get what xdpstack/udp/semantics.py says that they get: the same sockets, the same datagrams."""

from __future__ import annotations

import os
import random
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.kernel.udp_lab import SO_MEMINFO, Lab, frame
from tests.udp.programs import programs
from tests.udp.strategies import LOCAL, REMOTE, TO_ONE_PEER, TO_PORT_0, datagrams, worlds
from xdpstack.udp import bpf, shadow
from xdpstack.udp.bpf import Instruction
from xdpstack.udp.precedence import early_first
from xdpstack.udp.semantics import (
    Bound,
    Datagram,
    Family,
    ReceiveQueue,
    ones_complement_sum,
    pseudo_header,
    receive,
    receive_buffer,
    truesize,
)

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # frames sent on one CPU arrive in the order of sending
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()
        os.sched_setaffinity(0, allowed)


def drain(sock: socket.socket) -> list[bytes]:
    """What the socket has; a wrong checksum of a long datagram is found while reading, and skipped as recv() does."""
    out = []
    while True:
        try:
            out.append(sock.recv(65536))
        except BlockingIOError:
            return out


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(**TO_PORT_0, early_demux=True)
@example(**TO_ONE_PEER, early_demux=True)
@example(**TO_ONE_PEER, early_demux=False)
@given(
    sockets=worlds(),
    stream=st.lists(datagrams(partial=False), min_size=1, max_size=24),
    early_demux=st.booleans(),
)
def test_who_gets_what(lab: Lab, sockets: list[Bound], stream: list[Datagram], early_demux: bool) -> None:
    """Random sockets (both families, dual stack, connected, bound to a device) and random datagrams at them."""
    lab.early_demux(early_demux)
    real = {bound.index: lab.socket(bound) for bound in sockets}
    order = newest = sockets[::-1]  # the one that was bound last comes first
    if early_demux:
        order = early_first(order, newest)
    try:
        expected: dict[int, list[bytes]] = {bound.index: [] for bound in sockets}
        for datagram in stream:
            lab.send(datagram)
            verdict = receive(datagram, order)
            for index in verdict.sockets:
                assert verdict.accepted is not None
                expected[index].append(verdict.accepted.payload)
        lab.settle()
        assert {index: drain(sock) for index, sock in real.items()} == expected
    finally:
        for sock in real.values():
            sock.close()


class RealPair:
    """A connected kernel socket on one side of a veth pair and the one it sends to on the other."""

    def __init__(self, lab: Lab, family: Family) -> None:
        self.receiver = lab.socket(Bound(0, family, LOCAL[family][0], 7))
        self.sender = lab.sender(family)

    def __enter__(self) -> tuple[socket.socket, socket.socket]:
        return self.sender, self.receiver

    def __exit__(self, *_: object) -> None:
        self.sender.close()
        self.receiver.close()


def drain_one(sock: socket.socket) -> list[bytes]:
    try:
        return [sock.recv(65536)]
    except BlockingIOError:
        return []


def wait(sock: socket.socket) -> list[socket.socket]:
    return select.select([sock], [], [], 5)[0]


def in_use(sock: socket.socket) -> int:
    """sk_rmem_alloc, the first of SO_MEMINFO's counters."""
    memory = struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
    return int(memory[0])


@pytest.mark.parametrize("family", [4, 6])
def test_what_a_datagram_costs(lab: Lab, family: Family) -> None:
    """sk_rmem_alloc of a real socket after one datagram of each size, sent by a real socket over veth."""
    with RealPair(lab, family) as (sender, receiver):
        edges = [0, 1, 184, 185, 197, 198, 632, 633, 645, 646, 1452, 1472]
        for size in [*edges, *random.Random(7).sample(range(1452), 100)]:
            sender.send(bytes(size))
            assert len(wait(receiver)) == 1
            assert in_use(receiver) == truesize(size, family), size
            receiver.recv(65536)
        for size in [2000, 3000, 8000, 30000, 65507]:
            sender.send(bytes(size))
            wait(receiver)
            assert in_use(receiver) == truesize(size, family, slow=True), size
            receiver.recv(65536)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    family=st.sampled_from([4, 6]),
    asked=st.sampled_from([0, 1, 1000, 2304, 5000, 20000, 106496]),
    steps=st.lists(st.integers(1, 1400) | st.none(), min_size=40, max_size=160),
)
def test_a_full_receive_buffer(lab: Lab, family: Family, asked: int, steps: list[int | None]) -> None:
    """Sent (by size) and read (None) in any order: the same datagrams are taken and dropped, the same bytes in use."""
    with RealPair(lab, family) as (sender, receiver):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, asked)
        rcvbuf = receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert rcvbuf == receive_buffer(asked, int(Path("/proc/sys/net/core/rmem_max").read_text()))
        queue = ReceiveQueue(rcvbuf)
        for number, step in enumerate(steps):
            if step is not None:
                payload = number.to_bytes(4) + bytes(step)
                sender.send(payload)
                queue.charge(payload, truesize(len(payload), family))
                continue
            lab.settle()
            assert in_use(receiver) == queue.in_use
            assert drain_one(receiver) == [one for one in [queue.take()] if one is not None]
            assert in_use(receiver) == queue.in_use
        lab.settle()
        assert in_use(receiver) == queue.in_use


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=programs(), family=st.sampled_from([4, 6]), payload=st.binary(max_size=48))
def test_filters(lab: Lab, program: list[Instruction], family: Family, payload: bytes) -> None:
    """The kernel takes every program that the check takes, and runs it as the definition does."""
    bound = Bound(0, family, LOCAL[family][0], 7, filter=tuple(bpf.checked(program)))
    source, destination = REMOTE[family][0], LOCAL[family][0]
    head = struct.pack(">HHHH", 1000, 7, 8 + len(payload), 0)
    total = ones_complement_sum(pseudo_header(family, source, destination, 8 + len(payload)) + head + payload)
    one = Datagram(family, source, destination, head[:6] + (0xFFFF - total or 0xFFFF).to_bytes(2) + payload)
    headers = frame(one)[: -len(one.data)]
    facts = {bpf.AD_PROTOCOL: 0x0800 if family == 4 else 0x86DD, bpf.AD_MARK: 0}
    verdict = receive(replace(one, headers=headers, network=14, facts=facts), [bound])
    with lab.socket(bound) as sock:
        shadow.attach_filter(sock, bound.filter)
        lab.send(one)
        lab.settle()
        assert drain(sock) == list(verdict.payloads)
