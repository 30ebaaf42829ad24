"""ip.rx: every check of ip_rcv_core, ip_options_compile, ip6_rcv_core and ipv6_parse_hopopts, on literal packets."""

import struct
from collections.abc import Callable

import pytest

from tests.stages.packets import (
    AUTH,
    BROADCAST,
    DST4,
    DST6,
    DSTOPTS,
    FRAGMENT,
    GROUP,
    HOPOPTS,
    HOST,
    NONE,
    OTHER,
    ROUTING,
    SRC4,
    SRC6,
    UDP,
    chain,
    ethernet,
    fragment_header,
    ipv4,
    ipv6,
    options_header,
    routing_header,
    udp,
)
from xdpstack.native import lib
from xdpstack.testing.memory_walk import Caught, MemoryWalk, TestDevice

UP = lib.XS_DEV_UP
ROW = "routing.rx"


def receive(*frames: bytes, flags: int = UP) -> tuple[list[Caught], dict[str, int]]:
    """What ip.rx passes on, and what it drops by reason; the packets are as they leave the stage."""
    with MemoryWalk(TestDevice("a0", flags=flags), present={"napi.rx", "ip.rx"}, catch={ROW}) as walk:
        assert walk.inject("a0", *frames) == len(frames)
        walk.drain()
        return walk.caught[ROW], walk.drops()


def passed(frame: bytes, flags: int = UP) -> Caught:
    caught, drops = receive(frame, flags=flags)
    assert drops == {}
    return caught[0]


def reason(frame: bytes, flags: int = UP) -> str:
    caught, drops = receive(frame, flags=flags)
    assert caught == []
    assert list(drops.values()) == [1]
    return next(iter(drops))


# ---- what passes ----


def test_plain_packets_pass_unchanged() -> None:
    four, six = ethernet(ipv4(tos=0x2E)), ethernet(ipv6(tclass=0xB8))
    caught, drops = receive(four, six)
    assert drops == {}
    assert [p.data for p in caught] == [four, six]
    assert [(p.l4_off - p.l3_off, p.l4_proto, p.tos, p.flags) for p in caught] == [
        (20, UDP, 0x2E, 0),
        (40, UDP, 0xB8, lib.XS_PKT_IPV6),
    ]


def test_plain_packets_take_the_short_way() -> None:
    with MemoryWalk("a0", present={"napi.rx", "ip.rx"}, catch={ROW}) as walk:
        walk.inject("a0", ethernet(ipv4()), ethernet(ipv4(), pad=True), ethernet(ipv6()), ethernet(ipv4(), dst=GROUP))
        walk.step()
        assert len(walk.caught[ROW]) == 4
        assert "ip.rx.slow" not in walk.counters()
        walk.inject("a0", ethernet(ipv4(options=b"\1\1\1\1")))
        walk.step()
        assert walk.counters()["ip.rx.slow"] == 1


@pytest.mark.parametrize("packet", [ipv4(udp(b"")), ipv4(udp(b""), options=b"\1"), ipv6(udp(b""))])
def test_padding_is_trimmed(packet: bytes) -> None:
    caught = passed(ethernet(packet) + b"\xee" * 30)
    assert caught.data == ethernet(packet)
    assert caught.pkt_len == caught.len == 14 + len(packet)


def test_a_vlan_tag_moves_the_header() -> None:
    packet = ipv4()
    frame = ethernet(b"\0\x0a\x08\0" + packet, kind=0x8100)
    caught = passed(frame)
    assert caught.l4_off - caught.data_off == 18 + 20
    assert caught.pkt_len == 18 + len(packet)


def test_an_ip_header_may_be_all() -> None:
    assert passed(ethernet(ipv4(b""))).pkt_len == 34
    assert passed(ethernet(ipv6(b""))).pkt_len == 54


# ---- Ethernet ----


@pytest.mark.parametrize("size", range(1, 14))
def test_less_than_an_ethernet_header(size: int) -> None:
    assert reason(ethernet(ipv4())[:size]) == "HDR_TRUNC"


def test_less_than_a_vlan_header() -> None:
    assert reason(ethernet(b"\0\x0a\x08", kind=0x8100)) == "HDR_TRUNC"


@pytest.mark.parametrize("kind", [0x0000, 0x0042, 0x0806, 0x0801, 0x8847, 0x88CC, 0xFFFF])
def test_other_ethertypes(kind: int) -> None:
    assert reason(ethernet(ipv4(), kind=kind)) == "UNHANDLED_PROTO"
    assert reason(ethernet(ipv4(), kind=kind, dst=OTHER)) == "UNHANDLED_PROTO"


