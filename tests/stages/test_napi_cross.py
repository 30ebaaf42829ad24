"""Sending by a queue that another worker has: every packet gets there, in order, and its frames go home."""

from __future__ import annotations

from contextlib import suppress

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpstack.hook import HookBatch
from xdpstack.native import lib
from xdpstack.testing import MemoryDevice, MemoryStack, Rings, check_open, memory_stack, until

FRAMES = 4096
PEER = ("10.0.0.2", 5)


def opened(workers: int, queues: int = 1, **options: bool) -> MemoryStack:
    return memory_stack(
        MemoryDevice("a0", queues=queues, rings=Rings(rx=128, tx=128, fill=128, completion=128)),
        addresses={"a0": ["10.0.0.1/24"]},
        neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99"],
        workers=workers,
        frames=FRAMES,
        **options,
    )


def numbers(frames: list[bytes]) -> list[int]:
    return [int.from_bytes(frame[-4:]) for frame in frames]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_sockets_of_all_workers_send_by_the_one_queue(order: list[int]) -> None:
    """Socket n sends as worker n; only worker 0 has a queue."""
    with opened(workers=3) as stack:
        socks = [stack.udp(("10.0.0.1", port)) for port in (7, 8, 9)]
        for start in range(0, 600, 20):
            for n in range(start, start + 20):
                for sock in socks:
                    assert sock.sendto(n.to_bytes(4), PEER) == 4
            check_open(stack._core)
            stack.step(2, order=order)
            by_port: dict[int, list[int]] = {}
            for frame in stack.sent("a0"):
                by_port.setdefault(Ether(frame)[UDP].sport, []).extend(numbers([frame]))
            assert by_port == {port: list(range(start, start + 20)) for port in (7, 8, 9)}
        stack.step(2)
        assert stack.counters()["napi.tx.handed_over"] == 1200
        for home in range(3):  # every frame is at home again
            pkts = stack._core.packets
            owners = {pkts[home * FRAMES + i].owner for i in range(FRAMES)}
            assert owners <= ({lib.XS_FREE, lib.XS_FILLED} if home == 0 else {lib.XS_FREE})


def test_a_sender_waits_while_the_queue_is_full() -> None:
    """Nothing is dropped: the ring towards the worker is full before, which takes what it has room for."""
    with opened(workers=2) as stack:
        stack.udp(("10.0.0.1", 7)).close()
        sock = stack.udp(("10.0.0.1", 8))
        sock.setblocking(False)
        stack.faults("a0", down=1)
        sent = 0
        for _ in range(200):
            with suppress(BlockingIOError):
                sent += sock.send_batch([n.to_bytes(4) for n in range(sent, sent + 64)], PEER)
            stack.step()
        assert 1024 < sent < 1024 + 1024 + 128 + 64
        assert stack.reasons() == {}
        stack.faults("a0", down=0)
        got: list[int] = []
        for _ in range(200):
            stack.step()
            got += numbers(stack.sent("a0"))
        assert got == list(range(sent))


def two_devices(workers: int = 3) -> MemoryStack:
    """Worker 0 has the only queue of each."""
    rings = Rings(rx=128, tx=128, fill=128, completion=128)
    return memory_stack(
        MemoryDevice("a0", rings=rings),
        MemoryDevice("b0", rings=rings),
        addresses={"a0": ["10.0.0.1/24"], "b0": ["10.1.0.1/24"]},
        neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99", "10.1.0.2 dev b0 lladdr 02:00:00:00:00:98"],
        workers=workers,
        frames=FRAMES,
    )


