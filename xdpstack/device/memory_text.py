"""Addresses, routes, rules and neighbours of a host made by hand, in the words of iproute2.

    "10.0.0.1/24"                                       address
    "default via 10.0.0.254 dev a0 metric 10"           route
    "blackhole 192.0.2.0/24"
    "10.9.0.0/16 nexthop via 10.0.0.2 dev a0 nexthop via 10.0.1.2 dev b0 weight 2"
    "from 10.1.0.0/16 fwmark 0x1/0xff lookup 100 pref 1000"     rule; IPv6 where a prefix says so, or with a leading -6
    "10.0.0.2 dev a0 lladdr 02:00:00:00:00:02 nud stale"        neighbour

Every function takes the text and `devices`, interface indices by name, and raises ConfigurationError with the line, the
word that does not fit, and what would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from xdpstack.errors import ConfigurationError
from xdpstack.netlink import Address, Hop, Neighbour, Prefix, Range, Route, Rule, packed
from xdpstack.netlink.ip import packed_mac
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FR_ACT_GOTO,
    NEIGHBOUR_STATES,
    NUD_FAILED,
    NUD_PERMANENT,
    ROUTE_TYPES,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_SITE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_DEFAULT,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    RULE_ACTIONS,
)

TABLES = {"main": RT_TABLE_MAIN, "local": RT_TABLE_LOCAL, "default": RT_TABLE_DEFAULT}
SCOPES = {"global": RT_SCOPE_UNIVERSE, "site": RT_SCOPE_SITE, "link": RT_SCOPE_LINK, "host": RT_SCOPE_HOST}
STATES = {name: number for number, name in NEIGHBOUR_STATES.items()}
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
ACTIONS = {name: number for number, name in RULE_ACTIONS.items() if name not in ("lookup", "goto")}

ROUTE_WORDS = ("via", "dev", "src", "from", "metric", "table", "scope", "tos", "mtu", "onlink", "nexthop", "proto")
RULE_WORDS = (
    *("not", "from", "to", "iif", "oif", "fwmark", "tos", "ipproto", "sport", "dport", "pref", "lookup", "goto"),
    *("suppress_prefixlength", *ACTIONS),
)

Value = TypeVar("Value")


class _Words:
    """The words of one line, taken one after the other."""

    def __init__(self, kind: str, line: str, devices: Mapping[str, int]) -> None:
        self.kind = kind
        self.line = line
        self.devices = devices
        self.left = line.split()

    def fail(self, why: str, fix: str = "") -> NoReturn:
        raise ConfigurationError(f"{self.kind} {self.line!r}: {why}", fix=fix)

    def peek(self) -> str:
        return self.left[0] if self.left else ""

    def word(self, what: str) -> str:
        if not self.left:
            self.fail(f"{what} is missing")
        return self.left.pop(0)

    def parse(self, what: str, convert: Callable[[str], Value]) -> Value:
        """The next word, converted; what `convert` raises as ValueError or KeyError is said of the word."""
        word = self.word(what)
        try:
            return convert(word)
        except (ValueError, KeyError):
            self.fail(f"{word!r} is no {what}")

    def one_of(self, what: str, names: Mapping[str, int]) -> int:
        """The next word as one of `names`, or as a number."""
        word = self.word(what)
        if word in names:
            return names[word]
        try:
            return int(word, 0)
        except ValueError:
            self.fail(f"{word!r} is no {what}", f"A number, or one of: {', '.join(names)}.")

    def number(self, what: str) -> int:
        return self.parse(what, lambda word: int(word, 0))

    def address(self, what: str) -> bytes:
        return self.parse(what, packed)

    def device(self) -> int:
        name = self.word("device")
        if name not in self.devices:
            self.fail(f"there is no device {name!r}", f"One of: {', '.join(self.devices)}.")
        return self.devices[name]

    def unknown(self, word: str, known: tuple[str, ...]) -> NoReturn:
        self.fail(f"{word!r} is not understood here", f"One of: {', '.join(known)}.")


def address(line: str, device: str, devices: Mapping[str, int]) -> Address:
    """`10.0.0.1/24`, then any of `peer ADDRESS`, `brd ADDRESS` (or `brd +`) and `scope SCOPE`."""
    words = _Words("address", line, devices)
    own = words.word("address")
    peer, broadcast, scope = "", "", None
    if device not in devices:
        words.fail(f"there is no device {device!r}", f"One of: {', '.join(devices)}.")
    while words.left:
        match words.word("word"):
            case "peer":
                peer = words.word("peer")
            case "brd" | "broadcast":
                broadcast = words.word("broadcast address")
            case "scope":
                scope = words.one_of("scope", SCOPES)
            case other:
                words.unknown(other, ("peer", "brd", "scope"))
    try:
        return Address.parse(own, devices[device], peer=peer, broadcast=broadcast, scope=scope)
    except ValueError as error:
        words.fail(str(error))


def route(line: str, devices: Mapping[str, int]) -> Route:
    """A route as `ip route` prints it. It is IPv6 where an address in it is; for a default without any, say `::/0`."""
    words = _Words("route", line, devices)
    kind = RTN_UNICAST
    if words.peek() in ROUTE_TYPES:
        kind = ROUTE_TYPES.index(words.left.pop(0))
    destination = words.word("destination")
    hops: list[Hop] = []
    hop = _hop(words)
    source: Prefix | None = None
    numbers: dict[str, Any] = {}
    prefsrc = b""
    while words.left:
        match words.word("word"):
            case "src":
                prefsrc = words.address("source address")
            case "from":
                source = words.parse("prefix", _prefix)
            case "metric" | "preference":
                numbers["priority"] = words.number("metric")
            case "table":
                numbers["table"] = words.one_of("table", TABLES)
            case "scope":
                numbers["scope"] = words.one_of("scope", SCOPES)
            case "tos" | "dsfield":
                numbers["tos"] = words.number("tos")
            case "mtu":
                numbers["mtu"] = words.number("mtu")
            case "proto":
                words.word("protocol")
            case "nexthop":
                hops.append(_hop(words))
            case other if other in ("via", "dev", "onlink", "weight"):
                words.left.insert(0, other)
                hop = _hop(words, hop)
            case other:
                words.unknown(other, ROUTE_WORDS)
    if hop != Hop():
        hops.insert(0, hop)
    family = AF_INET
    if any(len(a) == 16 for a in (prefsrc, source.address if source else b"", *(h.gateway for h in hops))):
        family = AF_INET6
    try:
        prefix = Prefix.parse(destination, family)
        if prefix.family == AF_INET6 and "scope" in numbers:
            del numbers["scope"]  # IPv6 routes have none
        return Route.make(prefix, hops=tuple(hops), type=kind, prefsrc=prefsrc, source=source, **numbers)
    except ValueError as error:
        words.fail(str(error))


def _hop(words: _Words, hop: Hop | None = None) -> Hop:
    """What follows of `via`, `dev`, `onlink` and `weight`."""
    hop = hop or Hop()
    gateway, oif, flags, weight = hop.gateway, hop.oif, hop.flags, hop.weight
    while words.peek() in ("via", "dev", "onlink", "weight"):
        match words.word("word"):
            case "via":
                if words.peek() in ("inet", "inet6"):
                    words.word("family")
                gateway = words.address("gateway")
            case "dev":
                oif = words.device()
            case "onlink":
                flags |= RTNH_F_ONLINK
            case "weight":
                weight = words.number("weight")
    return Hop(oif, gateway, weight, flags)


def rule(line: str, devices: Mapping[str, int]) -> Rule:
    """A rule as `ip rule` prints it, with or without the leading priority (`100:`)."""
    words = _Words("rule", line, devices)
    family = AF_INET
    given: dict[str, Any] = {}
    if words.peek() == "-6":
        words.word("family")
        family = AF_INET6
    if words.peek().endswith(":") and words.peek()[:-1].isdecimal():
        given["priority"] = int(words.word("priority")[:-1])
    while words.left:
        match words.word("word"):
            case "not":
                given["invert"] = True
            case ("from" | "to") as which:
                if words.peek() in ("all", "any"):
                    words.word("prefix")
                    continue
                prefix = words.parse("prefix", _prefix)
                given["source" if which == "from" else "destination"] = prefix
                family = prefix.family
            case ("iif" | "oif") as which:
                given[which] = words.word("device")  # it need not be there: rules wait for their devices
            case "fwmark":
                mark, _, mask = words.word("mark").partition("/")
                try:
                    given.update(mark=int(mark, 0), mark_mask=int(mask, 0) if mask else 0xFFFFFFFF)
                except ValueError:
                    words.fail(f"{mark!r} is no mark", "MARK or MARK/MASK, as 0x1/0xff.")
            case "tos" | "dsfield":
                given["tos"] = words.number("tos")
            case "ipproto":
                given["ip_protocol"] = words.one_of("protocol", PROTOCOLS)
            case "sport":
                given["source_ports"] = words.parse("range of ports", _ports)
            case "dport":
                given["destination_ports"] = words.parse("range of ports", _ports)
            case "pref" | "priority" | "prio" | "order":
                given["priority"] = words.number("priority")
            case "lookup" | "table":
                given["table"] = words.one_of("table", TABLES)
            case "goto":
                given.update(action=FR_ACT_GOTO, goto=words.number("priority"))
            case "suppress_prefixlength":
                given["suppress_prefix_length"] = words.number("prefix length")
            case action if action in ACTIONS:
                given["action"] = ACTIONS[action]
            case other:
                words.unknown(other, RULE_WORDS)
    if "table" not in given and "action" not in given:
        words.fail("what to do is missing", f"lookup TABLE, goto PRIORITY, or one of: {', '.join(ACTIONS)}.")
    return Rule(family, **given)


def neighbour(line: str, devices: Mapping[str, int]) -> Neighbour:
    """A neighbour as `ip neigh` prints it. With `lladdr` and no state it is permanent, with neither it has failed."""
    words = _Words("neighbour", line, devices)
    own = words.address("address")
    index, mac, state, router = 0, b"", 0, False
    while words.left:
        match words.word("word"):
            case "dev":
                index = words.device()
            case "lladdr":
                mac = words.parse("MAC address", _mac)
            case "nud":
                state = words.parse("state", lambda word: STATES[word.lower()])
            case "router":
                router = True
            case other if other.lower() in STATES:
                state = STATES[other.lower()]
            case other:
                words.unknown(other, ("dev", "lladdr", "router", "nud", *STATES))
    if not index:
        words.fail("the device is missing", "Say it as: dev NAME.")
    return Neighbour(index, own, mac, state or (NUD_PERMANENT if mac else NUD_FAILED), 0x80 if router else 0)


def _prefix(word: str) -> Prefix:
    return Prefix.parse(word)


def _mac(word: str) -> bytes:
    mac = packed_mac(word)
    if len(mac) != 6:
        raise ValueError(word)
    return mac


def _ports(word: str) -> Range:
    first, _, last = word.partition("-")
    return Range(int(first), int(last or first))
