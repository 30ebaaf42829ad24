"""What routing does, in plain Python: tables and a flow in, a verdict out; no I/O and no state.

    route_input(tables, flow)    where a packet that came in goes: ip_route_input_noref, ip6_route_input (with what
                                 ip_error, ip6_pkt_drop and ip6_forward decide from it)
    route_output(tables, flow)   where a packet of this host goes, and with which source address:
                                 ip_route_output_key, ip6_dst_lookup_flow

This is the definition: the C stage is held against it, and it against Linux (tests/kernel/test_routing_semantics.py).
The contract, with what differs from Linux, is in layer.py. Lookups are in fib4.py and fib6.py, the walk over policy rules
in rules.py, the choice of a source address in source.py.
"""

import errno
from dataclasses import replace
from typing import Any

from xdpstack.netlink.ip import ANY
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTN_ANYCAST,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_UNICAST,
)
from xdpstack.routing import fib4, fib6
from xdpstack.routing.flow import (
    LOOPBACK4,
    Flow,
    Verdict,
    is_limited_broadcast,
    is_link_local,
    is_local_multicast,
    is_loopback,
    is_multicast,
    is_zeronet,
)
from xdpstack.routing.rpfilter import is_on_link, validate_source
from xdpstack.routing.rules import Result
from xdpstack.routing.source import inet_select_addr, ipv6_dev_get_saddr
from xdpstack.routing.tables import Device, Tables

REFUSALS = {
    errno.EHOSTUNREACH: "ROUTE_UNREACHABLE",
    errno.EACCES: "ROUTE_PROHIBIT",
    errno.EINVAL: "ROUTE_BLACKHOLE",
}
"""The drop reasons for what a route or rule refuses; the kernel has none of its own for them."""
IPPROTO_IGMP = 2
ICMP_DEST_UNREACH, ICMP_NET_UNREACH, ICMP_HOST_UNREACH, ICMP_PKT_FILTERED = 3, 0, 1, 13
ICMPV6_DEST_UNREACH, ICMPV6_NOROUTE, ICMPV6_ADM_PROHIBITED, ICMPV6_NOT_NEIGHBOUR = 1, 0, 1, 2


def route_input(tables: Tables, flow: Flow) -> Verdict:
    """Where a packet goes that came in by device `flow.iif`: "local", "broadcast", "multicast", "forward" or "drop".

    The IP header has been validated before (ip_rcv_core, ip6_rcv_core). `flow.oif` is ignored. A device that the tables
    do not know drops everything.
    """
    device = tables.devices.get(flow.iif)
    if device is None:
        return drop("DEVICE_GONE", errno.EINVAL)
    if flow.oif or flow.user or flow.scope:  # RT_SCOPE_UNIVERSE is 0
        flow = flow.but(oif=0, scope=RT_SCOPE_UNIVERSE, user=0)
    return input_ipv4(tables, flow, device) if flow.family == AF_INET else input_ipv6(tables, flow, device)


def route_output(tables: Tables, flow: Flow) -> Verdict:
    """Where a packet goes that this host sends: "output", "local", "broadcast", "multicast" or "drop" with the errno.

    `flow.source` is the sender's address, or empty to have one chosen; the verdict has it. `flow.iif` is ignored.
    """
    if flow.iif or flow.source == ANY[flow.family]:
        flow = flow.but(iif=0, source=b"" if flow.source == ANY[flow.family] else flow.source)
    return output_ipv4(tables, flow) if flow.family == AF_INET else output_ipv6(tables, flow)


def drop(
    reason: str, number: int, icmp: tuple[int, int] | None = None, martian: str = "", found: Result | None = None
) -> Verdict:
    """The verdict that a packet goes nowhere."""
    route = found.entry.route if found and found.entry else None
    return Verdict("drop", reason=reason, errno=number, icmp=icmp, martian=martian, route=route)


