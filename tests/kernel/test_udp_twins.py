"""Whole hosts against each other: random sockets, random frames, and each socket must get the same on Linux and on us.

The frames are malformed at every layer (ip_corpus.py, ip_mixed.py; below VLAN tags, UDP lengths and checksums,
fragments), the sockets bound in all ways to any address, connected, bound to devices; so are the switches of the devices.
See twins.py.
"""

import random
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel import effort, ip_corpus, ip_mixed
from tests.kernel.twins import DEVICES, FIRST_INDEX, MACS, SWITCHES, Twins, Wanted, on_one_cpu
from tests.stages.packets import (
    BROADCAST,
    DSTOPTS,
    FRAGMENT,
    HOPOPTS,
    HOST,
    OTHER,
    UDP,
    csum,
    ethernet,
    fragment_header,
    ipv4,
    ipv6,
    options_header,
    udp,
)
from xdpstack.netlink import packed
from xdpstack.udp.options import IP_MULTICAST_ALL, IPV6_MULTICAST_ALL

pytestmark = pytest.mark.root

PORTS = (7, 53)
OWN4 = ["10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.1.2", "10.9.9.9"]
OWN6 = ["fd00::2", "fd00::2", "fd00::3", "fd00:1::2", "fd09::9", "fe80::2"]
MANY4 = ["10.0.0.255", "10.0.1.255", "255.255.255.255", "224.0.0.9", "239.1.2.3", "224.0.0.1", "239.9.9.9", "10.0.0.0"]
MANY6 = ["ff05::9", "ff02::9", "ff02::1", "ff05::77"]
ELSE4 = ["10.0.0.77", "127.0.0.1", "0.0.0.0", "240.0.0.1", "192.0.2.1", "0.0.0.5", "127.255.255.255"]
ELSE6 = ["fd00::77", "::1", "::", "::ffff:10.0.0.2", "2001:db8::1", "fd00::", "ff01::1", "ff00::1", "::10.0.0.2"]
FROM4 = [
    "10.0.0.1",
    "10.0.0.1",
    "10.0.0.8",
    "10.0.1.1",
    "10.0.0.2",
    "192.0.2.1",
    "127.0.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "10.0.0.255",
    "240.0.0.1",
    "0.0.0.5",
]
FROM6 = ["fd00::1", "fd00::1", "fd00::8", "fd00:1::1", "fe80::1", "fd00::2", "2001:db8::1", "::", "::1", "ff02::1"]
FROM_PORTS = (1000, 1000, 1001, 0)
#: Those of MANY that no device has joined by itself, and two that one has: sockets join them.
JOIN4 = ["239.9.9.9", "239.9.9.9", "224.0.0.9", "239.1.2.3"]
JOIN6 = ["ff05::77", "ff05::77", "ff05::9", "ff02::9"]
IP, IP6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
CHUNK = 150


@pytest.fixture(scope="module")
def twins() -> Iterator[Twins]:
    with on_one_cpu():
        made = Twins()
        try:
            yield made
        finally:
            made.close()


# ---- sockets ----


def scoped(address: str, rng: random.Random, port: int) -> tuple[Any, ...]:
    needs = address.startswith(("fe80", "ff02"))
    index = rng.choice((FIRST_INDEX, FIRST_INDEX, FIRST_INDEX + 1, 0)) if needs or rng.random() < 0.05 else 0
    return address, port, 0, index


def wanted(rng: random.Random) -> Wanted:
    family = rng.choice((4, 6))
    port = rng.choice(PORTS)
    mapped = family == 6 and rng.random() < 0.25
    carried4 = family == 4 or mapped
    roll = rng.random()
    if roll < 0.4:
        host = "0.0.0.0" if carried4 else "::"
    elif roll < 0.85:
        host = rng.choice(OWN4 if carried4 else OWN6)
    elif roll < 0.97:
        host = rng.choice(MANY4 if carried4 else MANY6)
    else:
        host = rng.choice(ELSE4 if carried4 else ELSE6)
    if family == 4:
        address: tuple[Any, ...] = (host, port)
    else:
        address = scoped(f"::ffff:{host}" if mapped else host, rng, port)
    return Wanted(
        family,
        address,
        device=rng.choice((None, None, None, *DEVICES)),
        v6only=family == 6 and rng.random() < 0.3,
        reuse=rng.random() < 0.95,
        no_check6_rx=family == 6 and rng.random() < 0.3,
        peer=peer(rng, address) if rng.random() < 0.35 else None,
        options=tuple(memberships(rng, family)),
        broadcast=rng.random() < 0.7,
    )


