"""A hundred thousand malformed frames through the whole receive walk: each is counted, none is lost, nothing falls over."""

import contextlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.paths.mutate import Mutator, seeds
from xdpstack.testing import MemoryDevice, MemoryStack, Rings, check_open, memory_stack
from xdpstack.udp.socket import UdpSocket

PER_EXAMPLE, EXAMPLES = 512, 200
RINGS = Rings(rx=1024, tx=1024, fill=1024, completion=1024, first_index=0xFFFFF000)


def host() -> MemoryStack:
    """The host of csrc/fuzz/host.h."""
    return memory_stack(
        MemoryDevice("a0", rings=RINGS, partial_checksums=True),
        MemoryDevice("b0", rings=RINGS, partial_checksums=True),
        addresses={"a0": ["10.0.0.1/24", "2001:db8::1/64"], "b0": ["10.0.1.1/24", "2001:db8:1::1/64"]},
        routes=["default via 10.0.1.254", "default via 2001:db8:1::fe dev b0"],
        neighbours=["10.0.1.254 dev b0 lladdr 02:00:00:00:00:fe", "10.0.1.9 dev b0 lladdr 02:00:00:00:00:09"],
        sysctls={"ipv4.ip_forward": 1, "ipv6.conf.all.forwarding": 1},
        frames=8192,
    )


def read(sock: UdpSocket) -> int:
    """Takes all datagrams that wait; how many."""
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            with sock.recv_batch(256) as batch:
                taken += len(batch.payloads())
    return taken


def test_malformed_frames_are_counted_and_never_lost() -> None:
    mutator = Mutator()
    injected = delivered = 0
    with host() as stack:
        sockets = [stack.udp(("::", 7)), stack.udp(("10.0.0.1", 9))]
        for sock in sockets:
            sock.setblocking(False)

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        @given(
            seed=st.integers(0, 2**32),
            changes=st.integers(0, 8),
            cut=st.sampled_from([0.0, 0.1, 1.0]),
            checksums=st.sampled_from([0.0, 0.9, 1.0]),
            partial=st.booleans(),
        )
        def walk(seed: int, changes: int, cut: float, checksums: float, partial: bool) -> None:
            nonlocal injected, delivered
            frames = mutator.make(seed, PER_EXAMPLE, changes, cut, checksums)
            before = stack.ledger()
            assert stack.inject("a0", *frames, partial=partial) == PER_EXAMPLE
            injected += PER_EXAMPLE
            while stack.step():
                check_open(stack._core)
                delivered += sum(map(read, sockets))
            assert stack.ledger().received == before.received + PER_EXAMPLE
            stack.clock.advance(4_000_000_000)
            stack.step(2)
            stack.sent("a0"), stack.sent("b0")
            check_open(stack._core)
            frames_left = stack.frames_by_owner()
            assert frames_left["held"] + frames_left["queued"] + frames_left["lent"] == 0

        walk()
        assert injected >= 100_000
        assert delivered == stack.ledger().delivered > 1000
        assert "NOT_SPECIFIED" not in stack.reasons()
        assert "BAD_EDGE" not in stack.reasons()


def test_the_seeds_themselves_take_every_way() -> None:
    """Else the mutator starts from nothing."""
    assert len(seeds()) > 30
    with host() as stack:
        stack.inject("a0", *[frame for frame in seeds() if frame])
        stack.step(5)
        assert len(stack.reasons()) >= 4
