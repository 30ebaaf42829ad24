"""The fake kernel: what it does with the four rings, and each fault that it can be told to have."""

import errno

import pytest

from xdpstack.device.memory_queue import FOREVER_NS, REFUSALS, MemoryQueue, Rings
from xdpstack.errors import ConfigurationError
from xdpstack.native.core import Core
from xdpstack.testing.memory_walk import MemoryWalk, TestDevice

#: Frames larger than this arrive in several chunks: 2048 less the kernel's headroom.
CHUNK = 2048 - 256


def echo(*devices: TestDevice, **options: int) -> MemoryWalk:
    """What arrives goes out again on the same device: napi.rx straight into napi.tx."""
    walk = MemoryWalk(*(devices or ("a0",)), present={"napi.rx", "napi.tx"}, catch={"ip.rx"}, **options)
    walk.direct("napi.rx", "napi.tx")
    return walk


def frame(number: int, size: int = 60) -> bytes:
    return bytes([number & 0xFF, number >> 8 & 0xFF]) + bytes(i & 0xFF for i in range(size - 2))


def frames(n: int, size: int = 60) -> list[bytes]:
    return [frame(i, size) for i in range(n)]


def test_what_arrives_leaves_unchanged_and_in_order() -> None:
    with echo() as walk:
        assert walk.inject("a0", *frames(50)) == 50
        assert walk.step(3) == 50
        assert walk.sent("a0") == frames(50)
        assert walk.sent("a0") == []


@pytest.mark.parametrize("first_index", [0, 0xFFFFFFF0, 0x7FFFFFF0])
def test_indices_wrap_around(first_index: int) -> None:
    rings = Rings(rx=64, tx=64, fill=64, completion=64, first_index=first_index)
    with echo(TestDevice("a0", rings=rings)) as walk:
        for _ in range(20):
            assert walk.inject("a0", *frames(30)) == 30
            walk.step(2)
            assert walk.sent("a0") == frames(30)
        assert walk.queues["a0"][0].indices()["rx"] == ((first_index + 600) % 2**32,) * 2


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 9014, 17 * CHUNK])
def test_jumbo_frames_take_several_chunks(size: int) -> None:
    with echo() as walk:
        assert walk.inject("a0", frame(7, max(size, 2))[:size]) == 1
        walk.step()
        assert walk.sent("a0") == [frame(7, max(size, 2))[:size]]


@pytest.mark.parametrize("segments", [2, 3, 17])
def test_in_zero_copy_no_more_frames_of_a_packet_are_sent_than_the_driver_takes(segments: int) -> None:
    """The kernel would throw the packet away and never give its frames back: xskq_cons_read_desc_batch()."""
    with echo(TestDevice("a0", zc_max_segs=segments)) as walk:
        fits, longer = frame(1, segments * CHUNK), frame(2, segments * CHUNK + 1)
        assert walk.inject("a0", fits, longer, fits) == 3
        walk.step()
        assert walk.sent("a0") == [fits, fits]
        assert walk.drops() == {"TX_TOO_MANY_FRAGS": 1}
        assert walk.queues["a0"][0].values()["lost"] == 0
        assert walk.core.frame_counts()["transmitting"] == 0


def test_a_socket_without_sg_takes_no_jumbo() -> None:
    with echo(TestDevice("a0", multi_buffer=False)) as walk:
        queue = walk.queues["a0"][0]
        assert queue.inject_one(frame(1, CHUNK)) == 0
        assert queue.inject_one(frame(1, CHUNK + 1)) == errno.ENOSPC
        assert queue.statistics()["rx_dropped"] == 1
        walk.step()


def test_an_empty_fill_ring_drops_and_counts_as_the_kernel_does() -> None:
    with echo() as walk:
        queue = walk.queues["a0"][0]
        walk.faults("a0", fill_empty=1)
        assert queue.inject_one(frame(1)) == errno.ENOMEM
        assert (queue.statistics()["rx_dropped"], queue.statistics()["rx_fill_ring_empty_descs"]) == (1, 1)
        walk.faults("a0", fill_empty=0)
        assert queue.inject_one(frame(1)) == 0
        walk.step()