def peer(rng: random.Random, address: tuple[Any, ...]) -> tuple[Any, ...]:
    """Whom a socket bound to `address` may be connected to."""
    host, is4 = address[0], len(address) == 2
    to4 = "." in host or (host == "::" and rng.random() < 0.3)
    roll = rng.random()
    if roll < 0.9:
        there = rng.choice(
            ["10.0.0.1", "10.0.0.8", "10.0.1.1"] if to4 else ["fd00::1", "fd00::8", "fd00:1::1", "fe80::1"]
        )
    else:
        there = rng.choice([*OWN4, *MANY4, *ELSE4] if to4 else [*OWN6, *MANY6, "fd00::77", "::1", "::", "2001:db8::1"])
    port = rng.choice((1000, 1000, 1000, 1001, 0))
    return (there, port) if is4 else scoped(f"::ffff:{there}" if to4 else there, rng, port)


def connects(rng: random.Random, sockets: list[Wanted]) -> list[tuple[int, tuple[Any, ...]]]:
    """Some are connected, or connected again, when all are there."""
    many = rng.choice((0, 0, 2, 4, 8))
    chosen = [rng.randrange(len(sockets)) for _ in range(many)]
    return [(at, peer(rng, sockets[at].address)) for at in chosen]


def memberships(rng: random.Random, family: int) -> Iterator[tuple[int, int, Any]]:
    """Groups joined, by every way to name the device; some left again, some not joined before; only these, or others too."""
    while rng.random() < 0.3:
        index = rng.choice((FIRST_INDEX, FIRST_INDEX, FIRST_INDEX + 1, 0, 999))
        if family == 4 or rng.random() < 0.5:
            group = packed(rng.choice(JOIN4 if rng.random() < 0.95 else ELSE4))
            own = packed(rng.choice(("0.0.0.0", "0.0.0.0", *OWN4)))
            value = group + own + (struct.pack("=i", index) if rng.random() < 0.7 else b"")
            yield IP, socket.IP_ADD_MEMBERSHIP if rng.random() < 0.8 else socket.IP_DROP_MEMBERSHIP, value
        else:
            value = packed(rng.choice(JOIN6 if rng.random() < 0.95 else ELSE6)) + struct.pack("=I", index)
            yield IP6, socket.IPV6_JOIN_GROUP if rng.random() < 0.8 else socket.IPV6_LEAVE_GROUP, value
    if rng.random() < 0.1:
        yield IP, IP_MULTICAST_ALL, rng.choice((0, 1))
    if rng.random() < 0.1:
        yield IP6, IPV6_MULTICAST_ALL, rng.choice((0, 1))


# ---- frames ----


def addresses(rng: random.Random, six: bool) -> tuple[bytes, bytes]:
    own, many, other, sources = (OWN6, MANY6, ELSE6, FROM6) if six else (OWN4, MANY4, ELSE4, FROM4)
    roll = rng.random()
    to = rng.choice(own if roll < 0.7 else many if roll < 0.95 else other)
    source = rng.choice(sources if rng.random() < 0.3 else sources[:4])
    return packed(source), packed(to)


def mac_for(rng: random.Random, device: int, to: bytes) -> bytes:
    if rng.random() < 0.1:
        return rng.choice((BROADCAST, OTHER, b"\x01\0\x5e\0\0\x09", b"\x33\x33\0\0\0\x09", MACS[1 - device]))
    if len(to) == 4 and (to[0] >> 4 == 14):
        return b"\x01\0\x5e" + bytes([to[1] & 0x7F]) + to[2:]
    if len(to) == 4 and to[3] == 255:
        return BROADCAST
    return b"\x33\x33" + to[12:] if to[0] == 0xFF else MACS[device]


