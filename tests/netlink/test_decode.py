"""Our decoding of rtnetlink messages, held against pyroute2's decoding of the very same messages."""

import contextlib
import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from xdpstack.netlink import decode, ip
from xdpstack.netlink.channel import Channel
from xdpstack.netlink.namespace import HeldNamespace
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETNEXTHOP,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWROUTE,
)

MAKE = (
    "link add a0 type veth peer name b0",
    "link set a0 up",
    "link set b0 up",
    "link add br0 type bridge",
    "link set b0 master br0",
    "address add 10.0.0.1/24 brd + dev a0",
    "address add 10.0.0.2/24 dev a0 label a0:x",
    "address add 10.1.0.1 peer 10.2.0.0/24 dev a0 metric 77",
    "address add 2001:db8::1/64 dev a0 nodad",
    "address add 2001:db8:1::1 peer 2001:db8:2::1/64 dev a0 nodad",
    "nexthop add id 1 via 10.0.0.9 dev a0",
    "nexthop add id 2 via fe80::9 dev a0",
    "nexthop add id 3 blackhole",
    "nexthop add id 10 group 1,4/2,9",
    "route add 10.20.0.0/16 via 10.0.0.9 metric 5 mtu lock 1400 hoplimit 33",
    "route add 10.21.0.0/16 tos 0x10 via inet6 fe80::1 dev a0 src 10.0.0.1",
    "route add 10.22.0.0/16 nexthop via 10.0.0.9 weight 3 nexthop via inet6 fe80::1 dev a0 weight 7 onlink",
    "route add blackhole 10.23.0.0/16 table 5000",
    "route add unreachable 10.24.0.0/16",
    "route add prohibit 2001:db8:24::/48",
    "route add throw 10.25.0.0/16 table 100",
    "route add 10.26.0.0/16 nhid 10",
    "route add 2001:db8:20::/48 via fe80::9 dev a0 pref high",
    "route add 2001:db8:21::/48 from 2001:db8::/64 via fe80::9 dev a0 metric 7",
    "route add 2001:db8:22::/48 nexthop via fe80::8 dev a0 weight 2 nexthop via fe80::9 dev a0",
    "rule add from 10.0.0.0/8 to 10.9.0.0/16 iif a0 fwmark 0x10/0xf0 lookup 100 priority 50",
    "rule add not oif a0 ipproto udp sport 10-20 dport 53 lookup 5000 suppress_prefixlength 0 priority 60",
    "rule add from all tos 0x10 uidrange 5-9 prohibit priority 70",
    "rule add from all goto 90 priority 80",
    "rule add from all nop priority 90",
    "neighbour add 10.0.0.5 lladdr 02:00:00:00:00:05 dev a0",
    "neighbour add 2001:db8::5 lladdr 02:00:00:00:00:06 dev a0 router",
)


@pytest.fixture
def channel(namespace):
    namespace.ip("link set lo up", *MAKE[:12], "nexthop add id 4 via 10.0.0.8 dev a0",
                 "nexthop add id 9 via 10.0.0.7 dev a0", *MAKE[12:])  # fmt: skip
    namespace.ip("rule add from 2001:db8::/32 blackhole priority 90", options=("-6",))
    with contextlib.closing(HeldNamespace(namespace.name)) as place, contextlib.closing(Channel(place, ())) as channel:
        yield channel


def messages(channel: Channel, request: int, family: int) -> list[bytes]:
    found, consistent = channel.dump(request, family)
    assert consistent
    assert found
    return found


def theirs(kind: type, message: bytes) -> Any:
    decoded = kind(message)
    decoded.decode()
    return decoded


def packed(text: str | None) -> bytes:
    return ip.packed(text) if text else b""


@pytest.mark.root
def test_links(channel: Channel) -> None:
    for message in messages(channel, RTM_GETLINK, 0):
        ours, other = decode.link(message), theirs(ifinfmsg, message)
        assert ours
        assert (ours.index, ours.flags, ours.type) == (other["index"], other["flags"], other["ifi_type"])
        assert ours.name == other.get_attr("IFLA_IFNAME")
        assert ip.mac_text(ours.address) == other.get_attr("IFLA_ADDRESS")
        assert ours.mtu == other.get_attr("IFLA_MTU")
        assert ours.master == (other.get_attr("IFLA_MASTER") or 0)
        assert (ours.rx_queues, ours.tx_queues) == (
            other.get_attr("IFLA_NUM_RX_QUEUES"),
            other.get_attr("IFLA_NUM_TX_QUEUES"),
        )
        info = other.get_attr("IFLA_LINKINFO")
        assert ours.kind == (info.get_attr("IFLA_INFO_KIND") if info else "")


@pytest.mark.root
@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_addresses(channel: Channel, family: int) -> None:
    for message in messages(channel, RTM_GETADDR, family):
        ours, other = decode.address(message), theirs(ifaddrmsg, message)
        assert ours
        local = other.get_attr("IFA_LOCAL") or other.get_attr("IFA_ADDRESS")
        assert (ours.index, ours.prefix_length, ours.scope) == (other["index"], other["prefixlen"], other["scope"])
        assert ours.local == packed(local)
        peer = other.get_attr("IFA_ADDRESS")
        assert ours.peer == (packed(peer) if peer != local else b"")
        assert ours.broadcast == packed(other.get_attr("IFA_BROADCAST"))
        assert ours.flags == other.get_attr("IFA_FLAGS")
        assert ours.label == (other.get_attr("IFA_LABEL") or "")


