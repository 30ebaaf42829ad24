"""Source addresses that are chosen for senders: the rules of RFC 6724 one by one, and inet_select_addr."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpstack.netlink import Address, Link, Snapshot, packed, text
from xdpstack.netlink.uapi import (
    AF_INET,
    IFA_F_DEPRECATED,
    IFA_F_OPTIMISTIC,
    IFA_F_PERMANENT,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
)
from xdpstack.routing.source import common_bits, inet_select_addr, ipv6_dev_get_saddr, label_of, scope_of
from xdpstack.routing.tables import compile_tables

LINKS = [Link(2, "a0", bytes.fromhex("020000000002")), Link(3, "b0", bytes.fromhex("020000000003"))]


def chosen(destination: str, *addresses: tuple[str, int, int], index: int = 2, **sysctls: int) -> str:
    """The source towards `destination`; each address with its device and flags."""
    given = [Address.parse(each, device, flags=IFA_F_PERMANENT | flags) for each, device, flags in addresses]
    named = {f"net.ipv6.conf.{name.replace('__', '.')}": value for name, value in sysctls.items()}
    tables = compile_tables(Snapshot.build(LINKS, given, sysctls=named))
    source = ipv6_dev_get_saddr(tables.devices, index, packed(destination))
    return text(source) if source else ""


@pytest.mark.parametrize(
    "rule, destination, expected, addresses",
    [
        ("1 same address", "2001:db8:1::1", "2001:db8:1::1", [("2001:db8:1::1/64", 3, 0), ("2001:db8:1::2/64", 2, 0)]),
        ("2 scope", "2001:db8:1::9", "2001:db8:2::1", [("fe80::7/64", 2, 0), ("2001:db8:2::1/64", 2, 0)]),
        ("2 scope, the narrowest that reaches", "fec0::9", "fec0::1", [("fec0::1/64", 2, 0), ("2001:db8::1/64", 2, 0)]),
        ("3 not deprecated", "2001:db8:1::9", "2001:db8:2::1",
         [("2001:db8:1::1/64", 2, IFA_F_DEPRECATED), ("2001:db8:2::1/64", 2, 0)]),
        ("5 of the outgoing device", "2001:db8:1::9", "2001:db8:2::1",
         [("2001:db8:1::1/64", 3, 0), ("2001:db8:2::1/64", 2, 0)]),
        ("6 matching label", "2002:c633:6401::d5e3", "2002:c633:6401::1",
         [("2002:c633:6401::1/48", 2, 0), ("2001:db8::1/64", 2, 0)]),
        ("7 public", "2001:db8:1::d5e3", "2001:db8:1::2",
         [("2001:db8:1::2/64", 2, 0), ("2001:db8:1::d5e0/64", 2, IFA_F_TEMPORARY)]),
        ("8 longest prefix", "2001:db8:1::9", "2001:db8:1::1", [("2001:db8:1::1/64", 2, 0), ("2001:db8:3::1/64", 2, 0)]),
        ("8 no longer than its own prefix", "2001:db8:1:1::9", "2001:db8:1:2::2",
         [("2001:db8:1:1::1/32", 2, 0), ("2001:db8:1:2::2/48", 2, 0)]),
        ("tentative is none", "2001:db8:1::9", "2001:db8:2::1",
         [("2001:db8:1::1/64", 2, IFA_F_TENTATIVE), ("2001:db8:2::1/64", 2, 0)]),
        ("optimistic is avoided", "2001:db8:1::9", "2001:db8:2::1",
         [("2001:db8:1::1/64", 2, IFA_F_TENTATIVE | IFA_F_OPTIMISTIC), ("2001:db8:2::1/64", 2, 0)]),
        ("link-local: of the link alone", "fe80::9", "fe80::7", [("2001:db8::1/64", 2, 0), ("fe80::7/64", 2, 0)]),
        ("multicast: of the link alone", "ff0e::1", "fe80::ff:fe00:2", [("2001:db8::1/64", 3, 0)]),
    ],
)  # fmt: skip
def test_rules(rule: str, destination: str, expected: str, addresses: list[tuple[str, int, int]]) -> None:
    assert chosen(destination, *addresses) == expected
    assert chosen(destination, *reversed(addresses)) == expected


def test_switches() -> None:
    pair = [("2001:db8:1::2/64", 2, 0), ("2001:db8:1::d5e0/64", 2, IFA_F_TEMPORARY)]
    assert chosen("2001:db8:9::1", *pair, a0__use_tempaddr=2) == "2001:db8:1::d5e0"
    far = [("2001:db8:1::1/64", 3, 0)]
    assert chosen("2001:db8:1::9", *far) == "2001:db8:1::1"
    assert chosen("2001:db8:1::9", *far, a0__use_oif_addrs_only=1) == "fe80::ff:fe00:2"


def test_no_address_at_all() -> None:
    assert chosen("2001:db8::1", all__disable_ipv6=1, lo__disable_ipv6=1, a0__disable_ipv6=1, b0__disable_ipv6=1) == ""


@pytest.mark.parametrize(
    "address, label, scope",
    [("::1", 0, 2), ("::", 3, -1), ("2001:db8::1", 1, 14), ("::ffff:10.0.0.1", 4, 14), ("::10.0.0.1", 3, 14),
     ("2002::1", 2, 14), ("2001::1", 6, 14), ("fc00::1", 5, 14), ("fec0::1", 11, 5), ("fe80::1", 1, 2), ("ff05::1", 1, 5),
     ("2001:10::1", 7, 14), ("3ffe::1", 12, 14)],
)  # fmt: skip
def test_labels_and_scopes(address: str, label: int, scope: int) -> None:
    assert label_of(packed(address)) == label
    assert scope_of(packed(address)) == scope


@given(st.binary(min_size=16, max_size=16), st.integers(0, 127))
def test_common_bits(address: bytes, bit: int) -> None:
    other = (int.from_bytes(address) ^ 1 << 127 - bit).to_bytes(16)
    assert common_bits(address, other) == bit
    assert common_bits(address, address) == 128


def test_inet_select_addr() -> None:
    addresses = [
        Address.parse("10.0.0.1/24", 2),
        Address.parse("10.0.0.2/24", 2),
        Address.parse("10.0.5.1/24", 2),
        Address.parse("169.254.0.1/16", 3, scope=RT_SCOPE_LINK),
    ]
    devices = compile_tables(Snapshot.build(LINKS, addresses)).devices

    def select(index: int, towards: str = "0.0.0.0", scope: int = RT_SCOPE_UNIVERSE) -> str:
        return text(inet_select_addr(devices, index, packed(towards), scope))

    assert select(2) == "10.0.0.1"
    assert select(2, "10.0.5.9") == "10.0.5.1"
    assert select(2, "192.0.2.1") == "10.0.0.1"
    assert select(3) == "10.0.0.1"  # its own is for its link alone
    assert select(3, scope=RT_SCOPE_LINK) == "169.254.0.1"
    assert select(1) == "10.0.0.1"
    assert select(1, scope=RT_SCOPE_HOST) == "127.0.0.1"
    none = compile_tables(Snapshot.build(LINKS)).devices
    assert inet_select_addr(none, 2, packed("8.8.8.8"), RT_SCOPE_UNIVERSE) == b""
    assert AF_INET in devices[2].addresses