def datagram(rng: random.Random, ends: bytes) -> bytes:
    """A UDP datagram, of which length or checksum may be wrong.

    Not a sum of the pseudo header alone: on a veth that stands for a checksum left to hardware (XS_DEV_PARTIAL_CSUM).
    """
    payload = rng.randbytes(rng.choice((0, 1, 2, 3, 18, 19, 60, 100, 500, 1300)))
    data = bytearray(udp(payload, rng.choice(FROM_PORTS), rng.choice((*PORTS, *PORTS, 9, 0)), sum_with=ends))
    roll = rng.random()
    if roll < 0.05:
        data[6:8] = b"\0\0"
    elif roll < 0.1:
        data[6 + rng.randrange(2)] ^= 1 << rng.randrange(8)
    elif roll < 0.13:
        data[6:8] = b"\xff\xff"
    elif roll < 0.25:
        length = rng.choice((0, 1, 7, 8, 9, len(data) - 1, len(data) + 1, 0xFFFF)) & 0xFFFF
        data[4:6] = length.to_bytes(2, "big")
        if rng.random() < 0.6 and 8 <= length <= len(data):
            data[6:8] = b"\0\0"
            pseudo = ends + (length.to_bytes(4, "big") + b"\0\0\0\x11")
            data[6:8] = (csum(pseudo + bytes(data[:length])) or 0xFFFF).to_bytes(2, "big")
    if rng.random() < 0.1:
        data += rng.randbytes(rng.randrange(1, 9))
    if rng.random() < 0.03:
        del data[rng.randrange(12) :]
    return bytes(data)


def frames(rng: random.Random, corpus: Iterator[bytes]) -> list[tuple[int, bytes]]:
    """One packet: mostly one frame, of its fragments several."""
    device = rng.choice((0, 0, 0, 1))
    if rng.random() < 0.3:
        frame = next(corpus)
        return [(device, MACS[device] + frame[6:] if frame[:6] == HOST else frame)]
    six = rng.random() < 0.5
    source, to = addresses(rng, six)
    data = datagram(rng, source + to)
    mac = mac_for(rng, device, to)
    if rng.random() < 0.06:
        return [(device, ethernet(each, dst=mac)) for each in fragments(rng, six, source, to, data)]
    if six:
        kind = UDP
        if rng.random() < 0.15:
            kind = rng.choice((HOPOPTS, DSTOPTS, FRAGMENT))
            ahead = (
                fragment_header(UDP, ident=next(ip_corpus.IDS))
                if kind == FRAGMENT
                else options_header(UDP, b"\x1e\x02ab")
            )
            data = ahead + data
        packet = ipv6(data, kind, src=source, dst=to, hops=rng.choice((0, 1, 64)), tclass=rng.choice((0, 3)))
    else:
        options = rng.choice((b"\1" * 4, b"\x94\x04\0\0", b"\x07\x07\x04\0\0\0\0\0", b"\x83\x07\x08\x0a\0\0\x09\0")) * (
            rng.random() < 0.1
        )
        packet = ipv4(
            data,
            options,
            src=source,
            dst=to,
            ttl=rng.choice((0, 1, 64)),
            tos=rng.choice((0, 3)),
            frag=rng.choice((0, 0x4000)),
            ident=ip_corpus.id4(),
        )
    frame = ethernet(packet, dst=mac, pad=rng.random() < 0.5)
    if rng.random() < 0.05:
        tag = rng.choice((0, 0, 1, 7, 0xE000)).to_bytes(2, "big")
        tags = rng.choice((b"\x81\0", b"\x88\xa8")) + tag
        frame = frame[:12] + tags * rng.choice((1, 1, 2)) + frame[12:]
    if rng.random() < 0.05:
        frame += rng.randbytes(rng.choice((1, 4, 30)))
    return [(device, frame[:1514])]