def toward(action: str, tables: Tables, found: Result, family: int, **more: Any) -> Verdict:
    """The verdict that a packet goes along the path that was found."""
    assert found.entry is not None
    assert found.path is not None
    route, path = found.entry.route, found.path
    device = tables.devices.get(path.oif)
    return Verdict(
        action,
        path.oif,
        path.gateway,
        mtu=route.mtu or (device.mtu[family] if device else 0),
        hop_limit=route.hop_limit,
        route=route,
        encap=path.encap,
        **more,
    )


def local(action: str, tables: Tables, found: Result | None, family: int, **more: Any) -> Verdict:
    """The verdict that a packet is for this host: it goes to the loopback device."""
    device = tables.devices.get(tables.loopback)
    route = found.entry.route if found and found.entry else None
    return Verdict(action, tables.loopback, mtu=device.mtu[family] if device else 0, route=route, **more)


# ---- IPv4, input ----


def input_ipv4(tables: Tables, flow: Flow, device: Device) -> Verdict:
    """ip_route_input_rcu: multicast by membership, everything else by the FIB."""
    if is_multicast(flow.destination):
        return input_multicast(tables, flow, device)
    refused = martian(flow, device)
    if refused:
        return refused
    if is_limited_broadcast(flow.destination) or flow.source_or_any == flow.destination == ANY[AF_INET]:
        return input_broadcast(tables, flow, device, None)

    found = fib4.fib_lookup(tables, flow)
    if found.error:
        return no_route(device, found)
    assert found.entry is not None
    kind = found.entry.route.type
    if kind == RTN_BROADCAST and not device.bc_forwarding:
        return input_broadcast(tables, flow, device, found)
    if kind == RTN_LOCAL:
        bad, _ = validate_source(tables, flow, flow.destination, 0, device)
        return drop(bad, errno.EINVAL, martian="source") if bad else local("local", tables, found, AF_INET)
    if not device.forwarding and kind != RTN_BROADCAST:  # with bc_forwarding a broadcast is not asked
        return no_route(device, found)
    if kind not in (RTN_UNICAST, RTN_BROADCAST):
        return drop("IP_INVALID_DEST", errno.EINVAL, martian="destination", found=found)
    return input_forward(tables, flow, device, found)


def martian(flow: Flow, device: Device) -> Verdict | None:
    """Addresses that no lookup is needed for to know that they cannot be (ip_route_input_slow)."""
    source, destination = flow.source_or_any, flow.destination
    if is_multicast(source) or is_limited_broadcast(source):
        return drop("IP_INVALID_SOURCE", errno.EINVAL, martian="source")
    if is_limited_broadcast(destination) or source == destination == ANY[AF_INET]:
        return None
    if is_zeronet(source):
        return drop("IP_INVALID_SOURCE", errno.EINVAL, martian="source")
    if is_zeronet(destination):
        return drop("IP_INVALID_DEST", errno.EINVAL, martian="destination")
    if not device.route_localnet:
        if is_loopback(destination):
            return drop("IP_LOCALNET", errno.EINVAL, martian="destination")
        if is_loopback(source):
            return drop("IP_LOCALNET", errno.EINVAL, martian="source")
    return None


def no_route(device: Device, found: Result) -> Verdict:
    """Nowhere to go: silently where the device does not forward, with an ICMP error where it does (ip_error)."""
    if not device.forwarding:  # whatever the lookup said, ip_route_input_slow makes it EHOSTUNREACH
        return drop("IP_INADDRERRORS", errno.EHOSTUNREACH, found=found)
    if found.error == errno.ENETUNREACH:
        return drop("IP_INNOROUTES", errno.ENETUNREACH, (ICMP_DEST_UNREACH, ICMP_NET_UNREACH), found=found)
    code = {errno.EHOSTUNREACH: ICMP_HOST_UNREACH, errno.EACCES: ICMP_PKT_FILTERED}.get(found.error)
    icmp = None if code is None else (ICMP_DEST_UNREACH, code)
    return drop(REFUSALS[found.error], found.error, icmp, found=found)


