"""The reverse path filter of IPv4: may a packet with this source come in by this device (fib_validate_source)."""

from xdpstack.netlink.uapi import AF_INET, RTN_LOCAL, RTN_UNICAST
from xdpstack.routing import fib4
from xdpstack.routing.flow import Flow
from xdpstack.routing.tables import Device, Tables


def is_on_link(device: Device, address: bytes, gateway: bytes) -> bool:
    """`address`, and the gateway if it is an IPv4 one, are of one prefix of the device (inet_addr_onlink)."""
    gateway = gateway if len(gateway) == 4 else address
    primaries = (own for own in device.addresses[AF_INET] if not own.is_secondary)
    return any(address in own.prefix and gateway in own.prefix for own in primaries)


def validate_source(tables: Tables, flow: Flow, destination: bytes, oif: int, device: Device) -> tuple[str, bool]:
    """The reverse path filter (fib_validate_source).

    Returns the drop reason, "" if `flow.source` may have come in by `device`; and whether it is known to be on its link.
    `oif` is where the packet is to leave by, 0 for nowhere. Without a filter, realms, rules or local routes of the user's
    the check is that the source is none of this host's addresses; with them the way back is looked up in full.
    """
    source = flow.source_or_any
    in_full = device.rp_filter or tables.realms
    if not in_full and (device.index != oif or not device.send_redirects):
        if device.accept_local:
            return "", False
        if not (tables.custom_local or tables.custom_rules):
            return "IP_LOCAL_SOURCE" if source in tables.local else "", False
    back = Flow(
        source,
        destination,
        iif=oif or tables.loopback,
        mark=flow.mark if device.src_valid_mark else 0,
        tos=flow.tos,
        protocol=flow.protocol,
        source_port=flow.destination_port,
        destination_port=flow.source_port,
    )
    found = fib4.fib_lookup(tables, back)
    if found.error:
        return "IP_RPFILTER" if device.rp_filter else "", False
    assert found.entry is not None
    kind = found.entry.route.type
    if kind not in (RTN_UNICAST, RTN_LOCAL):
        return "IP_INVALID_SOURCE", False
    if kind == RTN_LOCAL and not device.accept_local:
        return "IP_LOCAL_SOURCE", False
    matches = any(path.oif == device.index for path in found.entry.paths)
    if matches or (kind == RTN_LOCAL and device.index == tables.loopback):
        return "", found.path is not None and not found.path.gateway
    if device.rp_filter == 1 or (device.rp_filter and not device.addresses[AF_INET]):
        return "IP_RPFILTER", False
    again = fib4.fib_lookup(tables, back.but(oif=device.index))
    return "", again.path is not None and not again.path.gateway
