"""Whole frames in and out, over memory devices."""

import errno
import sys
import threading
from array import array

import pytest

import xdpstack
from xdpstack.device.claims import ForwardClaim
from xdpstack.errors import ClosedError, ConfigurationError
from xdpstack.testing import MemoryDevice, MemoryStack, memory_stack
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


def test_what_nothing_forwards_is_not_lifted(stack: MemoryStack) -> None:
    assert not hasattr(xdpstack, "ForwardClaim")
    with pytest.raises(ConfigurationError, match="does not route between its devices"):
        stack.frames(ForwardClaim())
    with pytest.raises(ConfigurationError, match="redirect"):
        stack.redirect(ForwardClaim(), "b0")
    assert stack.backend.claims == {}


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


def test_a_frame_over_more_frames_than_a_zero_copy_queue_sends_is_refused() -> None:
    with memory_stack(MemoryDevice("a0", mtu=9000, zc_max_segs=2)) as stack, stack.frames() as frames:
        fits = FRAME[:14] + bytes(2 * (2048 - 128) - 14)
        assert frames.send([fits, fits]) == 2
        for send in (lambda: frames.send([fits + b"x"]), lambda: frames.send_packed(fits + b"x", [len(fits) + 1])):
            with pytest.raises(OSError, match="too long"):
                send()
        stack.step()
        assert stack.sent("a0") == [fits, fits]
        assert stack.reasons() == {}


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


# ---- frames of one buffer ----


def numbered(n: int, size: int = 60) -> list[bytes]:
    return [FRAME[:14] + bytes(size - 16) + i.to_bytes(2) for i in range(n)]


def all_sent(stack: MemoryStack, name: str, n: int) -> list[bytes]:
    sent: list[bytes] = []
    for _ in range(n):
        stack.step()
        sent += stack.sent(name)
        if len(sent) >= n:
            break
    return sent


def test_packed_frames_leave_in_order_and_in_turn(stack: MemoryStack) -> None:
    given = [frame for size in (14, 60, 1514, 61) for frame in numbered(20, max(size, 16))]
    with stack.frames() as frames:
        assert frames.send_packed(b"".join(given), [len(frame) for frame in given], "b0", times=7) == 7 * len(given)
        assert all_sent(stack, "b0", 7 * len(given)) == 7 * given
        assert stack.sent("a0") == []
    assert stack.ledger().created == stack.ledger().sent == 7 * len(given)
    assert stack.ledger().missing == 0


def test_one_packed_frame_many_times_with_few_system_calls(stack: MemoryStack) -> None:
    with stack.frames() as frames:
        assert frames.send_packed(bytearray(FRAME), [len(FRAME)], "b0", times=40_000) == 40_000
        assert all_sent(stack, "b0", 40_000) == [FRAME] * 40_000
        counters = stack.counters()
    kicks = sum(value for name, value in counters.items() if name.endswith(".kicks"))
    assert counters["napi.tx.packets"] / kicks >= 32


def test_what_was_received_may_be_sent_as_it_lies_in_columns(stack: MemoryStack) -> None:
    given = numbered(5) + numbered(5, 100)
    with stack.frames(CLAIM) as frames:
        stack.backend.inject("a0", *given, claim=CLAIM)
        stack.step()
        with frames.recv_batch() as batch:
            assert frames.send_packed(b"".join(batch.frames()), batch.lengths, device="b0") == 10
        assert all_sent(stack, "b0", 10) == given


def test_packed_jumbo_frames_go_over_several_buffers(stack: MemoryStack) -> None:
    jumbo = FRAME[:14] + bytes(range(256)) * 35
    with stack.frames() as frames:
        assert frames.send_packed(jumbo + FRAME, (len(jumbo), len(FRAME)), "b0", times=3) == 6
        assert all_sent(stack, "b0", 6) == [jumbo, FRAME] * 3


