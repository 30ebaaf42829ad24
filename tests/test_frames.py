"""Whole frames in and out, over memory devices."""

import sys
import threading

import pytest

import xdpstack
from xdpstack.errors import ClosedError, ConfigurationError
from xdpstack.testing import MemoryStack, memory_stack
from xdpstack.testing.wait import until

CLAIM = xdpstack.PrefixClaim("10.9.0.0/16")
FRAME = bytes.fromhex("020000000001 020000000099 0800") + bytes(60)


@pytest.fixture
def stack():
    with memory_stack("a0", "b0", addresses={"a0": ["10.0.0.1/24"]}) as made:
        yield made


def test_frames_of_the_claim_are_taken_whole(stack: MemoryStack) -> None:
    with stack.frames(CLAIM) as frames:
        frames.settimeout(0)
        stack.backend.inject("a0", FRAME, FRAME[:20], claim=CLAIM)
        stack.step()
        with frames.recv_batch() as batch:
            assert batch.frames() == [FRAME, FRAME[:20]]
            assert list(batch.lengths) == [len(FRAME), 20]
            assert list(batch.devices) == [0, 0]
        with pytest.raises(BlockingIOError):
            frames.recv_batch()


def test_frames_of_others_walk_on(stack: MemoryStack) -> None:
    with stack.frames(CLAIM) as frames:
        frames.settimeout(0)
        stack.inject("a0", FRAME)
        stack.step()
        with pytest.raises(BlockingIOError):
            frames.recv_batch()
        assert stack.counters()["ip.rx.packets"] == 1
        assert stack.counters().get("taps.rx.taken", 0) == 0


def test_the_stage_is_only_there_while_frames_are_read(stack: MemoryStack) -> None:
    def present() -> bool:
        return "taps.rx" in [node.name for node in stack._walk.nodes]

    assert not present()
    with stack.frames(CLAIM):
        assert present()
    assert not present()


def test_views_outlive_release_and_close(stack: MemoryStack) -> None:
    with stack.frames(CLAIM) as frames:
        stack.backend.inject("a0", FRAME, claim=CLAIM)
        stack.step()
        batch = frames.recv_batch()
        (view,) = batch.views()
        batch.release()
        assert stack.frames_by_owner()["lent"] == 1
    assert bytes(view) == FRAME
    view.release()
    stack.step()
    assert stack.frames_by_owner()["lent"] == 0


def test_send(stack: MemoryStack) -> None:
    with stack.frames() as frames:
        assert frames.send([FRAME, bytearray(FRAME), memoryview(FRAME)], device="b0") == 3
        stack.step()
        assert stack.sent("b0") == [FRAME] * 3
        assert stack.sent("a0") == []


def test_send_a_jumbo_frame_in_several(stack: MemoryStack) -> None:
    jumbo = FRAME[:14] + bytes(range(256)) * 35
    with stack.frames() as frames:
        assert frames.send([jumbo], device="a0") == 1
        stack.step()
        assert stack.sent("a0") == [jumbo]


def test_send_more_than_the_ring_holds(stack: MemoryStack) -> None:
    sent = []
    with stack.frames() as frames:
        for number in range(40):
            frames.send([FRAME + number.to_bytes(2, "big") + bytes([i]) for i in range(64)], device="a0")
            stack.step()
            sent += stack.sent("a0")
    assert sent == [FRAME + n.to_bytes(2, "big") + bytes([i]) for n in range(40) for i in range(64)]


def test_bad_frames_and_devices_are_refused(stack: MemoryStack) -> None:
    with stack.frames() as frames:
        with pytest.raises(ValueError, match="no Ethernet header"):
            frames.send([FRAME, b"short"], device="a0")
        with pytest.raises(OSError, match="too long"):
            frames.send([bytes(100_000)], device="a0")
        with pytest.raises(ConfigurationError, match="a0, b0"):
            frames.send([FRAME])
        with pytest.raises(ConfigurationError, match="not of this stack"):
            frames.send([FRAME], device="c0")
    with pytest.raises(ClosedError):
        frames.send([FRAME], device="a0")


def test_a_full_queue_drops_with_the_kernels_reason(stack: MemoryStack) -> None:
    with stack.frames(CLAIM):
        for _ in range(200):
            stack.backend.inject("a0", *[FRAME] * 64, claim=CLAIM)
            stack.step()
        dropped = stack.reasons()
        assert sum(dropped.get(reason, 0) for reason in ("SOCKET_RCVBUFF", "PROTO_MEM")) > 0
    assert stack.ledger().missing == 0


def test_a_thread_that_waits_for_frames_is_told_of_the_end(stack: MemoryStack) -> None:
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            frames.recv_batch()
        except ClosedError as error:
            ended.append(type(error))

    frames = stack.frames(CLAIM)
    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: sys._current_frames()[thread.ident or 0].f_code.co_name == "recv_batch")
    frames.close()
    thread.join(10)
    assert ended == [ClosedError]
