"""Two workers, one socket: datagrams of both reach it, and each frame goes home to the worker that it came from."""

import threading

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpstack.native import lib
from xdpstack.testing import MemoryDevice, MemoryStack, Rings, check_open, memory_stack, until

FRAMES = 512
RINGS = Rings(rx=128, tx=128, fill=128, completion=128, first_index=0xFFFFFFC0)


def two_workers() -> MemoryStack:
    return memory_stack(
        MemoryDevice("a0", queues=2, rings=RINGS),
        addresses={"a0": ["10.0.0.1/24"]},
        neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99"],
        workers=2,
        frames=FRAMES,
    )


#: Without a checksum, so that the last bytes can be any number.
TEMPLATE = bytes(
    Ether(dst="02:00:00:00:00:01") / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=1, dport=7, chksum=0) / bytes(4)
)


def datagram(number: int) -> bytes:
    return TEMPLATE[:-4] + number.to_bytes(4)


def by_home(stack: MemoryStack, owner: int) -> list[int]:
    """Frames of this owner in each worker's partition."""
    packets = stack._core.packets
    return [sum(packets[w * FRAMES + i].owner == owner for i in range(FRAMES)) for w in range(2)]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_frames_go_home_to_the_worker_they_came_from(order: list[int]) -> None:
    with two_workers() as stack:
        sock = stack.udp(("10.0.0.1", 7))
        for start in range(0, 1000, 40):
            for number in range(start, start + 40):
                stack.inject("a0", datagram(number), queue=number % 2)
            stack.step(order=order)
            assert by_home(stack, lib.XS_QUEUED) == [20, 20]
            assert {int.from_bytes(sock.recvfrom(10)[0]) for _ in range(40)} == set(range(start, start + 40))
            check_open(stack._core)
        stack.step()
        assert by_home(stack, lib.XS_QUEUED) == [0, 0]
        # each partition has what its queue keeps to receive into, and the rest is free
        free, filled = by_home(stack, lib.XS_FREE), by_home(stack, lib.XS_FILLED)
        assert [sum(pair) for pair in zip(free, filled, strict=True)] == [FRAMES, FRAMES]


def test_one_worker_may_stand_still() -> None:
    """Its queue fills and drops; the other goes on, and neither takes the other's frames."""
    with two_workers() as stack:
        sock = stack.udp(("10.0.0.1", 7))
        arrived = sum(stack.inject("a0", datagram(n), queue=1) for n in range(200))
        assert arrived == 128
        for number in range(500):
            assert stack.inject("a0", datagram(number), queue=0) == 1
            stack.step(order=[0])
            assert int.from_bytes(sock.recvfrom(10)[0]) == number
        assert stack.step(order=[1]) == 128
        assert [int.from_bytes(sock.recvfrom(10)[0]) for _ in range(128)] == list(range(128))


def test_two_threads_drive_while_a_third_reads() -> None:
    total = 3000
    with two_workers() as stack:
        sock = stack.udp(("10.0.0.1", 7))
        stop = threading.Event()
        failures: list[BaseException] = []

        def drive(worker: int) -> None:
            try:
                while not stop.is_set():
                    stack.step(order=[worker])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=drive, args=(worker,)) for worker in range(2)]
        for thread in threads:
            thread.start()
        received = []
        for number in range(total):
            until(lambda: stack.inject("a0", datagram(number), queue=number % 2), message=f"{failures}")  # noqa: B023
            if number % 32 == 31:
                received += [int.from_bytes(sock.recvfrom(10)[0]) for _ in range(32)]
        received += [int.from_bytes(sock.recvfrom(10)[0]) for _ in range(total % 32)]
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sorted(received) == list(range(total))
        assert [n for n in received if n % 2] == list(range(1, total, 2)), "one queue's datagrams stay in order"
        check_open(stack._core)
