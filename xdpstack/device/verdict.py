"""What the XDP program does with a frame, in plain Python: the definition that bpf/ is held against, and for explaining.

A verdict is a cause, and for a lifted frame the claim. Claims are asked from the narrowest to the widest; the first that
lifts the frame wins. If none does, the cause is the first obstacle that was met: XS_XDP_PASS_* in
bpf/xdpstack_layout.cdef.h says what each means. What the kernel adds when it runs the program is not here: the dead-man
deadline before, the AF_XDP socket of the queue after.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from xdpstack.device.claim_tables import NEVER_FORWARDED
from xdpstack.device.claims import (
    ETHERTYPE_ARP,
    Claim,
    Endpoint,
    Essential,
    EthertypeClaim,
    EverythingBut,
    ForwardClaim,
    IPAddress,
    IPNetwork,
    LocalAddress,
    PrefixClaim,
    ProtocolClaim,
    SocketClaim,
    Vlan,
    is_group,
)
from xdpstack.native import lib

UDP, TCP, ICMPV6 = 17, 6, 58
#: Protocols with a destination port in their third and fourth byte: TCP, UDP, DCCP, SCTP, UDP-Lite.
WITH_PORTS = frozenset({6, 17, 33, 132, 136})
#: IPv6 extension headers: hop-by-hop options, routing, fragment, destination options. What is behind an authentication
#: header is the kernel's to authenticate, as in IPv4, where it is a protocol.
EXTENSIONS = frozenset({0, 43, 44, 60})
FRAGMENT = 44
#: Ethertypes of VLAN tags: 802.1Q, 802.1ad.
TAG, SERVICE_TAG = 0x8100, 0x88A8
#: ICMPv6 types of multicast listener discovery and neighbour discovery.
DISCOVERY = frozenset({*range(130, 138), 143})


class Cause(enum.IntEnum):
    """A verdict and what led to it; the program has one counter for each."""

    PASS_UNCLAIMED = lib.XS_XDP_PASS_UNCLAIMED
    PASS_DEADMAN = lib.XS_XDP_PASS_DEADMAN
    PASS_MALFORMED = lib.XS_XDP_PASS_MALFORMED
    PASS_VLAN = lib.XS_XDP_PASS_VLAN
    PASS_QINQ = lib.XS_XDP_PASS_QINQ
    PASS_NOT_OUR_MAC = lib.XS_XDP_PASS_NOT_OUR_MAC
    PASS_NOT_LOCAL = lib.XS_XDP_PASS_NOT_LOCAL
    PASS_FRAGMENT = lib.XS_XDP_PASS_FRAGMENT
    PASS_EXTHDR = lib.XS_XDP_PASS_EXTHDR
    PASS_ARP = lib.XS_XDP_PASS_ARP
    PASS_ND = lib.XS_XDP_PASS_ND
    PASS_SSH = lib.XS_XDP_PASS_SSH
    PASS_EXCEPTION = lib.XS_XDP_PASS_EXCEPTION
    PASS_NO_ROUTE = lib.XS_XDP_PASS_NO_ROUTE
    PASS_NO_SOCKET = lib.XS_XDP_PASS_NO_SOCKET
    PASS_NO_METADATA = lib.XS_XDP_PASS_NO_METADATA
    REDIRECT_SOCKET = lib.XS_XDP_REDIRECT_SOCKET
    REDIRECT_PREFIX = lib.XS_XDP_REDIRECT_PREFIX
    REDIRECT_PROTOCOL = lib.XS_XDP_REDIRECT_PROTOCOL
    REDIRECT_ETHERTYPE = lib.XS_XDP_REDIRECT_ETHERTYPE
    REDIRECT_FORWARD = lib.XS_XDP_REDIRECT_FORWARD
    REDIRECT_EVERYTHING = lib.XS_XDP_REDIRECT_EVERYTHING

    @property
    def lifted(self) -> bool:
        """Whether the frame leaves the kernel."""
        return self >= Cause.REDIRECT_SOCKET


@dataclass(frozen=True, slots=True)
class Rules:
    """All that a verdict depends on, besides the frame: what is given to a device's `Claims`."""

    mac: bytes
    claims: Collection[Claim] = ()
    local: Collection[LocalAddress] = ()
    forwardable: Mapping[IPNetwork, bool] = field(default_factory=dict)
    ssh: Collection[Endpoint] = ()


