"""VLAN tags: read, put on, taken off; which socket a tagged datagram is for, and how it answers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import IP, UDP, Dot1AD, Dot1Q, Ether, IPv6

import xdpstack
from tests.csrc.compile import library
from xdpstack.errors import AddressInUse, ConfigurationError
from xdpstack.hook import HookBatch
from xdpstack.testing import MemoryWalk, memory_stack
from xdpstack.udp.socket import UdpSocket

OURS, PEER = "02:00:00:00:00:01", "02:00:00:00:00:99"
KINDS = (0x8100, 0x88A8)
#: (ethertype, TCI), outermost first.
Tag = tuple[int, int]
tags = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 0xFFFF)), max_size=3)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(KINDS), st.integers(0, 0xFFF), st.integers(0, 7)),
        st.tuples(st.just("modify"), st.sampled_from(KINDS), st.integers(0, 0xFFF), st.integers(0, 7)),
        st.tuples(st.just("pop"), st.none(), st.none(), st.none()),
    ),
    max_size=6,
)


def raw(of: list[Tag], ethertype: int = 0x88B5, body: bytes = b"body") -> bytes:
    """A frame with these tags, of an ethertype that nothing looks into."""
    addresses = bytes.fromhex((OURS + PEER).replace(":", ""))
    return addresses + b"".join(struct.pack(">HH", *tag) for tag in of) + struct.pack(">H", ethertype) + body


def datagram(*of: Any, to: str = "10.0.0.1", payload: bytes = b"ping") -> bytes:
    """A datagram to our port 7 with these scapy tags."""
    ether = Ether(dst=OURS, src=PEER)
    for tag in of:
        ether = ether / tag
    return bytes(ether / IP(src="10.0.0.2", dst=to) / UDP(sport=9, dport=7) / payload)


def world(**options: Any) -> Any:
    return memory_stack(
        "a0",
        addresses={"a0": ["10.0.0.1/24"]},
        neighbours=[f"10.0.0.2 dev a0 lladdr {PEER}"],
        **options,
    )


# ---- in hooks ----


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(tags, changes), min_size=1, max_size=5))
def test_tags_come_and_go_as_in_a_list(cases: list[tuple[list[Tag], list[Any]]]) -> None:
    """A model of what hooks do to frames: the frame's tags are a list, its first is the outermost."""
    seen: list[tuple[int | None, ...]] = []

    def change(batch: HookBatch) -> None:
        for packet, (_, steps) in zip(batch, cases, strict=True):
            for what, proto, vlan, priority in steps:
                if what == "pop":
                    packet.vlan_pop()
                else:
                    getattr(packet, f"vlan_{what}")(vlan, priority=priority, proto=proto)
            seen.append((packet.vlan_proto, packet.vlan_tci, packet.vlan_inner_tci, packet.l3_proto))

    with MemoryWalk("a0", present={"napi.rx"}, catch={"ip.rx"}) as walk:
        walk.hook("tc.rx", change, {"accept": "ip.rx"})
        walk.inject("a0", *(raw(of) for of, _ in cases))
        walk.step(2)
        caught = walk.caught["ip.rx"]
    for (of, steps), packet, said in zip(cases, caught, seen, strict=True):
        model = list(of)
        for what, proto, vlan, priority in steps:
            if what != "push":
                had = bool(model)
                model = model[1:]
            if what == "push" or (what == "modify" and had):
                model.insert(0, (proto, priority << 13 | vlan))
        assert packet.data == raw(model)
        match model:
            case []:
                assert said == (None, None, None, 0x88B5)
            case [(0x88A8, outer), (0x8100, inner), *others] if outer & 0xFFF and inner & 0xFFF:
                assert said == (0x88A8, outer, inner, others[0][0] if others else 0x88B5)
            case [first, *others]:
                assert said == (*first, None, others[0][0] if others else 0x88B5)


@pytest.mark.parametrize("length", range(14, 18))
def test_a_tag_that_is_cut_off_cannot_be_taken_off(length: int) -> None:
    said: list[str] = []

    def pop(batch: HookBatch) -> None:
        for packet in batch:
            with pytest.raises(ConfigurationError, match="Ethernet header"):
                packet.vlan_pop()
            said.append("refused")

    with MemoryWalk("a0", present={"napi.rx"}, catch={"ip.rx"}) as walk:
        walk.hook("tc.rx", pop, {"accept": "ip.rx"})
        walk.inject("a0", raw([(0x8100, 5)])[:length])
        walk.step(2)
        [packet] = walk.caught["ip.rx"]
        assert packet.data == raw([(0x8100, 5)])[:length]
    assert said == ["refused"]


