"""Addresses as Python's socket module has them, and as the layer has them (16 bytes, IPv4 mapped)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from xdpstack.batch import Batch
from xdpstack.errors import ConfigurationError
from xdpstack.udp.semantics import ANY, V4_MAPPED, Family

#: ("10.0.0.1", 7), or for IPv6 ("fd00::1", 7, 0, scope).
Address = tuple[Any, ...]


def resolve(address: Address, family: Family, passive: bool = False) -> Address:
    """`address` with a numeric host, as Python's sockets understand it: "" is any, "<broadcast>", names are looked up.

    Raises what `socket.getaddrinfo()` raises, or TypeError.
    """
    if not isinstance(address, tuple) or not 2 <= len(address) <= (2 if family == 4 else 4):
        shape = "(host, port)" if family == 4 else "(host, port[, flowinfo[, scope_id]])"
        raise TypeError(f"an address is a tuple {shape}, not {address!r}")
    host, port, *rest = address
    if host == "<broadcast>" and family == 4:
        host = "255.255.255.255"
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise OverflowError(f"port must be 0 to 65535, not {port!r}")
    flags = socket.AI_PASSIVE if passive else 0
    found = socket.getaddrinfo(host or None, port, _af(family), socket.SOCK_DGRAM, 0, flags)
    numeric: Address = found[0][4]
    if family == 4:
        return numeric
    return (numeric[0].partition("%")[0], port, rest[0] if rest else 0, rest[1] if len(rest) > 1 else numeric[3])


def resolve_many(addresses: Any, n: int, family: Family) -> Any:
    """What `send_batch()` was given for `n` datagrams, with numeric hosts: None, a tuple, a list, or the C side of a Batch.

    Raises ValueError when there are not so many, and what `resolve()` raises.
    """
    if addresses is None:
        return None
    if isinstance(addresses, Batch):
        if len(addresses) < n:
            raise ValueError(f"{n} payloads to answer a batch of {len(addresses)}")
        return addresses._inner
    if isinstance(addresses, tuple) and (not addresses or not isinstance(addresses[0], tuple)):
        return resolve(addresses, family)
    if len(addresses) != n:
        raise ValueError(f"{n} payloads and {len(addresses)} addresses")
    known: dict[Address, Address] = {}
    return [known.get(one) or known.setdefault(one, resolve(one, family)) for one in addresses]


def nth(resolved: Any, index: int) -> Address | None:
    """The address of one datagram out of what `resolve_many()` returned."""
    if resolved is None or isinstance(resolved, tuple):
        return resolved
    address: Address = resolved[index] if isinstance(resolved, list) else resolved.address(index)
    return address


def family_of(host: str) -> Family | None:
    """The family of a numeric host; None for a name."""
    for number, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        try:
            socket.inet_pton(kind, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return 4 if number == 4 else 6
    return None


def packed(address: Sequence[Any], family: Family) -> bytes:
    """The 16 bytes of a numeric address tuple."""
    if family == 4:
        return V4_MAPPED + socket.inet_pton(socket.AF_INET, address[0])
    return socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])


def unpacked(address: bytes, port: int, family: Family, scope: int = 0) -> Address:
    """The tuple for 16 bytes and a port."""
    if family == 4:
        return (socket.inet_ntop(socket.AF_INET, address[12:]), port)
    return (socket.inet_ntop(socket.AF_INET6, address), port, 0, scope)


def named(peer: Address, source: bytes, family: Family) -> Address:
    """Whom connect() means by `peer`: by the wildcard this host, by its own address (IPv4), or by that of loopback.

    For peers with port 0, any port, whom getpeername() does not name.
    """
    if not is_any(packed(peer, family)):
        return peer
    if family == 4:
        return ("127.0.0.1" if is_any(source) else unpacked(source, 0, 4)[0], *peer[1:])
    return ("::ffff:127.0.0.1" if source.startswith(V4_MAPPED) else "::1", *peer[1:])


def mapped(address: bytes) -> bytes:
    """4 or 16 packed bytes as 16."""
    return V4_MAPPED + address if len(address) == 4 else address


def bare(address: bytes) -> bytes:
    """16 bytes as the 4 or 16 of its family."""
    return address[12:] if address.startswith(V4_MAPPED) else address


def is_any(address: bytes) -> bool:
    """0.0.0.0 or ::."""
    return address in ANY.values()


def is_scoped(address: bytes) -> bool:
    """Whether 16 bytes mean something only together with a device: __ipv6_addr_needs_scope_id()."""
    link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
    return link_local or (address[0] == 0xFF and address[1] & 0x0F in (1, 2))


def choose_family(address: Address, family: socket.AddressFamily | None) -> Family:
    """The family of a socket that is to have `address`: as asked, else that of its host, else IPv4.

    Raises ConfigurationError for a family that is neither AF_INET nor AF_INET6.
    """
    if family is None:
        return (family_of(address[0]) if address[0] else None) or 4
    if family == socket.AF_INET:
        return 4
    if family == socket.AF_INET6:
        return 6
    raise ConfigurationError(f"a UDP socket cannot be of family {family!r}", fix="AF_INET or AF_INET6.")


def _af(family: Family) -> socket.AddressFamily:
    return socket.AF_INET if family == 4 else socket.AF_INET6