def input_broadcast(tables: Tables, flow: Flow, device: Device, found: Result | None) -> Verdict:
    """To all on the link, so to this host as well; the source is checked unless it is still unknown (DHCP)."""
    if not is_zeronet(flow.source_or_any):
        bad, _ = validate_source(tables, flow, ANY[AF_INET], 0, device)
        if bad:
            return drop(bad, errno.EINVAL, martian="source")
    return local("broadcast", tables, found, AF_INET)


def input_multicast(tables: Tables, flow: Flow, device: Device) -> Verdict:
    """To a group: to this host if it is a member on this device (ip_route_input_mc, ip_mc_validate_source)."""
    if (device.index, flow.destination) not in tables.groups:
        return drop("NOT_MEMBER", errno.EINVAL)
    source = flow.source_or_any
    if is_multicast(source) or is_limited_broadcast(source):
        return drop("IP_INVALID_SOURCE", errno.EINVAL)
    if is_loopback(source) and not device.route_localnet:
        return drop("IP_LOCALNET", errno.EINVAL)
    if is_zeronet(source):
        if not is_local_multicast(flow.destination) and flow.protocol != IPPROTO_IGMP:
            return drop("IP_INVALID_SOURCE", errno.EINVAL)
    else:
        bad, _ = validate_source(tables, flow, ANY[AF_INET], 0, device)
        if bad:
            return drop(bad, errno.EINVAL)
    return local("multicast", tables, None, AF_INET)


def input_forward(tables: Tables, flow: Flow, device: Device, found: Result) -> Verdict:
    """To be forwarded (ip_mkroute_input): by one of the route's paths, if the source may come this way."""
    assert found.entry is not None
    if len(found.entry.paths) > 1:
        found = fib4.select_path(tables, found, flow, b"")
    assert found.path is not None
    bad, direct = validate_source(tables, flow, flow.destination, found.path.oif, device)
    if bad:
        return drop(bad, errno.EINVAL, martian="source")
    back = found.path.oif == device.index and direct and device.send_redirects
    better = back and (device.shared_media or is_on_link(device, flow.source_or_any, found.path.gateway))
    return toward("forward", tables, found, AF_INET, redirect=better)


# ---- IPv6, input ----


def input_ipv6(tables: Tables, flow: Flow, device: Device) -> Verdict:
    """ip6_route_input, and what follows from its answer: ip6_input, ip6_mc_input, ip6_forward or ip6_pkt_drop."""
    flow = flow.but(source=flow.source_or_any)
    found = fib6.rule_lookup(tables, flow, device.index, fib6.need_strict(flow.destination))
    if found.error:
        return discard(flow, found)
    assert found.entry is not None
    if fib6.leads_nowhere(tables, found):
        return discard(flow, replace(found, error=errno.ENETUNREACH))
    own = found.entry.route.type in (RTN_LOCAL, RTN_ANYCAST)
    if own and not is_multicast(flow.destination):
        return local("local", tables, found, AF_INET6)
    if own or is_multicast(found.entry.route.destination.address):  # own: autojoin, see ip6_protocol_deliver_rcu
        if (device.index, flow.destination) in tables.groups:
            return local("multicast", tables, found, AF_INET6)
        return drop("IP_INADDRERRORS" if own else "NOT_MEMBER", errno.EINVAL, found=found)
    return forward_ipv6(tables, flow, device, found)


def discard(flow: Flow, found: Result) -> Verdict:
    """No route, or one that refuses (ip6_pkt_drop; a blackhole drops without a word)."""
    if found.error == errno.EINVAL:
        return drop(REFUSALS[found.error], found.error, found=found)
    code = ICMPV6_ADM_PROHIBITED if found.error == errno.EACCES else ICMPV6_NOROUTE
    reason = "IP_INADDRERRORS" if flow.destination == ANY[AF_INET6] else "IP_INNOROUTES"
    return drop(reason, found.error, (ICMPV6_DEST_UNREACH, code), found=found)


