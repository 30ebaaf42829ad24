"""memory_stack(): a whole stack over memory devices."""

import os

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpstack.errors import ClosedError, ConfigurationError, ForkedError
from xdpstack.testing import MemoryDevice, MemoryStack, assert_packets_equal, memory_stack

A0, B0, NEAR, FAR = (f"02:00:00:00:00:0{n}" for n in (1, 2, 3, 4))


def router(**options: object) -> MemoryStack:
    """10.0.0.0/24 on a0, 10.0.1.0/24 on b0, forwarding between them; 10.0.0.2 and 10.0.1.2 are known."""
    return memory_stack(
        "a0",
        "b0",
        addresses={"a0": ["10.0.0.1/24"], "b0": ["10.0.1.1/24"]},
        routes=["default via 10.0.1.254"],
        neighbours=[f"10.0.0.2 dev a0 lladdr {NEAR}", f"10.0.1.2 dev b0 lladdr {FAR}"],
        sysctls={"ipv4.ip_forward": 1},
        **options,
    )


def datagram(dst: str = "10.0.1.2", src: str = "10.0.0.2", ttl: int = 64, to: str = A0) -> Ether:
    return Ether(dst=to, src=NEAR) / IP(src=src, dst=dst, ttl=ttl) / UDP(sport=1, dport=2) / b"data"


def test_a_stack_needs_no_privilege_and_no_arguments() -> None:
    with memory_stack() as stack:
        assert [device.name for device in stack.devices] == ["a0"]
        assert stack.step() == 0


def test_what_the_host_knows_is_as_it_was_given() -> None:
    with router(links=["eth9"]) as stack:
        assert {"10.0.0.1", "10.0.1.1"} <= set(stack.addresses())
        assert [str(r) for r in stack.snapshot.routes if r.destination.length == 0] == [
            "0.0.0.0/0 via 10.0.1.254 dev #3 table 254"
        ]
        assert stack.info()["devices"][0]["mode"] == "memory"


def test_a_packet_is_counted_and_dropped_with_a_reason() -> None:
    with router() as stack:
        stack.inject("a0", bytes(datagram())[:30])
        assert stack.step() == 1
        assert sum(stack.reasons().values()) == 1
        assert stack.ledger().missing == 0


def test_faults_and_statistics() -> None:
    with router() as stack:
        stack.faults("a0", rx_full=1)
        assert stack.inject("a0", bytes(datagram())) == 0
        assert stack.counters()["a0.0.rx_ring_full"] == 1


def test_a_link_that_goes_down_is_an_event() -> None:
    with router() as stack:
        stack.backend.set_link("b0", up=False)
        stack.step()
        assert [(event.device.name, event.what) for event in stack.events()] == [("b0", "down")]
        stack.backend.set_link("b0", up=True)
        stack.step()
        assert [(event.device.name, event.what) for event in stack.events()] == [("b0", "up")]
        stack.backend.remove("b0")
        stack.step()
        assert [(event.device.name, event.what) for event in stack.events()] == [("b0", "gone")]


def test_workers_share_the_queues() -> None:
    with memory_stack(MemoryDevice("a0", queues=3), workers=2) as stack:
        for queue in range(3):
            stack.inject("a0", bytes(datagram()), queue=queue)
        assert stack.step(order=[1]) == 1
        assert stack.step(order=[0]) == 2


def test_a_closed_stack_says_so() -> None:
    stack = memory_stack("a0")
    stack.close()
    stack.close()
    with pytest.raises(ClosedError):
        stack.step()


def test_what_is_sent_can_be_taken_after_the_stack_is_closed() -> None:
    stack = memory_stack("a0")
    stack.close()
    assert stack.sent("a0") == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"addresses": {"c0": ["10.0.0.1/24"]}}, "addresses for 'c0', which is no device"),
        ({"routes": ["default via 1.2.3.4"]}, "gateway 1.2.3.4 is on no link"),
        ({"frames": 100}, "frames is"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        memory_stack("a0", **arguments)


def test_the_clock_is_the_callers() -> None:
    with memory_stack("a0") as stack:
        before = stack.clock.now_ns
        stack.step()
        assert stack.clock.now_ns == before
        assert stack.clock.advance(5) == before + 5


def test_packets_compare_equal() -> None:
    assert_packets_equal(datagram(), bytes(datagram()))


def test_a_forked_child_is_told_by_whatever_looks_at_frames() -> None:
    with router() as stack:
        child = os.fork()
        if child == 0:
            raised = 0
            for look in (stack.ledger, stack.frames_by_owner, stack.poll, stack.trace_start, stack.trace_read):
                try:
                    look()
                except ForkedError:
                    raised += 1
            os._exit(0 if raised == 5 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert stack.ledger().missing == 0
