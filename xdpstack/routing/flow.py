"""What a lookup is asked, and what it answers: plain values."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from xdpstack.netlink import Route, text
from xdpstack.netlink.ip import ANY, family_of
from xdpstack.netlink.uapi import AF_INET, AF_INET6, RT_SCOPE_UNIVERSE


@dataclass(frozen=True, slots=True)
class Flow:
    """The keys that routing knows of a packet (struct flowi4, struct flowi6). Numbers are in host order."""

    destination: bytes
    """Packed; its length is the family of the lookup."""
    source: bytes = b""
    """Packed, or empty: not chosen yet."""
    iif: int = 0
    """The index of the device it came in by; 0 for what this host sends."""
    oif: int = 0
    """The index of the device the sender is bound to, or 0."""
    mark: int = 0
    tos: int = 0
    """The TOS or traffic class byte; routing looks at its six DSCP bits."""
    protocol: int = 0
    """IPPROTO_*, 0 if not known."""
    source_port: int = 0
    destination_port: int = 0
    flow_label: int = 0
    """IPv6."""
    user: int = 0
    """The uid of the sending socket; the kernel takes 0 for what came in."""
    tunnel: int = 0
    """The id of the tunnel it came through."""
    hash: int = 0
    """The multipath hash, 31 bits, where whoever asks has computed it; 0 takes the first usable path."""
    hasher: Callable[["Flow"], int] | None = None
    """Else it is made of the flow when a path is to be chosen: the sender may have been given its source by then."""
    bound: bool = False
    """The sender's socket is bound to device `oif` (SO_BINDTODEVICE), not just told it: IPv6 then takes no other way."""
    scope: int = RT_SCOPE_UNIVERSE
    """IPv4: RT_SCOPE_LINK (MSG_DONTROUTE) wants only routes to what is on the link."""

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return family_of(self.destination)

    @property
    def source_or_any(self) -> bytes:
        """The source, or the unspecified address of the family."""
        return self.source or ANY[self.family]

    @property
    def path_hash(self) -> int:
        """What the choice among several paths goes by."""
        return self.hasher(self) if self.hasher else self.hash

    def but(self, **changes: Any) -> "Flow":
        """The same flow with some keys changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a packet goes.

    `action` says what becomes of it:

    * "local": to this host: from outside (route_input), or from itself through loopback (route_output).
    * "broadcast", "multicast": route_input: to this host, sent to all. route_output: on the link of `oif`.
    * "forward": route_input: to be forwarded through `oif`.
    * "output": route_output: to be sent through `oif`.
    * "drop": nowhere; `reason` and `errno` say why.
    """

    action: str
    oif: int = 0
    """The device to leave by; for "local" the loopback device."""
    gateway: bytes = b""
    """The next hop, packed, of either family; empty: the destination itself is on the link."""
    source: bytes = b""
    """route_output: the packet's source address."""
    mtu: int = 0
    """Bytes of the IP packet that fit this way, before path MTU discovery."""
    hop_limit: int = 0
    """The route's own TTL or hop limit, 0 for the default."""
    route: Route | None = None
    """The route that was found, None where none was needed."""
    encap: int = 0
    """LWTUNNEL_ENCAP_*: the kernel would encapsulate; this stack must leave the packet to it."""
    reason: str = ""
    """For "drop": the name of the drop reason (csrc/reasons.def)."""
    errno: int = 0
    """For "drop": what a sender is told; for a packet that came in, what decides the ICMP error (see `icmp`)."""
    redirect: bool = False
    """"forward": it leaves by the device it came in by, to its own link: the sender might be told of a better way."""
    martian: str = ""
    """"drop" of an IPv4 packet whose "source" or "destination" cannot be: log_martians logs it."""
    icmp: tuple[int, int] | None = None
    """"drop": type and code of the ICMP error that its sender is due, before rate limits; None for none."""

    refused_at: int = 0
    """"drop" of what this host sends: the device it would have left by, 0 if it did not come so far."""

    def __str__(self) -> str:
        if self.action == "drop":
            return f"drop {self.reason} errno {self.errno}"
        via = f" via {text(self.gateway)}" if self.gateway else ""
        source = f" src {text(self.source)}" if self.source else ""
        return f"{self.action}{via} dev #{self.oif}{source}"


def is_multicast(address: bytes) -> bool:
    """224.0.0.0/4 or ff00::/8."""
    return address[0] == 0xFF if len(address) == 16 else address[0] & 0xF0 == 0xE0


def is_local_multicast(address: bytes) -> bool:
    """224.0.0.0/24: IPv4 groups of one link."""
    return address[:3] == b"\xe0\x00\x00"


def is_limited_broadcast(address: bytes) -> bool:
    """255.255.255.255."""
    return address == b"\xff\xff\xff\xff"


def is_zeronet(address: bytes) -> bool:
    """0.0.0.0; since Linux 5.3 the rest of 0.0.0.0/8 is like any other address."""
    return address == bytes(4)


def is_loopback(address: bytes) -> bool:
    """127.0.0.0/8 or ::1."""
    return address[0] == 127 if len(address) == 4 else address == LOOPBACK6


def is_link_local(address: bytes) -> bool:
    """fe80::/10."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


LOOPBACK4 = b"\x7f\x00\x00\x01"
LOOPBACK6 = bytes(15) + b"\x01"

__all__ = [
    "AF_INET",
    "AF_INET6",
    "LOOPBACK4",
    "LOOPBACK6",
    "Flow",
    "Verdict",
    "is_limited_broadcast",
    "is_link_local",
    "is_local_multicast",
    "is_loopback",
    "is_multicast",
    "is_zeronet",
]
