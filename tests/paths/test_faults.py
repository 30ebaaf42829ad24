"""An echo server goes through everything that a kernel can do wrong: no packet and no frame is lost track of, nothing hangs,
and it answers again afterwards."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from xdpstack.testing import FOREVER_NS, MemoryDevice, MemoryStack, Rings, check_open, memory_stack
from xdpstack.udp.socket import UdpSocket

RINGS = Rings(rx=128, tx=128, fill=256, completion=128, first_index=0xFFFFFF00)
#: Each fault, and how many of 60 datagrams may go without an answer because of it.
FAULTS = {
    "late completions": ({"completion_delay_ns": 10_000_000}, 0),
    "completions held back": ({"completion_delay_ns": FOREVER_NS}, 0),
    "lost completions": ({"completions_lost": 20}, 0),
    "reordered completions": ({"completions_reversed": 1}, 0),
    "bad completions": ({"completions_bad": 5}, 0),
    "empty fill ring": ({"fill_empty": 1}, 60),
    "full RX ring": ({"rx_full": 1}, 60),
    "kicks that say later": ({"kick_again": 7}, 0),
    "kicks that fail": ({"kick_errno": 105}, 0),
    "no budget to speak of": ({"kick_budget": 1}, 0),
    "no need of kicks": ({"need_wakeup": 0}, 0),
    "a driver that falls asleep": ({"rx_need_wakeup": 1}, 0),
    "bad addresses": ({"rx_bad_addresses": 9}, 9),
    "bad lengths": ({"rx_bad_lengths": 9, "rx_bad_length": 2048}, 9),
    "lengths of nothing": ({"rx_bad_lengths": 9, "rx_bad_length": 0}, 9),
    "short lengths": ({"rx_bad_lengths": 9, "rx_bad_length": 20}, 9),
    "device down": ({"down": 1}, 60),
}


class Echo:
    """A memory stack with an echo server on 10.0.0.1 and 2001:db8::1, port 7; the peer is .2."""

    def __init__(self) -> None:
        self.stack: MemoryStack = memory_stack(
            MemoryDevice("a0", rings=RINGS, partial_checksums=True),
            addresses={"a0": ["10.0.0.1/24", "2001:db8::1/64"]},
            neighbours=[f"{a} dev a0 lladdr 02:00:00:00:00:99" for a in ("10.0.0.2", "2001:db8::2")],
            frames=1024,
        )
        self.sockets: list[UdpSocket] = [self.stack.udp((a, 7)) for a in ("10.0.0.1", "2001:db8::1")]
        for sock in self.sockets:
            sock.setblocking(False)
        self.asked = 0

    def ask(self, n: int, partial: bool = False) -> None:
        """`n` datagrams arrive, each with its number, of both families in turn."""
        for _ in range(n):
            ether = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:99")
            ip = IP(src="10.0.0.2", dst="10.0.0.1") if self.asked % 2 else IPv6(src="2001:db8::2", dst="2001:db8::1")
            frame = ether / ip / UDP(sport=1234, dport=7) / self.asked.to_bytes(4)
            self.stack.inject("a0", bytes(frame), partial=partial)
            self.asked += 1

    def serve(self, rounds: int = 10) -> set[int]:
        """Steps and answers; the numbers of the answers that left."""
        answered = set()
        for _ in range(rounds):
            self.stack.step()
            for sock in self.sockets:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        data, peer = sock.recvfrom(100)
                        with contextlib.suppress(OSError):  # the fault of a moment is the sender's to know
                            sock.sendto(data, peer)
            check_open(self.stack._core)
            answered |= {int.from_bytes(bytes(Ether(frame)[UDP].payload)[:4]) for frame in self.stack.sent("a0")}
            self.stack.clock.advance(1_000_000)
        return answered

    def heal(self) -> None:
        """All faults end."""
        sound = dict.fromkeys(self.stack.faults("a0"), 0) | {"kick_budget": 32, "need_wakeup": 1}
        self.stack.faults("a0", **sound)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_survived(name: str) -> None:
    faults, may_be_lost = FAULTS[name]
    echo = Echo()
    with echo.stack:
        echo.ask(20)
        assert echo.serve() == set(range(20))
        echo.stack.faults("a0", **faults)
        echo.ask(60)
        answered = echo.serve(30)
        echo.heal()
        answered |= echo.serve(30)
        assert len(answered) >= 60 - may_be_lost
        first = echo.asked
        echo.ask(40, partial=True)
        assert echo.serve() >= set(range(first, first + 40))


def test_a_device_that_goes_away_is_an_event_and_nothing_hangs() -> None:
    echo = Echo()
    with echo.stack as stack:
        echo.ask(20)
        stack.backend.remove("a0")
        echo.ask(20)
        echo.serve()
        assert [event.what for event in stack.events()] == ["gone"]
        check_open(stack._core)


def test_a_full_transmit_ring_pushes_back() -> None:
    """Nothing completes: the ring, then the backlog, then the sender is told."""
    echo = Echo()
    with echo.stack as stack:
        stack.faults("a0", kick_again=2**32 - 1)
        sock = echo.sockets[0]
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 5000:
                sent += sock.sendto(b"x", ("10.0.0.2", 9))
        assert 128 <= sent < 5000
        check_open(stack._core)
        echo.heal()
        stack.step(50)
        assert len(stack.sent("a0")) == sent


def test_a_pool_that_runs_dry_is_refilled() -> None:
    """Datagrams wait unread until no frame is left; then they are read, and the device goes on receiving."""
    echo = Echo()
    with echo.stack as stack:
        for sock in echo.sockets:
            sock.setsockopt(1, 8, 1 << 24)  # SO_RCVBUF: more than there are frames
        for _ in range(30):
            echo.ask(50)
            stack.step()
        check_open(stack._core)
        echo.serve(5)
        first = echo.asked
        echo.ask(40)
        assert echo.serve() >= set(range(first, first + 40))


changes = st.sampled_from([faults for faults, _ in FAULTS.values()] + [{"down": 0}, {"fill_empty": 0, "rx_full": 0}])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(changes, st.integers(0, 60), st.booleans()), max_size=8))
def test_any_faults_in_any_order(given_rounds: list[tuple[dict[str, int], int, bool]]) -> None:
    echo = Echo()
    with echo.stack as stack:
        for faults, n, partial in given_rounds:
            stack.faults("a0", **faults)
            echo.ask(n, partial)
            echo.serve(3)
        echo.heal()
        echo.serve(30)
        first = echo.asked
        echo.ask(40)
        assert echo.serve() >= set(range(first, first + 40))
