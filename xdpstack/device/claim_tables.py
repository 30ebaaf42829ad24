"""Claims to the entries of the XDP program's tables: values in, values out.

The layouts are those of bpf/xdpstack_layout.cdef.h. Entries come in units that are made alone, so that a change of one claim
costs the work of its unit: one per UDP port, one for all wide claims, one for the local addresses, one for the routes.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_network
from socket import IPPROTO_TCP, IPPROTO_UDP

from xdpstack.device.claims import (
    Endpoint,
    Essential,
    EthertypeClaim,
    EverythingBut,
    ForwardClaim,
    IPAddress,
    IPNetwork,
    PrefixClaim,
    ProtocolClaim,
    SocketClaim,
    Vlan,
    WideClaim,
    is_group,
    vlan_number,
)
from xdpstack.errors import ClaimTaken
from xdpstack.native import lib

#: (table, key) -> value, all as the kernel stores them.
Entries = dict[tuple[str, bytes], bytes]
#: The host's own addresses: (address, VLAN) -> whether it is a broadcast or multicast address.
Local = Mapping[tuple[IPAddress, Vlan | None], bool]

LIFT: int = lib.XS_XDP_CLAIM_LIFT
EXCEPT: int = lib.XS_XDP_CLAIM_EXCEPT
#: Key of a table of one.
_ONLY = struct.pack("=I", 0)
#: Key into xs_selectors that xs_everything has the place of: everything, in no VLAN.
_UNTAGGED = struct.pack("=IHH", 0, lib.XS_XDP_SELECT_EVERYTHING, 0)
_NAMED = {
    Essential.ARP: lib.XS_XDP_CLAIM_ARP,
    Essential.ND: lib.XS_XDP_CLAIM_ND,
    Essential.SSH: lib.XS_XDP_CLAIM_SSH,
}

#: Not forwarded, whatever the routes say: this network, loopback, multicast, limited broadcast, link-local IPv6.
NEVER_FORWARDED: tuple[IPNetwork, ...] = tuple(
    ip_network(prefix)
    for prefix in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255", "::", "::1", "fe80::/10", "ff00::/8")
)


def port_entries(claims: Mapping[SocketClaim, int], local: Local) -> Entries:
    """The entries of all socket claims on one UDP port of one address family; claims that sleep have none.

    `claims` maps to claim ids. Raises ClaimTaken when two claims differ in nothing but `broadcast`.
    """
    entries: Entries = {}
    owners: dict[tuple[IPAddress, Vlan | None], SocketClaim] = {}
    near: list[tuple[bytes, int]] = []
    anywhere = port_flags = 0
    for claim, claim_id in claims.items():
        owner = owners.setdefault((claim.address, claim.vlan), claim)
        if owner is not claim:
            raise ClaimTaken(
                f"{claim} has the address and port of {owner}",
                "A frame has one receiver in the program.",
                "Close the other one first, or take another address or port.",
            )
        if not awake(claim, local):
            continue
        flags = LIFT
        if claim.broadcast or local.get((claim.address, claim.vlan)):
            flags |= lib.XS_XDP_CLAIM_GROUP
        if claim.wildcard and claim.vlan is None:
            anywhere = claim_id
            port_flags |= flags
        else:
            flags |= 0 if claim.wildcard else lib.XS_XDP_CLAIM_EXACT
            entries["xs_sockets", socket_key(claim)] = claim_value(claim_id, flags)
            port_flags |= lib.XS_XDP_CLAIM_EXACT
            if claim.address.version == 4 and claim.vlan is None:
                near.append((claim.address.packed, claim_id))
    if port_flags:
        claim = next(iter(claims))
        key = port_key(claim.address.version, claim.port)
        entries["xs_ports", key] = claim_value(anywhere, port_flags)
        if near:
            entries["xs_shortcuts", key] = struct.pack("=4sI", *min(near))
    return entries


def awake(claim: SocketClaim, local: Local) -> bool:
    """Whether the host has the address. A group need not be joined for this: who names one means it."""
    return claim.wildcard or is_group(claim.address) or (claim.address, claim.vlan) in local


def local_entries(local: Local) -> Entries:
    """The host's addresses."""
    entries: Entries = {}
    for (address, vlan), group in local.items():
        key = struct.pack("=16sI", _padded(address), domain(vlan, address.version))
        entries["xs_local", key] = struct.pack("=I", lib.XS_XDP_LOCAL_GROUP if group else lib.XS_XDP_LOCAL_UNICAST)
    return entries


