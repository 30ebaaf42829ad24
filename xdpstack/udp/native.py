"""The UDP layer's C side: compiles sockets into the lookup table of `csrc/tables/sockets.h` and publishes it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from xdpstack.errors import OutOfMemory
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.udp.bpf import Instruction
from xdpstack.udp.semantics import Bound, Family, keys, only_joined

ANY_DEVICE = lib.XS_ANY_DEVICE
#: A socket that is bound to a device of the host which the stack does not have.
OTHER_DEVICE = lib.XS_OTHER_DEVICE
ONLY_JOINED: dict[Family, int] = {4: lib.XS_SOCKET_ONLY_JOINED_4, 6: lib.XS_SOCKET_ONLY_JOINED_6}


def create(core: Core, bound: Bound, rcvbuf: int, sndbuf: int) -> Any:
    """A `struct xs_socket *` for `bound`, owned by the returned cdata: keep it as long as a table names it.

    `rcvbuf` and `sndbuf` in bytes, as the kernel counts them. Raises OutOfMemory.
    """
    values = {"index": bound.index, "family": bound.family, "address": bound.address, "port": bound.port}
    socket = _create(core, {**values, "rcvbuf": rcvbuf, "sndbuf": sndbuf})
    lib.xs_socket_set_flags(socket, flags(bound), 0)
    if bound.filter:
        set_filter(core, socket, bound.filter)
    return socket


def create_queue(core: Core, index: int, rcvbuf: int) -> Any:
    """A `struct xs_socket *` that only is a queue, of whole frames: no lookup finds it, and nothing in it has an address."""
    return _create(core, {"index": index, "family": 0, "rcvbuf": rcvbuf, "sndbuf": rcvbuf})


def _create(core: Core, values: dict[str, Any]) -> Any:
    out = ffi.new("struct xs_socket **")
    result = lib.xs_socket_create(core.pointer, ffi.new("struct xs_socket_options *", values), out)
    if result == -errno.ENOMEM:
        raise OutOfMemory(
            f"no memory for the queue of a socket with a receive buffer of {values['rcvbuf']} bytes",
            fix="Ask for a smaller receive buffer (SO_RCVBUF); see `free -m`.",
        )
    check(result, "make the queue of a socket")
    return ffi.gc(out[0], lib.xs_socket_free)


def flags(bound: Bound) -> int:
    """XS_SOCKET_* as far as the lookup and the checks need them."""
    value = lib.XS_SOCKET_CONNECTED if bound.peer else 0
    return value | (lib.XS_SOCKET_NO_CHECK6_RX if bound.no_check6_rx else 0)


def set_sending(socket: Any, **fields: Any) -> None:
    """Change fields of `struct xs_socket_sending` together: no sender sees some of them without the others."""
    current = lib.xs_socket_sending(socket)
    changed = ffi.new("struct xs_socket_sending *", current[0])
    for name, value in fields.items():
        setattr(changed, name, value)
    current[0] = changed[0]  # one assignment, with the GIL kept


def set_filter(core: Core, socket: Any, program: Sequence[Instruction]) -> None:
    """Attach a checked filter; empty detaches. When this returns, no worker runs the one before. Raises OutOfMemory."""
    codes = ffi.new("struct xs_filter_code[]", [tuple(one) for one in program])
    if lib.xs_socket_set_filter(core.pointer, socket, codes, len(program)) < 0:
        raise OutOfMemory(f"no memory for a filter of {len(program)} instructions")


def publish(core: Core, sockets: Sequence[tuple[Bound, Any]]) -> None:
    """Replace the lookup table: (`Bound`, its `struct xs_socket *`) in order of precedence.

    When this returns, no worker feeds a socket that is not among them. Raises OutOfMemory; then the old table stays.
    """
    pointers = {bound.index: pointer for bound, pointer in sockets}
    rows = [(address, bound) for bound, _ in sockets for address in keys(bound)]
    kept = []
    bindings = ffi.new("struct xs_socket_binding[]", len(rows))
    for binding, (address, bound) in zip(bindings, rows, strict=True):
        binding.socket = pointers[bound.index]
        binding.address = address
        binding.port = bound.port
        if bound.peer is not None:
            binding.peer = bound.peer
        binding.peer_port = bound.peer_port
        binding.device = ANY_DEVICE if bound.device is None else bound.device
        binding.family = bound.family
        binding.vlan = bound.vlan
        binding.reconnected = bound.reconnected
        groups = [(group, ANY_DEVICE if device is None else device) for group, device in sorted(bound.groups, key=str)]
        kept.append(ffi.new("struct xs_socket_group[]", groups))
        binding.groups, binding.ngroups = kept[-1], len(groups)
        binding.only_joined = sum(ONLY_JOINED[family] for family in only_joined(bound))
    if lib.xs_stack_set_sockets(core.pointer, bindings, len(rows)) < 0:
        raise OutOfMemory(f"no memory for a table of {len(rows)} sockets")


def truesize(payload: int, family: Family, slow: bool = False) -> int:
    """What C charges for a datagram of `payload` bytes; the same as `semantics.truesize()`."""
    return int(lib.xs_udp_truesize(payload + 8, family == 6, slow))
