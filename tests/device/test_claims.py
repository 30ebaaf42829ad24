"""Claims: what they may be, the table entries they become, and changing them while the program runs. No privilege."""

import random
import struct
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device.xdp_cases import HOST, MAC, ROUTES, SSH
from tests.device.xdp_strategies import claims, compatible
from xdpstack.device import claim_tables as tables
from xdpstack.device.claim_set import Claims
from xdpstack.device.claims import (
    Claim,
    Endpoint,
    Essential,
    EthertypeClaim,
    EverythingBut,
    ForwardClaim,
    LocalAddress,
    PrefixClaim,
    ProtocolClaim,
    SocketClaim,
)
from xdpstack.device.table_diff import ORDER
from xdpstack.errors import ClaimTaken, ConfigurationError, TableFull
from xdpstack.native import ffi, lib

OWN_MAC = bytes.fromhex(MAC.replace(":", ""))


class Tables:
    """The program's tables in memory: keeps every write, and fails when told to."""

    def __init__(self) -> None:
        self.entries: tables.Entries = {}
        self.writes: list[tuple[str, str, frozenset[bytes]]] = []
        self.fail_after: int | None = None

    def update(self, table: str, entries: Mapping[bytes, bytes]) -> None:
        self._write("update", table, entries)
        for number, (key, value) in enumerate(entries.items()):
            if self.fail_after == 0 and number == len(entries) // 2:  # some of them are in
                self.fail_after = None
                raise TableFull(table)
            self.entries[table, key] = value

    def delete(self, table: str, keys: Collection[bytes]) -> None:
        self._write("delete", table, keys)
        for key in keys:
            self.entries.pop((table, key), None)

    def _write(self, what: str, table: str, keys: Collection[bytes]) -> None:
        assert keys
        self.writes.append((what, table, frozenset(keys)))
        if self.fail_after:
            self.fail_after -= 1

    @property
    def kinds(self) -> int:
        ((_, kinds, _),) = (
            struct.unpack("=QII", value) for (name, _), value in self.entries.items() if name == "xs_device"
        )
        return kinds


def claimed(*wanted: Claim) -> tuple[Claims, Tables]:
    written = Tables()
    claims = Claims(written, OWN_MAC, (SSH,))
    claims.set_local(HOST)
    claims.add(*wanted)
    return claims, written


def without_ids(entries: tables.Entries) -> tables.Entries:
    """The entries with the ids of claims, which only say who was first, taken out."""
    numbered = {"xs_sockets", "xs_prefixes", "xs_selectors", "xs_everything", "xs_ports"}
    return {
        (table, key): value[4:] if table in numbered else value[:4] if table == "xs_shortcuts" else value
        for (table, key), value in entries.items()
    }


# ---- values ----


def test_addresses_are_parsed_and_lose_their_zone() -> None:
    assert SocketClaim("10.0.0.2", 7) == SocketClaim(IPv4Address("10.0.0.2"), 7)
    assert SocketClaim("fe80::1%veth1", 7).address == IPv6Address("fe80::1")
    assert LocalAddress("fe80::1%veth1") == LocalAddress("fe80::1")
    assert PrefixClaim("10.0.0.1").prefix == ip_network("10.0.0.1/32")