@dataclass(slots=True)
class View:
    """What is read of a frame. `destination`, `protocol` and `port` are None where there is none, or it cannot be seen."""

    own: bool
    group: bool
    vlan: Vlan | None
    ethertype: int
    destination: IPAddress | None = None
    protocol: int | None = None
    port: int | None = None
    fragment: bool = False
    discovery: bool = False
    obstacle: Cause | None = None


def decide(frame: bytes, rules: Rules) -> tuple[Cause, Claim | None]:
    """The verdict on a frame that came in on the device."""
    awake = [claim for claim in rules.claims if not isinstance(claim, SocketClaim) or _awake(claim, rules)]
    if not awake:
        return Cause.PASS_UNCLAIMED, None
    view = _view(frame, rules)
    if isinstance(view, Cause):
        return view, None
    obstacles = [] if view.obstacle is None else [view.obstacle]
    if view.fragment and view.protocol == UDP and any(isinstance(claim, SocketClaim) for claim in awake):
        obstacles.append(Cause.PASS_FRAGMENT)
    for match in (_socket, _prefix, _protocol, _ethertype, _forward, _everything):
        for verdict, claim in match(view, rules):
            if verdict.lifted:
                return verdict, claim
            obstacles.append(verdict)
    obstacles.append(_uncovered(view.vlan))
    return obstacles[0], None


def _uncovered(vlan: Vlan | None) -> Cause:
    if vlan is None:
        return Cause.PASS_UNCLAIMED
    return Cause.PASS_QINQ if isinstance(vlan, tuple) else Cause.PASS_VLAN


Matches = Iterator[tuple[Cause, Claim]]


def _socket(view: View, rules: Rules) -> Matches:
    if view.protocol != UDP or not view.port:
        return
    candidates = [
        claim
        for claim in rules.claims
        if isinstance(claim, SocketClaim)
        and (claim.port, claim.vlan) == (view.port, view.vlan)
        and _same_family(claim.address, view.destination)
        and (claim.wildcard or (claim.address == view.destination and _awake(claim, rules)))
    ]
    for claim in sorted(candidates, key=lambda claim: claim.wildcard):
        kind = _local_kind(view.destination, view.vlan, rules)
        if claim.wildcard and (kind is None or (kind == "group" and not claim.broadcast)):
            yield Cause.PASS_NOT_LOCAL, claim
        elif view.own or (view.group and (claim.broadcast or (not claim.wildcard and kind == "group"))):
            yield Cause.REDIRECT_SOCKET, claim
        else:
            yield Cause.PASS_NOT_OUR_MAC, claim


def _prefix(view: View, rules: Rules) -> Matches:
    matching = [
        claim
        for claim in rules.claims
        if isinstance(claim, PrefixClaim) and claim.vlan == view.vlan and _inside(view.destination, claim.prefix)
    ]
    for claim in sorted(matching, key=lambda claim: -claim.prefix.prefixlen)[:1]:
        yield _wide(view, rules, claim, claim.any_mac, claim.include) or Cause.REDIRECT_PREFIX, claim


def _protocol(view: View, rules: Rules) -> Matches:
    for claim in rules.claims:
        if isinstance(claim, ProtocolClaim) and claim.vlan == view.vlan and _is_protocol(view, claim):
            yield _wide(view, rules, claim, claim.any_mac, claim.include) or Cause.REDIRECT_PROTOCOL, claim


def _ethertype(view: View, rules: Rules) -> Matches:
    for claim in rules.claims:
        if isinstance(claim, EthertypeClaim) and (claim.ethertype, claim.vlan) == (view.ethertype, view.vlan):
            yield _wide(view, rules, claim, claim.any_mac, claim.include) or Cause.REDIRECT_ETHERTYPE, claim


