"""neigh.tx behind sockets of a whole stack: what is sent at once, what waits and how long, what the kernel is asked."""

from collections.abc import Iterator

import pytest

from xdpstack.testing import MemoryStack, memory_stack

SECOND = 1_000_000_000
PEER = "10.0.0.2"
PEER_MAC = bytes.fromhex("020000000002")
OWN_MAC = bytes.fromhex("020000000001")


@pytest.fixture
def stack() -> Iterator[MemoryStack]:
    addresses = {"a0": ["10.0.0.1/24", "fd00::1/64"]}
    routes = ["default via 10.0.0.254 dev a0"]
    with memory_stack("a0", addresses=addresses, routes=routes) as made:
        made.clock.advance(100 * SECOND)
        yield made


def send(stack: MemoryStack, *payloads: bytes, to: str = PEER) -> None:
    family = "fd00::1" if ":" in to else "10.0.0.1"
    with stack.udp((family, 7), reserve=False) as sock:
        for payload in payloads:
            sock.sendto(payload, (to, 9))
    stack.step()


def ethernet(frame: bytes) -> tuple[bytes, bytes, bytes]:
    return frame[:6], frame[6:12], frame[12:14]


@pytest.mark.parametrize("state", ["reachable", "stale", "delay", "probe", "permanent", "noarp"])
def test_a_usable_neighbour_gets_it_at_once(stack: MemoryStack, state: str) -> None:
    stack.host.learn(f"{PEER} dev a0 lladdr 02:00:00:00:00:02 nud {state}")
    stack.step()
    send(stack, b"now")
    (frame,) = stack.sent("a0")
    assert ethernet(frame) == (PEER_MAC, OWN_MAC, b"\x08\x00")
    assert stack.host.probed == ([("a0", PEER)] if state == "stale" else []), "what is probed needs no probe"


def test_what_waits_is_sent_in_order_when_the_neighbour_is_found(stack: MemoryStack) -> None:
    send(stack, b"one", b"two", b"three")
    assert stack.sent("a0") == []
    assert stack.frames_by_owner()["held"] == 3
    assert stack._neigh.held() == 3
    assert stack.host.probed == [("a0", PEER)]
    stack.host.learn(f"{PEER} dev a0 lladdr 02:00:00:00:00:02")
    stack.step()
    assert [frame[42:] for frame in stack.sent("a0")] == [b"one", b"two", b"three"]
    assert stack._neigh.held() == 0


def test_ipv6(stack: MemoryStack) -> None:
    send(stack, b"six", to="fd00::2")
    assert stack.host.probed == [("a0", "fd00::2")]
    stack.host.learn("fd00::2 dev a0 lladdr 02:00:00:00:00:02")
    stack.step()
    (frame,) = stack.sent("a0")
    assert ethernet(frame) == (PEER_MAC, OWN_MAC, b"\x86\xdd")


def test_beyond_a_gateway_the_gateway_is_asked_for(stack: MemoryStack) -> None:
    send(stack, b"far", to="192.0.2.1")
    assert stack.host.probed == [("a0", "10.0.0.254")]


def test_it_is_asked_for_once_a_second(stack: MemoryStack) -> None:
    send(stack, b"1", b"2")
    stack.clock.advance(SECOND // 2)
    send(stack, b"3")
    assert len(stack.host.probed) == 1
    stack.clock.advance(SECOND // 2 + 1)
    stack.step(2)
    assert len(stack.host.probed) == 2


def test_three_seconds_without_an_answer_are_enough(stack: MemoryStack) -> None:
    send(stack, b"lost")
    stack.clock.advance(3 * SECOND - 1)
    stack.step()
    assert stack._neigh.held() == 1
    stack.clock.advance(1)
    stack.step()
    assert stack.reasons() == {"NEIGH_FAILED": 1}
    assert stack.sent("a0") == []


def test_a_neighbour_that_failed_drops_what_waited_at_once(stack: MemoryStack) -> None:
    send(stack, b"lost", b"too")
    stack.host.learn(f"{PEER} dev a0 nud failed")
    stack.step()
    assert stack.reasons() == {"NEIGH_FAILED": 2}


def test_the_oldest_goes_when_too_much_waits_for_one(stack: MemoryStack) -> None:
    """212,992 bytes: each datagram of 1,400 bytes costs 2,304, so 92 fit."""
    send(stack, *[number.to_bytes(2, "big") + bytes(1398) for number in range(100)])
    assert stack._neigh.held() == 92
    assert stack.reasons() == {"NEIGH_QUEUEFULL": 8}
    stack.host.learn(f"{PEER} dev a0 lladdr 02:00:00:00:00:02")
    stack.step()
    assert [int.from_bytes(frame[42:44], "big") for frame in stack.sent("a0")] == list(range(8, 100))


def test_a_device_that_goes_down_drops_what_waits_for_it(stack: MemoryStack) -> None:
    send(stack, b"lost")
    stack.backend.set_link("a0", up=False)
    stack.step()
    assert stack.reasons() == {"DEVICE_GONE": 1}


def test_many_neighbours_and_their_going(stack: MemoryStack) -> None:
    """More than the first table holds, learned one by one; then some go."""
    for number in range(2, 202):
        stack.host.learn(f"10.0.0.{number} dev a0 lladdr 02:00:00:00:01:{number:02x}")
        stack.step()
    for number in range(2, 202):
        send(stack, b"x", to=f"10.0.0.{number}")
    assert [frame[5] for frame in stack.sent("a0")] == list(range(2, 202))
    stack.host.change(neighbours=[])
    stack.step()
    send(stack, b"x", to="10.0.0.7")
    assert stack.sent("a0") == []
    assert stack._neigh.held() == 1


def test_closing_drops_what_waits() -> None:
    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}) as made:
        send(made, b"lost")
    assert made.ledger().held == 0
    assert made.ledger().missing == 0


@pytest.mark.parametrize(
    "group,mac",
    [("239.129.2.3", "01005e010203"), ("ff02::1:ff00:1234", "3333ff001234")],
)
def test_groups_have_macs_of_their_own(stack: MemoryStack, group: str, mac: str) -> None:
    """RFC 1112, 6.4; RFC 2464, 7."""
    family = "fd00::1" if ":" in group else "10.0.0.1"
    scope = (0, 2) if ":" in group else ()
    with stack.udp((family, 7), reserve=False, broadcast=True) as sock:
        sock.sendto(b"all", (group, 9, *scope))
    stack.step()
    (frame,) = stack.sent("a0")
    assert frame[:6] == bytes.fromhex(mac)