@pytest.mark.root
@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_routes(channel: Channel, family: int) -> None:
    kinds = set()
    for message in messages(channel, RTM_GETROUTE, family):
        ours, other = decode.route(message), theirs(rtmsg, message)
        assert ours
        kinds.add(ours.type)
        head = (other["dst_len"], other["tos"], other["proto"], other["scope"], other["type"])
        assert (ours.destination.length, ours.tos, ours.protocol, ours.scope, ours.type) == head
        assert ours.destination.address == (packed(other.get_attr("RTA_DST")) or ip.ANY[family])
        assert ours.table == other.get_attr("RTA_TABLE")
        assert ours.priority == (other.get_attr("RTA_PRIORITY") or 0)
        assert ours.prefsrc == packed(other.get_attr("RTA_PREFSRC"))
        assert (ours.source.length if ours.source else 0) == other["src_len"]
        metrics = other.get_attr("RTA_METRICS")
        assert ours.mtu == ((metrics.get_attr("RTAX_MTU") if metrics else 0) or 0)
        assert ours.mtu_locked == bool(metrics and (metrics.get_attr("RTAX_LOCK") or 0) & 4)
        assert ours.hop_limit == ((metrics.get_attr("RTAX_HOPLIMIT") if metrics else 0) or 0)
        assert ours.preference == (
            int.from_bytes(other.get_attr("RTA_PREF").encode("latin1")) if family == AF_INET6 and
            isinstance(other.get_attr("RTA_PREF"), str) else other.get_attr("RTA_PREF") or 0
        )  # fmt: skip
        if ours.nexthop:
            continue
        hops = other.get_attr("RTA_MULTIPATH")
        if hops:
            assert [(h.oif, h.weight, h.flags, h.gateway) for h in ours.hops] == [
                (h["oif"], h["hops"] + 1, h["flags"], via(h)) for h in hops
            ]
        elif other.get_attr("RTA_OIF"):
            assert [(h.oif, h.gateway) for h in ours.hops] == [(other.get_attr("RTA_OIF"), via(other))]
    assert len(kinds) > 3


def via(other: Any) -> bytes:
    indirect = other.get_attr("RTA_VIA")
    return packed(indirect["addr"] if indirect else other.get_attr("RTA_GATEWAY"))


@pytest.mark.root
@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_rules(channel: Channel, family: int) -> None:
    def span(value: str | None) -> tuple[int, ...] | None:
        return tuple(int(each) for each in value.split(":")) if value else None

    for message in messages(channel, RTM_GETRULE, family):
        ours, other = decode.rule(message), theirs(fibmsg, message)
        assert ours
        assert (ours.action, ours.tos, ours.invert) == (other["action"], other["tos"], bool(other["flags"] & 2))
        assert ours.priority == (other.get_attr("FRA_PRIORITY") or 0)
        assert ours.table == other.get_attr("FRA_TABLE")
        assert ours.goto == (other.get_attr("FRA_GOTO") or 0)
        assert (ours.iif, ours.oif) == (other.get_attr("FRA_IIFNAME") or "", other.get_attr("FRA_OIFNAME") or "")
        assert (ours.mark, ours.mark_mask) == (other.get_attr("FRA_FWMARK") or 0, other.get_attr("FRA_FWMASK") or 0)
        assert ours.ip_protocol == (other.get_attr("FRA_IP_PROTO") or 0)
        for mine, name in ((ours.source, "FRA_SRC"), (ours.destination, "FRA_DST")):
            assert (mine.address if mine else b"") == packed(other.get_attr(name))
        for ports, name in ((ours.source_ports, "FRA_SPORT_RANGE"), (ours.destination_ports, "FRA_DPORT_RANGE"),
                            (ours.users, "FRA_UID_RANGE")):  # fmt: skip
            assert ((ports.start, ports.end) if ports else None) == span(other.get_attr(name))
        length = other.get_attr("FRA_SUPPRESS_PREFIXLEN")
        assert ours.suppress_prefix_length % (1 << 32) == length


@pytest.mark.root
@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_neighbours(channel: Channel, family: int) -> None:
    for message in messages(channel, RTM_GETNEIGH, family):
        ours, other = decode.neighbour(message), theirs(ndmsg, message)
        if ours is None:
            assert ipaddress.ip_address(other.get_attr("NDA_DST")).is_multicast
            continue
        assert (ours.index, ours.state, ours.flags) == (other["ifindex"], other["state"], other["flags"])
        assert ours.address == packed(other.get_attr("NDA_DST"))
        assert ip.mac_text(ours.lladdr) == (other.get_attr("NDA_LLADDR") or "")


@pytest.mark.root
def test_nexthops(channel: Channel) -> None:
    """pyroute2 has no class for these; held against what was asked for."""
    found = {each.id: each for message in messages(channel, RTM_GETNEXTHOP, 0) if (each := decode.nexthop(message))}
    assert set(found) == {1, 2, 3, 4, 9, 10}
    assert found[1].hop.gateway == packed("10.0.0.9")
    assert found[2].hop.gateway == packed("fe80::9")
    assert found[3].blackhole
    assert found[10].group == ((1, 4), (2, 9))


@given(st.binary(max_size=200), st.sampled_from([decode.link, decode.address, decode.route, decode.rule,
                                                decode.neighbour, decode.nexthop]))  # fmt: skip
def test_garbage_raises_only_what_the_mirror_takes_as_doubt(body: bytes, decoder: Any) -> None:
    message = decode.HEADER.pack(decode.HEADER.size + len(body), RTM_NEWROUTE, 0, 0, 0) + body
    with contextlib.suppress(struct.error, KeyError, IndexError, ValueError):
        decoder(message)


@given(st.binary(max_size=100))
def test_split_never_reads_past_its_buffer(buffer: bytes) -> None:
    try:
        messages = decode.split(buffer)
    except ValueError:
        return
    assert sum(len(message) for _, _, _, message in messages) <= len(buffer)
