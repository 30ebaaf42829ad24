"""ip.local: the protocol demultiplexer and the extension headers that the host of a packet looks at."""

import pytest

from tests.stages.packets import (
    AUTH,
    BROADCAST,
    DSTOPTS,
    FRAGMENT,
    GROUP,
    HOPOPTS,
    NONE,
    ROUTING,
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
from xdpstack.hook import HookBatch
from xdpstack.native import lib
from xdpstack.testing.memory_walk import Caught, MemoryWalk, TestDevice

UP = lib.XS_DEV_UP


def deliver(frame: bytes, flags: int = UP, routed: int = lib.XS_PKT_ROUTED_LOCAL) -> Caught | str:
    """The packet as it leaves ip.local, or why it was dropped; `routed` stands for what routing found."""

    def route(batch: HookBatch) -> None:
        for frame_number in batch.frames:
            (batch.pkts + frame_number).flags |= routed

    present = {"napi.rx", "ip.rx", "ip.local"}
    with MemoryWalk(TestDevice("a0", flags=flags), present=present, catch={"routing.rx", "netfilter.input"}) as walk:
        walk.walk.hooks = [h for h in walk.walk.hooks if h.row != "routing.rx"]
        walk.hook("routing.rx", route, {"local": "ip.local"})
        assert walk.inject("a0", frame) == 1
        walk.drain()
        if walk.caught["netfilter.input"]:
            assert walk.drops() == {}
            return walk.caught["netfilter.input"][0]
        (why,) = walk.drops()
        return why


def passed(frame: bytes, **options: int) -> Caught:
    result = deliver(frame, **options)
    assert isinstance(result, Caught), result
    return result


def test_udp_is_passed_on() -> None:
    assert passed(ethernet(ipv4())).l4_proto == UDP
    assert passed(ethernet(ipv6())).l4_proto == UDP


@pytest.mark.parametrize("proto", [0, 1, 2, 4, 6, 41, 47, 50, 51, 58, 89, 108, 132, 136, 255])
def test_other_protocols_are_nobodys(proto: int) -> None:
    assert deliver(ethernet(ipv4(proto=proto))) == "IP_NOPROTO"
    if proto not in (0, AUTH):
        assert deliver(ethernet(ipv6(udp(), proto))) == "IP_NOPROTO"


@pytest.mark.parametrize("frag", [0x2000, 0x0001, 0x2001, 0x1FFF])
def test_ipv4_fragments_are_the_kernels(frag: int) -> None:
    assert deliver(ethernet(ipv4(frag=frag))) == "FRAGMENT"
    assert deliver(ethernet(ipv4(frag=frag, proto=6))) == "FRAGMENT"


@pytest.mark.parametrize("mac", [GROUP, BROADCAST])
def test_unicast_in_a_frame_to_a_group(mac: bytes) -> None:
    strict = UP | lib.XS_DEV_DROP_UNICAST_IN_MULTICAST
    frame = ethernet(ipv4(), dst=mac)
    assert passed(frame).l4_proto == UDP
    assert deliver(frame, flags=strict) == "UNICAST_IN_L2_MULTICAST"
    assert passed(frame, flags=UP | lib.XS_DEV_DROP_UNICAST_IN_MULTICAST6).l4_proto == UDP  # IPv6's switch
    for routed in (lib.XS_PKT_ROUTED_BROADCAST, lib.XS_PKT_ROUTED_MULTICAST):
        assert passed(frame, flags=strict, routed=routed).l4_proto == UDP
    assert passed(ethernet(ipv4()), flags=strict).l4_proto == UDP


@pytest.mark.parametrize("before", [b"", b"\1\1", b"\x94\4\0\0"])
@pytest.mark.parametrize("kind", [131, 137])
def test_a_source_route_leads_to_one_host(kind: int, before: bytes) -> None:
    """It is at its end, and the frame is to us alone: ip.rx cannot know that the address is a broadcast address."""
    accepts = UP | lib.XS_DEV_SOURCE_ROUTE
    frame = ethernet(ipv4(options=before + bytes([kind, 7, 8, 10, 0, 0, 9])))
    plain = ethernet(ipv4(options=b"\x94\4\0\0\0" + bytes([kind])))  # behind the end of the options
    assert passed(frame, flags=accepts).l4_proto == UDP
    for routed in (lib.XS_PKT_ROUTED_BROADCAST, lib.XS_PKT_ROUTED_MULTICAST):
        assert deliver(frame, flags=accepts, routed=routed) == "IP_SOURCE_ROUTE"
        assert passed(plain, flags=accepts, routed=routed).l4_proto == UDP


# ---- IPv6 extension headers ----

SOUND, TO_SKIP = options_header(UDP, b""), options_header(UDP, b"\x1e\x04\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "packet, offset",
    [
        (chain(SOUND, first=HOPOPTS), 48),
        (chain(SOUND, first=DSTOPTS), 48),
        (chain(TO_SKIP, first=DSTOPTS), 48),
        (chain(options_header(DSTOPTS, b""), SOUND, first=HOPOPTS), 56),
        (chain(*[options_header(DSTOPTS, b"")] * 20, SOUND, first=DSTOPTS), 40 + 21 * 8),
        (chain(routing_header(UDP), first=ROUTING), 48),
        (chain(routing_header(UDP, kind=253, length=3), first=ROUTING), 72),
        (chain(routing_header(ROUTING), routing_header(DSTOPTS, 2), SOUND, first=ROUTING), 64),
        (chain(fragment_header(UDP), first=FRAGMENT), 48),
        (chain(fragment_header(DSTOPTS), SOUND, first=FRAGMENT), 56),
        (chain(options_header(FRAGMENT, b""), fragment_header(UDP), first=HOPOPTS), 56),
    ],
)
def test_sound_extension_headers(packet: bytes, offset: int) -> None:
    caught = passed(ethernet(packet))
    assert (caught.l4_off - caught.l3_off, caught.l4_proto) == (offset, UDP)


@pytest.mark.parametrize(
    "packet, why",
    [
        (ipv6(b"", NONE), "IP_NOPROTO"),
        (chain(options_header(NONE, b""), first=DSTOPTS), "IP_NOPROTO"),
        (chain(options_header(HOPOPTS, b""), SOUND, first=DSTOPTS), "IP_NOPROTO"),
        (chain(options_header(HOPOPTS, b""), SOUND, first=HOPOPTS), "IP_NOPROTO"),
        (chain(bytes([UDP, 1]) + b"\0" * 10, first=AUTH), "IP_NOPROTO"),
        (ipv6(SOUND[:7], DSTOPTS), "IPV6_BAD_EXTHDR"),
        (ipv6(b"\x11\x01" + b"\0" * 13, DSTOPTS), "IPV6_BAD_EXTHDR"),
        (chain(options_header(UDP, b"\x44\0"), first=DSTOPTS), "UNHANDLED_PROTO"),
        (chain(options_header(UDP, b"\x84\0"), first=DSTOPTS), "UNHANDLED_PROTO"),
        (chain(options_header(UDP, b"\xc9\x10" + b"\0" * 16), first=DSTOPTS), "UNHANDLED_PROTO"),
        (chain(options_header(UDP, b"\x04\x20"), first=DSTOPTS), "IP_INHDR"),
        (chain(options_header(UDP, b"\x04\0" * 9), first=DSTOPTS), "IP_INHDR"),
        (chain(options_header(UDP, b"\0" * 8), first=DSTOPTS), "IP_INHDR"),
        (chain(options_header(UDP, b"\x05\x03\0\0\0"), first=DSTOPTS), None),  # known to routers only
        (chain(options_header(UDP, b"\xc2\x04\0\0\0\0"), first=DSTOPTS), "UNHANDLED_PROTO"),
        (chain(routing_header(UDP, left=1, length=2), first=ROUTING), "IPV6_BAD_EXTHDR"),
        (chain(routing_header(UDP, 4), first=ROUTING), "IPV6_BAD_EXTHDR"),
        (chain(routing_header(UDP, 3), first=ROUTING), "IPV6_BAD_EXTHDR"),
        (ipv6(routing_header(UDP)[:7], ROUTING), "IPV6_BAD_EXTHDR"),
        (ipv6(routing_header(UDP, length=1)[:12], ROUTING), "IPV6_BAD_EXTHDR"),
        (chain(fragment_header(FRAGMENT), fragment_header(UDP), first=FRAGMENT), "IPV6_BAD_EXTHDR"),
        (chain(fragment_header(UDP, 0, True), first=FRAGMENT), "FRAGMENT"),
        (chain(fragment_header(UDP, 1), first=FRAGMENT), "FRAGMENT"),
        (chain(options_header(FRAGMENT, b"\x44\0"), fragment_header(UDP, 1), first=DSTOPTS), "UNHANDLED_PROTO"),
        (ipv6(fragment_header(UDP)[:7], FRAGMENT), "IPV6_BAD_EXTHDR"),
    ],
)
def test_bad_extension_headers(packet: bytes, why: str | None) -> None:
    result = deliver(ethernet(packet))
    assert (None if isinstance(result, Caught) else result) == why


def test_a_fragment_header_needs_a_payload_length() -> None:
    hop = options_header(FRAGMENT, b"")
    packet = ipv6(hop + fragment_header(UDP) + udp(), HOPOPTS)
    assert passed(ethernet(packet)).l4_proto == UDP
    assert deliver(ethernet(packet[:4] + b"\0\0" + packet[6:])) == "IPV6_BAD_EXTHDR"


def test_routing_headers_in_frames_or_packets_to_a_group() -> None:
    packet = chain(routing_header(UDP), first=ROUTING)
    assert deliver(ethernet(packet, dst=GROUP)) == "IPV6_BAD_EXTHDR"
    multicast = bytes.fromhex("ff020000000000000000000000000001")
    assert deliver(ethernet(chain(routing_header(UDP), first=ROUTING, dst=multicast))) == "IPV6_BAD_EXTHDR"


def test_extension_headers_beyond_the_first_frame() -> None:
    long = b"\x1e\xfa" + b"\0" * 250
    headers = [options_header(DSTOPTS, long)] * 6 + [options_header(UDP, long)]
    assert deliver(ethernet(chain(*headers, first=DSTOPTS, last=b"\0" * 100))) == "PKT_TOO_SMALL"