def fragments(rng: random.Random, six: bool, source: bytes, to: bytes, data: bytes) -> list[bytes]:
    """The datagram in two, or three; in any order."""
    ident = next(ip_corpus.IDS)
    cut = sorted({0, *(8 * rng.randrange(1, 2 + len(data) // 8) for _ in range(rng.choice((1, 2))))} - {len(data)})
    made = []
    for start, end in zip(cut, [*cut[1:], len(data)], strict=True):
        more = end < len(data)
        if six:
            piece = fragment_header(UDP, start // 8, more, ident) + data[start:end]
            made.append(ipv6(piece, FRAGMENT, src=source, dst=to))
        else:
            made.append(ipv4(data[start:end], frag=start // 8 | more << 13, src=source, dst=to, ident=ident & 0xFFFF))
    rng.shuffle(made)
    return made


def corpus(rng: random.Random, *more: Any) -> Iterator[bytes]:
    """Without end: frames that ip_corpus.py bends, and `more` of its kind."""
    while True:
        for kind in (ip_corpus.mutated, ip_corpus.options4, ip_corpus.options6, ip_corpus.chains6, *more):
            few = list(kind(rng, 30))
            yield from rng.sample(few, min(len(few), 60))


# ---- the test ----


def switches(rng: random.Random) -> dict[str, dict[str, int]]:
    """Few are on: most of them stop most packets."""
    values: dict[str, dict[str, int]] = {}
    for device in ("all", *DEVICES):
        four = {name: int(rng.random() < 0.15) for name in SWITCHES}
        four["rp_filter"] = rng.choice((0, 0, 0, 0, 1, 2))
        values[f"ipv4 {device}"] = four
        six = {name: four[name] for name in ("accept_source_route", "drop_unicast_in_l2_multicast")}
        if device != "all":
            six["disable_ipv6"] = 0
        values[f"ipv6 {device}"] = six
    return values


def one_by_one(twins: Twins, pair: Any, chunk: list[list[tuple[int, bytes]]], limit: int = 3) -> list[str]:
    """Which packets it is that make the difference."""
    found = []
    for packet in chunk:
        for at, theirs, ours in twins.differences(pair, packet):
            sent = [(DEVICES[device], frame.hex()[:400]) for device, frame in packet]
            found.append(f"{sent}\n    socket {at} Linux {theirs!s:.200}\n    ours  {ours!s:.200}")
        if len(found) >= limit:
            break
    return found or ["none of them alone"]


def test_sockets_get_the_same(twins: Twins) -> None:
    rng = effort.rng("twins")
    bent = corpus(rng, ip_mixed.mixed)
    end = time.monotonic() + 10 * effort.TIMES
    packets = worlds = delivered = 0
    while time.monotonic() < end:
        values = switches(rng)
        twins.switches(values)
        with twins.opened(rng.choice((DEVICES, DEVICES, DEVICES[:1]))) as stack:
            for _ in range(4):
                sockets = [wanted(rng) for _ in range(rng.randrange(1, 9))]
                with twins.sockets(stack, sockets, connects(rng, sockets)) as pair:
                    worlds += 1
                    for _ in range(2):
                        chunk = [frames(rng, bent) for _ in range(CHUNK)]
                        packets += CHUNK
                        different = twins.differences(pair, [frame for packet in chunk for frame in packet])
                        if different:
                            told = [str(values), str(sockets), str(pair[1][1:]), str(stack.counters())]
                            told += one_by_one(twins, pair, chunk)
                            raise AssertionError(f"after {packets} packets:\n" + "\n".join(told))
            delivered += stack.ledger().delivered
    assert delivered > packets / 20, "the frames do not reach what they are to test"


MREQN = packed("239.9.9.9") + struct.pack("=4xi", FIRST_INDEX)
MREQ6 = packed("ff05::77") + struct.pack("=I", FIRST_INDEX)


@pytest.mark.parametrize(
    "address, level, join, leave, mreq",
    [
        (("239.9.9.9", 7), IP, socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP, MREQN),
        (("0.0.0.0", 7), IP, socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP, MREQN),
        (("::", 7, 0, 0), IP, socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP, MREQN),
        (("::ffff:239.9.9.9", 7, 0, 0), IP, socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP, MREQN),
        (("ff05::77", 7, 0, 0), IP6, socket.IPV6_JOIN_GROUP, socket.IPV6_LEAVE_GROUP, MREQ6),
    ],
)
def test_a_membership_holds_when_the_call_returns(
    twins: Twins, address: tuple[Any, ...], level: int, join: int, leave: int, mreq: bytes
) -> None:
    """Joined, left, joined, closed: of what comes right then, this socket and others get what they get on Linux."""
    rng, sent = random.Random(0), []
    for make, here, there in ((ipv4, "10.0.0.1", "239.9.9.9"), (ipv6, "fd00::1", "ff05::77")):
        src, dst = packed(here), packed(there)
        data = udp(b"x", 1000, 7, sum_with=src + dst)
        sent.append((0, ethernet(make(data, src=src, dst=dst), dst=mac_for(rng, 0, dst))))
    others = [Wanted(4, ("239.9.9.9", 7)), Wanted(4, ("0.0.0.0", 7)), Wanted(6, ("::", 7, 0, 0))]
    with (
        twins.opened() as stack,
        twins.sockets(stack, [Wanted(6 if ":" in address[0] else 4, address), *others]) as pair,
    ):
        for option in (join, leave, join):
            for side in pair:
                side[1].setsockopt(level, option, mreq)
            assert twins.differences(pair, sent) == []
        for side in pair:
            side.pop(1).close()
        assert twins.differences(pair, sent) == []


#: What Linux counts in /proc/net/snmp and snmp6, and the drops of ours that are the same.
CLASSES = {
    ("Udp.InErrors", "Udp6.InErrors"): ("udp.rx.drop.PKT_TOO_SMALL", "udp.rx.drop.UDP_CSUM"),
    ("Udp.InCsumErrors", "Udp6.InCsumErrors"): ("udp.rx.drop.UDP_CSUM",),
    ("Udp.NoPorts", "Udp6.NoPorts", "Udp.IgnoredMulti", "Udp6.IgnoredMulti"): ("udp.rx.drop.NO_SOCKET",),
    ("Udp.RcvbufErrors", "Udp6.RcvbufErrors"): ("udp.rx.drop.SOCKET_RCVBUFF",),
    ("Ip.InUnknownProtos", "Ip6.InUnknownProtos"): ("ip.local.drop.IP_NOPROTO",),
}
HEADERS = ("ip.rx.drop.IP_CSUM", "ip.rx.drop.IP_INHDR", "ip.rx.drop.UNHANDLED_PROTO", "ip.local.drop.IP_INHDR",
           "ip.local.drop.UNHANDLED_PROTO")  # fmt: skip


def test_counters_add_up(twins: Twins) -> None:
    """What the kernel of our twin counts and what we drop are together what Linux counts.

    One socket a family: of a wrong checksum in a datagram to several, Linux counts each copy.
    """
    rng = effort.rng("counters")
    bent = corpus(rng)
    twins.switches({f"ipv4 {device}": dict.fromkeys(SWITCHES, 0) for device in ("all", *DEVICES)})
    twins.switches({f"ipv6 {device}": {"drop_unicast_in_l2_multicast": 0} for device in DEVICES})
    sockets = [Wanted(4, ("0.0.0.0", 7)), Wanted(6, ("::", 7, 0, 0), v6only=True)]
    with twins.opened() as stack, twins.sockets(stack, sockets) as pair:
        hosts = (twins.linux, twins.ours)
        before = [host.snmp() for host in hosts]
        for _ in range(effort.cases(8)):
            chunk = [frame for _ in range(CHUNK) for frame in frames(rng, bent)]
            assert twins.differences(pair, chunk) == []
        theirs, kernels = ({k: v - b[k] for k, v in host.snmp().items()} for host, b in zip(hosts, before, strict=True))
        ours = stack.counters()

    def missing(*names: str) -> int:
        return sum(theirs[name] - kernels.get(name, 0) for name in names)

    def dropped(*names: str) -> int:
        return sum(ours.get(name, 0) for name in names)

    assert {names: missing(*names) for names in CLASSES} == {names: dropped(*drops) for names, drops in CLASSES.items()}
    # of extension headers that are refused, Linux counts some as wrong headers
    headers = missing("Ip.InHdrErrors", "Ip6.InHdrErrors")
    assert (
        dropped(*HEADERS) <= headers <= dropped(*HEADERS, "ip.rx.drop.IPV6_BAD_EXTHDR", "ip.local.drop.IPV6_BAD_EXTHDR")
    )
    assert dropped("udp.rx.drop.UDP_CSUM") > 10
