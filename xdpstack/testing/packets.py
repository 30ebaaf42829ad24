"""Comparing packets: field by field, layer by layer, with a diff that can be read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

#: Names that an `ignore` may use for scapy's layers, besides scapy's own.
ALIASES = {"ethernet": "Ether", "ip": "IP", "ipv6": "IPv6", "udp": "UDP", "tcp": "TCP", "icmp": "ICMP", "vlan": "Dot1Q"}


def assert_packets_equal(actual: Any, expected: Any, ignore: Collection[str] = ()) -> None:
    """Both are frames (bytes, from the Ethernet header on, or scapy packets) that agree in every field.

    `ignore` names fields as `layer.field` ("ip.id", "udp.chksum"); layers by scapy's name, in any case. Checksums and
    lengths are compared as they are in the bytes. AssertionError with each field that differs, and both frames in hex.
    """
    left, right = _dissect(actual), _dissect(expected)
    ignored = {_canonical(name) for name in ignore}
    known = {f"{layer}.{field}".lower() for side in (left, right) for layer, fields in side for field, _ in fields}
    unknown = {name for name in ignored if name.lower() not in known}
    if unknown:
        raise ValueError(f"ignored fields that neither packet has: {sorted(unknown)}; they have {sorted(known)}")
    lowered = {name.lower() for name in ignored}
    lines: list[str] = []
    for number in range(max(len(left), len(right))):
        name, fields = left[number] if number < len(left) else ("(nothing)", [])
        other, others = right[number] if number < len(right) else ("(nothing)", [])
        if name != other:
            lines.append(f"  layer {number}: {name}, expected {other}")
            break
        values, wanted = dict(fields), dict(others)
        for field in dict.fromkeys([*wanted, *values]):
            if f"{name}.{field}".lower() not in lowered and values.get(field) != wanted.get(field):
                lines.append(f"  {name}.{field}: {_show(values.get(field))}, expected {_show(wanted.get(field))}")
    if lines:
        lines += ["  actual:   " + bytes(actual).hex(" ", -4), "  expected: " + bytes(expected).hex(" ", -4)]
        raise AssertionError("packets differ:\n" + "\n".join(lines))


def _canonical(name: str) -> str:
    layer, dot, field = name.partition(".")
    if not dot:
        raise ValueError(f"ignore names fields as layer.field, not {name!r}")
    return f"{ALIASES.get(layer.lower(), layer)}.{field}"


def _dissect(packet: Any) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Layer by layer, outermost first: its name, and its fields as they stand in the bytes."""
    from scapy.layers.l2 import Ether

    layers = []
    layer: Any = Ether(bytes(packet))
    while layer and layer.name != "NoPayload":
        fields = [(f.name, layer.getfieldval(f.name)) for f in layer.fields_desc if f.name in layer.fields]
        layers.append((type(layer).__name__, fields))
        layer = layer.payload
    return layers


def _show(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, bytes):
        return f"{len(value)} bytes {value[:48].hex(' ', -4)}{' …' if len(value) > 48 else ''}"
    if isinstance(value, int) and not isinstance(value, bool) and value > 9:
        return f"{value} ({value:#x})"
    return str(value)
