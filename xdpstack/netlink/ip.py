"""IP addresses and prefixes as the mirror holds them: packed bytes in network order, 4 or 16 of them.

The length names the family, so IPv4 and IPv6 share every field and every function. Text exists only at the edges.
"""

import functools
import socket
from dataclasses import dataclass
from typing import Final

from xdpstack.netlink.uapi import AF_INET, AF_INET6

ANY: Final = {AF_INET: bytes(4), AF_INET6: bytes(16)}
"""The unspecified address of a family."""


def family_of(address: bytes) -> int:
    """AF_INET for 4 bytes, AF_INET6 for 16; ValueError for any other length."""
    if len(address) == 4:
        return AF_INET
    if len(address) == 16:
        return AF_INET6
    raise ValueError(f"an IP address has 4 or 16 bytes, not {len(address)}: {address!r}")


def packed(address: str | bytes) -> bytes:
    """`"10.0.0.1"` or `"fe80::1"` as packed bytes; bytes pass through once their length is checked."""
    if isinstance(address, bytes):
        family_of(address)
        return address
    try:
        return socket.inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError:
        raise ValueError(f"not an IP address: {address!r}") from None


def text(address: bytes) -> str:
    """Packed bytes as people write them; the empty address (none given) as `""`."""
    return socket.inet_ntop(family_of(address), address) if address else ""


def mac_text(address: bytes) -> str:
    """A link-layer address as colon-separated hex."""
    return address.hex(":")


def packed_mac(address: str | bytes) -> bytes:
    """`"02:00:00:00:00:01"` as bytes; bytes pass through."""
    return address if isinstance(address, bytes) else bytes.fromhex(address.replace(":", ""))


@functools.lru_cache(maxsize=512)
def mask(width: int, length: int) -> int:
    """The netmask of `length` leading ones in an address of `width` bits, as an integer."""
    return ((1 << length) - 1) << (width - length)


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """The addresses whose first `length` bits are those of `address`; the other bits of `address` are zero."""

    address: bytes
    length: int

    @classmethod
    def parse(cls, prefix: "str | bytes | Prefix", family: int = AF_INET) -> "Prefix":
        """`"10.0.0.0/8"`, `"10.0.0.1"` (a host), or `"default"` (needs `family`). Host bits are cleared."""
        if isinstance(prefix, Prefix):
            return prefix
        if prefix == "default":
            return cls(ANY[family], 0)
        address, _, length = (text(prefix) if isinstance(prefix, bytes) else prefix).partition("/")
        return cls.of(packed(address), int(length) if length else None)

    @classmethod
    def of(cls, address: bytes, length: int | None = None) -> "Prefix":
        """The prefix of `length` bits (all of them if None) that `address` lies in."""
        width = len(address) * 8
        if length is None or length == width:
            return cls(address, width)
        if not 0 <= length < width:
            raise ValueError(f"prefix length {length} does not fit an address of {width} bits")
        value = int.from_bytes(address) & mask(width, length)
        return cls(value.to_bytes(width // 8), length)

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return family_of(self.address)

    def __contains__(self, address: bytes) -> bool:
        """True when `address` is of the same family and lies in this prefix."""
        if len(address) != len(self.address):
            return False
        width = len(address) * 8
        return (int.from_bytes(address) ^ int.from_bytes(self.address)) & mask(width, self.length) == 0

    def __str__(self) -> str:
        return f"{text(self.address)}/{self.length}"

    def __repr__(self) -> str:
        return f"Prefix({str(self)!r})"
