"""What UDP does with a datagram, in plain Python: values in, verdict (received) or header (sent) out.

This is the definition. `csrc/stages/udp_rx.c` does the same fast, and property tests hold the two against each other and
against Linux. Read `receive()` first: it is the order of the checks.

Addresses are 16 bytes in network order, IPv4 mapped (::ffff:a.b.c.d); ports, lengths and devices are integers. Source:
net/ipv4/udp.c and net/ipv6/udp.c of Linux 6.18; RFC 768, RFC 8200 8.1, RFC 6935.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from xdpstack.udp import bpf
from xdpstack.udp.bpf import Instruction

Family = Literal[4, 6]

PROTOCOL = 17
HEADER_BYTES = 8
#: The largest payload of one datagram: 65535 less an IPv4 header and a UDP header.
MAX_PAYLOAD_BYTES = 65507
V4_MAPPED = bytes(10) + b"\xff\xff"
#: "any address": what a socket is found under for IPv4 and for IPv6 datagrams.
ANY = {4: V4_MAPPED + bytes(4), 6: bytes(16)}


@dataclass(frozen=True, slots=True)
class Datagram:
    """One received datagram as `ip.local` hands it over.

    `data` is what the IP packet carries: the UDP header, the payload, and whatever else was inside the IP length.
    `vlan` is that of its tag, 0 without one, or if it has a priority alone; of two tags service VLAN << 16 | VLAN.
    `partial` says that the device may leave checksums to be completed (XS_DEV_PARTIAL_CSUM). `to_many` says that
    routing found a broadcast or multicast destination. `headers` are those before `data`, from the Ethernet header on,
    with the IP header at `network`, and `facts` what else a socket's filter may ask for (bpf.py).
    """

    family: Family
    source: bytes
    destination: bytes
    data: bytes
    device: int = 0
    vlan: int = 0
    partial: bool = False
    to_many: bool = False
    headers: bytes = b""
    network: int = 0
    facts: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bound:
    """What the lookup knows of a socket. `address` of all zero bits (of either family) is "any".

    `family` is the socket's: one of family 6 that is bound to "any" takes IPv4 as well, unless `v6only`; one bound to a
    mapped IPv4 address takes IPv4 only. `peer` None and `peer_port` 0: not connected. `device` None: any. `vlan` 0:
    untagged; else as of a datagram. `reconnected`: to another peer than at first, under whom Linux has it (precedence.py).
    `groups` are those that it has joined, of IPv4 by which device (None: any); `only_joined` says of which families it
    takes no others (IP_MULTICAST_ALL off), None: as Linux begins.
    """

    index: int
    family: Family
    address: bytes
    port: int
    peer: bytes | None = None
    peer_port: int = 0
    device: int | None = None
    vlan: int = 0
    v6only: bool = False
    no_check6_rx: bool = False
    filter: tuple[Instruction, ...] = ()
    reconnected: bool = False
    groups: frozenset[tuple[bytes, int | None]] = frozenset()
    only_joined: frozenset[Family] | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A datagram that passed every check on itself. `checksum` is "verified", "partial" or "none"."""

    source_port: int
    destination_port: int
    payload: bytes
    checksum: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a datagram goes: to the sockets of these indices, or nowhere for a `reason` (a name in csrc/reasons.def).

    `payloads` is what each socket gets: the payload, or as much of it as the socket's filter left. `refused` are the sockets
    that would have got it, but for their filters; with no others that is the reason.
    """

    sockets: tuple[int, ...] = ()
    payloads: tuple[bytes, ...] = ()
    reason: str | None = None
    accepted: Accepted | None = None
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A datagram that is sent, before it has a header: addresses of 16 bytes, as everywhere here."""

    family: Family
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    payload: bytes


