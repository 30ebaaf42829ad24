"""Random hosts: few addresses and prefixes, so that everything meets everything."""

from dataclasses import replace

from hypothesis import strategies as st

from tests.routing.native_case import BLACKHOLE_OBJECT
from xdpstack.netlink import Address, Hop, Link, Neighbour, NextHop, Prefix, Range, Route, Rule, Snapshot, packed
from xdpstack.netlink.rule import DEFAULT_RULES
from xdpstack.netlink.snapshot import with_loopback
from xdpstack.netlink.sysctl import Sysctls
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    IFA_F_DEPRECATED,
    IFA_F_OPTIMISTIC,
    IFA_F_PERMANENT,
    IFA_F_SECONDARY,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    RTPROT_KERNEL,
    RTPROT_STATIC,
)

OURS = {2: 0, 3: 1}
"""Stack index by interface index; device 4 is not of the stack."""
DEVICES = (2, 3, 4)
NAMES = {2: "a0", 3: "b0", 4: "c0"}

OWN4 = [packed(a) for a in ("10.0.0.1", "10.0.0.2", "10.1.0.1", "127.0.0.1", "192.0.2.1")]
OWN6 = [
    packed(a) for a in ("fd00::1", "fd00::2", "2001:db8::1", "fe80::1", "fe80::2", "::1", "2002:a00:1::1", "2001::7")
]
FAR4 = [packed(a) for a in ("10.0.0.9", "10.0.0.255", "10.1.2.3", "198.51.100.7", "127.5.5.5", "0.0.0.0", "0.1.2.3",
                            "255.255.255.255", "224.0.0.5", "239.1.2.3")]  # fmt: skip
FAR6 = [
    packed(a) for a in ("fd00::9", "fd00:1::9", "2001:db8:7::7", "fe80::9", "::", "ff02::5", "ff01::5", "ff0e::1:2")
]
PREFIXES4 = [Prefix.parse(p) for p in ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.8/29", "10.0.0.9/32", "10.0.0.1/32",
                                       "10.0.0.255/32", "10.1.0.0/16", "10.1.2.3/32", "127.0.0.0/8", "224.0.0.0/4",
                                       "128.0.0.0/1")]  # fmt: skip
PREFIXES6 = [Prefix.parse(p) for p in ("::/0", "fd00::/8", "fd00::/64", "fd00::1/128", "fd00::9/128", "2001:db8::/32",
                                       "2001:db8:7::/48", "fe80::/64", "fe80::1/128", "ff00::/8")]  # fmt: skip
TABLES = (255, 254, 253, 77)
TOS = (0, 4, 8, 0x10)
OBJECTS4, OBJECTS6 = (1, 3, 5, 7), (2, 4, 6, 7)
STATES = (0x01, 0x02, 0x04, 0x20, 0x80)

hops4 = st.builds(
    Hop,
    st.sampled_from((1, *DEVICES)),
    st.sampled_from([b"", packed("10.0.0.9"), packed("10.1.2.3"), packed("fe80::9")]),
    st.integers(1, 4),
    st.sampled_from([0, 0, 0, 0, RTNH_F_DEAD, RTNH_F_LINKDOWN]),
    st.sampled_from([0, 0, 0, 0, 0, 0, 4]),
)
hops6 = st.builds(
    Hop,
    st.sampled_from((1, *DEVICES)),
    st.sampled_from([b"", packed("fe80::9"), packed("fd00::9")]),
    st.integers(1, 4),
    st.sampled_from([0, 0, 0, 0, RTNH_F_DEAD, RTNH_F_LINKDOWN]),
    st.sampled_from([0, 0, 0, 0, 0, 0, 4]),
)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """A route of either family."""
    ipv6 = draw(st.booleans())
    kind = draw(st.sampled_from((1, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9)))
    hops = tuple(draw(st.lists(hops6 if ipv6 else hops4, min_size=1, max_size=3)))
    if kind in (2, 3, 4, 5):
        hops = (replace(hops[0], gateway=b"", encap=0),)
    if kind > 5:
        hops = (Hop(1),) if ipv6 else ()
    nexthop = draw(st.sampled_from((0, 0, 0, 0, *(OBJECTS6 if ipv6 else OBJECTS4)))) if kind == 1 else 0
    return Route(
        draw(st.sampled_from(PREFIXES6 if ipv6 else PREFIXES4)),
        () if nexthop else hops,
        kind,
        draw(st.sampled_from(TABLES)),
        draw(st.sampled_from((0, 0, 10, 1024))),
        0 if ipv6 else draw(st.sampled_from(TOS)),
        protocol=draw(st.sampled_from((RTPROT_KERNEL, RTPROT_KERNEL, RTPROT_STATIC))),
        scope=0 if ipv6 else draw(st.sampled_from((0, 253, 254))),
        prefsrc=draw(st.sampled_from([b"", b"", OWN6[0] if ipv6 else OWN4[1]])),
        source=draw(st.sampled_from([None, None, *PREFIXES6[1:4]])) if ipv6 else None,
        nexthop=nexthop,
        mtu=draw(st.sampled_from((0, 0, 1400))),
        hop_limit=draw(st.sampled_from((0, 0, 9))),
        preference=draw(st.sampled_from((0, 0, 1, 3))) if ipv6 else 0,
    )


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """A policy rule of either family with few selectors."""
    family = draw(st.sampled_from((AF_INET, AF_INET6)))
    prefixes = st.sampled_from([None, None, None, *(PREFIXES4[1:4] if family == AF_INET else PREFIXES6[1:4])])
    few = st.integers(0, 9)
    priority = draw(st.sampled_from((10, 20, 30, 40)))
    return Rule(
        family,
        priority,
        draw(st.sampled_from((1, 1, 1, 1, 2, 3, 6, 7, 8))),
        draw(st.sampled_from(TABLES)),
        draw(st.sampled_from([goto for goto in (20, 30, 40, 32766) if goto > priority])),  # the kernel refuses others
        draw(few) == 0,
        draw(prefixes),
        draw(prefixes),
        draw(st.sampled_from(("", "", "", "a0", "lo", "nowhere"))),
        draw(st.sampled_from(("", "", "", "", "a0", "b0"))),
        *draw(st.sampled_from(((0, 0), (0, 0), (0, 0), (1, 1), (0, 0xFF)))),
        tos=draw(st.sampled_from((0, 0, 0, 0, 8, 0x20))),
        dscp=draw(st.sampled_from((None, None, None, None, 2, 8))),
        dscp_mask=draw(st.sampled_from((0x3F, 0x38))),
        ip_protocol=draw(st.sampled_from((0, 0, 0, 0, 17, 6))),
        source_ports=draw(st.sampled_from((None, None, None, Range(1000, 2000), Range(0, 0, 0xFF00)))),
        destination_ports=draw(st.sampled_from((None, None, None, Range(7, 7)))),
        users=draw(st.sampled_from((None, None, None, Range(0, 10), Range(1000, 1000)))),
        flow_label=draw(st.sampled_from((0, 5))) if family == AF_INET6 else 0,
        flow_label_mask=draw(st.sampled_from((0, 0, 0, 0xF))) if family == AF_INET6 else 0,
        tunnel=draw(st.sampled_from((0, 0, 0, 0, 0, 7))),
        suppress_prefix_length=draw(st.sampled_from((-1, -1, -1, 0, 24))),
        suppress_group=draw(st.sampled_from((-1, -1, -1, -1, 5))),
    )