def test_lengths_that_change_on_the_way_are_those_that_were_checked(stack: MemoryStack) -> None:
    lengths = array("I", [len(FRAME)] * 3)

    def change(batch: xdpstack.HookBatch) -> None:
        lengths[:] = array("I", [1500] * 3)

    with stack.frames() as frames:
        stack.hook("tc.tx", change)
        assert frames.send_packed(FRAME * 3, lengths, "b0", times=100) == 300
        assert all_sent(stack, "b0", 300) == [FRAME] * 300


def test_packed_frames_pass_hooks(stack: MemoryStack) -> None:
    seen: list[int] = []

    def odd_ones_out(batch: xdpstack.HookBatch) -> None:
        for packet in batch:
            seen.append(packet.data[-1])
            if packet.data[-1] & 1:
                packet.drop()

    given = numbered(200)
    with stack.frames() as frames:
        stack.hook("tc.tx", odd_ones_out)
        assert frames.send_packed(b"".join(given), [len(frame) for frame in given], "b0") == 200
        assert all_sent(stack, "b0", 100) == given[::2]
    assert seen == list(range(200))


def test_a_hook_may_ask_for_stamps_and_close_what_only_sends_while_a_claim_is_opened(
    stack: MemoryStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opens a claim waits for the hook to end; the hook must not wait for him."""
    changing, ended = threading.Event(), threading.Event()
    include = stack._walk.include

    def changes(row: str, *, present: bool) -> None:
        changing.set()
        include(row, present=present)

    def use(batch: xdpstack.HookBatch) -> None:
        opener.start()
        assert changing.wait(10)
        sender.sent_stamps()
        sender.close()
        ended.set()

    monkeypatch.setattr(stack._walk, "include", changes)
    opener = threading.Thread(target=lambda: stack.frames(CLAIM), daemon=True)
    sender = stack.frames()
    stack.hook("tc.rx", use)
    stack.inject("a0", FRAME)
    driver = threading.Thread(target=stack.step, daemon=True)
    driver.start()
    assert ended.wait(10), "the hook waits for who waits for the hook"
    for thread in (driver, opener):
        thread.join(10)
        assert not thread.is_alive()


def test_packed_frames_wait_for_room_as_long_as_the_time_out_says(stack: MemoryStack) -> None:
    stack.faults("b0", kick_errno=errno.EAGAIN)
    with stack.frames() as frames:
        frames.settimeout(0)
        taken = frames.send_packed(FRAME, [len(FRAME)], "b0", times=100_000)
        assert 512 <= taken < 100_000, "the ring, and what may wait behind it"
        with pytest.raises(BlockingIOError):
            frames.send_packed(FRAME, [len(FRAME)], "b0")
        frames.settimeout(0.01)
        with pytest.raises(TimeoutError):
            frames.send_packed(FRAME, [len(FRAME)], "b0")
        stack.faults("b0", kick_errno=0)
        assert all_sent(stack, "b0", taken) == [FRAME] * taken
    assert stack.reasons() == {}


def test_packed_frames_that_cannot_be(stack: MemoryStack) -> None:
    with stack.frames() as frames:
        with pytest.raises(ValueError, match="no Ethernet header"):
            frames.send_packed(FRAME + b"short", [len(FRAME), 5], "a0")
        with pytest.raises(OSError, match="too long"):
            frames.send_packed(bytes(100_000), [100_000], "a0")
        for lengths in ([60], [60, 60, 60]):
            with pytest.raises(ValueError, match="do not add up"):
                frames.send_packed(bytes(120), lengths, "a0")
        with pytest.raises(ConfigurationError, match="a0, b0"):
            frames.send_packed(FRAME, [len(FRAME)])
        with pytest.raises(OverflowError):
            frames.send_packed(FRAME, [-1], "a0")
        assert frames.send_packed(b"", [], "a0") == frames.send_packed(FRAME, [len(FRAME)], "a0", times=0) == 0
        stack.backend.remove("b0")
        stack.step()
        frames.send_packed(FRAME, [len(FRAME)], "b0")  # the first to hear of it
        with pytest.raises(OSError, match="down"):
            frames.send_packed(FRAME, [len(FRAME)], "b0")
    with pytest.raises(ClosedError):
        frames.send_packed(FRAME, [len(FRAME)], "a0")
    assert stack.ledger().missing == 0
