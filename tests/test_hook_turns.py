"""Python hooks take turns: each packet goes through a hook once, also when the hook itself sends, and when several threads
poll."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.driving import driven
from xdpstack.device.claims import PrefixClaim
from xdpstack.hook import HookBatch
from xdpstack.testing import MemoryStack, memory_stack


def echo() -> MemoryStack:
    return memory_stack(
        "a0", addresses={"a0": ["10.0.0.1/24"]}, neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99"], frames=2048
    )


def datagram(number: int) -> bytes:
    ip = IP(src="10.0.0.2", dst="10.0.0.1")
    return bytes(Ether(dst="02:00:00:00:00:01") / ip / UDP(sport=1234, dport=7) / number.to_bytes(4))


def test_a_hook_may_send_through_a_hook() -> None:
    """What it sends is seen by the hook on the way out at once, and by itself not at all."""
    seen: list[tuple[str, int]] = []
    with echo() as stack:
        sock = stack.udp(("10.0.0.1", 7))

        def inwards(batch: HookBatch) -> None:
            seen.append(("in", len(batch)))
            for _ in batch:
                sock.sendto(b"thanks", ("10.0.0.2", 9))

        stack.hook("netfilter.input", inwards)
        stack.hook("netfilter.output", lambda batch: seen.append(("out", len(batch))), name="outwards")
        stack.inject("a0", datagram(1), datagram(2))
        stack.step()
        assert seen == [("in", 2), ("out", 1), ("out", 1)]
        assert len(stack.sent("a0")) == 2
        assert [sock.recvfrom(10)[0] for _ in range(2)] == [(1).to_bytes(4), (2).to_bytes(4)]


def test_what_a_nested_hook_raises_is_raised_where_it_sends() -> None:
    with echo() as stack:
        sock = stack.udp(("10.0.0.1", 7))
        caught = []

        def refuses(batch: HookBatch) -> None:
            raise RuntimeError("not today")

        def inwards(batch: HookBatch) -> None:
            with pytest.raises(RuntimeError, match="not today") as raised:
                sock.sendto(b"thanks", ("10.0.0.2", 9))
            caught.append(raised.value)

        stack.hook("netfilter.input", inwards)
        stack.hook("netfilter.output", refuses)
        stack.inject("a0", datagram(1))
        stack.step()
        assert len(caught) == 1
        assert stack.reasons() == {"HOOK_EXCEPTION": 1}
        assert sock.recvfrom(10)[0] == (1).to_bytes(4)


def test_threads_that_poll_do_not_run_a_hook_twice_on_a_packet() -> None:
    seen: list[bytes] = []
    with echo() as stack:
        sock = stack.udp(("10.0.0.1", 7))
        sock.setsockopt(1, 8, 1 << 22)  # SO_RCVBUF
        stack.hook("netfilter.input", lambda batch: seen.extend(bytes(p.data[-4:]) for p in batch), name="look")
        with driven(stack.poll, stack.poll, stack.poll):
            for number in range(400):
                while not stack.inject("a0", datagram(number)):
                    pass
            received = [sock.recvfrom(10)[0] for _ in range(400)]
        assert sorted(seen) == sorted(received) == [number.to_bytes(4) for number in range(400)]


def test_what_a_hook_lets_through_is_there_when_it_has_run() -> None:
    """Nobody need poll again for it to be delivered."""
    with echo() as stack:
        sock = stack.udp(("10.0.0.1", 7))
        stack.hook("netfilter.input", lambda batch: None, name="pass")
        stack.inject("a0", datagram(1))
        stack.poll()
        assert sock.stats()["queued"] == 1


def test_frames_that_a_hook_let_through_go_home_when_their_claim_ends() -> None:
    claim = PrefixClaim("10.0.0.2/32")
    with echo() as stack:
        frames = stack.frames(claim)
        stack.hook("gro.rx", lambda batch: None, name="pass")
        stack.backend.inject("a0", datagram(1), claim=claim)
        stack.poll()
        frames.close()
        stack.poll()
        assert stack.frames_by_owner()["queued"] == 0
