"""Frames that leave again by another device, over memory devices. On real ones: tests/paths/test_redirect.py."""

import errno

import pytest

import xdpstack
from xdpstack.errors import ConfigurationError
from xdpstack.testing import MemoryDevice, MemoryStack, memory_stack

CLAIM = xdpstack.PrefixClaim("10.9.0.0/16")
OTHER = xdpstack.PrefixClaim("10.8.0.0/16")
TO, FROM = bytes.fromhex("020000000001"), bytes.fromhex("020000000099")
FRAME = TO + FROM + b"\x08\x00" + bytes(46)


def numbered(n: int) -> list[bytes]:
    return [FRAME[:-4] + i.to_bytes(4) for i in range(n)]


@pytest.fixture
def stack():
    with memory_stack("a0", "b0", addresses={"a0": ["10.0.0.1/24"]}) as made:
        yield made


def passes(stack: MemoryStack, *frames: bytes, by: str = "a0", claim: xdpstack.PrefixClaim = CLAIM) -> None:
    """Frames come, lifted by a claim; what they become is done when this returns."""
    for start in range(0, len(frames), 64):
        part = frames[start : start + 64]
        assert stack.backend.inject(by, *part, claim=claim) == len(part)
        stack.step()
    stack.step()


def test_frames_of_the_claim_leave_by_the_other_device(stack: MemoryStack) -> None:
    frames = numbered(200)
    with stack.redirect(CLAIM, to="b0"):
        passes(stack, *frames)
        assert stack.sent("b0") == frames
        assert stack.sent("a0") == []
        counters = stack.counters()
        assert counters["xdp.redirect.redirected"] == counters["napi.tx.packets"] == 200
        assert "ip.rx.packets" not in counters
    assert stack.ledger().received == stack.ledger().sent == 200
    assert stack.ledger().missing == 0


def test_the_frame_that_was_received_is_the_one_that_is_sent(stack: MemoryStack) -> None:
    """None is taken from the pool, so none is copied."""
    stack.faults("b0", completion_delay_ns=1 << 40)
    with stack.redirect(CLAIM, to="b0"):
        before = stack.frames_by_owner()
        passes(stack, *numbered(10))
        after = stack.frames_by_owner()
        assert after["transmitting"] == before["filled"] - after["filled"] == 10
        assert after["free"] == before["free"]
        stack.faults("b0", completion_delay_ns=0)


def test_both_ways_by_a_map_of_devices(stack: MemoryStack) -> None:
    with stack.redirect(CLAIM, to={"a0": "b0", "b0": "a0"}) as redirect:
        assert redirect.to == {"a0": "b0", "b0": "a0"}
        passes(stack, FRAME + b"a", by="a0")
        passes(stack, FRAME + b"b", by="b0")
        assert stack.sent("b0") == [FRAME + b"a"]
        assert stack.sent("a0") == [FRAME + b"b"]


def test_back_by_the_same_device_with_the_addresses_exchanged(stack: MemoryStack) -> None:
    with stack.redirect(CLAIM, to={"a0": "a0", "b0": "b0"}, swap_macs=True):
        passes(stack, FRAME, FRAME[:13])
        assert stack.sent("a0") == [FROM + TO + FRAME[12:], FRAME[:13]], "what has no header is not touched"


def test_a_jumbo_frame_leaves_over_as_many_buffers() -> None:
    jumbo = FRAME[:14] + bytes(range(256)) * 34
    with memory_stack(MemoryDevice("a0", mtu=9000), MemoryDevice("b0", mtu=9000)) as stack, stack.redirect(CLAIM, "b0"):
        passes(stack, jumbo, FRAME)
        assert stack.sent("b0") == [jumbo, FRAME]


def test_what_others_claim_walks_on(stack: MemoryStack) -> None:
    """Also in one batch with frames that leave."""
    with stack.redirect(CLAIM, to="b0"), stack.frames(OTHER) as frames:
        frames.settimeout(0)
        stack.backend.inject("a0", FRAME + b"1", claim=CLAIM)
        stack.backend.inject("a0", FRAME + b"2", claim=OTHER)
        stack.backend.inject("a0", FRAME + b"3", claim=CLAIM)
        stack.inject("a0", FRAME + b"4")
        stack.step()
        assert stack.sent("b0") == [FRAME + b"1", FRAME + b"3"]
        with frames.recv_batch() as batch:
            assert batch.frames() == [FRAME + b"2"]
        assert stack.counters()["ip.rx.packets"] == 1