def test_a_full_queue_of_one_device_holds_up_no_other() -> None:
    """Two workers fill a0, which is down, until they are told; what they send by b0 meanwhile leaves at once, in order."""
    with two_devices() as stack:
        stack.udp(("10.0.0.1", 7)).close()
        to_a = [stack.udp(("10.0.0.1", port)) for port in (8, 9)]
        to_b = [stack.udp(("10.1.0.1", port)) for port in (10, 11, 12)]
        for sock in (*to_a, *to_b):
            sock.setblocking(False)
        stack.faults("a0", down=1)
        sent = {sock.getsockname()[1]: 0 for sock in to_a}
        got: dict[int, list[int]] = {}
        for n in range(100):
            for sock in to_a:
                port = sock.getsockname()[1]
                with suppress(BlockingIOError):
                    sent[port] += sock.send_batch([i.to_bytes(4) for i in range(sent[port], sent[port] + 50)], PEER)
            for sock in to_b:
                assert sock.sendto(n.to_bytes(4), ("10.1.0.2", 5)) == 4
            stack.step(order=[1, 2, 0])
            for frame in stack.sent("b0"):
                got.setdefault(Ether(frame)[UDP].sport, []).extend(numbers([frame]))
        assert got == {port: list(range(100)) for port in (10, 11, 12)}
        assert stack.reasons() == {}
        assert 1024 + 128 <= sum(sent.values()) <= 1024 + 128 + 2 * 128, (
            "what was on its way when it was full, and no more"
        )
        check_open(stack._core)
        stack.faults("a0", down=0)
        after: dict[int, list[int]] = {}
        for _ in range(100):
            stack.step()
            for frame in stack.sent("a0"):
                after.setdefault(Ether(frame)[UDP].sport, []).extend(numbers([frame]))
        assert after == {port: list(range(number)) for port, number in sent.items()}
        assert to_a[0].sendto(b"more", PEER) == 4, "there is room again"


def test_what_waits_behind_a_full_backlog_goes_with_its_device() -> None:
    with two_devices(workers=2) as stack:
        stack.udp(("10.0.0.1", 7)).close()
        sock = stack.udp(("10.0.0.1", 8))
        stack.faults("a0", down=1)
        assert sock.send_batch([b"x"] * 1000, PEER) == 1000
        stack.step()
        assert sock.send_batch([b"x"] * 1000, PEER) == 1000
        stack.step()
        assert stack.frames_by_owner()["held"] == 2000 - 128
        check_open(stack._core)
        stack.backend.remove("a0")
        stack.step(2)
        stack.backend.close()
        stack.step(2)
        assert stack.reasons() == {"DEVICE_GONE": 2000 - 128}
        check_open(stack._core)


def test_when_the_device_goes_what_is_on_the_way_is_dropped() -> None:
    with opened(workers=2) as stack:
        stack.udp(("10.0.0.1", 7))
        sock = stack.udp(("10.0.0.1", 8))
        sock.send_batch([b"x"] * 50, PEER)
        stack.backend.close()
        stack.step(2)
        assert stack.reasons() == {"DEVICE_GONE": 50}
        check_open(stack._core)


def test_what_is_on_the_way_is_sent_before_the_stack_closes() -> None:
    with opened(workers=2) as stack:
        stack.udp(("10.0.0.1", 7))
        sock = stack.udp(("10.0.0.1", 8))
        assert sock.send_batch([n.to_bytes(4) for n in range(50)], PEER) == 50
    assert numbers(stack.sent("a0")) == list(range(50))


def test_forwarded_to_a_device_of_fewer_queues() -> None:
    """A frame that worker 1 received leaves by the queue that worker 0 has."""
    frame = bytes(Ether(dst="02:00:00:00:00:01") / IP(src="10.0.0.2", dst="10.0.0.1") / UDP() / b"1234")
    with memory_stack(MemoryDevice("a0", queues=2), "b0", workers=2) as stack:

        def redirect(batch: HookBatch) -> None:
            for packet in batch:
                packet._pkt.device = 1
                packet.go("out")

        stack.hook("tc.rx", redirect, edges={"out": "napi.tx"})
        for number in range(100):
            stack.inject("a0", frame[:-4] + number.to_bytes(4), queue=1)
            stack.step(order=[1, 0])
            assert numbers(stack.sent("b0")) == [number]


def test_threads_hand_over_and_wake_each_other() -> None:
    with opened(workers=3, threads=True) as stack:
        socks = [stack.udp(("10.0.0.1", port)) for port in (7, 8, 9)]
        for n in range(300):
            assert socks[n % 3].sendto(n.to_bytes(4), PEER) == 4
            until(lambda: numbers(stack.sent("a0")) == [n])  # noqa: B023
            stack.backend.service()
        assert stack.counters()["napi.tx.handed_over"] == 200
