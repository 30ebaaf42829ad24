"""What the kernel adds by itself when a device comes up or an address is added.

That is: loopback and link-local addresses, local, connected and broadcast routes, multicast memberships.

A live mirror needs none of this, it dumps the result. It serves a state given by hand (the memory device, tests), and
`tests/netlink/test_derive.py` holds it against the tables of a real namespace.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from xdpstack.netlink.address import Address
from xdpstack.netlink.ip import ANY, Prefix, mask, packed, text
from xdpstack.netlink.link import Link
from xdpstack.netlink.nexthop import Hop
from xdpstack.netlink.route import Route
from xdpstack.netlink.sysctl import Sysctls
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    ARPHRD_ETHER,
    IFA_F_NOPREFIXROUTE,
    IFA_F_SECONDARY,
    IFF_MULTICAST,
    IFF_NOARP,
    IP6_RT_PRIO_ADDRCONF,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_ANYCAST,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
    RTNH_F_LINKDOWN,
    RTPROT_KERNEL,
)

LOOPBACK_ADDRESSES = ("127.0.0.1/8", "::1/128")
LOOPBACK = packed("::1")  # init_loopback gives it a host route and nothing else
IPV6_MIN_MTU = 1280
EUI64 = 0  # IN6_ADDR_GEN_MODE_EUI64
ALL_NODES = (packed("ff01::1"), packed("ff02::1"))
ALL_ROUTERS = packed("ff02::2")
SOLICITED_NODE = packed("ff02::1:ff00:0")[:13]
ALL_HOSTS = packed("224.0.0.1")


def has_ipv6(link: Link, sysctls: Sysctls) -> bool:
    """IPv6 runs on the device (addrconf_notify: up, MTU of 1280 at least, not disabled)."""
    return link.is_up and link.mtu >= IPV6_MIN_MTU and not sysctls.conf(AF_INET6, link.name, "disable_ipv6")


def all_addresses(links: Mapping[int, Link], given: Iterable[Address], sysctls: Sysctls) -> tuple[Address, ...]:
    """`given`, those the kernel adds by itself, all in the kernel's order and with its secondary flags."""
    given = [a for a in given if a.family == AF_INET or has_ipv6(links[a.index], sysctls)]
    result: list[Address] = []
    for link in links.values():
        own = [a for a in given if a.index == link.index]
        own = [*(a for a in automatic_addresses(link, sysctls) if not superseded(a, own)), *own]
        ordered: list[Address] = []
        for address in (a for a in own if a.family == AF_INET):
            insert_ipv4(ordered, address)
        sixes: list[Address] = []
        for address in (a for a in own if a.family == AF_INET6):
            insert_ipv6(sixes, address)
        result += ordered + sixes
    return tuple(sorted(result, key=lambda a: a.family))


def superseded(address: Address, own: list[Address]) -> bool:
    """The user gave this automatic address, or (for a link-local one) another link-local address, by hand."""
    return any(
        other.local == address.local or (address.scope == other.scope == RT_SCOPE_LINK and other.family == AF_INET6)
        for other in own
    )


def automatic_addresses(link: Link, sysctls: Sysctls) -> Iterator[Address]:
    """127.0.0.1/8 and ::1 on loopback (inetdev_event, init_loopback), fe80:: from the MAC (addrconf_addr_gen)."""
    if not link.is_up:
        return
    if link.is_loopback:
        yield Address.parse(LOOPBACK_ADDRESSES[0], link.index)
        if has_ipv6(link, sysctls):
            yield Address.parse(LOOPBACK_ADDRESSES[1], link.index)
        return
    generated = sysctls.conf(AF_INET6, link.name, "addr_gen_mode") == EUI64 and has_ipv6(link, sysctls)
    if generated and link.type == ARPHRD_ETHER and len(link.address) == 6:
        yield Address(link.index, link_local(link.address), 64, scope=RT_SCOPE_LINK)


