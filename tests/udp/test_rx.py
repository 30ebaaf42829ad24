"""udp.rx in C does what xdpstack/udp/semantics.py says, on the same datagrams and sockets."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.udp.by_hand import UdpRx
from tests.udp.strategies import TO_PORT_0, datagrams, families, worlds
from xdpstack.native import lib
from xdpstack.udp import native
from xdpstack.udp.semantics import (
    ANY,
    V4_MAPPED,
    Bound,
    Datagram,
    Family,
    ReceiveQueue,
    ones_complement_sum,
    pseudo_header,
    receive,
    truesize,
)

HERE, PEER = V4_MAPPED + bytes([10, 0, 0, 1]), V4_MAPPED + bytes([10, 0, 0, 9])


def datagram(payload: bytes, port: int = 7, field: int | None = None) -> Datagram:
    head = (1000).to_bytes(2) + port.to_bytes(2) + (8 + len(payload)).to_bytes(2)
    if field is None:
        pseudo = pseudo_header(4, PEER, HERE, 8 + len(payload))
        field = 0xFFFF - ones_complement_sum(pseudo + head + b"\0\0" + payload) or 0xFFFF
    return Datagram(4, PEER, HERE, head + field.to_bytes(2) + payload)


@settings(max_examples=400, deadline=None)
@example(**TO_PORT_0)
@given(worlds(vlans=True), st.lists(datagrams(vlans=True), min_size=1, max_size=12))
def test_c_and_python_agree(sockets: list[Bound], stream: list[Datagram]) -> None:
    """On where each datagram goes or why it is dropped, on the checksum's state and on the payload."""
    rx = UdpRx(partial=frozenset({1}))
    rx.bind(sockets)
    for one in stream:
        one = replace(one, partial=one.device == 1)
        expected = receive(one, sockets)
        got = rx.receive(one)
        assert (got.sockets, got.reason) == (tuple(sorted(expected.sockets)), expected.reason)
        if expected.sockets:
            assert expected.accepted is not None
            assert got.payload == expected.accepted.payload
            states = {"none": lib.XS_CSUM_NONE, "verified": lib.XS_CSUM_VERIFIED, "partial": lib.XS_CSUM_PARTIAL}
            assert got.csum == states[expected.accepted.checksum]
    ledger = rx.core.ledger()
    assert ledger.missing == 0


@settings(max_examples=200, deadline=None)
@given(datagrams(), st.lists(st.integers(8, 1500), max_size=5))
def test_frames_make_no_difference(one: Datagram, split: list[int]) -> None:
    """A datagram that lies in several frames, cut anywhere behind the UDP header, fares as it does in one."""
    sockets = [Bound(0, 6, ANY[6], 7, no_check6_rx=True), Bound(1, 6, ANY[6], 53)]
    whole, cut = UdpRx(partial=frozenset({1})), UdpRx(partial=frozenset({1}))
    for rx in (whole, cut):
        rx.bind(sockets)
    assert whole.receive(one) == cut.receive(one, split)
    assert cut.core.ledger().missing == 0


def test_a_batch_of_many_destinations() -> None:
    """256 packets at once: each to its own socket, in order, every frame accounted for."""
    rx = UdpRx(frames=512)
    rx.bind([Bound(n, 4, HERE, 1000 + n) for n in range(64)])
    frames = [rx.put(datagram(bytes([n]), port=1000 + n % 65)) for n in range(256)]
    rx.walk(frames)
    dropped = [n for n in range(256) if n % 65 == 64]
    for n, frame in enumerate(frames):
        assert (rx.core.packets[frame].owner == lib.XS_QUEUED) == (n not in dropped)
        assert n in dropped or rx.core.packets[frame].socket == n % 65
    assert rx.core.frame_counts()["queued"] == 256 - len(dropped)
    ledger = rx.core.ledger()
    assert (ledger.missing, ledger.delivered, ledger.dropped) == (0, 256 - len(dropped), len(dropped))


def test_clones_stop_when_frames_do() -> None:
    """A multicast datagram for more sockets than there are frames: as many as can, the rest counted, nothing lost."""
    rx = UdpRx(frames=64)
    rx.bind([Bound(n, 4, ANY[4], 7) for n in range(100)])
    rx.walk([rx.put(replace(datagram(b"x"), to_many=True))])
    delivered = sum(rx.queued(n) for n in range(100))
    assert delivered == 48  # three quarters of the frames may be queued
    assert lib.xs_node_counter(rx.worker, rx.node, 3) == 100 - 64
    assert rx.core.ledger().missing == 0
    assert sum(rx.core.frame_counts().values()) == 64


def test_sockets_leave_frames_for_the_device() -> None:
    """Nobody reads: sockets take three quarters of the frames, then PROTO_MEM, however large their buffers are."""
    rx = UdpRx(frames=64)
    rx.bind([Bound(0, 4, HERE, 7), Bound(1, 4, HERE, 8)], rcvbuf=1 << 24)
    outcomes = [rx.receive(datagram(b"x", port=7 + n % 2)).reason for n in range(60)]
    assert outcomes == [None] * 48 + ["PROTO_MEM"] * 12
    assert rx.stats(0).drops + rx.stats(1).drops == 12


@given(st.lists(st.integers(0, 1472), min_size=1, max_size=60), st.sampled_from([2304, 4608, 10000, 40000]))
@settings(max_examples=60, deadline=None)
def test_receive_buffer(sizes: list[int], rcvbuf: int) -> None:
    """What fits is queued, what does not is dropped with SOCKET_RCVBUFF, and the bytes in use are Linux' bytes."""
    rx = UdpRx()
    rx.bind([Bound(0, 4, HERE, 7)], rcvbuf=rcvbuf)
    queue = ReceiveQueue(rcvbuf)
    for size in sizes:
        fits = queue.charge(None, truesize(size, 4))
        assert rx.receive(datagram(bytes(size))).reason == (None if fits else "SOCKET_RCVBUFF")
        assert rx.stats(0).rmem == queue.in_use


def test_an_empty_queue_takes_any_size() -> None:
    rx = UdpRx()
    rx.bind([Bound(0, 4, HERE, 7)], rcvbuf=2304)
    big = datagram(bytes(3000))
    assert rx.receive(big, split=[1500]).reason is None
    assert rx.receive(datagram(b"")).reason == "SOCKET_RCVBUFF"


def test_no_table_is_no_socket() -> None:
    assert UdpRx().receive(datagram(b"x")).reason == "NO_SOCKET"


def test_a_replaced_table_serves_at_once() -> None:
    rx = UdpRx()
    rx.bind([Bound(0, 4, HERE, 7)])
    first = rx.sockets
    assert rx.receive(datagram(b"x")).sockets == (0,)
    rx.bind([Bound(1, 4, HERE, 7)])
    assert rx.receive(datagram(b"x")).sockets == (1,)
    native.publish(rx.core, [])
    assert rx.receive(datagram(b"x")).reason == "NO_SOCKET"
    assert first


@given(st.integers(0, 65507), families, st.booleans())
def test_truesize(payload: int, family: Family, slow: bool) -> None:
    assert native.truesize(payload, family, slow) == truesize(payload, family, slow)