def receive(datagram: Datagram, sockets: Sequence[Bound]) -> Verdict:
    """__udp4_lib_rcv() and __udp6_lib_rcv(): from the header to the choice of sockets.

    `sockets` are in order of precedence: on equal scores the first wins (in Linux, the one that was bound last).
    What then happens at each socket is `ReceiveQueue.charge()`.
    """
    accepted = validate(datagram)
    if isinstance(accepted, str):
        return Verdict(reason=accepted)
    if datagram.to_many:
        return _to_many(datagram, accepted, sockets)
    bound = lookup(datagram, accepted, sockets)
    if bound is None:
        return Verdict(reason="NO_SOCKET", accepted=accepted)
    if _lacks_checksum(datagram, accepted, bound):
        return Verdict(reason="UDP_CSUM", accepted=accepted)
    return _filtered(datagram, accepted, [bound])


# ---- the datagram itself ----


def validate(datagram: Datagram) -> Accepted | str:
    """Check length and checksum. Returns the datagram taken apart, or the drop reason.

    A length of zero in the header means "all there is" over IPv6: for jumbograms (RFC 2675), but Linux does not look
    whether it is one. A length below the IP payload's trims; one above it, or below the header's own 8, drops.
    """
    data = datagram.data
    if len(data) < HEADER_BYTES:
        return "PKT_TOO_SMALL"
    source_port, destination_port, length, _ = (int.from_bytes(data[i : i + 2]) for i in (0, 2, 4, 6))
    if length == 0 and datagram.family == 6:
        length = len(data)
    if not HEADER_BYTES <= length <= len(data):
        return "PKT_TOO_SMALL"
    state = checksum_state(datagram, data[:length])
    if state == "bad":
        return "UDP_CSUM"
    return Accepted(source_port, destination_port, data[HEADER_BYTES:length], state)


def checksum_state(datagram: Datagram, covered: bytes) -> Literal["none", "partial", "verified", "bad"]:
    """The state of the checksum of `covered`, the UDP header and its payload.

    - none: the field is zero. The sender computed none; over IPv6 it must, so that the socket has to allow it.
    - partial: the device may leave checksums unfilled, and the field holds what such a sender puts there: the folded sum
      of the pseudo header, not complemented. The payload never left the machine, so there is nothing to verify.
    - verified, bad: the sum over pseudo header, header and payload is 0xffff, or is not.
    """
    field_value = int.from_bytes(covered[6:8])
    if field_value == 0:
        return "none"
    pseudo = pseudo_header(datagram.family, datagram.source, datagram.destination, len(covered))
    if datagram.partial and field_value == ones_complement_sum(pseudo):
        return "partial"
    return "verified" if ones_complement_sum(pseudo + covered) == 0xFFFF else "bad"


def pseudo_header(family: Family, source: bytes, destination: bytes, length: int) -> bytes:
    """The pseudo header of RFC 768 (IPv4) or RFC 8200 8.1 (IPv6) for a UDP datagram of `length` bytes."""
    if family == 4:
        return source[12:] + destination[12:] + bytes([0, PROTOCOL]) + length.to_bytes(2)
    return source + destination + length.to_bytes(4) + bytes([0, 0, 0, PROTOCOL])


def ones_complement_sum(data: bytes) -> int:
    """The 16-bit one's complement sum, not complemented (RFC 1071). An odd last byte is padded with zero."""
    # the number's digits to the base 0x10000 are summed: that keeps it, modulo 0xffff
    number = int.from_bytes(data + b"\0" * (len(data) % 2))
    return number % 0xFFFF or (0xFFFF if number else 0)


def _lacks_checksum(datagram: Datagram, accepted: Accepted, bound: Bound) -> bool:
    """Over IPv6 no checksum is an error, unless the socket says UDP_NO_CHECK6_RX."""
    return datagram.family == 6 and accepted.checksum == "none" and not bound.no_check6_rx


# ---- which socket ----


def lookup(datagram: Datagram, accepted: Accepted, sockets: Sequence[Bound]) -> Bound | None:
    """__udp4_lib_lookup(): among those bound to the exact address the best score, else among the wildcards."""
    for address in (datagram.destination, ANY[datagram.family]):
        best, badness = None, -1
        for bound in sockets:
            if address not in keys(bound):
                continue
            found = score(bound, datagram, accepted)
            if found is not None and found > badness:
                best, badness = bound, found
        if best is not None:
            return best
    return None


