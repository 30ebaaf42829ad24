"""The pre-filter: what it drops, in the kernel's BPF machine; that a driver which cannot run it refuses, changing nothing.

No machine of the tests has a NIC that runs BPF, so that it does run in one is not shown here.
"""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from tests.paths.left import nothing_left
from tests.paths.world import MakeVeth, opened
from xdpstack import ConfigurationError, ModeRefused, Prefilter
from xdpstack.device.prefilter import PrefilterProgram, address_key

DENIED4, DENIED6 = "192.0.2.1", "2001:db8::1"
XDP_DROP, XDP_PASS = 1, 2


def test_addresses_are_checked() -> None:
    asked = Prefilter([DENIED4, DENIED6, DENIED4])
    assert asked.sources == (DENIED4, DENIED6)
    assert asked.keys[0] == bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    for wrong in ([], ["192.0.2.0/24"], ["example.org"]):
        with pytest.raises(ConfigurationError):
            Prefilter(wrong)


@pytest.fixture(scope="module")
def program() -> PrefilterProgram:
    return PrefilterProgram.load("", Prefilter([DENIED4, DENIED6]), offload=False)


@pytest.mark.root
@pytest.mark.parametrize("tags", [0, 1, 2, 3])
def test_what_it_drops(program: PrefilterProgram, tags: int) -> None:
    """Denied sources of both families, behind two VLAN tags at most; the same address as the destination is no matter."""
    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for vlan in range(tags):
        head = head / Dot1Q(vlan=vlan + 1)
    for packet, denied in (
        (IP(src=DENIED4, dst="10.0.0.1") / UDP(), True),
        (IP(src="192.0.2.2", dst=DENIED4) / UDP(), False),
        (IP(src=DENIED4, dst="10.0.0.1", options=[("NOP")] * 4) / UDP(), True),
        (IPv6(src=DENIED6, dst="fd00::1") / UDP(), True),
        (IPv6(src="2001:db8::2", dst=DENIED6) / UDP(), False),
        (ARP(psrc=DENIED4), False),
    ):
        before = program.counts()
        verdict = program.test_run(bytes(head / packet))
        assert verdict == (XDP_DROP if denied and tags <= 2 else XDP_PASS)
        after = program.counts()
        assert after["dropped"] - before["dropped"] == (verdict == XDP_DROP)
        assert sum(after.values()) - sum(before.values()) == 1


@pytest.mark.root
@given(
    data=st.binary(min_size=14, max_size=80),
    ethertype=st.sampled_from([b"\x08\0", b"\x86\xdd", b"\x81\0", b"\x88\xa8"]),
)
def test_whatever_comes_is_passed_unless_it_is_denied(program: PrefilterProgram, data: bytes, ethertype: bytes) -> None:
    frame = data[:12] + ethertype + data[14:]
    at = 14
    for _ in range(2):
        if frame[at - 2 : at] in (b"\x81\0", b"\x88\xa8"):
            at += 4
    kind, rest = frame[at - 2 : at], frame[at:]
    source = b""
    if kind == b"\x08\0" and len(rest) >= 20:
        source = address_key(DENIED4)[:12] + rest[12:16]
    elif kind == b"\x86\xdd" and len(rest) >= 40:
        source = rest[8:24]
    denied = source in (address_key(DENIED4), address_key(DENIED6))
    assert program.test_run(frame) == (XDP_DROP if denied else XDP_PASS)


@pytest.mark.root
def test_a_driver_that_cannot_refuses_before_anything_is_changed(veth: MakeVeth) -> None:
    pair = veth()
    opened(pair.near).close()
    with nothing_left(pair.near), pytest.raises(ModeRefused, match="near0 takes no pre-filter") as refused:
        opened(pair.near, prefilter=Prefilter([DENIED4]))
    assert refused.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)
    assert "in the NIC" in refused.value.cause
    assert not pair.near.has_xdp()


@pytest.mark.root
def test_a_program_that_is_not_in_the_nic_is_not_attached_there(veth: MakeVeth) -> None:
    pair = veth()
    program = pair.near.netns.call(lambda: PrefilterProgram.load("near0", Prefilter([DENIED4]), offload=False))
    with pytest.raises(ModeRefused, match="near0 takes no pre-filter"):
        pair.near.netns.call(program.attach)
    program.close()
    program.close()
    assert not pair.near.has_xdp()


@pytest.mark.root
def test_offloaded_mode_demanded_is_refused_too(veth: MakeVeth) -> None:
    """The program that lifts cannot be offloaded at all: no NIC redirects to sockets."""
    pair = veth()
    with pytest.raises(ModeRefused, match="offloaded mode"):
        opened(pair.near, mode="offloaded")
    assert not pair.near.has_xdp()