def forward_ipv6(tables: Tables, flow: Flow, device: Device, found: Result) -> Verdict:
    """ip6_forward, as far as it concerns addresses: may this device forward, and may this source be forwarded."""
    if not device.forwarding6:
        return drop("IP_INADDRERRORS", errno.EHOSTUNREACH, found=found)
    assert found.path is not None
    back = found.path.oif == device.index
    if not back:
        source = flow.source_or_any
        if source == ANY[AF_INET6] or is_multicast(source) or is_loopback(source):
            return drop("IP_INADDRERRORS", errno.EINVAL, found=found)
        if is_link_local(source):
            return drop("IP_INADDRERRORS", errno.EINVAL, (ICMPV6_DEST_UNREACH, ICMPV6_NOT_NEIGHBOUR), found=found)
    return toward("forward", tables, found, AF_INET6, redirect=back)


# ---- IPv4, output ----


def output_ipv4(tables: Tables, flow: Flow) -> Verdict:
    """ip_route_output_key_hash_rcu."""
    if flow.source:
        if is_multicast(flow.source) or is_limited_broadcast(flow.source) or is_zeronet(flow.source):
            return unsendable(errno.EINVAL, "INVALID_ARG")
        owner = find_device(tables, flow.source)
        if owner == 0:
            return unsendable(errno.ENETUNREACH)
        if not flow.oif and (is_multicast(flow.destination) or is_limited_broadcast(flow.destination)):
            return make_output(tables, flow.but(oif=owner), None, owner)
    if flow.oif:
        device = tables.devices.get(flow.oif)
        if device is None:
            return unsendable(errno.ENODEV, "DEVICE_GONE")
        if not device.link.is_up:
            return unsendable(errno.ENETUNREACH)
        linkwide = is_local_multicast(flow.destination) or is_limited_broadcast(flow.destination)
        if linkwide or flow.protocol == IPPROTO_IGMP:
            return make_output(tables, with_source(tables, flow, RT_SCOPE_LINK), None, flow.oif)
        if is_multicast(flow.destination):
            flow = with_source(tables, flow, flow.scope)
        elif flow.destination == ANY[AF_INET]:
            flow = with_source(tables, flow, RT_SCOPE_HOST)
    if flow.destination == ANY[AF_INET]:
        here = flow.source or LOOPBACK4
        return make_output(tables, flow.but(destination=here, source=here), None, tables.loopback, to_self=True)

    found = fib4.fib_lookup(tables, flow)
    if found.error:
        if not flow.oif:
            return refused(found)
        # The tables do not know it, but the sender named the device: taken to be on its link.
        return make_output(tables, with_source(tables, flow, RT_SCOPE_LINK), None, flow.oif)
    assert found.entry is not None
    assert found.path is not None
    route = found.entry.route
    if route.type == RTN_LOCAL:
        source = flow.source or route.prefsrc or flow.destination
        return make_output(tables, flow.but(source=source), found, tables.loopback, to_self=True)
    if not flow.oif:
        found = fib4.select_path(tables, found, flow, flow.source)
    assert found.entry is not None
    assert found.path is not None
    source = flow.source or found.entry.route.prefsrc or found.path.source
    return make_output(tables, flow.but(source=source), found, found.path.oif)


def find_device(tables: Tables, address: bytes) -> int:
    """The device that has this address, or that a route of type local leads to (__ip_dev_find); 0 for none."""
    if address in tables.local:
        return tables.local[address]
    found = fib4.table_lookup(tables.local_fib, Flow(address))
    local_route = found.entry is not None and found.entry.route.type == RTN_LOCAL
    return found.path.oif if local_route and found.path else 0


def with_source(tables: Tables, flow: Flow, scope: int) -> Flow:
    """The flow with a source of its device, unless it has one."""
    if flow.source not in (b"", ANY[AF_INET]):  # 0.0.0.0: the device has no address of a wider scope
        return flow
    return flow.but(source=inet_select_addr(tables.devices, flow.oif, ANY[AF_INET], scope))


