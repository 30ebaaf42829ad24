"""The multipath hash: 31 bits over what the family's policy names. csrc/tables/fib_lookup.c computes the same.

Mirrors fib_multipath_hash() and rt6_multipath_hash() in what is hashed; the hash itself is another one.
"""

from __future__ import annotations

from xdpstack.native import lib
from xdpstack.netlink.sysctl import Sysctls
from xdpstack.netlink.uapi import AF_INET, AF_INET6
from xdpstack.routing.flow import Flow

#: What multipath hashes, by fib_multipath_hash_policy (0 addresses, 1 ports as well, 2 inner addresses: here the same as 0).
LAYER3 = {AF_INET: lib.XS_HASH_SRC | lib.XS_HASH_DST,
          AF_INET6: lib.XS_HASH_SRC | lib.XS_HASH_DST | lib.XS_HASH_FLOW_LABEL | lib.XS_HASH_PROTO}  # fmt: skip
LAYER4 = lib.XS_HASH_SRC | lib.XS_HASH_DST | lib.XS_HASH_PROTO | lib.XS_HASH_SPORT | lib.XS_HASH_DPORT
CUSTOM_POLICY = 3

MAPPED = 0xFFFF << 32


def hash_fields(sysctls: Sysctls, family: int) -> int:
    """XS_HASH_* by the family's switches."""
    name = "ipv4" if family == AF_INET else "ipv6"
    policy = sysctls[f"{name}.fib_multipath_hash_policy"]
    if policy == CUSTOM_POLICY:
        return int(sysctls[f"{name}.fib_multipath_hash_fields"])
    return int(LAYER3[family] if policy in (0, 2) else LAYER4)


def halves(address: bytes) -> tuple[int, int]:
    """Packed bytes as struct xs_addr: two 64-bit halves, IPv4 mapped."""
    if len(address) == 4:
        return 0, MAPPED | int.from_bytes(address)
    return int.from_bytes(address[:8]), int.from_bytes(address[8:])


def multipath_hash(fields: int, flow: Flow) -> int:
    """The hash of a flow over `fields`; a source that is not chosen yet counts as zero."""
    parts = (
        (lib.XS_HASH_SRC, halves(flow.source) if flow.source else (0, 0)),
        (lib.XS_HASH_DST, halves(flow.destination)),
        (lib.XS_HASH_PROTO, (flow.protocol,)),
        (lib.XS_HASH_FLOW_LABEL, (flow.flow_label,)),
        (lib.XS_HASH_SPORT, (flow.source_port,)),
        (lib.XS_HASH_DPORT, (flow.destination_port,)),
    )
    mixed = 0
    for field, values in parts:
        for value in values if fields & field else ():
            mixed = (mixed ^ value) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
            mixed ^= mixed >> 29
    return mixed >> 33
