"""What a Python hook sees of a packet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Packet

import xdpstack.hook
from xdpstack.hook import HookBatch
from xdpstack.testing import MemoryStack, memory_stack

ETHER = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:99")
V4, V6 = IP(src="10.0.0.2", dst="10.0.0.1"), IPv6(src="fd00::2", dst="fd00::1")


@pytest.fixture
def stack() -> Iterator[MemoryStack]:
    with memory_stack(
        "a0",
        addresses={"a0": ["10.0.0.1/24", "fd00::1/64"]},
        neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99"],
        frames=1024,
    ) as made:
        yield made


@pytest.mark.parametrize(
    "packet, ports",
    [
        (V4 / UDP(sport=1234, dport=19), (1234, 19)),
        (V4 / TCP(sport=1234, dport=80), (1234, 80)),
        (IP(src="10.0.0.2", dst="10.0.0.1", options=b"\x01" * 8) / UDP(sport=1, dport=65535), (1, 65535)),
        (V6 / UDP(sport=1234, dport=19), (1234, 19)),
        (V6 / IPv6ExtHdrDestOpt() / UDP(sport=1234, dport=19), (1234, 19)),
        (IP(src="10.0.0.2", dst="10.0.0.1", proto=89) / b"12345678", (0, 0)),
        (IP(src="10.0.0.2", dst="10.0.0.1", proto=17, frag=8) / b"12345678", (0, 0)),
        (V4 / b"123", (0, 0)),
    ],
)
def test_ports_of_what_comes_in(stack: MemoryStack, packet: Packet, ports: tuple[int, int]) -> None:
    seen: list[tuple[int, int]] = []
    stack.hook("netfilter.prerouting", lambda batch: seen.extend((p.sport, p.dport) for p in batch))
    stack.inject("a0", bytes(ETHER / packet))
    stack.step()
    assert seen == [ports]


def test_ports_of_what_goes_out(stack: MemoryStack) -> None:
    seen: list[tuple[int, int]] = []
    stack.hook("netfilter.output", lambda batch: seen.extend((p.sport, p.dport) for p in batch))
    stack.udp(("10.0.0.1", 7)).sendto(b"x", ("10.0.0.2", 9))
    assert seen == [(7, 9)]


def test_the_hook_of_the_documentation_drops(stack: MemoryStack) -> None:
    """As it stands in the module's docstring."""
    text = xdpstack.hook.__doc__ or ""
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    exec("\n".join(lines), {"stack": stack})
    stack.inject("a0", bytes(ETHER / V4 / UDP(dport=19)), bytes(ETHER / V4 / UDP(dport=20)))
    stack.step()
    assert stack.reasons() == {"HOOK": 1, "NO_SOCKET": 1}


def test_a_batch_is_over_with_its_hook(stack: MemoryStack) -> None:
    kept: list[HookBatch] = []
    stack.hook("netfilter.input", kept.append, name="keep")
    stack.inject("a0", bytes(ETHER / V4 / UDP(dport=19)))
    stack.step()
    with pytest.raises(ValueError, match="inside the hook"):
        kept[0][0]


def test_what_a_prompt_shows(stack: MemoryStack) -> None:
    """What there is, to who tries it out; and no ClosedError when it is over."""
    kept: list[object] = []
    shown: list[str] = []

    def hook(batch: HookBatch) -> None:
        kept.extend((batch, batch[0]))
        shown.extend((repr(batch), repr(batch[0])))
        assert {"pkt_len", "l3_proto", "mark", "priority", "data", "drop"} <= set(dir(batch[0]))

    stack.hook("netfilter.input", hook)
    stack.inject("a0", bytes(ETHER / V4 / UDP(sport=1234, dport=19) / b"hello"))
    stack.step(3)
    assert shown == [
        "<HookBatch of 1 at netfilter.input>",
        "<Packet 47 bytes, 0800, protocol 17, ports 1234 > 19>",
    ]
    assert [repr(each) for each in kept] == [
        "<HookBatch of 1 at netfilter.input, over>",
        "<Packet, gone with its batch>",
    ]