def test_what_cannot_be_a_tag_is_refused() -> None:
    def change(batch: HookBatch) -> None:
        [packet] = batch
        for vlan, priority, proto in ((4096, 0, 0x8100), (1, 8, 0x8100), (1, 0, 0x0800), (-1, 0, 0x8100)):
            with pytest.raises(ConfigurationError):
                packet.vlan_push(vlan, priority=priority, proto=proto)

    with MemoryWalk("a0", present={"napi.rx"}, catch={"ip.rx"}) as walk:
        walk.hook("tc.rx", change, {"accept": "ip.rx"})
        walk.inject("a0", raw([]))
        walk.step(2)
        assert walk.caught["ip.rx"][0].data == raw([])


def test_a_hook_on_the_way_out_tags_what_a_socket_sends() -> None:
    """From tc.tx on there is an Ethernet header to put it into; before, it is refused."""

    def too_early(batch: HookBatch) -> None:
        for packet in batch:
            with pytest.raises(ConfigurationError, match=r"tc\.tx"):
                packet.vlan_push(5)

    def push(batch: HookBatch) -> None:
        for packet in batch:
            packet.vlan_push(5)
            packet.vlan_push(100, proto=0x88A8)

    with world() as stack:
        stack.hook("netfilter.output", too_early)
        stack.hook("tc.tx", push)
        stack.udp(("10.0.0.1", 7)).sendto(b"pong", ("10.0.0.2", 9))
        stack.step()
        [sent] = stack.sent("a0")
    frame = Ether(sent)
    assert (frame[Dot1AD].vlan, frame[Dot1Q].vlan) == (100, 5)
    assert frame[UDP].payload.load == b"pong"


def test_a_stage_in_c_changes_tags(tmp_path: Path) -> None:
    stage = xdpstack.load_stage(library("retag_stage.c", tmp_path))
    with world() as stack:
        stack.hook("tc.tx", stage)
        stack.udp(("10.0.0.1", 7), vlan=5).sendto(b"five", ("10.0.0.2", 9))
        stack.udp(("10.0.0.1", 8)).sendto(b"none", ("10.0.0.2", 9))
        stack.step()
        five, none = (Ether(frame) for frame in stack.sent("a0"))
    assert (five[Dot1AD].vlan, five[Dot1Q].vlan, five[UDP].payload.load) == (100, 6, b"five")
    assert (none[Dot1AD].vlan, Dot1Q in none.payload.payload, none[UDP].payload.load) == (100, False, b"none")


# ---- sockets ----


def test_a_socket_answers_in_its_vlan() -> None:
    with world() as stack:
        sock = stack.udp(("10.0.0.1", 7), vlan=5)
        stack.inject("a0", datagram(Dot1Q(vlan=5, prio=3)))
        stack.step()
        assert sock.recvfrom(100) == (b"ping", ("10.0.0.2", 9))
        sock.sendto(b"pong", ("10.0.0.2", 9))
        stack.step()
        [sent] = stack.sent("a0")
    frame = Ether(sent)
    assert (frame.dst, frame[Dot1Q].vlan, frame[Dot1Q].prio) == (PEER, 5, 0)
    assert frame[UDP].payload.load == b"pong"
    assert Ether(bytes(frame))[UDP].chksum == frame[UDP].chksum


@pytest.mark.parametrize("family", [4, 6])
def test_a_socket_within_a_service_vlan_answers_with_both_tags(family: int) -> None:
    ours, theirs = ("10.0.0.1", "10.0.0.2") if family == 4 else ("fd00::1", "fd00::2")
    with memory_stack(
        "a0",
        addresses={"a0": ["10.0.0.1/24", "fd00::1/64"]},
        neighbours=[f"{theirs} dev a0 lladdr {PEER}"],
    ) as stack:
        sock = stack.udp((ours, 7), vlan=(100, 200))
        ip = IP(src=theirs, dst=ours) if family == 4 else IPv6(src=theirs, dst=ours)
        tagged = Ether(dst=OURS, src=PEER) / Dot1AD(vlan=100, prio=1) / Dot1Q(vlan=200, prio=7)
        stack.inject("a0", bytes(tagged / ip / UDP(sport=9, dport=7) / b"ping"))
        stack.step()
        data, address = sock.recvfrom(100)
        assert (data, *address[:2]) == (b"ping", theirs, 9)
        sock.sendto(b"pong", (theirs, 9))
        stack.step()
        [sent] = stack.sent("a0")
    addresses = bytes.fromhex((PEER + OURS).replace(":", ""))
    ethertype = b"\x08\x00" if family == 4 else b"\x86\xdd"
    assert sent[:22] == addresses + bytes.fromhex("88a80064 810000c8") + ethertype, "outer first, no priority"
    frame, again = Ether(sent), Ether(sent)
    del again[UDP].chksum, again[UDP].len
    assert bytes(again) == sent
    assert frame[UDP].payload.load == b"pong"


@pytest.mark.parametrize("length", range(18, 22))
def test_an_inner_tag_that_is_cut_off_is_dropped(length: int) -> None:
    with world() as stack, stack.udp(("10.0.0.1", 7), vlan=(100, 200)):
        stack.inject("a0", raw([(0x88A8, 100), (0x8100, 200)])[:length])
        stack.step()
        assert stack.reasons() == {"HDR_TRUNC": 1}