def link_local(mac: bytes) -> bytes:
    """The link-local address of a MAC: fe80::/64 and the modified EUI-64 (RFC 4291 appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]


def insert_ipv4(ordered: list[Address], address: Address) -> None:
    """Put an IPv4 address where __inet_insert_ifa puts it: primaries by scope, then secondaries as they come."""
    flags = address.flags & ~IFA_F_SECONDARY
    place = 0
    for position, other in enumerate(ordered):
        if not other.is_secondary and address.scope <= other.scope:
            place = position + 1
        if other.prefix_length == address.prefix_length and other.prefix == address.prefix:
            if other.local == address.local:
                return
            if other.scope != address.scope:
                raise ValueError(f"{address} has another scope than {other}, which is of the same prefix")
            flags |= IFA_F_SECONDARY
    if flags & IFA_F_SECONDARY:
        place = len(ordered)
    ordered.insert(place, replace(address, flags=flags))


def insert_ipv6(ordered: list[Address], address: Address) -> None:
    """Put an IPv6 address where ipv6_link_dev_addr puts it: wider scope first, the newest first in each."""
    if any(other.local == address.local for other in ordered):
        return
    rank = ipv6_rank(address)
    place = next((i for i, other in enumerate(ordered) if rank >= ipv6_rank(other)), len(ordered))
    ordered.insert(place, address)


def ipv6_rank(address: Address) -> int:
    """IPV6_ADDR_SCOPE_*: 14 global, 5 site, 2 link, 1 host."""
    return {RT_SCOPE_UNIVERSE: 14, RT_SCOPE_LINK: 2, RT_SCOPE_HOST: 1}.get(address.scope, 5)


def kernel_routes(links: Mapping[int, Link], addresses: Iterable[Address], sysctls: Sysctls) -> list[Route]:
    """The routes that the kernel makes for these addresses, in its order, without duplicates."""
    addresses = list(addresses)
    routes: dict[Route, None] = {}
    for address in (a for a in addresses if a.family == AF_INET):
        routes.update(dict.fromkeys(ipv4_routes(address, links[address.index], addresses)))
    taken = set()
    for link in links.values():
        for route in ipv6_routes(link, addresses, sysctls) if has_ipv6(link, sysctls) else ():
            key = (route.table, route.destination, route.priority, route.hops)
            if key not in taken:  # fib6_add_rt2node refuses a second route with the same hop, whatever its type
                taken.add(key)
                routes[route] = None
    return list(routes)


def ipv4_routes(address: Address, link: Link, addresses: list[Address]) -> Iterator[Route]:
    """fib_add_ifaddr: host route in table local, broadcasts, the connected prefix."""
    primary = address
    if address.is_secondary:
        primary = next(
            a for a in addresses if a.index == address.index and not a.is_secondary and a.prefix == address.prefix
        )
    hops = (Hop(link.index, flags=0 if link.has_carrier else RTNH_F_LINKDOWN),)

    def route(type_: int, destination: Prefix, priority: int = 0) -> Route:
        scope = RT_SCOPE_HOST if type_ == RTN_LOCAL else RT_SCOPE_LINK
        table = RT_TABLE_MAIN if type_ == RTN_UNICAST else RT_TABLE_LOCAL
        flagged = hops if type_ in (RTN_UNICAST, RTN_BROADCAST) else (Hop(link.index),)
        return Route(destination, flagged, type_, table, priority, 0, scope, RTPROT_KERNEL, primary.local)

    yield route(RTN_LOCAL, Prefix(address.local, 32))
    if not link.is_up:
        return
    if address.broadcast and address.broadcast != b"\xff" * 4:
        yield route(RTN_BROADCAST, Prefix(address.broadcast, 32))
    connected = address.prefix
    if connected.address == ANY[AF_INET] or address.is_secondary:
        return
    if connected.address == address.local and connected.length == 32:
        return
    if not address.flags & IFA_F_NOPREFIXROUTE:
        yield route(RTN_LOCAL if link.is_loopback else RTN_UNICAST, connected, address.metric)
    if connected.length < 31:
        last = int.from_bytes(connected.address) | ~mask(32, connected.length) & 0xFFFFFFFF
        yield route(RTN_BROADCAST, Prefix(last.to_bytes(4), 32))


def ipv6_routes(link: Link, addresses: list[Address], sysctls: Sysctls) -> Iterator[Route]:
    """The routes of addrconf: ff00::/8 for the device, then those of each address.

    An address has its prefix, its host route, its peer, and with forwarding on its subnet's router anycast address.
    """
    hops = (Hop(link.index, flags=0 if link.has_carrier else RTNH_F_LINKDOWN),)

    def route(type_: int, destination: Prefix, metric: int) -> Route:
        table = RT_TABLE_MAIN if type_ == RTN_UNICAST else RT_TABLE_LOCAL
        return Route(destination, hops, type_, table, metric, protocol=RTPROT_KERNEL)

    if not link.is_loopback:
        yield route(RTN_MULTICAST, Prefix.parse("ff00::/8"), IP6_RT_PRIO_ADDRCONF)
    own = [a for a in addresses if a.index == link.index and a.family == AF_INET6]
    for address in reversed(own):
        metric = address.metric or IP6_RT_PRIO_ADDRCONF
        if not address.flags & IFA_F_NOPREFIXROUTE and address.local != LOOPBACK:
            yield route(RTN_UNICAST, Prefix.of(address.local, address.prefix_length), metric)
        if not address.is_usable:
            continue
        yield route(RTN_LOCAL, Prefix(address.local, 128), 0)
        if address.peer:
            yield route(RTN_UNICAST, Prefix(address.peer, 128), metric)
        if anycast := router_anycast(address, link, sysctls):
            yield route(RTN_ANYCAST, Prefix(anycast, 128), 0)


def router_anycast(address: Address, link: Link, sysctls: Sysctls) -> bytes:
    """The subnet-router anycast address (RFC 4291 2.6.1) that a router has beside `address`, or empty."""
    subnet = Prefix.of(address.local, address.prefix_length).address
    forwarding = sysctls.conf(AF_INET6, link.name, "forwarding")
    return subnet if forwarding and address.prefix_length < 127 and subnet != ANY[AF_INET6] else b""


def memberships(
    links: Mapping[int, Link], addresses: Iterable[Address], sysctls: Sysctls
) -> Iterator[tuple[int, bytes]]:
    """Give (device index, group) for the multicast groups that the kernel joins by itself.

    Source: ip_mc_up, ipv6_add_dev, addrconf_join_solict.
    """
    for link in links.values():
        if link.is_up:
            yield link.index, ALL_HOSTS
        if has_ipv6(link, sysctls):
            yield from ((link.index, group) for group in ALL_NODES)
            if sysctls.conf(AF_INET6, link.name, "forwarding") and link.flags & IFF_MULTICAST:
                yield link.index, ALL_ROUTERS
    for address in addresses:
        link = links[address.index]
        if address.family == AF_INET6 and not link.is_loopback and not link.flags & IFF_NOARP:
            yield address.index, SOLICITED_NODE + address.local[13:]
            if anycast := router_anycast(address, link, sysctls):
                yield address.index, SOLICITED_NODE + anycast[13:]


def complete(route: Route, routes: Iterable[Route], links: Mapping[int, Link]) -> Route:
    """A route given by hand with what fib_check_nh fills in.

    The devices of gateways (ValueError for one that is on no link), and linkdown where a device has no carrier.
    """

    def finish(hop: Hop) -> Hop:
        oif = hop.oif or on_link(hop.gateway, routes)
        if oif not in links:
            raise ValueError(f"{route}: no device has the index {oif}")
        return replace(hop, oif=oif, flags=hop.flags | (0 if links[oif].has_carrier else RTNH_F_LINKDOWN))

    return replace(route, hops=tuple(finish(hop) for hop in route.hops))


def on_link(gateway: bytes, routes: Iterable[Route]) -> int:
    """The device of the most specific connected route to `gateway`; ValueError where there is none."""
    key: Callable[[Route], int] = lambda route: route.destination.length  # noqa: E731
    connected = [
        route
        for route in routes
        if route.type == RTN_UNICAST and gateway in route.destination and route.hops and not route.hops[0].gateway
    ]
    if not connected:
        raise ValueError(f"gateway {text(gateway)} is on no link: name its device (oif)")
    return max(connected, key=key).hops[0].oif