def forward_entries(forwardable: Mapping[IPNetwork, bool]) -> Entries:
    """Where forwarding may lift, by the longest matching prefix; what is never forwarded has the last word."""
    routes = {
        prefix: lift
        for prefix, lift in forwardable.items()
        if not any(_covers(hole, prefix) for hole in NEVER_FORWARDED)
    }
    routes |= dict.fromkeys(NEVER_FORWARDED, False)
    return {
        ("xs_forward", prefix_key(prefix, domain(None, prefix.version))): claim_value(0, LIFT if lift else 0)
        for prefix, lift in routes.items()
    }


def wide_entries(claims: Mapping[WideClaim, int], ssh: Collection[Endpoint]) -> Entries:
    """The entries of all wide claims and of what they leave alone. Raises ClaimTaken for two claims on the same frames."""
    prefixes: dict[int, dict[IPNetwork, tuple[int, int]]] = {}
    excepted: dict[int, set[IPNetwork]] = {}
    selectors: dict[bytes, tuple[int, int]] = {}
    kept: dict[tuple[int, Endpoint], int] = {}
    owners: dict[object, WideClaim] = {}

    def own(place: object, claim: WideClaim) -> None:
        owner = owners.setdefault(place, claim)
        if owner is not claim:
            raise ClaimTaken(
                f"{claim} covers frames that are claimed already: {owner}",
                "A frame has one receiver in the program, and both claims are as narrow.",
                "Close the other receiver first, or claim something narrower or wider.",
            )

    for claim, claim_id in claims.items():
        value = (claim_id, _flags(claim))
        if isinstance(claim, PrefixClaim):
            where = domain(claim.vlan, claim.prefix.version)
            own((where, claim.prefix), claim)
            prefixes.setdefault(where, {})[claim.prefix] = value
        else:
            for key in selector_keys(claim):
                own(key, claim)
                selectors[key] = value
        for endpoint in ssh:
            kept[domain(claim.vlan), endpoint] = kept.get((domain(claim.vlan), endpoint), 0) | lib.XS_XDP_KEPT_SSH
    for claim in claims:
        for exception in claim.but if isinstance(claim, EverythingBut) else ():
            if isinstance(exception, Endpoint):
                place = domain(claim.vlan), exception
                kept[place] = kept.get(place, 0) | lib.XS_XDP_KEPT_EXCEPT
            elif isinstance(exception, PrefixClaim):
                excepted.setdefault(domain(claim.vlan, exception.prefix.version), set()).add(exception.prefix)
            else:
                for key in selector_keys(exception):
                    claim_id, flags = selectors.get(key, (0, 0))
                    selectors[key] = claim_id, flags | EXCEPT

    entries: Entries = {
        ("xs_everything", _ONLY) if key == _UNTAGGED else ("xs_selectors", key): claim_value(*value)
        for key, value in selectors.items()
    }
    for where in prefixes.keys() | excepted.keys():
        for prefix, value in _flattened(prefixes.get(where, {}), excepted.get(where, set())):
            entries["xs_prefixes", prefix_key(prefix, where)] = claim_value(*value)
    for (where, endpoint), why in kept.items():
        for port in (endpoint.port, 0):  # 0: a fragment, which may be of this port
            key = struct.pack("=I2sH", where, port.to_bytes(2, "big"), endpoint.protocol)
            before = entries.get(("xs_kept", key), bytes(4))
            entries["xs_kept", key] = struct.pack("=I", why | struct.unpack("=I", before)[0])
    return entries


def kinds_of(entries: Entries, wide: Collection[WideClaim], sockets: bool, tagged: bool) -> int:
    """XS_XDP_KIND_*: what the program has to look for.

    `entries` are those of the `wide` claims; `sockets`: some socket claim is awake; `tagged`: some claim names a VLAN.
    """
    tables = {table for table, _ in entries}
    numbers = {struct.unpack("=IHH", key)[1] for table, key in entries if table == "xs_selectors"}
    kept = {struct.unpack("=IHH", key)[2] for table, key in entries if table == "xs_kept"}
    kinds = {
        lib.XS_XDP_KIND_SOCKET: sockets,
        lib.XS_XDP_KIND_PREFIX: "xs_prefixes" in tables,
        lib.XS_XDP_KIND_PROTOCOL: any(number <= 0xFF for number in numbers),
        lib.XS_XDP_KIND_ETHERTYPE: any(number >= 0x600 for number in numbers),
        lib.XS_XDP_KIND_FORWARD: lib.XS_XDP_SELECT_FORWARD in numbers,
        lib.XS_XDP_KIND_EVERYTHING: lib.XS_XDP_SELECT_EVERYTHING in numbers or "xs_everything" in tables,
        lib.XS_XDP_KIND_VLAN: tagged and (sockets or bool(wide)),
        lib.XS_XDP_KIND_ANY_MAC: any(not isinstance(claim, ForwardClaim) and claim.any_mac for claim in wide),
        lib.XS_XDP_KIND_KEPT_TCP: IPPROTO_TCP in kept,
        lib.XS_XDP_KIND_KEPT_UDP: IPPROTO_UDP in kept,
        lib.XS_XDP_KIND_KEPT_OTHER: not kept <= {IPPROTO_TCP, IPPROTO_UDP},
    }
    return sum(kind for kind, present in kinds.items() if present)


