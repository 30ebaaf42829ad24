"""Addresses and prefixes as packed bytes."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpstack.netlink import Prefix, packed, text

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(ADDRESSES)
def test_text_and_packed_undo_each_other(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert packed(str(address)) == address.packed
    assert packed(text(address.packed)) == address.packed


@given(ADDRESSES, ADDRESSES, st.integers(0, 128))
def test_contains_agrees_with_ipaddress(network: ipaddress.IPv4Address, address: ipaddress.IPv4Address, n: int) -> None:
    length = min(n, network.max_prefixlen)
    reference = ipaddress.ip_network((network, length), strict=False)
    prefix = Prefix.parse(f"{network}/{length}")
    assert prefix.address == reference.network_address.packed
    assert str(prefix) == str(Prefix.parse(str(prefix)))
    assert (address.packed in prefix) == (address.version == network.version and address in reference)


def test_bad_text_is_refused() -> None:
    for bad in ("10.0.0", "10.0.0.0.0", "fe80:::1", "host"):
        with pytest.raises(ValueError, match="not an IP address"):
            packed(bad)
    with pytest.raises(ValueError, match="33 does not fit"):
        Prefix.parse("10.0.0.0/33")
    with pytest.raises(ValueError, match="4 or 16 bytes"):
        packed(b"\x0a\x00\x00")


def test_default_has_a_family() -> None:
    assert str(Prefix.parse("default")) == "0.0.0.0/0"
    assert str(Prefix.parse("default", 10)) == "::/0"