FLAGS6 = (IFA_F_PERMANENT, IFA_F_PERMANENT, IFA_F_DEPRECATED, IFA_F_TENTATIVE, IFA_F_TEMPORARY, IFA_F_OPTIMISTIC,
          IFA_F_TENTATIVE | IFA_F_OPTIMISTIC)  # fmt: skip


@st.composite
def addresses(draw: st.DrawFn) -> Address:
    """An address of either family on some device."""
    ipv6 = draw(st.booleans())
    own = draw(st.sampled_from(OWN6 if ipv6 else OWN4))
    scope = draw(st.sampled_from((0, 253, 254)))
    flags = draw(st.sampled_from(FLAGS6)) if ipv6 else draw(st.sampled_from((0, 0, 0, IFA_F_SECONDARY)))
    length = draw(st.sampled_from((64, 128) if ipv6 else (8, 24, 32)))
    return Address(draw(st.sampled_from((1, *DEVICES))), own, length, scope=scope, flags=flags)


@st.composite
def sysctls(draw: st.DrawFn) -> Sysctls:
    """Switches that routing heeds, each a coin."""
    given: dict[str, int] = {}
    for device in ("all", "a0", "b0"):
        for switch, most in (("rp_filter", 2), ("forwarding", 1), ("accept_local", 1), ("route_localnet", 1),
                             ("send_redirects", 1), ("src_valid_mark", 1), ("bc_forwarding", 1),
                             ("ignore_routes_with_linkdown", 1)):  # fmt: skip
            if draw(st.integers(0, 2)) == 0:
                given[f"ipv4.conf.{device}.{switch}"] = draw(st.integers(0, most))
        for switch, most in (("forwarding", 1), ("use_oif_addrs_only", 1), ("use_tempaddr", 2), ("optimistic_dad", 1),
                             ("use_optimistic", 1), ("ignore_routes_with_linkdown", 1)):  # fmt: skip
            if draw(st.integers(0, 3)) == 0:
                given[f"ipv6.conf.{device}.{switch}"] = draw(st.integers(0, most))
    given["ipv4.fib_multipath_use_neigh"] = draw(st.integers(0, 1))
    return Sysctls.build(given, NAMES.values())


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A host. Routes, rules and addresses need not make sense together."""
    links = with_loopback(
        {i: Link(i, NAMES[i], bytes([2, 0, 0, 0, 0, i]), mtu=1500 + i, group=5 * (i == 3)) for i in DEVICES}
    )
    own_rules = draw(st.one_of(st.just([]), st.lists(rules(), max_size=5)))
    given_rules = sorted((*DEFAULT_RULES, *own_rules), key=lambda rule: (rule.family, rule.priority))
    objects = [
        NextHop(1, draw(hops4), family=AF_INET),
        NextHop(2, draw(hops6), family=AF_INET6),
        NextHop(3, draw(hops4), family=AF_INET),
        NextHop(4, draw(hops6), family=AF_INET6),
        NextHop(5, group=((1, 3), (3, 1))),
        NextHop(6, group=((2, 3), (4, 1))),
        NextHop(BLACKHOLE_OBJECT, blackhole=True),
    ]
    neighbours = {
        (device, gateway): Neighbour(device, gateway, state=state)
        for device in DEVICES
        for gateway in (packed("10.0.0.9"), packed("fe80::9"), packed("fd00::9"))
        if (state := draw(st.sampled_from((0, 0, *STATES))))
    }
    groups = draw(st.frozensets(st.tuples(st.sampled_from(DEVICES), st.sampled_from((*FAR4[-2:], *FAR6[-3:])))))
    return Snapshot(
        links,
        tuple(draw(st.lists(addresses(), max_size=8))),
        tuple(draw(st.lists(routes(), max_size=24))),
        tuple(given_rules),
        neighbours,
        {each.id: each for each in objects},
        draw(sysctls()),
        groups,
        draw(st.integers(1, 1000)),
    )
