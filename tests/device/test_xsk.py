"""AF_XDP sockets on real veth pairs: what is sent arrives, what arrives was sent, and every frame comes home."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.device.harness import MODES, SMALL, Harness, frame
from xdpstack.device.xsk import (
    XDP_COPY,
    XDP_USE_NEED_WAKEUP,
    XDP_USE_SG,
    XDP_ZEROCOPY,
    BindFailed,
    Rings,
    explain,
)
from xdpstack.errors import InterfaceDown, ModeRefused, NoSuchInterface, OutOfMemory, PrivilegeError, QueueTaken
from xdpstack.native import check, lib
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root
MakeNetns, MakeVeth, MakePeer = Callable[..., Namespace], Callable[..., Veth], Callable[..., Peer]


def lost(statistics: dict[str, int]) -> dict[str, int]:
    """What XDP_STATISTICS say was lost: the last counter only says that the kernel looked for something to send."""
    return {name: n for name, n in statistics.items() if n and name != "tx_ring_empty_descs"}


@pytest.mark.parametrize("frame_bytes", [2048, 4096])
@pytest.mark.parametrize("mode", MODES)
def test_receives_what_the_peer_sends(mode: str, frame_bytes: int, veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness(frame_bytes=frame_bytes) as harness:
        [xsk] = harness.attach(pair.near, mode=MODES[mode])
        assert (xsk.zero_copy, xsk.multi_buffer) == (False, False)
        sent = [frame(pair.far, pair.near, bytes([i]) * (46 + 12 * i)) for i in range(120)]
        got = []
        for each in sent:
            raw.send(each)
            got += harness.receive(1)
        assert got == sent
        assert harness.core.ledger().received == 120
        assert lost(xsk.statistics()) == {}


@pytest.mark.parametrize("frame_bytes", [2048, 4096])
@pytest.mark.parametrize("mode", MODES)
def test_sends_back_what_it_received(mode: str, frame_bytes: int, veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness(frame_bytes=frame_bytes) as harness:
        [xsk] = harness.attach(pair.near, mode=MODES[mode])
        for i in range(100):
            payload = bytes([i]) * (46 + 14 * i)
            raw.send(frame(pair.far, pair.near, payload))
            harness.handle(1, harness.send_back)
            assert raw.receive() == frame(pair.near, pair.far, payload)
        ledger = harness.core.ledger()
        assert (ledger.received, ledger.sent, ledger.dropped) == (100, 100, 0)
        until(lambda: harness.poll() == 0 and xsk.state().transmitting == 0)
        harness.check()


@pytest.mark.parametrize("mode", MODES)
def test_two_queues_of_one_device(mode: str, veth: MakeVeth, peer: MakePeer) -> None:
    """Both feed the same worker. veth spreads flows over queues by hash, so many flows reach both; but without native XDP
    (which makes it use NAPI) it does not say which queue a packet came by, and all are of queue 0."""
    pair = veth(queues=2)
    raw = peer(pair.far)
    with Harness() as harness:
        first, second = harness.attach(pair.near, queues=2, mode=MODES[mode])
        assert harness.umem.registrations == 1
        queues = set()

        def note(packet: bytes, number: int) -> int:
            queues.add(harness.core.packets[number].queue)
            return harness.send_back(packet, number)

        for i in range(64):
            ip = bytes.fromhex("4500002e00000000401100000a0000020a000001") + i.to_bytes(2, "big") + bytes(24)
            raw.send(frame(pair.far, pair.near, ip, 0x0800))
            harness.handle(1, note)
            raw.receive()
        assert queues == ({0, 1} if mode == "native" else {0})
        assert first.state().kicks + second.state().kicks == 64
        assert (second.state().kicks > 0) == (mode == "native")


def test_a_packet_leaves_by_the_queue_it_names(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth(queues=3)
    raw = peer(pair.far)
    with Harness() as harness:
        sockets = harness.attach(pair.near, queues=3)
        for wanted, leaves in ((0, 0), (1, 1), (2, 2), (3, 0), (7, 1)):

            def choose(packet: bytes, number: int, wanted: int = wanted) -> int:
                harness.core.packets[number].queue = wanted
                return harness.send_back(packet, number)

            before = [xsk.state().kicks for xsk in sockets]
            raw.send(frame(pair.far, pair.near, b"q" * 60))
            harness.handle(1, choose)
            raw.receive()
            after = [xsk.state().kicks for xsk in sockets]
            assert [b - a for a, b in zip(before, after, strict=True)] == [int(i == leaves) for i in range(3)]


@pytest.mark.parametrize("mode", MODES)
def test_jumbo_frames_arrive_in_several_frames_and_leave_so(mode: str, veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth(mtu=9000)
    raw = peer(pair.far)
    with Harness() as harness:
        flags = XDP_USE_NEED_WAKEUP | XDP_USE_SG
        [xsk] = harness.attach(pair.near, mode=MODES[mode], flags=flags, frags=True)
        assert xsk.multi_buffer
        for length in (60, 1778, 1779, 1792, 1793, 3584, 5000, 9000):
            payload = os.urandom(length)
            raw.send(frame(pair.far, pair.near, payload))
            counted = []

            def count(packet: bytes, number: int, counted: list[int] = counted) -> int:
                counted.append(len(harness.frames_of(number)))
                assert harness.core.packets[number].pkt_len == len(packet)
                return harness.send_back(packet, number)

            assert harness.handle(1, count) == [frame(pair.far, pair.near, payload)]
            assert raw.receive() == frame(pair.near, pair.far, payload)
            assert counted == [-(-(14 + length) // 1792)]
        assert lost(xsk.statistics()) == {}
        until(lambda: harness.poll() == 0 and xsk.state().transmitting == 0)
        harness.check()


def test_a_packet_over_too_many_frames_is_dropped(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth(mtu=40000)
    raw = peer(pair.far)
    with Harness() as harness:
        harness.attach(pair.near, flags=XDP_USE_NEED_WAKEUP | XDP_USE_SG, frags=True)
        raw.send(frame(pair.far, pair.near, bytes(18 * 1792 - 14)), frame(pair.far, pair.near, bytes(18 * 1792 - 13)))
        raw.send(frame(pair.far, pair.near, b"x" * 60))
        assert [len(each) for each in harness.receive(2)] == [18 * 1792, 74]
        assert harness.drops(0) == {"RX_TOO_MANY_FRAGS": 1}
        assert harness.core.ledger().received == 3


def test_a_packet_that_the_socket_cannot_send_is_dropped_here(veth: MakeVeth, peer: MakePeer) -> None:
    """The kernel would skip its descriptors, count them, and never give the frames back."""
    pair = veth(mtu=9000)
    raw = peer(pair.far)
    with Harness() as harness:
        harness.attach(pair.near, device=0, flags=XDP_USE_NEED_WAKEUP | XDP_USE_SG | XDP_COPY, frags=True)
        other = veth(netns_near=pair.near.netns)
        [plain] = harness.attach(other.near, device=1)

        def elsewhere(packet: bytes, number: int) -> int:
            harness.core.packets[number].device = 1
            return 0

        raw.send(frame(pair.far, pair.near, bytes(5000)))
        harness.handle(1, elsewhere)
        assert harness.drops(harness.tx) == {"TX_TOO_MANY_FRAGS": 1}
        raw.send(frame(pair.far, pair.near, bytes(60)))

        def empty(packet: bytes, number: int) -> int:
            harness.core.packets[number].len = 0
            return 0

        harness.handle(1, empty)
        assert harness.drops(harness.tx) == {"TX_TOO_MANY_FRAGS": 1, "PKT_TOO_SMALL": 1}
        assert plain.statistics()["tx_invalid_descs"] == 0


@pytest.mark.parametrize("flags", [XDP_USE_NEED_WAKEUP, XDP_USE_NEED_WAKEUP | XDP_COPY])
def test_two_devices_forward_without_a_copy(flags: int, netns: MakeNetns, veth: MakeVeth, peer: MakePeer) -> None:
    """A frame received on one is sent on the other. One registration where the mode is known to be the same."""
    here = netns("here")
    one, two = veth(netns_near=here), veth(netns_near=here)
    left, right = peer(one.far), peer(two.far)
    with Harness() as harness:
        harness.attach(one.near, 0, flags=flags)
        harness.attach(two.near, 1, flags=flags)
        assert harness.umem.registrations == (1 if flags & XDP_COPY else 2)

        def across(packet: bytes, number: int) -> int:
            harness.core.packets[number].device ^= 1
            return 0

        for i in range(300):  # more than either ring has frames
            payload = i.to_bytes(2, "big") * 40
            for near, far, sender, receiver in ((one.near, one.far, left, right), (two.near, two.far, right, left)):
                sender.send(frame(far, near, payload))
                harness.handle(1, across)
                assert receiver.receive() == frame(far, near, payload)
        assert harness.core.ledger().sent == 600


def test_the_memory_is_registered_anew_when_no_socket_is_left(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth(queues=2)
    raw = peer(pair.far)
    with Harness() as harness:
        for turn in range(1, 4):
            harness.attach(pair.near, queues=2)
            assert harness.umem.registrations == turn
            raw.send(frame(pair.far, pair.near, b"x" * 60))
            assert len(harness.receive(1)) == 1
            harness.detach()


def test_a_new_socket_shares_with_any_that_is_left(netns: MakeNetns, veth: MakeVeth, peer: MakePeer) -> None:
    """The one that registered the memory is gone; the registration lives on in the one that shared it."""
    here = netns("here")
    one, two = veth(netns_near=here), veth(netns_near=here)
    raw = peer(one.far)
    flags = XDP_USE_NEED_WAKEUP | XDP_COPY
    with Harness() as harness:
        harness.attach(one.near, 0, flags=flags)
        harness.attach(two.near, 1, flags=flags)
        harness.detach(0)
        harness.attach(one.near, 0, flags=flags)
        assert harness.umem.registrations == 1
        raw.send(frame(one.far, one.near, b"x" * 60))
        assert len(harness.receive(1)) == 1


@pytest.mark.parametrize("mode", MODES)
def test_opened_twenty_times(mode: str, veth: MakeVeth, peer: MakePeer) -> None:
    """Closing is asynchronous in the kernel: a bind that comes too early is repeated."""
    pair = veth(queues=2)
    raw = peer(pair.far)
    with Harness() as harness:
        for i in range(20):
            harness.attach(pair.near, queues=2, mode=MODES[mode])
            raw.send(frame(pair.far, pair.near, bytes([i]) * 60))
            harness.handle(1, harness.send_back)
            assert raw.receive()[14:] == bytes([i]) * 60
            harness.detach()
            assert harness.core.frame_counts()["free"] == harness.core.frames


def test_frames_under_way_come_home_when_a_queue_is_detached(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near)
        for _ in range(20):  # received and not read
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: lib.xs_worker_wait(harness.worker, 0))
        assert xsk.state().filled == SMALL.fill_target
        assert harness.detach() == SMALL.fill_target
        assert harness.core.ledger().received == 0


def test_packets_wait_for_room_in_order_and_are_sent_later(veth: MakeVeth, peer: MakePeer) -> None:
    """More at once than the TX ring has slots."""
    pair = veth()
    raw = peer(pair.far)
    rings = Rings(rx=256, tx=16, fill=256, completion=16, fill_target=256)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near, rings=rings)
        for i in range(200):
            raw.send(frame(pair.far, pair.near, bytes([i]) * 60))
        harness.handle(200, harness.send_back)
        until(lambda: harness.poll() == 0 and xsk.state().transmitting == 0)
        assert [each[14] for each in raw.waiting()] == list(range(200))
        assert harness.core.ledger().sent == 200


def test_without_a_kick_nothing_is_sent_and_kicks_are_counted(veth: MakeVeth, peer: MakePeer) -> None:
    """Copy mode always wants to be told: one system call for a batch, whatever its size, where the kernel allows it."""
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near)
        for _ in range(50):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        harness.handle(50, harness.send_back)
        until(lambda: harness.poll() == 0 and xsk.state().transmitting == 0)
        state = xsk.state()
        assert 1 <= state.kicks < 50
        assert (state.kicks_spared, state.kick_errors, state.unkicked, state.rx_wakeups) == (0, 0, 0, 0)
        assert len(raw.waiting()) == 50


def test_a_full_receive_ring_is_in_the_statistics(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near)
        for _ in range(SMALL.rx + 10):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: xsk.statistics()["rx_ring_full"] == 10)
        assert lost(xsk.statistics()) == {"rx_ring_full": 10}
        assert len(harness.receive(SMALL.rx)) == SMALL.rx


def test_an_empty_fill_ring_is_in_the_statistics_and_recovers(veth: MakeVeth, peer: MakePeer) -> None:
    """All frames are with a reader (parked here); the kernel has none to receive into, until they come home."""
    pair = veth()
    raw = peer(pair.far)
    with Harness(frames=64) as harness:
        [xsk] = harness.attach(pair.near)
        for _ in range(80):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: xsk.statistics()["rx_fill_ring_empty_descs"] > 0)
        check(harness.poll(), "poll")
        assert len(harness.parked()) == 64
        assert xsk.state().filled == 0
        harness.resume([lib.XS_DROP] * 64)
        until(lambda: lib.xs_worker_wait(harness.worker, 1000))  # by the timer: no packet comes
        check(harness.poll(), "poll")
        assert xsk.state().filled == 64
        raw.send(frame(pair.far, pair.near, b"y" * 60))
        assert harness.receive(1)[0][14:] == b"y" * 60


def test_a_frame_too_long_for_one_frame_is_in_the_statistics(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth(mtu=3000)
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near)
        raw.send(frame(pair.far, pair.near, bytes(1792 - 14)), frame(pair.far, pair.near, bytes(1792 - 13)))
        assert [len(each) for each in harness.receive(1)] == [1792]
        until(lambda: lost(xsk.statistics()) == {"rx_dropped": 1})


def test_statistics_of_a_closed_socket_are_its_last(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near)
        for _ in range(SMALL.rx + 3):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: xsk.statistics()["rx_ring_full"] == 3)
        xsk.close()
        xsk.close()
        assert xsk.fileno() == -1
        assert xsk.statistics()["rx_ring_full"] == 3


def test_descriptors_are_not_inherited(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        [xsk] = harness.attach(pair.near)
        assert not os.get_inheritable(xsk.fileno())


def test_a_ring_of_many_slots_may_send_many_frames_at_once(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        [xsk] = harness.attach(pair.near, rings=replace(SMALL, tx=1 << 20))
        with socket.fromfd(xsk.fileno(), 44, socket.SOCK_RAW) as same:
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 1 << 30


# ---- what the kernel refuses ----


def open_failure(harness: Harness, pair: Veth, queue: int = 0, flags: int = 0, busy_seconds: float = 0.0) -> BindFailed:
    with pytest.raises(BindFailed) as raised:
        pair.near.netns.call(lambda: harness.umem.open(pair.near.index, queue, SMALL, flags, busy_seconds))
    assert harness.core.frame_counts()["free"] == harness.core.frames
    return raised.value


def test_a_queue_that_is_taken(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as holder, Harness() as harness:
        holder.attach(pair.near)
        failed = open_failure(harness, pair, busy_seconds=0.05)
        assert (failed.step, failed.errno) == (lib.XS_XSK_BIND, errno.EBUSY)
        assert isinstance(explain(failed, "near0", 0, 0, False), QueueTaken)


def test_zero_copy_on_a_driver_without(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        failed = open_failure(harness, pair, flags=XDP_ZEROCOPY)
        assert (failed.step, failed.errno) == (lib.XS_XSK_BIND, errno.EOPNOTSUPP)
        assert isinstance(explain(failed, "near0", 0, 0, True), ModeRefused)


def test_a_queue_that_there_is_not(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        failed = open_failure(harness, pair, queue=1)
        assert failed.errno == errno.EINVAL
        assert "no active queue of that number" in str(explain(failed, "near0", 1, 0, False))


@pytest.mark.parametrize(
    "step, number, kind, words",
    [
        (lib.XS_XSK_SOCKET, errno.EPERM, PrivilegeError, "CAP_NET_RAW"),
        (lib.XS_XSK_SOCKET, errno.EAFNOSUPPORT, ModeRefused, "CONFIG_XDP_SOCKETS"),
        (lib.XS_XSK_MEMORY, errno.ENOBUFS, OutOfMemory, "RLIMIT_MEMLOCK"),
        (lib.XS_XSK_RINGS, errno.ENOMEM, OutOfMemory, "smaller rings"),
        (lib.XS_XSK_BIND, errno.ENODEV, NoSuchInterface, "went away"),
        (lib.XS_XSK_BIND, errno.ENETDOWN, InterfaceDown, "ip link set eth7 up"),
        (lib.XS_XSK_BIND, errno.EOPNOTSUPP, ModeRefused, "EOPNOTSUPP"),
    ],
)
def test_refusals_are_explained(step: int, number: int, kind: type[OSError], words: str) -> None:
    error = explain(BindFailed(step, number), "eth7", 3, 1 << 20, False)
    assert type(error) is kind
    assert words in str(error)
    assert error.errno in (number, kind.NUMBER)
