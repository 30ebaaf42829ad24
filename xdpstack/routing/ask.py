"""Asks the published routing tables what a worker would decide. Control only, which publishes them."""

from __future__ import annotations

from typing import Any

from xdpstack.native import ffi, lib
from xdpstack.routing.multipath import halves

_NO_DEVICE = 255


def source_address(stack: Any, destination: bytes, ifindex: int | None = None) -> bytes | None:
    """The source that routing.tx takes for `destination` (both packed); None: no way through a device of the stack.

    `stack` is the struct xs_stack, `ifindex` the device that the sender is bound to.
    """
    key, out = ffi.new("struct xs_fib_key *"), ffi.new("struct xs_routed *")
    (key.dst.hi, key.dst.lo), (key.src.hi, key.src.lo) = halves(destination), halves(bytes(len(destination)))
    key.iif, key.oif = lib.XS_FIB_LOOPBACK, ifindex or 0
    key.flags = lib.XS_FIB_IPV6 if len(destination) == 16 else 0
    lib.xs_routing_ask(stack, _NO_DEVICE, key, 1, out)
    if out.next == lib.XS_DROP:
        return None
    raw = int(out.src.hi).to_bytes(8, "big") + int(out.src.lo).to_bytes(8, "big")
    return raw[-len(destination) :]