def _forward(view: View, rules: Rules) -> Matches:
    local = _local_kind(view.destination, view.vlan, rules)
    for claim in rules.claims:
        if not isinstance(claim, ForwardClaim) or claim.vlan != view.vlan:
            continue
        if view.destination is None or not view.own or local is not None:
            continue
        routes = {**rules.forwardable, **dict.fromkeys(NEVER_FORWARDED, False)}
        holes = any(_inside(view.destination, hole) for hole in NEVER_FORWARDED)
        covering = [prefix for prefix in routes if _inside(view.destination, prefix)]
        route = max(covering, key=lambda prefix: prefix.prefixlen, default=None)
        if obstacle := _wide(view, rules, claim, False, Essential.NOTHING):
            yield obstacle, claim
        elif holes or route is None or not routes[route]:
            yield Cause.PASS_NO_ROUTE, claim
        else:
            yield Cause.REDIRECT_FORWARD, claim


def _everything(view: View, rules: Rules) -> Matches:
    for claim in rules.claims:
        if isinstance(claim, EverythingBut) and claim.vlan == view.vlan:
            if _excepted(view, rules, claim):
                yield Cause.PASS_EXCEPTION, claim
            else:
                yield _wide(view, rules, claim, claim.any_mac, claim.include) or Cause.REDIRECT_EVERYTHING, claim


def _wide(view: View, rules: Rules, claim: Claim, any_mac: bool, include: Essential) -> Cause | None:
    """What keeps a wide claim from lifting a frame that it covers, if anything."""
    if not (view.own or view.group or any_mac):
        return Cause.PASS_NOT_OUR_MAC
    if view.ethertype == ETHERTYPE_ARP and Essential.ARP not in include:
        return Cause.PASS_ARP
    if view.discovery and Essential.ND not in include:
        return Cause.PASS_ND
    if Essential.SSH not in include and _may_be(view, rules, rules.ssh):
        return Cause.PASS_SSH
    return None


def _excepted(view: View, rules: Rules, claim: EverythingBut) -> bool:
    if _may_be(view, rules, [each for each in claim.but if isinstance(each, Endpoint)]):
        return True
    return any(
        (isinstance(each, PrefixClaim) and _inside(view.destination, each.prefix))
        or (isinstance(each, ProtocolClaim) and _is_protocol(view, each))
        or (isinstance(each, EthertypeClaim) and each.ethertype == view.ethertype)
        for each in claim.but
    )


def _may_be(view: View, rules: Rules, endpoints: Collection[Endpoint]) -> bool:
    """Whether the frame is, or for all that it shows may be, to one of these ports of the host."""
    if _local_kind(view.destination, view.vlan, rules) is None:
        return False
    if view.protocol is None:
        return bool(rules.ssh) or any(isinstance(each, Endpoint) for each in _exceptions(rules))
    return any(each.protocol == view.protocol and (not view.port or each.port == view.port) for each in endpoints)


def _exceptions(rules: Rules) -> Iterator[object]:
    return (each for claim in rules.claims if isinstance(claim, EverythingBut) for each in claim.but)


def _is_protocol(view: View, claim: ProtocolClaim) -> bool:
    if view.destination is None or view.protocol is None:
        return False
    return claim.protocol == view.protocol and claim.family in (None, view.destination.version)


def _local_kind(address: IPAddress | None, vlan: Vlan | None, rules: Rules) -> str | None:
    groups = {each.group for each in rules.local if (each.address, each.vlan) == (address, vlan)}
    return None if not groups else "unicast" if False in groups else "group"


def _awake(claim: SocketClaim, rules: Rules) -> bool:
    known = _local_kind(claim.address, claim.vlan, rules) is not None
    return claim.wildcard or is_group(claim.address) or known


def _same_family(one: IPAddress, other: IPAddress | None) -> bool:
    return other is not None and one.version == other.version


def _inside(address: IPAddress | None, prefix: IPNetwork) -> bool:
    return address is not None and address.version == prefix.version and address in prefix


