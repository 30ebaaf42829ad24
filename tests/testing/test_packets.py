"""Comparing packets field by field."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from xdpstack.testing import assert_packets_equal


def packet(ttl: int = 64, payload: bytes = b"hello", **fields: int) -> Ether:
    return Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / IP(ttl=ttl, **fields) / UDP(dport=7) / payload


def test_equal_packets_are_equal_in_any_form() -> None:
    assert_packets_equal(packet(), bytes(packet()))


def test_a_difference_names_the_field() -> None:
    with pytest.raises(AssertionError) as raised:
        assert_packets_equal(packet(ttl=63), packet())
    lines = str(raised.value).splitlines()
    assert lines[:2] == ["packets differ:", "  IP.ttl: 63 (0x3f), expected 64 (0x40)"]
    assert lines[2].startswith("  IP.chksum: ")
    assert lines[-1].startswith("  expected: 02000000 00010200")


def test_ignored_fields_may_differ() -> None:
    assert_packets_equal(packet(ttl=63, id=5), packet(), ignore=("ip.ttl", "ip.id", "ip.chksum"))


def test_a_payload_is_shown_as_bytes() -> None:
    with pytest.raises(AssertionError, match=r"Raw.load: 5 bytes 68656c6c 6f, expected 3 bytes 686579"):
        assert_packets_equal(packet(), packet(payload=b"hey"), ignore=("ip.len", "ip.chksum", "udp.len", "udp.chksum"))


def test_other_layers_are_said() -> None:
    with pytest.raises(AssertionError, match=r"layer 2: Raw, expected UDP"):
        assert_packets_equal(Ether() / IP(proto=99) / Raw(b"x"), packet(), ignore=("ip.proto", "ip.len", "ip.chksum"))


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ValueError, match=r"neither packet has: \['IP.tll'\]"):
        assert_packets_equal(packet(), packet(), ignore=("ip.tll",))
    with pytest.raises(ValueError, match=r"as layer.field, not 'ttl'"):
        assert_packets_equal(packet(), packet(), ignore=("ttl",))