def keys(bound: Bound) -> tuple[bytes, ...]:
    """The addresses a socket is found under: its own; for "any", one per family that it takes."""
    if bound.address not in ANY.values():
        return (bound.address,)
    if bound.family == 4 or bound.address == ANY[4]:
        return (ANY[4],)
    return (ANY[6],) if bound.v6only else (ANY[6], ANY[4])


#: The score of a connected socket that fits: above all others, and the same for all.
CONNECTED = 16


def score(bound: Bound, datagram: Datagram, accepted: Accepted) -> int | None:
    """compute_score(): how well a socket that has the address fits; None when it does not take the datagram.

    It is for the socket's VLAN alone, as for a socket that is bound to a VLAN device. Every further condition that the
    socket makes and the datagram meets (peer's address, peer's port, device) counts four; being of the datagram's own
    family counts one. Connected sockets are found by all four of their numbers before any score is asked for
    (udp4_lib_lookup4): of several with the same four the order decides, not the device. Not so those `reconnected`, nor
    those connected to port 0, but for what comes from port 0.
    """
    if bound.port != accepted.destination_port or bound.vlan != datagram.vlan:
        return None
    total = int(bound.family == datagram.family)
    for wanted, got in (
        (bound.peer, datagram.source),
        (bound.peer_port or None, accepted.source_port),
        (bound.device, datagram.device),
    ):
        if wanted is not None and wanted != got:
            return None
        total += 4 * (wanted is not None)
    return CONNECTED if bound.peer and bound.peer_port == accepted.source_port and not bound.reconnected else total


def _to_many(datagram: Datagram, accepted: Accepted, sockets: Sequence[Bound]) -> Verdict:
    """__udp4_lib_mcast_deliver(): every socket that fits gets it, whatever its score."""
    addresses = {datagram.destination, ANY[datagram.family]}
    takers = [
        bound
        for bound in sockets
        if addresses & set(keys(bound))
        and takes_group(bound, datagram)
        and score(bound, datagram, accepted) is not None
        and not _lacks_checksum(datagram, accepted, bound)
    ]
    if not takers:
        return Verdict(reason="NO_SOCKET", accepted=accepted)
    return _filtered(datagram, accepted, takers)


def takes_group(bound: Bound, datagram: Datagram) -> bool:
    """ip_mc_sf_allow(), inet6_mc_check(): a group that the socket has joined, or it takes those that it has not."""
    if datagram.family == 4 and not is_multicast_v4(datagram.destination):
        return True  # broadcast
    if {(datagram.destination, datagram.device), (datagram.destination, None)} & bound.groups:
        return True
    return datagram.family not in only_joined(bound)


def only_joined(bound: Bound) -> frozenset[Family]:
    """The families of whose groups it takes those alone that it has joined: an IPv6 socket, of IPv4, unless it says so."""
    if bound.only_joined is not None:
        return bound.only_joined
    return frozenset({4}) if bound.family == 6 else frozenset()


def _filtered(datagram: Datagram, accepted: Accepted, takers: Sequence[Bound]) -> Verdict:
    """sk_filter_trim_cap(): each socket's filter drops the datagram, or cuts its payload."""
    length = HEADER_BYTES + len(accepted.payload)
    seen = bpf.Seen(datagram.data[:length], datagram.headers, datagram.network, datagram.facts)
    kept = [(bound.index, bpf.run(bound.filter, seen) if bound.filter else length) for bound in takers]
    left = [(index, accepted.payload[: max(keep - HEADER_BYTES, 0)]) for index, keep in kept if keep]
    refused = tuple(index for index, keep in kept if not keep)
    if not left:
        return Verdict(reason="SOCKET_FILTER", accepted=accepted, refused=refused)
    sockets, payloads = zip(*left, strict=True)
    return Verdict(sockets, payloads, accepted=accepted, refused=refused)


# ---- sending ----


def header(outgoing: Outgoing) -> bytes:
    """The UDP header with its checksum, in network order (udp_send_skb(), udp_v6_send_skb())."""
    length = HEADER_BYTES + len(outgoing.payload)
    fields = (outgoing.source_port, outgoing.destination_port, length)
    head = b"".join(value.to_bytes(2) for value in fields)
    pseudo = pseudo_header(outgoing.family, outgoing.source, outgoing.destination, length)
    checksum = 0xFFFF - ones_complement_sum(pseudo + head + b"\0\0" + outgoing.payload)
    return head + (checksum or 0xFFFF).to_bytes(2)  # zero would mean that there is none (RFC 768)


