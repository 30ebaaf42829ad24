"""routing.rx decides once for a run of packets with one key: a batch gets what its packets get one by one."""

import random
from collections import Counter

import pytest

from tests.stages.packets import HOST, PEER, ipv4, ipv6, udp
from xdpstack.testing import MemoryStack, memory_stack

US4, US6 = bytes([10, 0, 0, 1]), bytes.fromhex("fd000000000000000000000000000001")
THEM4, THEM6 = bytes([10, 0, 9, 9]), bytes.fromhex("fd090000000000000000000000000009")
A4, B4 = bytes([10, 0, 0, 8]), bytes([10, 0, 0, 9])
A6, B6 = bytes.fromhex("fd000000000000000000000000000008"), bytes.fromhex("fd000000000000000000000000000009")


def ethernet(packet: bytes) -> bytes:
    return HOST + PEER + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


#: Keys that differ in one field each, and what becomes of them in different ways.
PACKETS = [
    *(ipv4(src=src, dst=dst, tos=tos) for src in (A4, B4, US4) for dst in (US4, THEM4) for tos in (0, 0x10)),
    *(ipv6(src=src, dst=dst, tclass=c) for src in (A6, B6) for dst in (US6, THEM6) for c in (0, 0x10)),
]


def stack(rules: list[str]) -> MemoryStack:
    return memory_stack(
        "a0", addresses={"a0": ["10.0.0.1/24", "fd00::1/64"]}, rules=rules, sysctls={"ipv4.ip_forward": 1}
    )


def fate(stack: MemoryStack, batches: list[list[bytes]]) -> Counter[str]:
    """Drops by reason, and what is left, after the frames came in such batches."""
    for batch in batches:
        assert stack.inject("a0", *batch) == len(batch)
        stack.step()
    return Counter({**stack.reasons(), "local": stack.counters().get("ip.local.packets", 0)})


@pytest.mark.parametrize(
    "rules",
    [[], ["10: from 10.0.0.9 prohibit"], ["10: tos 0x10 blackhole"], ["10: ipproto udp sport 1001 prohibit"]],
    ids=["default", "source", "tos", "port"],
)
def test_a_batch_gets_what_its_packets_get_alone(rules: list[str]) -> None:
    choose = random.Random(1)
    frames = []
    for _ in range(60):
        packet = choose.choice(PACKETS)
        if packet[0] >> 4 == 4 and choose.random() < 0.3:
            packet = ipv4(udp(sport=1001), src=packet[12:16], dst=packet[16:20], tos=packet[1])
        frames += [ethernet(packet)] * choose.randint(1, 4)
    with stack(rules) as together, stack(rules) as alone:
        batches = [frames[at : at + 64] for at in range(0, len(frames), 64)]
        assert fate(together, batches) == fate(alone, [[frame] for frame in frames])
        assert len(together.reasons()) >= 2
        assert together.counters()["routing.rx.same"] > 0


def test_a_run_is_decided_once() -> None:
    """What is for this host has a shorter way, which decides nothing."""
    with stack([]) as made:
        made.inject("a0", *[ethernet(ipv4(src=A4, dst=THEM4))] * 5, *[ethernet(ipv4(src=A4, dst=US4))] * 5)
        made.step()
        assert made.counters()["routing.rx.same"] == 4