def test_a_full_rx_ring_keeps_the_frame_for_the_next_packet() -> None:
    with echo() as walk:
        queue = walk.queues["a0"][0]
        before = queue.indices()["fill"]
        walk.faults("a0", rx_full=1)
        for _ in range(5):
            assert queue.inject_one(frame(1)) == errno.ENOBUFS
        assert queue.indices()["fill"] == (before[0], before[1] + 1), "the kernel keeps the one that it has taken"
        assert queue.statistics()["rx_ring_full"] == 5
        walk.faults("a0", rx_full=0)
        assert walk.inject("a0", frame(1)) == 1
        walk.step()


def test_more_than_fits_is_dropped_and_said() -> None:
    with echo(TestDevice("a0", rings=Rings(rx=64, tx=64, fill=256, completion=64))) as walk:
        assert walk.inject("a0", *frames(70)) == 64
        assert walk.queues["a0"][0].statistics()["rx_ring_full"] == 6
        walk.step()


def test_partial_checksums_hold_the_sum_of_the_pseudo_header() -> None:
    from scapy.layers.inet import IP, UDP, IPOption_NOP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
    from scapy.layers.l2 import Dot1Q, Ether
    from scapy.packet import Raw

    for link in (Ether(), Ether() / Dot1Q(vlan=5)):
        for network in (IP(), IP(options=[IPOption_NOP()] * 4), IPv6(), IPv6() / IPv6ExtHdrDestOpt()):
            good = link / network / UDP(sport=1, dport=2) / Raw(b"payload")
            wire = bytes(good)
            with echo() as walk:
                walk.inject("a0", wire, partial=True)
                walk.step()
                (sent,) = walk.sent("a0")
            at = wire.index(bytes(good[UDP])[:4]) + 6
            assert sent[:at] == wire[:at]
            assert sent[at + 2 :] == wire[at + 2 :]
            # going on from the partial sum over header and payload gives the whole checksum
            total = sum(int.from_bytes((sent[at - 6 :] + b"\0")[i : i + 2]) for i in range(0, len(sent) - at + 6, 2))
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            assert ~total & 0xFFFF == int.from_bytes(wire[at : at + 2])


def test_late_completions_come_when_the_clock_says_so() -> None:
    with echo() as walk:
        walk.faults("a0", completion_delay_ns=1000)
        walk.inject("a0", *frames(20))
        walk.step(5)
        assert len(walk.sent("a0")) == 20
        assert walk.core.frame_counts()["transmitting"] == 20
        walk.clock.advance(999)
        walk.step(2)
        assert walk.core.frame_counts()["transmitting"] == 20
        walk.clock.advance(1)
        walk.step(2)
        assert walk.core.frame_counts()["transmitting"] == 0


def test_held_back_completions_come_when_the_fault_ends() -> None:
    with echo() as walk:
        walk.faults("a0", completion_delay_ns=FOREVER_NS)
        walk.inject("a0", *frames(20))
        walk.step(5)
        walk.clock.advance(10**15)
        walk.step(5)
        assert walk.core.frame_counts()["transmitting"] == 20
        walk.faults("a0", completion_delay_ns=0)
        walk.step(2)
        assert walk.core.frame_counts()["transmitting"] == 0


def test_frames_whose_completion_is_lost_come_home_with_the_detach() -> None:
    with echo() as walk:
        walk.faults("a0", completions_lost=3)
        walk.inject("a0", *frames(20))
        walk.step(5)
        assert walk.core.frame_counts()["transmitting"] == 3
        assert walk.queues["a0"][0].values()["lost"] == 3


def test_reordered_completions_return_every_frame() -> None:
    with echo() as walk:
        walk.faults("a0", completions_reversed=1)
        for _ in range(30):
            walk.inject("a0", *frames(40))
            walk.step(3)
            assert walk.sent("a0") == frames(40)
        walk.step(3)
        assert walk.core.frame_counts()["transmitting"] == 0