def device_entry(mac: bytes, kinds: int, local: Local) -> Entries:
    """The one entry of xs_device. The program compares MACs as two integers that it loads from the frame.

    Of the host's addresses it has the first that frames for the host are likely to be sent to: it needs no look-up.
    """
    number = int.from_bytes(mac[:4], sys.byteorder) | int.from_bytes(mac[4:], sys.byteorder) << 32
    homes = (
        address.packed
        for (address, vlan), group in local.items()
        if address.version == 4 and vlan is None and not group and not address.is_loopback
    )
    return {("xs_device", _ONLY): struct.pack("=QI4s", number, kinds, next(homes, bytes(4)))}


def domain(vlan: Vlan | None, version: int = 4) -> int:
    """The VLAN and the address family in one number."""
    tag = 0 if vlan is None else lib.XS_XDP_DOMAIN_VLAN | vlan_number(vlan)
    return int(tag | (lib.XS_XDP_DOMAIN_IPV6 if version == 6 else 0))


def port_key(version: int, port: int) -> bytes:
    """Index into xs_ports."""
    return struct.pack("=I", port + (lib.XS_XDP_PORTS_IPV6 if version == 6 else 0))


def socket_key(claim: SocketClaim) -> bytes:
    """Key into xs_sockets."""
    where = domain(claim.vlan, claim.address.version)
    return struct.pack("=16sI2sH", _padded(claim.address), where, claim.port.to_bytes(2, "big"), 0)


def prefix_key(prefix: IPNetwork, where: int) -> bytes:
    """Key into xs_prefixes and xs_forward."""
    length = lib.XS_XDP_PREFIX_FIXED + prefix.prefixlen
    return struct.pack("=II16s", length, where, _padded(prefix.network_address))


def selector_keys(claim: ProtocolClaim | EthertypeClaim | ForwardClaim | EverythingBut) -> list[bytes]:
    """Keys into xs_selectors."""
    if isinstance(claim, ProtocolClaim):
        versions = (4, 6) if claim.family is None else (claim.family,)
        return [struct.pack("=IHH", domain(claim.vlan, version), claim.protocol, 0) for version in versions]
    if isinstance(claim, EthertypeClaim):
        number = claim.ethertype
    else:
        number = lib.XS_XDP_SELECT_FORWARD if isinstance(claim, ForwardClaim) else lib.XS_XDP_SELECT_EVERYTHING
    return [struct.pack("=IHH", domain(claim.vlan), number, 0)]


def claim_value(claim_id: int, flags: int) -> bytes:
    """A struct xs_xdp_claim."""
    return struct.pack("=II", claim_id, flags)


def _flags(claim: WideClaim) -> int:
    if isinstance(claim, ForwardClaim):
        return LIFT
    named = sum(flag for essential, flag in _NAMED.items() if essential in claim.include)
    return int(LIFT | named | (lib.XS_XDP_CLAIM_ANY_MAC if claim.any_mac else 0))


def _flattened(
    claimed: Mapping[IPNetwork, tuple[int, int]], excepted: Collection[IPNetwork]
) -> Iterator[tuple[IPNetwork, tuple[int, int]]]:
    """Each prefix with all that holds for it: a trie finds the longest only, so a longer one repeats what covers it."""
    prefixes = claimed.keys() | set(excepted)
    lengths = sorted({prefix.prefixlen for prefix in prefixes}, reverse=True)
    for prefix in prefixes:
        above = [prefix.supernet(new_prefix=length) for length in lengths if length <= prefix.prefixlen]
        claim_id, flags = next((claimed[each] for each in above if each in claimed), (0, 0))
        yield prefix, (claim_id, flags | (EXCEPT if any(each in excepted for each in above) else 0))


def _covers(outer: IPNetwork, inner: IPNetwork) -> bool:
    if outer.version != inner.version or outer.prefixlen > inner.prefixlen:
        return False
    differing = int(outer.network_address) ^ int(inner.network_address)
    return differing >> (outer.max_prefixlen - outer.prefixlen) == 0


def _padded(address: IPAddress) -> bytes:
    return address.packed.ljust(16, b"\0")