def test_an_outer_tag_that_the_device_took_off_is_put_back() -> None:
    """A NIC with rx-vlan-stag-hw-parse on, on a stack that asks for the tag."""
    with world(metadata=True) as stack, stack.udp(("10.0.0.1", 7), vlan=(100, 200)) as sock:
        stack.backend.say("a0", vlan=(0x88A8, 100))
        stack.inject("a0", datagram(Dot1Q(vlan=200)))
        stack.step()
        sock.settimeout(0)
        assert sock.recv(100) == b"ping"


def test_a_held_answer_is_tagged_when_its_neighbour_is_known() -> None:
    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}) as stack:
        stack.udp(("10.0.0.1", 7), vlan=5).sendto(b"pong", ("10.0.0.2", 9))
        stack.step()
        assert stack.sent("a0") == []
        stack.host.learn(f"10.0.0.2 dev a0 lladdr {PEER}")
        stack.step(2)
        [sent] = stack.sent("a0")
    assert Ether(sent)[Dot1Q].vlan == 5


ARRIVALS = {
    "untagged": ((), 0),
    "priority": ((Dot1Q(vlan=0, prio=5),), 0),
    "five": ((Dot1Q(vlan=5),), 5),
    "service": ((Dot1AD(vlan=5),), 5),
    "six": ((Dot1Q(vlan=6),), None),
    "two": ((Dot1AD(vlan=5), Dot1Q(vlan=5)), None),
    "five, six": ((Dot1AD(vlan=5, prio=2), Dot1Q(vlan=6, prio=3)), (5, 6)),
    "six, five": ((Dot1AD(vlan=6), Dot1Q(vlan=5)), None),
    "five, six of the customer": ((Dot1Q(vlan=5), Dot1Q(vlan=6)), None),
    "five, priority": ((Dot1AD(vlan=5), Dot1Q(vlan=0, prio=3)), None),
    "service priority, six": ((Dot1AD(vlan=0), Dot1Q(vlan=6)), None),
    "three": ((Dot1AD(vlan=5), Dot1Q(vlan=6), Dot1Q(vlan=7)), None),
    "priority, five": ((Dot1Q(vlan=0), Dot1Q(vlan=5)), None),
}


@pytest.mark.parametrize("engine", ["native", "python"])
def test_each_vlan_has_its_sockets(engine: str) -> None:
    """One batch with all kinds of tags: who gets what, and what nobody gets. Other pairs of tags are of no protocol here."""
    with world(engines={"udp": engine}) as stack:
        sockets: dict[object, UdpSocket] = {0: stack.udp(("10.0.0.1", 7))}
        for vlan in (5, (5, 6)):
            sockets[vlan] = stack.udp(("10.0.0.1", 7), vlan=vlan)
        for name, (of, _) in ARRIVALS.items():
            stack.inject("a0", datagram(*of, payload=name.encode()))
        stack.step(3)
        for vlan, sock in sockets.items():
            sock.settimeout(0)
            expected = [name.encode() for name, (_, who) in ARRIVALS.items() if who == vlan]
            with sock.recv_batch() as batch:
                assert batch.payloads() == expected
        assert stack.reasons() == {"NO_SOCKET": 3, "UNHANDLED_PROTO": 5}
    assert stack.ledger().missing == 0


def test_broadcast_stays_in_its_vlan() -> None:
    with world() as stack:
        untagged, tagged = (stack.udp(("0.0.0.0", 7), vlan=vlan, broadcast=True) for vlan in (None, 5))
        frame = datagram(Dot1Q(vlan=5), to="255.255.255.255")
        stack.inject("a0", b"\xff" * 6 + frame[6:])
        stack.step()
        untagged.settimeout(0)
        assert tagged.recv(100) == b"ping"
        with pytest.raises(BlockingIOError):
            untagged.recv(100)


def test_what_the_kernel_would_send_untagged_is_refused() -> None:
    with world() as stack:
        sock = stack.udp(("10.0.0.1", 7), vlan=5)
        with pytest.raises(OSError, match="VLAN"):
            sock.sendto(bytes(4000), ("10.0.0.2", 9))
        with pytest.raises(OSError, match="VLAN"):
            sock.sendto(b"x", ("192.0.2.1", 9))


def test_which_vlan_there_is() -> None:
    with world() as stack:
        for vlan in (0, 4095, -1):
            with pytest.raises(ConfigurationError):
                stack.udp(("10.0.0.1", 7), vlan=vlan)
        for pair in ((0, 5), (5, 0), (4095, 1), (1,), (1, 2, 3), (1, "2")):
            with pytest.raises(ConfigurationError):
                stack.udp(("10.0.0.1", 7), vlan=pair)
        for vlan in (5, (5, 5), (5, 6), (6, 5)):
            stack.udp(("10.0.0.1", 7), vlan=vlan)
            with pytest.raises(AddressInUse):
                stack.udp(("10.0.0.1", 7), vlan=vlan)