def test_kicks_that_are_refused_are_tried_again() -> None:
    with echo() as walk:
        walk.faults("a0", kick_again=4)
        walk.inject("a0", *frames(20))
        walk.step(8)
        assert walk.sent("a0") == frames(20)


def test_what_waits_to_be_sent_when_its_queue_goes_is_dropped_there() -> None:
    with echo(TestDevice("a0", rings=Rings(rx=64, tx=8, fill=64, completion=64))) as walk:
        walk.faults("a0", kick_again=1000)
        walk.inject("a0", *frames(20))
        walk.step()
        assert walk.core.ledger().held == 12
    assert walk.drops() == {"DEVICE_GONE": 12}
    assert walk.counters()["napi.tx.drop.DEVICE_GONE"] == 12


def test_one_kick_sends_32_descriptors_as_copy_mode_does() -> None:
    with echo() as walk:
        walk.inject("a0", *frames(100))
        walk.step(6)
        assert walk.sent("a0") == frames(100)
        assert walk.queues["a0"][0].values()["kicks"] >= 4


def test_without_need_wakeup_no_kick_is_made() -> None:
    with echo() as walk:
        walk.faults("a0", need_wakeup=0)
        walk.inject("a0", *frames(20))
        walk.step(3)
        assert walk.sent("a0") == frames(20)
        assert walk.queues["a0"][0].values()["kicks"] == 0
        assert walk.queues["a0"][0].statistics()["kicks_spared"] > 0


def test_a_driver_that_sleeps_on_an_empty_fill_ring_is_woken() -> None:
    with echo() as walk:
        queue = walk.queues["a0"][0]
        walk.faults("a0", rx_need_wakeup=1, fill_empty=1)
        assert queue.inject_one(frame(1)) == errno.ENOMEM
        walk.faults("a0", fill_empty=0)
        assert queue.inject_one(frame(1)) == errno.ENOMEM, "it still sleeps"
        walk.step()
        assert queue.statistics()["rx_wakeups"] == 1
        assert queue.inject_one(frame(1)) == 0
        walk.step()


def test_a_device_that_is_gone_takes_and_gives_nothing() -> None:
    with echo() as walk:
        walk.inject("a0", *frames(20))
        walk.faults("a0", gone=1)
        assert walk.queues["a0"][0].inject_one(frame(1)) == errno.ENXIO
        walk.step(3)
        assert walk.sent("a0") == []
        assert walk.core.frame_counts()["transmitting"] == 20
        assert walk.queues["a0"][0].statistics()["kick_errors"] > 0


def test_a_device_that_was_down_sends_when_it_is_up_again() -> None:
    with echo() as walk:
        walk.inject("a0", *frames(20))
        walk.faults("a0", down=1)
        assert walk.queues["a0"][0].inject_one(frame(1)) == errno.ENETDOWN
        walk.step(3)
        walk.faults("a0", down=0)
        walk.step(3)
        assert walk.sent("a0") == frames(20)


def test_a_bad_receive_address_is_not_followed() -> None:
    with echo() as walk:
        walk.faults("a0", rx_bad_addresses=2)
        walk.inject("a0", *frames(5))
        walk.step(3)
        assert walk.sent("a0") == frames(5)[2:]
        assert walk.queues["a0"][0].statistics()["rx_bad_descs"] == 2


def test_unknown_faults_are_named() -> None:
    with echo() as walk:
        with pytest.raises(ConfigurationError, match=r"there is no fault 'late'.*\n.*kick_budget"):
            walk.faults("a0", late=1)
        with pytest.raises(ConfigurationError, match="fault gone cannot be -1"):
            walk.faults("a0", gone=-1)


def test_ring_sizes_are_powers_of_two() -> None:
    with pytest.raises(ConfigurationError, match="powers of two"):
        MemoryQueue(Core(frames=64, manual_clock=True), 0, Rings(rx=100), True)


def test_every_refusal_has_a_text() -> None:
    assert set(REFUSALS) == {errno.ENXIO, errno.ENETDOWN, errno.ENOSPC, errno.ENOMEM, errno.ENOBUFS}
