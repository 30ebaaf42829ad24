"""Checksums that were left to hardware: told to who reads whole frames, finished in what leaves again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import IP, TCP, UDP, Dot1AD, Dot1Q, Ether, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop

import xdpstack
from xdpstack.testing import MemoryDevice, memory_stack
from xdpstack.testing.partial import make_partial

CLAIM = xdpstack.EverythingBut()
OURS, PEER = "02:00:00:00:00:01", "02:00:00:00:00:99"


def sound(above: Any, *tags: Any, trailer: bytes = b"") -> bytes:
    """With these tags, all checksums right."""
    ether = Ether(dst=OURS, src=PEER)
    for tag in tags:
        ether = ether / tag
    return bytes(ether / above) + trailer


V4 = IP(src="10.0.0.2", dst="10.0.9.9")
V6 = IPv6(src="fd00::2", dst="fd00::99")
SEGMENTS = {
    "udp": sound(V4 / UDP(sport=1, dport=7) / b"odd"),
    "udp, padded": sound(V4 / UDP(sport=1, dport=7) / b"x", trailer=bytes(17)),
    "udp, options": sound(
        IP(src="10.0.0.2", dst="10.0.9.9", options=[b"\x94\x04\0\0"]) / UDP(sport=1, dport=7) / b"abc"
    ),
    "udp, empty": sound(V4 / UDP(sport=1, dport=7)),
    "tcp": sound(V4 / TCP(sport=1, dport=80, options=[("MSS", 1400)]) / b"GET /"),
    "udp, tagged": sound(V4 / UDP(sport=1, dport=7) / b"abc", Dot1Q(vlan=5)),
    "tcp, two tags": sound(V4 / TCP(sport=1, dport=80) / b"abc", Dot1AD(vlan=5), Dot1Q(vlan=6)),
    "udp over IPv6": sound(V6 / UDP(sport=1, dport=7) / b"abc"),
    "tcp over IPv6": sound(V6 / TCP(sport=1, dport=80)),
    "udp, extension headers": sound(V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=7) / b"abc"),
    "jumbo": sound(V4 / UDP(sport=1, dport=7) / (bytes(range(256)) * 14)),
}
#: What has no checksum that could be partial.
OTHERS = {
    "short": bytes(14),
    "arp": sound(b"\0" * 28),
    "fragment": sound(IP(src="10.0.0.2", dst="10.0.9.9", flags="MF", proto=17) / (b"\0" * 24)),
    "none": sound(V4 / UDP(sport=1, dport=7, chksum=0) / b"abc"),
    "cut off": SEGMENTS["udp"][:38],
    "three tags": sound(V4 / UDP(sport=1, dport=7) / b"a", Dot1Q(vlan=1), Dot1Q(vlan=2), Dot1Q(vlan=3)),
}


def passed(*frames: bytes, partial_device: bool = True) -> tuple[list[bytes], int]:
    """What leaves again of frames that are redirected, and of how many the checksum was finished."""
    devices = MemoryDevice("a0", partial_checksums=partial_device, mtu=9000), MemoryDevice("b0", mtu=9000)
    with memory_stack(*devices, addresses={"a0": ["10.0.0.1/24"]}) as stack, stack.redirect(CLAIM, to="b0"):
        stack.backend.inject("a0", *frames, claim=CLAIM)
        stack.step(2)
        return stack.sent("b0"), stack.counters().get("napi.tx.csum_completed", 0)


def test_what_leaves_again_is_finished() -> None:
    partial = [make_partial(frame) if name != "tcp, two tags" else frame for name, frame in SEGMENTS.items()]
    assert passed(*partial) == (list(SEGMENTS.values()), len(SEGMENTS) - 1)


def test_two_tags_are_looked_through() -> None:
    """The helper of the tests sees one; the second is added behind it."""
    frame = SEGMENTS["tcp, two tags"]
    inner = make_partial(frame[:12] + frame[16:])
    assert passed(inner[:12] + frame[12:16] + inner[12:]) == ([frame], 1)


def test_what_is_right_or_has_none_stays_as_it_is() -> None:
    frames = [*SEGMENTS.values(), *OTHERS.values()]
    assert passed(*frames) == (frames, 0)


def test_devices_that_have_none_are_not_looked_at() -> None:
    frames = [make_partial(SEGMENTS["udp"])]
    assert passed(*frames, partial_device=False) == (frames, 0)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(SEGMENTS)), st.data())
def test_no_bytes_harm(name: str, data: st.DataObject) -> None:
    """Headers that lie, and frames that are cut off: nothing but the checksum's field may change."""
    frame = bytearray(SEGMENTS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(12, min(len(frame), 90) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(frame[: data.draw(st.integers(14, len(frame)))])
    [got], _ = passed(cut)
    assert len(got) == len(cut)
    assert sum(a != b for a, b in zip(got, cut, strict=True)) <= 2


def test_who_reads_whole_frames_is_told() -> None:
    """As an AF_PACKET socket is by TP_STATUS_CSUMNOTREADY: the bytes are as they came."""
    partial = make_partial(SEGMENTS["udp"])
    with memory_stack(MemoryDevice("a0", partial_checksums=True)) as stack, stack.frames(CLAIM) as frames:
        given_in = [partial, SEGMENTS["udp"], OTHERS["arp"], SEGMENTS["udp over IPv6"], make_partial(SEGMENTS["tcp"])]
        stack.backend.inject("a0", *given_in, claim=CLAIM)
        stack.step()
        with frames.recv_batch() as batch:
            assert list(batch.partial_checksums) == [True, False, False, False, True]
            assert batch.frames() == given_in
        with pytest.raises(xdpstack.ClosedError):
            _ = batch.partial_checksums


def test_what_came_over_a_wire_is_taken_at_its_word() -> None:
    """Whoever sends what looks like it has not left anything to hardware of ours."""
    frame = make_partial(SEGMENTS["udp"])
    devices = MemoryDevice("a0"), MemoryDevice("b0", partial_checksums=True)
    with memory_stack(*devices) as stack, stack.frames(CLAIM) as frames:
        for name in ("a0", "b0"):
            stack.backend.inject(name, frame, claim=CLAIM)
        stack.step()
        with frames.recv_batch() as batch:
            assert dict(zip(batch.devices, batch.partial_checksums, strict=True)) == {0: False, 1: True}