def test_behind_a_service_tag_one_more_tag_is_looked_behind() -> None:
    inner = b"\0\x0a\x81\0\0\x0b\x08\0"
    assert len(receive(ethernet(inner + ipv4(), kind=0x88A8))[0]) == 1
    for kind, tags in (
        (0x8100, inner),
        (0x88A8, b"\0\x0a\x88\xa8" + inner[4:]),
        (0x88A8, inner[:6] + inner[2:] + inner[6:]),
    ):
        assert reason(ethernet(tags + ipv4(), kind=kind)) == "UNHANDLED_PROTO"


@pytest.mark.parametrize("packet", [ipv4(), ipv6(), ipv4(version=5), ipv6(version=5), ipv4(checksum=0)])
def test_frames_to_another_mac(packet: bytes) -> None:
    kind = 0x86DD if len(packet) == len(ipv6()) else 0x0800
    assert reason(ethernet(packet, dst=OTHER, kind=kind)) == "OTHERHOST"


# ---- the IPv4 header ----


@pytest.mark.parametrize("size", range(20))
def test_less_than_an_ipv4_header(size: int) -> None:
    assert reason(ethernet(ipv4()[:size], kind=0x0800)) == "IP_INHDR"


@pytest.mark.parametrize("size", range(20, 33))
def test_less_than_the_total_length(size: int) -> None:
    assert reason(ethernet(ipv4()[:size])) == "PKT_TOO_SMALL"


@pytest.mark.parametrize("size", range(20, 60))
def test_less_than_the_options(size: int) -> None:
    assert reason(ethernet(ipv4(options=b"\1" * 40)[:size])) == "IP_INHDR"


@pytest.mark.parametrize("version", [v for v in range(16) if v != 4])
def test_other_versions_than_4(version: int) -> None:
    assert reason(ethernet(ipv4(version=version), kind=0x0800)) == "IP_INHDR"


@pytest.mark.parametrize("ihl", range(5))
def test_a_header_length_below_5(ihl: int) -> None:
    assert reason(ethernet(ipv4(ihl=ihl))) == "IP_INHDR"


def test_the_header_checksum() -> None:
    assert reason(ethernet(ipv4(checksum=0))) == "IP_CSUM"
    assert reason(ethernet(ipv4(checksum=0, options=b"\1" * 4))) == "IP_CSUM"
    for at in range(20):
        packet = bytearray(ipv4(options=b"\1" * 4))
        packet[at + 4] ^= 0x10
        assert reason(ethernet(bytes(packet))) in {"IP_CSUM"}


@pytest.mark.parametrize("word", [0x0000, 0xFFFF])
def test_both_zeros_of_ones_complement_are_right(word: int) -> None:
    """A header whose other words sum to 0xffff has the checksum 0; 0xffff there sums to the same."""
    packet = ipv4()
    fix = int.from_bytes(packet[10:12], "big")
    packet = ipv4(src=struct.pack(">H", (int.from_bytes(SRC4[:2], "big") + fix) % 0xFFFF) + SRC4[2:])
    assert packet[10:12] == b"\0\0"
    assert passed(ethernet(packet[:10] + struct.pack(">H", word) + packet[12:])).l4_proto == UDP


@pytest.mark.parametrize("total", range(20))
def test_a_total_length_below_the_header(total: int) -> None:
    assert reason(ethernet(ipv4(total=total))) == "IP_INHDR"


def test_a_total_length_below_the_options() -> None:
    assert reason(ethernet(ipv4(options=b"\1" * 8, total=27))) == "IP_INHDR"
    assert passed(ethernet(ipv4(options=b"\1" * 8, total=28))).pkt_len == 14 + 28


@pytest.mark.parametrize(
    "frag, is_fragment", [(0x0000, 0), (0x4000, 0), (0x8000, 0), (0x2000, 1), (0x0001, 1), (0x3FFF, 1), (0x1FFF, 1)]
)
def test_fragments_are_marked(frag: int, is_fragment: int) -> None:
    flags = passed(ethernet(ipv4(frag=frag))).flags
    assert flags == is_fragment * lib.XS_PKT_FRAGMENT


# ---- IPv4 options ----

RECORD, STAMP, LOOSE, STRICT, ALERT, SECURITY, CIPSO = 7, 68, 131, 137, 148, 130, 134