def make_output(tables: Tables, flow: Flow, found: Result | None, oif: int, to_self: bool = False) -> Verdict:
    """The last checks, and the verdict (__mkroute_output). A multicast packet never goes through a default gateway."""
    device = tables.devices.get(oif)
    if device is None:
        return replace(unsendable(errno.ENODEV, "DEVICE_GONE"), refused_at=oif)
    if flow.source and is_loopback(flow.source) and not device.route_localnet and not device.link.is_loopback:
        encap = found.path.encap if found and found.path else 0
        return replace(unsendable(errno.EINVAL, "INVALID_ARG"), refused_at=oif, encap=encap)
    source = flow.source or ANY[AF_INET]  # a host without addresses sends from none
    route = found.entry.route if found and found.entry else None
    kind = route.type if route else (RTN_LOCAL if to_self else RTN_UNICAST)
    direct = found is None or to_self
    if is_limited_broadcast(flow.destination):
        action, direct = "broadcast", True
    elif is_multicast(flow.destination):
        action, direct = "multicast", direct or (route is not None and route.destination.length < 4)
    elif is_zeronet(flow.destination):
        return unsendable(errno.EINVAL, "INVALID_ARG")
    else:
        action = {RTN_BROADCAST: "broadcast", RTN_LOCAL: "local"}.get(kind, "output")
    if direct or found is None:
        return Verdict(action, oif, source=source, mtu=device.mtu[AF_INET], route=route)
    return toward(action, tables, found, AF_INET, source=source)


def unsendable(number: int, reason: str = "IP_OUTNOROUTES") -> Verdict:
    """What a sender is told."""
    return drop(reason, number)


def refused(found: Result) -> Verdict:
    """The same for what a route or rule refuses."""
    return drop(REFUSALS.get(found.error, "IP_OUTNOROUTES"), found.error, found=found)


# ---- IPv6, output ----


def output_ipv6(tables: Tables, flow: Flow) -> Verdict:
    """ip6_dst_lookup_tail: the route first, then the source by it; if that route refused, once more with the source."""
    strict = fib6.need_strict(flow.destination) or (flow.bound and bool(flow.oif))
    found = None
    if not flow.source:
        found = fib6.rule_lookup(tables, flow, flow.oif, strict or bool(flow.oif))
        source = preferred_source(tables, found, flow.destination)
        if source is None:
            return unsendable(errno.EADDRNOTAVAIL, "NO_SOURCE_ADDRESS")
        flow = flow.but(source=source)
        strict = strict or bool(flow.oif)
    if found is None or found.error:
        found = fib6.rule_lookup(tables, flow, flow.oif, strict)
    if found.error:
        return replace(refused(found), source=flow.source)
    assert found.entry is not None
    if flow.source[:12] == MAPPED and flow.destination[:12] != MAPPED:
        return unsendable(errno.EAFNOSUPPORT, "INVALID_ARG")
    if fib6.loops_back(found.entry.route):
        return local("local", tables, found, AF_INET6, source=flow.source)
    action = "multicast" if is_multicast(flow.destination) else "output"
    return toward(action, tables, found, AF_INET6, source=flow.source)


def preferred_source(tables: Tables, found: Result, destination: bytes) -> bytes | None:
    """The source that goes with a route: its prefsrc, else by RFC 6724 (ip6_route_get_saddr); None: no address at all."""
    if found.error or found.entry is None:
        return ipv6_dev_get_saddr(tables.devices, 0, destination)
    if found.entry.route.prefsrc:
        return found.entry.route.prefsrc
    first = found.entry.paths[0] if found.entry.is_object else found.path
    return ipv6_dev_get_saddr(tables.devices, first.oif if first else 0, destination)


MAPPED = bytes(10) + b"\xff\xff"