def test_two_claims_leave_by_two_devices() -> None:
    with memory_stack("a0", "b0", "c0") as stack, stack.redirect(CLAIM, to="b0"), stack.redirect(OTHER, to="c0"):
        passes(stack, FRAME, claim=OTHER)
        passes(stack, FRAME, FRAME, claim=CLAIM)
        assert (len(stack.sent("b0")), len(stack.sent("c0"))) == (2, 1)


def test_close_undoes_it(stack: MemoryStack) -> None:
    def present() -> bool:
        return "xdp.redirect" in [node.name for node in stack._walk.nodes]

    assert not present()
    redirect = stack.redirect(CLAIM, to="b0")
    assert present()
    redirect.close()
    redirect.close()
    assert not present()
    assert CLAIM not in stack.backend.claims
    stack.inject("a0", FRAME)
    stack.step()
    assert stack.sent("b0") == []
    with stack.redirect(CLAIM, to="b0"):
        passes(stack, FRAME)
        assert stack.sent("b0") == [FRAME]


def test_a_stack_that_closes_ends_its_redirects() -> None:
    with memory_stack("a0", "b0") as stack:
        redirect = stack.redirect(CLAIM, to="b0")
    redirect.close()


def test_a_full_ring_holds_back_and_then_drops(stack: MemoryStack) -> None:
    """TX ring and backlog, as for all that is sent; in order, once the kernel goes on."""
    frames = numbered(2000)
    stack.faults("b0", kick_errno=errno.EAGAIN)
    with stack.redirect(CLAIM, to="b0"):
        passes(stack, *frames)
        stuck = stack.reasons()["QDISC_DROP"]
        assert stuck > 0
        assert stack.frames_by_owner()["held"] == 1024
        stack.faults("b0", kick_errno=0)
        sent: list[bytes] = []
        for _ in range(40):
            stack.step()
            sent += stack.sent("b0")
        assert sent == frames[: len(frames) - stuck]
        assert stack.ledger().missing == 0


def test_a_frame_too_large_for_the_other_device() -> None:
    """xdp_ok_fwd_dev: its MTU, and an Ethernet header and a tag."""
    with memory_stack(MemoryDevice("a0"), MemoryDevice("b0", mtu=1000)) as stack, stack.redirect(CLAIM, to="b0"):
        passes(stack, FRAME[:14] + bytes(1004), FRAME[:14] + bytes(1005))
        assert [len(frame) for frame in stack.sent("b0")] == [1018]
        assert stack.reasons() == {"PKT_TOO_BIG": 1}


def test_a_device_that_is_down(stack: MemoryStack) -> None:
    with stack.redirect(CLAIM, to="b0"):
        stack.host.set_link("b0", up=False)
        stack.step()
        passes(stack, FRAME)
        assert stack.reasons() == {"DEV_READY": 1}


def test_it_is_seen_in_a_trace(stack: MemoryStack) -> None:
    with stack.redirect(CLAIM, to="b0"):
        stack.trace_start(1)
        passes(stack, FRAME)
        (walked,) = stack.trace_read()
        assert [step.stage for step in walked.steps] == ["napi.rx", "xdp.redirect", "napi.tx"]


def test_what_cannot_be(stack: MemoryStack) -> None:
    with pytest.raises(ConfigurationError, match="'c0'"):
        stack.redirect(CLAIM, to="c0")
    with pytest.raises(ConfigurationError, match="come by b0 would be lifted"):
        stack.redirect(CLAIM, to={"a0": "b0"})
    assert not stack.backend.claims
    refused: list[ConfigurationError] = []

    def inside(batch: xdpstack.HookBatch) -> None:
        try:
            stack.redirect(CLAIM, to="b0")
        except ConfigurationError as error:
            refused.append(error)

    stack.hook("tc.rx", inside)
    stack.inject("a0", FRAME)
    stack.step()
    assert len(refused) == 1