@pytest.mark.parametrize(
    "options",
    [
        b"\0" * 40,
        b"\1" * 40,
        b"\0\xff\xff\xff",  # nothing behind the end is looked at
        b"\1\1\1\0" + bytes([RECORD, 200, 0, 0]),
        bytes([RECORD, 39, 4]) + b"\0" * 36,
        bytes([RECORD, 7, 4]) + b"\0" * 4,
        bytes([RECORD, 7, 8]) + b"\0" * 4,  # full
        bytes([RECORD, 3, 4]),
        bytes([RECORD, 3, 255]),
        bytes([STAMP, 40, 5, 0]) + b"\0" * 36,
        bytes([STAMP, 36, 5, 1]) + b"\0" * 32,
        bytes([STAMP, 12, 5, 3]) + b"\0" * 8,
        bytes([STAMP, 8, 5, 2]) + b"\0" * 4,  # a kind that is none
        bytes([STAMP, 8, 9, 0xE0]) + b"\0" * 4,  # full, 14 hosts did not fit
        bytes([STAMP, 12, 13, 0xF3]) + b"\0" * 8,  # full, of a kind that does not count those
        bytes([STAMP, 4, 5, 0]),
        bytes([ALERT, 4, 0, 0]),
        bytes([ALERT, 4, 9, 9]),
        bytes([SECURITY, 11]) + b"\0" * 9,
        bytes([0x5E, 2]),
        bytes([0xFE, 40]) + b"\xff" * 38,
        bytes([RECORD, 7, 4, 0, 0, 0, 0, STAMP, 8, 5, 0, 0, 0, 0, 0]),
    ],
)
def test_sound_options_pass(options: bytes) -> None:
    packet = ipv4(options=options)
    caught = passed(ethernet(packet))
    assert caught.data == ethernet(packet)
    assert caught.l4_off - caught.l3_off == 20 + -(-len(options) // 4) * 4


@pytest.mark.parametrize(
    "options",
    [
        b"\1\1\1" + bytes([RECORD]),  # no room for its length
        bytes([0x5E, 0, 0, 0]),
        bytes([0x5E, 1, 0, 0]),
        bytes([0x5E, 5, 0, 0]),
        bytes([RECORD, 2, 4, 0]),
        bytes([RECORD, 7, 3]) + b"\0" * 5,
        bytes([RECORD, 7, 5]) + b"\0" * 5,  # room, but not for an address
        bytes([RECORD, 7, 7]) + b"\0" * 5,
        bytes([RECORD, 41, 4]) + b"\0" * 37,
        bytes([RECORD, 3, 4, RECORD, 3, 4, 0, 0]),
        bytes([STAMP, 3, 5, 0]),
        bytes([STAMP, 8, 4, 0]) + b"\0" * 4,
        bytes([STAMP, 8, 6, 0]) + b"\0" * 4,
        bytes([STAMP, 8, 5, 1]) + b"\0" * 4,
        bytes([STAMP, 8, 5, 3]) + b"\0" * 4,
        bytes([STAMP, 8, 9, 0xF0]) + b"\0" * 4,
        bytes([STAMP, 8, 9, 0xF1]) + b"\0" * 4,
        bytes([STAMP, 4, 5, 0, STAMP, 4, 5, 0]),
        bytes([ALERT, 3, 0, 0]),
        bytes([LOOSE, 2, 4, 0]),
        bytes([LOOSE, 3, 3, 0]),
        bytes([LOOSE, 3, 4, LOOSE, 3, 4, 0, 0]),
        bytes([LOOSE, 3, 4, STRICT, 3, 4, 0, 0]),
        bytes([CIPSO, 10, 0, 0, 0, 1, 1, 4, 0, 0]),
    ],
)
def test_malformed_options(options: bytes) -> None:
    assert reason(ethernet(ipv4(options=options))) == "IP_INHDR"


@pytest.mark.parametrize("kind", [LOOSE, STRICT])
def test_source_routes(kind: int) -> None:
    at_its_end, under_way = bytes([kind, 7, 8, 10, 0, 0, 9]), bytes([kind, 7, 4, 10, 0, 0, 9])
    accepts = UP | lib.XS_DEV_SOURCE_ROUTE
    assert reason(ethernet(ipv4(options=at_its_end))) == "IP_SOURCE_ROUTE"
    assert reason(ethernet(ipv4(options=under_way)), accepts) == "IP_SOURCE_ROUTE"
    assert passed(ethernet(ipv4(options=at_its_end)), accepts).l4_proto == UDP
    assert reason(ethernet(ipv4(options=at_its_end), dst=BROADCAST), accepts) == "IP_SOURCE_ROUTE"


# ---- the IPv6 header ----

LOOPBACK6, UNSPECIFIED6 = b"\0" * 15 + b"\1", b"\0" * 16
MULTICAST6 = bytes.fromhex("ff020000000000000000000000000001")


@pytest.mark.parametrize("size", range(40))
def test_less_than_an_ipv6_header(size: int) -> None:
    assert reason(ethernet(ipv6()[:size], kind=0x86DD)) == "IP_INHDR"


@pytest.mark.parametrize("size", range(40, 53))
def test_less_than_the_payload_length(size: int) -> None:
    assert reason(ethernet(ipv6()[:size])) == "PKT_TOO_SMALL"


@pytest.mark.parametrize("version", [v for v in range(16) if v != 6])
def test_other_versions_than_6(version: int) -> None:
    assert reason(ethernet(ipv6(version=version), kind=0x86DD)) == "UNHANDLED_PROTO"


def test_ipv6_disabled() -> None:
    assert reason(ethernet(ipv6()), UP | lib.XS_DEV_IPV6_DISABLED) == "IPV6DISABLED"
    assert reason(ethernet(b"\x60", kind=0x86DD), UP | lib.XS_DEV_IPV6_DISABLED) == "IPV6DISABLED"


def test_loopback_addresses_on_the_wire() -> None:
    for packet in (ipv6(src=LOOPBACK6), ipv6(dst=LOOPBACK6)):
        assert reason(ethernet(packet)) == "IP_INHDR"
        assert passed(ethernet(packet), UP | lib.XS_DEV_LOOPBACK).l4_proto == UDP


def test_multicast_addresses() -> None:
    assert passed(ethernet(ipv6(dst=MULTICAST6), dst=GROUP)).l4_proto == UDP
    assert reason(ethernet(ipv6(src=MULTICAST6))) == "IP_INHDR"
    interface_local = b"\xff\x11" + MULTICAST6[2:]
    assert reason(ethernet(ipv6(dst=interface_local), dst=GROUP)) == "IP_INHDR"
    assert passed(ethernet(ipv6(dst=interface_local), dst=GROUP), UP | lib.XS_DEV_LOOPBACK).l4_proto == UDP
    for flags in (UP, UP | lib.XS_DEV_LOOPBACK):
        assert reason(ethernet(ipv6(dst=b"\xff\x10" + MULTICAST6[2:]), dst=GROUP), flags) == "IP_INHDR"


@pytest.mark.parametrize("mac", [GROUP, BROADCAST])
def test_unicast_in_a_frame_to_a_group(mac: bytes) -> None:
    strict = UP | lib.XS_DEV_DROP_UNICAST_IN_MULTICAST6
    assert passed(ethernet(ipv6(), dst=mac)).l4_proto == UDP
    assert passed(ethernet(ipv6(), dst=mac), UP | lib.XS_DEV_DROP_UNICAST_IN_MULTICAST).l4_proto == UDP  # IPv4's switch
    assert reason(ethernet(ipv6(), dst=mac), strict) == "UNICAST_IN_L2_MULTICAST"
    assert passed(ethernet(ipv6(dst=MULTICAST6), dst=mac), strict).l4_proto == UDP
    assert passed(ethernet(ipv6()), strict).l4_proto == UDP


def test_ipv4_mapped_addresses() -> None:
    """As a source it is an address like any other; as a destination it must not pass for an IPv4 address behind us."""
    mapped = b"\0" * 10 + b"\xff\xff"
    assert passed(ethernet(ipv6(src=mapped + SRC4))).flags == lib.XS_PKT_IPV6
    assert reason(ethernet(ipv6(dst=mapped + DST4))) == "IP_INADDRERRORS"
    assert passed(ethernet(ipv6(dst=UNSPECIFIED6))).l4_proto == UDP  # routing's to refuse
    assert passed(ethernet(ipv6(dst=b"\0" * 12 + DST4))).l4_proto == UDP  # compatible, not mapped


# ---- hop-by-hop options ----


def hop(options: bytes, **fields: bytes) -> bytes:
    return ethernet(chain(options_header(UDP, options), first=HOPOPTS, **fields))


ROUTER_ALERT = b"\x05\x02\0\0"


@pytest.mark.parametrize(
    "options",
    [
        b"",
        ROUTER_ALERT,
        b"\0" * 6,
        b"\x01\x04\0\0\0\0",
        b"\x1e\x04\xff\xff\xff\xff",  # unknown, to be skipped
        b"\x3f\x00",
        b"\0\0" + b"\x31\x02\1\2",  # IOAM, aligned
        b"\x04\x00" * 8,
        b"\x04\x00" + b"\0" * 4 + b"\x04\x00" + b"\0" * 6,
    ],
)
def test_sound_hop_by_hop_options(options: bytes) -> None:
    caught = passed(hop(options))
    assert caught.l4_proto == UDP
    assert caught.l4_off - caught.l3_off == 40 + len(options_header(UDP, options))


@pytest.mark.parametrize(
    "options, why",
    [
        (b"\x05\x03\0\0\0", "IP_INHDR"),
        (b"\x31\x02\1\2", "IP_INHDR"),  # IOAM, not aligned
        (b"\x07\x08\0\0\0\0\0\0\0\0", "IP_INHDR"),
        (b"\0" * 8 + b"\x04\0" + b"\0" * 4, "IP_INHDR"),  # too much padding
        (b"\0\0\0" + b"\x01\x03\0\0\0" + b"\x04\0" + b"\0" * 4, "IP_INHDR"),
        (b"\x01\x04\0\0\0\1", "IP_INHDR"),  # padding that hides something
        (b"\x04\x05\0\0\0\0", "IP_INHDR"),  # longer than the header
        (b"\0\0\0\0\0\x04", "IP_INHDR"),  # no room for its length
        (b"\x04\x00" * 9, "IP_INHDR"),  # too many
        (b"\x44\0\0\0\0\0", "UNHANDLED_PROTO"),
        (b"\x84\0\0\0\0\0", "UNHANDLED_PROTO"),
        (b"\xc4\0\0\0\0\0", "UNHANDLED_PROTO"),
        (b"\xc2\x04" + struct.pack(">I", 65535), "IP_INHDR"),  # a jumbo payload that is none
        (b"\xc2\x04" + struct.pack(">I", 65536), "IP_INHDR"),  # and a payload length
        (b"\xc2\x03\0\1\0\0", "IP_INHDR"),
        (b"\0\xc2\x04\0\1\0\0" + b"\0" * 7, "IP_INHDR"),  # not aligned
    ],
)
def test_bad_hop_by_hop_options(options: bytes, why: str) -> None:
    assert reason(hop(options)) == why


def test_a_hop_by_hop_header_longer_than_its_packet() -> None:
    header = options_header(UDP, b"")
    assert reason(ethernet(ipv6(header[:7], HOPOPTS))) == "IPV6_BAD_EXTHDR"
    assert reason(ethernet(ipv6(b"\x11\x01" + b"\0" * 13, HOPOPTS))) == "IPV6_BAD_EXTHDR"
    assert reason(ethernet(ipv6(header, HOPOPTS, length=7))) == "IPV6_BAD_EXTHDR"  # padding is not part of it
    assert passed(ethernet(ipv6(header, HOPOPTS))).l4_off


def test_a_payload_length_of_zero_before_hop_by_hop_options() -> None:
    """Linux takes the whole frame for the packet then, padding and all."""
    frame = ethernet(ipv6(options_header(UDP, b"") + udp(), HOPOPTS, length=0)) + b"\xee" * 9
    assert passed(frame).data == frame
    assert passed(ethernet(ipv6(length=0))).pkt_len == 54  # before another header it is what it says


def test_jumbograms() -> None:
    def jumbo(payload: int, really: int) -> bytes:
        header = options_header(UDP, b"\xc2\x04" + struct.pack(">I", payload))
        return ethernet(ipv6(header + b"\0" * (really - len(header)), HOPOPTS, length=0))

    assert reason(jumbo(65536, 1000)) == "PKT_TOO_SMALL"
    with MemoryWalk(TestDevice("a0"), present={"napi.rx", "ip.rx"}, catch={ROW}, frame_bytes=4096) as walk:
        assert walk.inject("a0", jumbo(65536, 65536), jumbo(65536, 65600), jumbo(66000, 65999)) == 3
        walk.drain()
        assert walk.drops() == {"PKT_TOO_BIG": 2, "PKT_TOO_SMALL": 1}


# ---- the transport header behind extension headers: found, not judged ----


@pytest.mark.parametrize(
    "packet, offset, proto",
    [
        (chain(options_header(DSTOPTS, b""), options_header(UDP, b""), first=HOPOPTS), 56, UDP),
        (chain(options_header(UDP, b"\x44\0\0\0\0\0"), first=DSTOPTS), 48, UDP),
        (chain(routing_header(UDP, 0, 1, 2), first=ROUTING), 64, UDP),
        (chain(fragment_header(UDP), first=FRAGMENT), 48, UDP),
        (chain(fragment_header(DSTOPTS), options_header(UDP, b""), first=FRAGMENT), 56, UDP),
        (chain(bytes([UDP, 1]) + b"\0" * 10, first=AUTH), 52, UDP),
        (chain(options_header(HOPOPTS, b""), options_header(UDP, b""), first=DSTOPTS), 56, UDP),
        (chain(options_header(NONE, b""), first=DSTOPTS), 48, NONE),
        (ipv6(b"", NONE), 40, NONE),
        (ipv6(b"\0" * 8, 6), 40, 6),
        (ipv6(b"\x11\x00" + b"\0" * 5, DSTOPTS), None, DSTOPTS),
        (ipv6(b"\x11\x01" + b"\0" * 13, DSTOPTS), None, UDP),
        (ipv6(b"\x11" + b"\0" * 6, FRAGMENT), None, FRAGMENT),
        (chain(*[options_header(DSTOPTS, b"")] * 100, options_header(UDP, b""), first=DSTOPTS), 40 + 808, UDP),
    ],
)
def test_the_transport_header_is_found(packet: bytes, offset: int | None, proto: int) -> None:
    caught = passed(ethernet(packet))
    assert caught.l4_proto == proto
    assert (caught.l4_off - caught.l3_off if caught.l4_off else None) == offset
    assert not caught.flags & lib.XS_PKT_FRAGMENT


@pytest.mark.parametrize(
    "offset, more, found", [(0, False, True), (0, True, True), (1, False, False), (1, True, False)]
)
def test_ipv6_fragments_are_marked(offset: int, more: bool, found: bool) -> None:
    caught = passed(ethernet(chain(fragment_header(UDP, offset, more), first=FRAGMENT)))
    assert bool(caught.flags & lib.XS_PKT_FRAGMENT) == (offset > 0 or more)
    assert bool(caught.l4_off) == found
    assert caught.l4_proto == UDP


# ---- packets of several frames ----

CHUNK = 2048 - 256


@pytest.mark.parametrize("padding", [0, 1, 30, CHUNK - 100, CHUNK, 3 * CHUNK])
@pytest.mark.parametrize("size", [CHUNK - 14, CHUNK - 13, 4000, 3 * CHUNK - 14])
@pytest.mark.parametrize("build, header", [(ipv4, 20), (ipv6, 40)])
def test_packets_of_several_frames_are_trimmed(
    build: Callable[..., bytes], header: int, size: int, padding: int
) -> None:
    payload = bytes(range(256)) * 40
    packet = build(udp(payload)[: size - header])
    assert len(packet) == size
    caught = passed(ethernet(packet) + b"\xee" * padding)
    assert caught.data == ethernet(packet)
    assert caught.pkt_len == 14 + size
    several = 14 + size > CHUNK
    assert (bool(caught.flags & lib.XS_PKT_MULTI), caught.frag != lib.XS_NO_FRAME) == (several, several)


def test_headers_must_be_in_the_first_frame() -> None:
    """Only extension headers can be so long that they are not."""
    long = options_header(UDP, b"\x1e\xfa" + b"\0" * 250)
    headers = [bytes([DSTOPTS]) + long[1:]] * 6 + [long]
    packet = chain(*headers, first=DSTOPTS, last=b"\0" * 100)
    caught = passed(ethernet(packet))
    assert (caught.l4_off, caught.l4_proto) == (0, UDP)
    hop_by_hop = bytes([UDP, 255]) + (b"\x1e\xfd" + b"\0" * 253) * 8 + b"\x01\x04\0\0\0\0"
    assert len(hop_by_hop) == 2048
    assert reason(ethernet(chain(hop_by_hop, first=HOPOPTS))) == "PKT_TOO_SMALL"


def test_a_batch_of_all_kinds_is_told_apart() -> None:
    good, bad = ethernet(ipv4()), ethernet(ipv4(checksum=0))
    six, other = ethernet(ipv6()), ethernet(ipv4(), dst=OTHER)
    assert HOST != OTHER
    assert SRC6 != DST6
    caught, drops = receive(good, bad, six, other, good, six)
    assert [p.data for p in caught] == [good, six, good, six]
    assert drops == {"IP_CSUM": 1, "OTHERHOST": 1}