def _view(frame: bytes, rules: Rules) -> View | Cause:
    """Read the frame; or the cause to pass it without asking any claim."""
    if len(frame) < 14:
        return Cause.PASS_MALFORMED
    own, group = frame[:6] == rules.mac, bool(frame[0] & 1)
    if not own and not group and not any(getattr(claim, "any_mac", False) for claim in rules.claims):
        return Cause.PASS_NOT_OUR_MAC
    tags = _tags(frame)
    if isinstance(tags, Cause):
        return tags
    at, vlan = 14 + 4 * len(tags), _vlan(tags)
    ethertype = _be16(frame, at - 2)
    if isinstance(vlan, Cause):
        return vlan
    if vlan is not None and all(claim.vlan is None for claim in rules.claims):
        return _uncovered(vlan)
    view = View(own, group, vlan, ethertype)
    parse: Callable[[View, bytes], None] | None = {0x0800: _ipv4, 0x86DD: _ipv6}.get(ethertype)
    if parse is not None:
        parse(view, frame[at:])
    return view


def _tags(frame: bytes) -> list[tuple[int, int]] | Cause:
    """(ethertype, VLAN) of the tags that are looked at, outermost first: one, or two if the first is a service tag."""
    tags: list[tuple[int, int]] = []
    for kinds in ((SERVICE_TAG, TAG), (TAG,)):
        at = 12 + 4 * len(tags)
        if (tags and tags[0][0] != SERVICE_TAG) or _be16(frame, at) not in kinds:
            break
        if len(frame) < at + 6:
            return Cause.PASS_MALFORMED
        tags.append((_be16(frame, at), _be16(frame, at + 2) & 0xFFF))
    return Cause.PASS_QINQ if tags and _be16(frame, 12 + 4 * len(tags)) in (TAG, SERVICE_TAG) else tags


def _vlan(tags: list[tuple[int, int]]) -> Vlan | Cause | None:
    """The VLAN of what `_tags` has found. A tag with a priority alone is as none; one of two leaves both to the kernel."""
    match tags:
        case []:
            return None
        case [(kind, vlan)] if kind == TAG:
            return vlan or None
        case [(_, service), (_, vlan)] if service and vlan:
            return service, vlan
    return Cause.PASS_QINQ


def _ipv4(view: View, packet: bytes) -> None:
    """RFC 791."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[0] & 15 < 5:
        view.obstacle = Cause.PASS_MALFORMED
        return
    view.destination = IPv4Address(packet[16:20])
    view.protocol = packet[9]
    view.fragment = bool(_be16(packet, 6) & 0x3FFF)
    if not view.fragment:
        header = 4 * (packet[0] & 15)
        _transport(view, packet[header:], _be16(packet, 2) - header)


def _ipv6(view: View, packet: bytes) -> None:
    """RFC 8200."""
    if len(packet) < 40 or packet[0] >> 4 != 6:
        view.obstacle = Cause.PASS_MALFORMED
        return
    view.destination = IPv6Address(packet[24:40])
    following, room, rest = packet[6], _be16(packet, 4), packet[40:]
    for _ in range(lib.XS_XDP_EXTHDR_MAX):
        if following not in EXTENSIONS:
            break
        if len(rest) < 8:
            view.obstacle = Cause.PASS_MALFORMED
            return
        if following == FRAGMENT:
            view.fragment = True
            view.protocol = rest[0] if rest[0] not in EXTENSIONS else None
            return
        length = 8 + rest[1] * 8
        following, room, rest = rest[0], room - length, rest[length:]
    if following in EXTENSIONS:
        view.obstacle = Cause.PASS_EXTHDR
        return
    view.protocol = following
    _transport(view, rest, room)


def _transport(view: View, header: bytes, room: int) -> None:
    discovery = view.protocol == ICMPV6 and isinstance(view.destination, IPv6Address)
    if not discovery and view.protocol not in WITH_PORTS:
        return
    if len(header) < 8 or room < 8:
        view.obstacle = Cause.PASS_MALFORMED
        view.discovery = discovery
    elif discovery:
        view.discovery = header[0] in DISCOVERY
    else:
        view.port = _be16(header, 2)


def _be16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")