def is_multicast_v4(address: bytes) -> bool:
    """224.0.0.0/4, mapped."""
    return address.startswith(V4_MAPPED) and address[12] >> 4 == 0xE


def is_multicast(address: bytes) -> bool:
    """A multicast address of either family, or the limited broadcast address."""
    return address[0] == 0xFF or is_multicast_v4(address) or address == V4_MAPPED + b"\xff\xff\xff\xff"


# ---- the receive buffer ----


def truesize(payload: int, family: Family, slow: bool = False) -> int:
    """Bytes of receive buffer that a datagram of `payload` bytes costs.

    It is the truesize of the skb that a local sender (over veth) makes: the data with head room, rounded up to cache lines
    of 64, with struct skb_shared_info (320) behind it, out of a slab of 576 bytes or of a power of two, and the sk_buff
    itself (256). What came through a shadow socket (`slow`) and is larger than the MTU of 1500 was fragments, one skb each
    (a second fragment so small that Linux copies it into the slack of the first is charged all the same).
    Source: __alloc_skb(), __ip_append_data(), __ip6_append_data().
    """
    size = payload + HEADER_BYTES
    head = 20 + 16 + 15 if family == 4 else 40 + 16 + 8
    if not slow or size <= (1480 if family == 4 else 1460):
        return _skb_bytes(size + head)
    full, rest = divmod(size, 1480 if family == 4 else 1448)
    total = full * _skb_bytes((1480 if family == 4 else 1448) + head)
    return total + (_skb_bytes(rest + head) if rest else 0)


def _skb_bytes(data: int) -> int:
    size = (data + 63) // 64 * 64 + 320
    slab = 576 if size <= 576 else max(1024, 1 << (size - 1).bit_length())
    return slab + 256


def receive_buffer(asked: int, maximum: int) -> int:
    """SO_RCVBUF: what a socket gets that asks for `asked` bytes, with net.core.rmem_max (sock_setsockopt())."""
    smallest = 2048 + 256  # SOCK_MIN_RCVBUF: TCP_SKB_MIN_TRUESIZE
    return max(2 * min(asked, maximum), smallest)


def send_buffer(asked: int, maximum: int) -> int:
    """SO_SNDBUF, with net.core.wmem_max."""
    smallest = 2 * (2048 + 256)  # SOCK_MIN_SNDBUF
    return max(2 * min(asked, maximum), smallest)


@dataclass(slots=True)
class ReceiveQueue:
    """The receive queue of one socket and what it holds of `rcvbuf` (bytes).

    The reader takes over all that has come at once, and gives the memory back in lumps: when it has emptied what it took
    over, or when a quarter of the buffer is due; then it takes over what has come since (udp_rmem_release()). So a full
    buffer does not take a new datagram as soon as one is read.
    """

    rcvbuf: int
    in_use: int = 0
    _arrived: deque[tuple[object, int]] = field(default_factory=deque)
    _reader: deque[tuple[object, int]] = field(default_factory=deque)
    _due: int = 0

    def charge(self, datagram: object, size: int) -> bool:
        """__udp_enqueue_schedule_skb(): queue it, or False when there is no room. An empty queue takes any size."""
        if self.in_use + size > self.rcvbuf and self.in_use:
            return False
        self.in_use += size
        self._arrived.append((datagram, size))
        return True

    def take(self) -> object | None:
        """__skb_recv_udp(): the oldest datagram, or None."""
        if not self._reader:
            self._take_over()
        if not self._reader:
            return None
        datagram, size = self._reader.popleft()
        self._due += size
        if not self._reader or self._due >= self.rcvbuf >> 2:
            self.in_use -= self._due
            self._due = 0
            self._take_over()
        return datagram

    def _take_over(self) -> None:
        self._reader += self._arrived
        self._arrived.clear()

    def __len__(self) -> int:
        return len(self._arrived) + len(self._reader)
