"""The addresses that the host takes as its own on a device."""

from __future__ import annotations

from collections.abc import Collection

from xdpstack.device.claims import LocalAddress, Vlan
from xdpstack.netlink import Snapshot, text
from xdpstack.netlink.uapi import RT_TABLE_LOCAL, RTN_ANYCAST, RTN_BROADCAST, RTN_LOCAL


def local_addresses(snapshot: Snapshot, ifindex: int, vlans: Collection[Vlan | None] = (None,)) -> list[LocalAddress]:
    """The addresses that the host takes as its own on a device, as its local table and its group memberships have them.

    Each of them in each of these VLANs (None: untagged), the device's own first. Prefixes of more than one address
    (127.0.0.0/8; `ip route add local`) are left out: those are claimed by prefix.
    """
    found = []
    for route in sorted(snapshot.routes, key=lambda route: all(hop.oif != ifindex for hop in route.hops)):
        if route.table != RT_TABLE_LOCAL or route.type not in (RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST):
            continue
        address = route.destination.address
        if route.destination.length == 8 * len(address):
            found.append((text(address), route.type == RTN_BROADCAST))
    found += [(text(group), True) for index, group in snapshot.groups if index == ifindex]
    return [LocalAddress(address, group, vlan) for vlan in vlans for address, group in found]