@pytest.mark.parametrize("address", ["239.1.2.3", "ff02::1", "255.255.255.255"])
def test_a_group_implies_broadcast(address: str) -> None:
    assert SocketClaim(address, 7) == SocketClaim(address, 7, broadcast=True)
    assert LocalAddress(address).group


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SocketClaim("10.0.0", 7), "not an address"),
        (lambda: SocketClaim("10.0.0.2", 0), "UDP port is 0; it can be 1 to 65535"),
        (lambda: SocketClaim("10.0.0.2", 65536), "UDP port"),
        (lambda: SocketClaim("10.0.0.2", 7, vlan=4095), "VLAN is 4095; it can be 1 to 4094"),
        (lambda: SocketClaim("10.0.0.2", 7, vlan=0), "VLAN 0 is none"),
        (lambda: PrefixClaim("10.0.0.1/8"), "host bits set"),
        (lambda: ProtocolClaim(256), "IP protocol"),
        (lambda: ProtocolClaim(17, family=5), "family is 4, 6 or None"),
        (lambda: EthertypeClaim(0x5FF), "ethertype"),
        (lambda: EthertypeClaim(0x8100), "VLAN tag"),
        (lambda: EverythingBut([SocketClaim("10.0.0.2", 7)]), "an exception is"),  # type: ignore[list-item]
        (lambda: EverythingBut([ProtocolClaim(1)], vlan=5), "not in the VLAN"),
        (lambda: Endpoint(6, 0), "port is 0"),
    ],
)
def test_what_cannot_be_claimed(make: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()  # type: ignore[operator]


def test_claiming_arp_names_it() -> None:
    assert EthertypeClaim(0x0806).include is Essential.ARP


# ---- layouts ----


def test_packed_entries_have_the_layout_of_the_structures() -> None:
    """Written by field into the C structure, the same bytes come out."""
    claim = SocketClaim("10.0.0.2", 7, vlan=5)
    key = ffi.new("struct xs_xdp_socket_key *")
    ffi.memmove(key.address, claim.address.packed, 4)
    ffi.memmove(ffi.addressof(key, "port"), b"\x00\x07", 2)
    key.domain = lib.XS_XDP_DOMAIN_VLAN | 5
    assert bytes(ffi.buffer(key)) == tables.socket_key(claim)

    prefix = ffi.new("struct xs_xdp_prefix_key *", {"prefix_length": 32 + 48, "domain": lib.XS_XDP_DOMAIN_IPV6})
    ffi.memmove(prefix.address, ip_address("fd00:1::").packed, 16)
    assert bytes(ffi.buffer(prefix)) == tables.prefix_key(ip_network("fd00:1::/48"), tables.domain(None, 6))

    value = ffi.new("struct xs_xdp_claim *", {"id": 9, "flags": 3})
    assert bytes(ffi.buffer(value)) == tables.claim_value(9, 3)

    sizes = {
        "xs_kept": ("xs_xdp_kept_key", "uint32_t"),
        "xs_local": ("xs_xdp_local_key", "uint32_t"),
        "xs_forward": ("xs_xdp_prefix_key", "xs_xdp_claim"),
        "xs_sockets": ("xs_xdp_socket_key", "xs_xdp_claim"),
        "xs_prefixes": ("xs_xdp_prefix_key", "xs_xdp_claim"),
        "xs_selectors": ("xs_xdp_selector_key", "xs_xdp_claim"),
        "xs_everything": ("uint32_t", "xs_xdp_claim"),
        "xs_shortcuts": ("uint32_t", "xs_xdp_shortcut"),
        "xs_ports": ("uint32_t", "xs_xdp_claim"),
        "xs_device": ("uint32_t", "xs_xdp_device"),
    }
    _, written = claimed(
        SocketClaim("0.0.0.0", 7),
        SocketClaim("10.0.0.2", 7),
        PrefixClaim("10.0.0.0/8"),
        ProtocolClaim(1),
        ForwardClaim(),
        EverythingBut(),
    )
    written_tables = {table for table, _ in written.entries}
    assert written_tables == sizes.keys() - {"xs_forward"}
    for (table, key_bytes), value_bytes in (written.entries | tables.forward_entries(ROUTES)).items():
        c_sizes = tuple(ffi.sizeof(each if each == "uint32_t" else f"struct {each}") for each in sizes[table])
        assert (len(key_bytes), len(value_bytes)) == c_sizes, table


# ---- changes ----


@pytest.mark.parametrize("vlan", [None, 5])
def test_while_all_claims_sleep_the_program_looks_for_none(vlan: int | None) -> None:
    assert claimed(SocketClaim("10.0.0.9", 7, vlan))[1].kinds == 0


def test_ids_are_never_used_again() -> None:
    claims, _ = claimed()
    first = claims.add(ProtocolClaim(1), SocketClaim("10.0.0.2", 7))
    claims.remove(ProtocolClaim(1))
    (again,) = claims.add(ProtocolClaim(1))
    assert first == (1, 2)
    assert again == 3
    assert claims.list() == {SocketClaim("10.0.0.2", 7): 2, ProtocolClaim(1): 3}


def test_a_claim_on_an_address_that_the_host_does_not_have_sleeps_until_it_has() -> None:
    claim = SocketClaim("10.0.0.9", 7)
    claims, written = claimed(claim)
    assert claims.asleep() == {claim}
    assert written.kinds == 0
    claims.set_local([LocalAddress("10.0.0.9")])
    assert claims.asleep() == frozenset()
    assert written.kinds == lib.XS_XDP_KIND_SOCKET
    claims.set_local([])
    assert written.kinds == 0
    assert not any(table == "xs_sockets" for table, _ in written.entries)


@pytest.mark.parametrize(
    "first, second",
    [
        (SocketClaim("10.0.0.2", 7), SocketClaim("10.0.0.2", 7)),
        (SocketClaim("10.0.0.2", 7), SocketClaim("10.0.0.2", 7, broadcast=True)),
        (ProtocolClaim(17), ProtocolClaim(17, family=6)),
        (PrefixClaim("10.0.0.0/8"), PrefixClaim("10.0.0.0/8", any_mac=True)),
        (EverythingBut(), EverythingBut([ProtocolClaim(1)])),
    ],
)
def test_frames_are_claimed_once(first: Claim, second: Claim) -> None:
    claims, written = claimed(first)
    before = dict(written.entries)
    with pytest.raises(ClaimTaken):
        claims.add(SocketClaim("10.0.0.2", 9), second)
    assert written.entries == before
    assert set(claims.list()) == {first}
    claims.replace([first], [second])
    assert set(claims.list()) == {second}


def test_wide_claims_wait_until_the_hosts_addresses_are_known() -> None:
    claims = Claims(Tables(), OWN_MAC, (SSH,))
    claims.add(SocketClaim("10.0.0.2", 7))
    with pytest.raises(ConfigurationError, match="too early"):
        claims.add(EverythingBut())


def test_removing_what_is_not_claimed() -> None:
    claims, written = claimed(ProtocolClaim(1))
    before = dict(written.entries)
    with pytest.raises(ConfigurationError, match="not claimed"):
        claims.remove(ProtocolClaim(1), ProtocolClaim(2))
    assert written.entries == before


def test_what_is_never_forwarded_has_the_last_word() -> None:
    routes = {ip_network("0.0.0.0/0"): True, ip_network("224.0.0.0/24"): True, ip_network("fe80::/64"): True}
    entries = tables.forward_entries(routes)
    lifting = {key for (_, key), value in entries.items() if struct.unpack("=II", value)[1] & tables.LIFT}
    assert lifting == {tables.prefix_key(ip_network("0.0.0.0/0"), 0)}


def test_adding_a_claim_among_many_writes_only_what_differs() -> None:
    claims, written = claimed(*(SocketClaim("10.0.0.2", port) for port in range(1000, 3000)))
    written.writes.clear()
    claims.add(SocketClaim("10.0.0.2", 7))
    assert [(what, table, len(keys)) for what, table, keys in written.writes] == [
        ("update", "xs_sockets", 1),
        ("update", "xs_shortcuts", 1),
        ("update", "xs_ports", 1),
    ]


def test_the_program_looks_for_a_claim_after_it_is_in_and_until_it_goes_out() -> None:
    claims, written = claimed()
    written.writes.clear()
    claim = EverythingBut([PrefixClaim("192.0.2.0/24"), Endpoint(6, 443)])
    claims.add(claim)
    assert [table for _, table, _ in written.writes] == ["xs_kept", "xs_prefixes", "xs_everything", "xs_device"]
    written.writes.clear()
    claims.remove(claim)
    assert [table for _, table, _ in written.writes] == ["xs_device", "xs_everything", "xs_prefixes", "xs_kept"]


@pytest.mark.parametrize(
    "endpoints, kinds",
    [
        ((), lib.XS_XDP_KIND_KEPT_TCP),  # SSH
        ((Endpoint(17, 53),), lib.XS_XDP_KIND_KEPT_TCP | lib.XS_XDP_KIND_KEPT_UDP),
        ((Endpoint(132, 7), Endpoint(17, 7)), lib.XS_XDP_KIND_KEPT),
    ],
)
def test_no_packet_is_looked_up_of_whose_protocol_no_port_is_kept(endpoints: tuple[Endpoint, ...], kinds: int) -> None:
    _, written = claimed(EverythingBut(endpoints))
    assert written.kinds & lib.XS_XDP_KIND_KEPT == kinds
    assert written.kinds & ~lib.XS_XDP_KIND_KEPT == lib.XS_XDP_KIND_EVERYTHING


def test_holes_in_what_is_forwarded_go_in_first_and_out_last() -> None:
    claims, written = claimed(ForwardClaim())
    everywhere, hole = ip_network("0.0.0.0/0"), ip_network("172.16.0.0/12")
    written.writes.clear()
    claims.set_forwardable({everywhere: True, hole: False})
    (_, _, first), (_, _, second) = written.writes
    assert tables.prefix_key(hole, 0) in first
    assert second == {tables.prefix_key(everywhere, 0)}
    written.writes.clear()
    claims.set_forwardable({})
    assert [keys for _, _, keys in written.writes] == [{tables.prefix_key(each, 0)} for each in (everywhere, hole)]


def test_tables_are_written_in_one_order() -> None:
    before = {"xs_kept", "xs_local", "xs_forward", "xs_sockets", "xs_prefixes", "xs_selectors", "xs_everything"}
    assert {table for table, _ in ORDER} == before | {"xs_shortcuts", "xs_ports", "xs_device"}


def test_one_address_of_each_port_and_one_of_the_host_need_no_hash() -> None:
    """The lowest with the port, whoever came first; and the first of the host's that a frame can be sent to."""
    claims, written = claimed()
    broadcast, group = LocalAddress("10.0.0.255", group=True), LocalAddress("239.1.2.3")
    claims.set_local(
        [broadcast, group, *(LocalAddress(each) for each in ("127.0.0.1", "fd00::2", "10.0.0.9", "10.0.0.2"))]
    )
    high = SocketClaim("10.0.0.9", 7)
    claims.add(high, SocketClaim("fd00::2", 7), SocketClaim("10.0.0.2", 7, vlan=5), SocketClaim("10.0.0.3", 7))
    place = "xs_shortcuts", tables.port_key(4, 7)
    assert written.entries[place] == high.address.packed + struct.pack("=I", 1)
    (low,) = claims.add(SocketClaim("10.0.0.2", 7))
    assert written.entries[place] == ip_address("10.0.0.2").packed + struct.pack("=I", low)
    (device,) = (value for (table, _), value in written.entries.items() if table == "xs_device")
    assert device[12:] == ip_address("10.0.0.9").packed
    claims.set_local([])
    assert place not in written.entries
    (device,) = (value for (table, _), value in written.entries.items() if table == "xs_device")
    assert device[12:] == bytes(4)


@given(st.lists(claims, max_size=8), st.lists(claims, max_size=8), st.integers(0, 12), st.integers(0, 2**32))
@settings(deadline=None)
def test_a_failed_change_changes_nothing(one: list[Claim], other: list[Claim], failure: int, seed: int) -> None:
    before, after = compatible(one), compatible(other)
    claims, written = claimed(*before)
    claims.set_forwardable(ROUTES)
    entries, held = dict(written.entries), dict(claims.list())
    written.fail_after = failure
    try:
        claims.replace([each for each in before if each not in after], [each for each in after if each not in before])
    except TableFull:
        assert written.entries == entries
        assert claims.list() == held
    written.fail_after = None
    # Whatever happened, the way to any state is open.
    claims.replace(list(claims.list()), random.Random(seed).sample(after, len(after)))
    assert written.entries.keys() == claimed(*after)[1].entries.keys() | tables.forward_entries(ROUTES).keys()


@given(st.lists(claims, max_size=8), st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=20))
@settings(deadline=None)
def test_any_way_to_the_same_claims_leads_to_the_same_tables(
    wanted: list[Claim], steps: list[tuple[bool, int]]
) -> None:
    goal = compatible(wanted)
    claims, written = claimed()
    for add, which in steps:
        if not goal:
            break
        claim = goal[which % len(goal)]
        if add and claim not in claims:
            claims.add(claim)
        elif not add and claim in claims:
            claims.remove(claim)
    claims.add(*(each for each in goal if each not in claims))
    assert without_ids(written.entries) == without_ids(claimed(*goal)[1].entries)
    claims.clear()
    assert written.entries == claimed()[1].entries


def test_the_hosts_addresses_may_come_before_or_after_socket_claims() -> None:
    goal = (
        SocketClaim("10.0.0.2", 7),
        SocketClaim("0.0.0.0", 7),
        SocketClaim("10.0.0.255", 7),
        SocketClaim("10.5.0.2", 7, 5),
    )
    written = Tables()
    claims = Claims(written, OWN_MAC, (SSH,))
    claims.add(*goal)
    claims.set_local(HOST)
    assert written.entries == claimed(*goal)[1].entries
