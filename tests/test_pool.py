"""Frame pools: whose frames they are, and that all of them come home, from wherever they end."""

import ctypes
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.csrc.compile import load

NO_FRAME = 0xFFFFFFFF
FREE, WALKING = 0, 2


class Pools:
    """The pools of some workers (tests/csrc/pool_harness.c)."""

    def __init__(self, workers: int = 2, per_home: int = 64) -> None:
        self._library = load("pool_harness.c")
        self._library.pools_make.restype = ctypes.c_void_p
        self._library.pools_get.restype = ctypes.c_uint32
        self._pointer = ctypes.c_void_p(self._library.pools_make(workers, per_home))
        self.workers, self.per_home = workers, per_home

    def close(self) -> None:
        self._library.pools_free(self._pointer)

    def get(self, worker: int) -> int:
        return int(self._library.pools_get(self._pointer, worker))

    def put(self, worker: int, frame: int) -> None:
        self._library.pools_put(self._pointer, worker, frame)

    def put_packet(self, worker: int, frame: int) -> None:
        self._library.pools_put_packet(self._pointer, worker, frame)

    def put_packets(self, worker: int, frames: list[int]) -> None:
        self._library.pools_put_packets(self._pointer, worker, (ctypes.c_uint32 * len(frames))(*frames), len(frames))

    def give_back(self, frame: int) -> None:
        """As a Python reader does, of whichever worker the frame is."""
        self._library.pools_return(self._pointer, frame)

    def drain(self, worker: int) -> None:
        self._library.pools_drain(self._pointer, worker)

    def count(self, worker: int) -> int:
        return int(self._library.pools_count(self._pointer, worker))

    def owner(self, frame: int) -> int:
        return int(self._library.pools_owner(self._pointer, frame))

    def link(self, frame: int, frag: int = NO_FRAME, seg: int = NO_FRAME) -> None:
        self._library.pools_link(self._pointer, frame, frag, seg)


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


def test_a_worker_takes_the_frames_of_its_own_partition(pools: Pools) -> None:
    assert sorted(pools.get(0) for _ in range(64)) == list(range(64))
    assert sorted(pools.get(1) for _ in range(64)) == list(range(64, 128))


def test_an_empty_pool_says_so(pools: Pools) -> None:
    for _ in range(64):
        pools.get(0)
    assert pools.get(0) == NO_FRAME
    assert pools.count(1) == 64, "another's frames are not taken"


def test_the_warmest_frame_is_used_again(pools: Pools) -> None:
    frame = pools.get(0)
    pools.put(0, frame)
    assert pools.get(0) == frame


def test_a_foreign_frame_goes_home_by_the_next_drain(pools: Pools) -> None:
    frame = pools.get(0)
    pools.put(1, frame)
    assert (pools.owner(frame), pools.count(0), pools.count(1)) == (FREE, 63, 64)
    pools.drain(1)
    assert pools.count(0) == 63
    pools.drain(0)
    assert pools.count(0) == 64


def test_a_reader_returns_frames_of_every_worker(pools: Pools) -> None:
    for worker in (0, 1):
        frame = pools.get(worker)
        pools.give_back(frame)
        assert (pools.owner(frame), pools.count(worker)) == (FREE, 63)
        pools.drain(worker)
        assert pools.count(worker) == 64


def test_a_whole_partition_comes_home_at_once(pools: Pools) -> None:
    """By either way; no ring is too short for it."""
    for end in (lambda frame: pools.put(1, frame), pools.give_back):
        for frame in [pools.get(0) for _ in range(64)]:
            end(frame)
        assert pools.count(0) == 0
        pools.drain(0)
        assert pools.count(0) == 64


def test_a_packet_ends_with_all_its_frames(pools: Pools) -> None:
    """Further buffers of a packet, and packets chained to it, each with further buffers; some of another partition."""
    frames = [pools.get(worker) for worker in (0, 0, 1, 0, 1)]
    head, tail, chained, chained_tail, last = frames
    pools.link(head, frag=tail, seg=chained)
    pools.link(chained, frag=chained_tail, seg=last)
    pools.put_packet(0, head)
    assert [pools.owner(frame) for frame in frames] == [FREE] * 5
    pools.drain(1)
    assert (pools.count(0), pools.count(1)) == (64, 64)


@pytest.mark.parametrize("workers", [1, 2])
def test_packets_end_in_bulk(workers: int) -> None:
    """Single frames, packets of several, chains, and foreign ones, in any order."""
    pools = Pools(workers)
    alone, head, tail, chain, chained, end = (pools.get(0) for _ in range(6))
    foreign = pools.get(workers - 1)
    pools.link(head, frag=tail)
    pools.link(chain, seg=chained)
    pools.put_packets(0, [head, alone, foreign, chain, end])
    assert [pools.owner(frame) for frame in (alone, head, tail, chain, chained, end, foreign)] == [FREE] * 7
    pools.drain(workers - 1)
    assert [pools.count(worker) for worker in range(workers)] == [64] * workers
    pools.put_packets(0, [])
    frames = [pools.get(0) for _ in range(64)]
    pools.put_packets(0, frames)
    assert sorted(pools.get(0) for _ in range(64)) == sorted(frames)
    pools.close()


def test_a_reader_returns_a_packet_with_all_its_buffers(pools: Pools) -> None:
    head, tail = pools.get(0), pools.get(1)
    pools.link(head, frag=tail)
    pools.give_back(head)
    for worker in (0, 1):
        pools.drain(worker)
    assert (pools.count(0), pools.count(1)) == (64, 64)


class PoolMachine(RuleBasedStateMachine):
    """Three workers and a reader, which take frames and end each other's. Model: the set of frames that are out."""

    @initialize()
    def make(self) -> None:
        self.pools = Pools(3, 64)
        self.out: list[int] = []

    @rule(worker=st.integers(0, 2), n=st.integers(1, 70))
    def take(self, worker: int, n: int) -> None:
        for _ in range(n):
            before = self.pools.count(worker)
            frame = self.pools.get(worker)
            if before == 0:
                assert frame == NO_FRAME
                return
            assert frame // 64 == worker
            assert frame not in self.out
            assert self.pools.owner(frame) == WALKING
            self.out.append(frame)

    @precondition(lambda self: self.out)
    @rule(worker=st.integers(0, 2), at=st.integers(0, 1000), n=st.integers(1, 70))
    def end(self, worker: int, at: int, n: int) -> None:
        for _ in range(min(n, len(self.out))):
            self.pools.put(worker, self.out.pop(at % len(self.out)))

    @precondition(lambda self: self.out)
    @rule(at=st.integers(0, 1000), n=st.integers(1, 70))
    def give_back(self, at: int, n: int) -> None:
        for _ in range(min(n, len(self.out))):
            self.pools.give_back(self.out.pop(at % len(self.out)))

    @rule(worker=st.integers(0, 2))
    def drain(self, worker: int) -> None:
        self.pools.drain(worker)
        at_home = sum(frame // 64 == worker for frame in self.out)
        assert self.pools.count(worker) == 64 - at_home

    @invariant()
    def owners_tell_who_has_a_frame(self) -> None:
        if hasattr(self, "pools"):
            free = {frame for frame in range(192) if self.pools.owner(frame) == FREE}
            assert free == set(range(192)) - set(self.out)

    def teardown(self) -> None:
        if hasattr(self, "pools"):
            self.pools.close()


TestPools = PoolMachine.TestCase
TestPools.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
