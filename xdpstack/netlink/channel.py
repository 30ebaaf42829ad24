"""The netlink sockets of one mirror: events come in on one, dumps go over another, probes go out by a third.

Three, because each has its own way to fail. The event socket is non-blocking and may overrun; that loses events and
nothing else. A dump waits for its answer, with a deadline. A probe is sent and forgotten, from any thread, and must
never wait behind a dump. All three live in the namespace they were opened in, whichever thread uses them.

pyroute2's own sockets are not used: they run an event loop per thread, fork the process to reach another namespace, and
cannot be read again after an overrun (docs/netlink.md has the measurements).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from xdpstack.errors import NetlinkError
from xdpstack.netlink import decode
from xdpstack.netlink.namespace import HeldNamespace
from xdpstack.netlink.uapi import (
    AF_INET,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NTF_USE,
    RTM_F_LOOKUP_TABLE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETNEXTHOP,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWNEIGH,
)

SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_GET_STRICT_CHK: Final = 12
SO_RCVBUFFORCE: Final = 33
NETLINK_ROUTE: Final = 0

RECEIVE_BYTES: Final = 1 << 16  # the kernel fills dump messages of at most 32 KiB
EVENT_BUFFER_BYTES: Final = 4 << 20
DUMP_SECONDS: Final = 5.0
DUMP_ATTEMPTS: Final = 10
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 1 << 3

BODIES: Final[dict[int, struct.Struct]] = {
    RTM_GETLINK: decode.LINK,
    RTM_GETADDR: decode.ADDRESS,
    RTM_GETROUTE: decode.ROUTE,
    RTM_GETRULE: decode.RULE,
    RTM_GETNEIGH: decode.NEIGHBOUR,
    RTM_GETNEXTHOP: decode.NEXTHOP,
}
"""The fixed body of each dump request: the family first, the rest zero (strict checking wants exactly that)."""


class OverrunError(Exception):
    """Events were lost: the kernel had more than the socket's buffer holds (ENOBUFS)."""


class Channel:
    """The three sockets. Usable from one thread at a time, except `probe`, which any thread may call."""

    def __init__(self, place: HeldNamespace, groups: tuple[int, ...]) -> None:
        """Open in `place` and subscribe to the RTNLGRP_* `groups`; groups the kernel does not know are left out."""
        self._sequence = 0
        with ExitStack() as undo:
            self._event, self._request, self._probe = place.run(
                lambda: [undo.enter_context(open_socket()) for _ in range(3)]
            )
            self._set_up(groups)
            undo.pop_all()

    def _set_up(self, groups: tuple[int, ...]) -> None:
        self._event.setblocking(False)
        self._probe.setblocking(False)
        self._request.settimeout(DUMP_SECONDS)
        self._request.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        enlarge(self._event, EVENT_BUFFER_BYTES)
        for group in groups:
            try:
                self._event.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT):
                    raise

    def fileno(self) -> int:
        """Readable when events (or news of an overrun) wait."""
        return self._event.fileno()

    def close(self) -> None:
        """Close all three sockets."""
        for each in (self._event, self._request, self._probe):
            each.close()

    def events(self) -> Iterator[tuple[int, int, bytes]]:
        """Give (type, flags, message) of what waits, without blocking.

        OverrunError if some was lost; what still waits can be read by calling again. ValueError for a buffer that is
        not netlink.
        """
        while True:
            try:
                buffer, (sender, _) = self._event.recvfrom(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise OverrunError from None
                raise
            if sender != 0:  # another process, not the kernel
                continue
            for kind, flags, _, message in decode.split(buffer):
                yield kind, flags, message

    def dump(self, request: int, family: int = 0) -> tuple[list[bytes], bool]:
        """The kernel's answer to a dump request, and whether it is consistent (no change came between its parts).

        An interrupted dump is asked again, up to ten times. NetlinkError if the kernel refuses or is silent.
        """
        for _ in range(DUMP_ATTEMPTS):
            self._sequence = self._sequence + 1 & 0xFFFFFFFF
            body = BODIES[request].pack(family, *(0,) * (len(BODIES[request].unpack(bytes(BODIES[request].size))) - 1))
            if request == RTM_GETLINK:
                body += struct.pack("=HHI", 8, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
            self._request.send(message(request, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, body))
            answer, consistent = self._collect(request)
            if consistent:
                return answer, True
        return answer, False

    def _answers(self, request: int) -> Iterator[tuple[int, int, bytes]]:
        """Receive (type, flags, message) of the current request, without end; NetlinkError when the kernel is silent."""
        while True:
            try:
                buffer = self._request.recv(RECEIVE_BYTES)
            except TimeoutError:
                raise refused(request, errno.ETIMEDOUT) from None
            for kind, flags, sequence, each in decode.split(buffer):
                if sequence == self._sequence:  # else the rest of a dump that was given up
                    yield kind, flags, each

    def _collect(self, request: int) -> tuple[list[bytes], bool]:
        """Receive until NLMSG_DONE of the current request."""
        answer: list[bytes] = []
        consistent = True
        for kind, flags, each in self._answers(request):
            if flags & NLM_F_DUMP_INTR:
                consistent = False
            if kind == NLMSG_DONE:
                code = -struct.unpack_from("=i", each, decode.HEADER.size)[0] if len(each) >= 20 else 0
                if code:
                    raise refused(request, code)
                break
            if kind == NLMSG_ERROR:
                raise refused(request, -struct.unpack_from("=i", each, decode.HEADER.size)[0])
            answer.append(each)
        return answer, consistent

    def table_of(self, address: bytes) -> int:
        """The number of the table where the kernel finds the way to an IPv4 address; 0 if it finds none."""
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        body = decode.ROUTE.pack(AF_INET, 32, 0, 0, 0, 0, 0, 0, RTM_F_LOOKUP_TABLE)
        body += decode.ATTRIBUTE.pack(4 + len(address), decode.RTA_DST) + address
        self._request.send(message(RTM_GETROUTE, NLM_F_REQUEST, self._sequence, body))
        kind, _, each = next(self._answers(RTM_GETROUTE))
        start = decode.HEADER.size + decode.ROUTE.size
        return 0 if kind == NLMSG_ERROR else decode.u32(decode.attributes(each, start).get(decode.RTA_TABLE))

    def probe(self, family: int, index: int, address: bytes) -> None:
        """Ask the kernel to use the neighbour, as if it had a packet for it: resolve it, or confirm it (NTF_USE).

        Nothing is waited for; the answer is a neighbour event. OSError if the socket takes no more.
        """
        body = decode.NEIGHBOUR.pack(family, index, 0, NTF_USE, 0)
        body += decode.ATTRIBUTE.pack(4 + len(address), decode.NDA_DST) + address
        self._probe.send(message(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_CREATE, 0, body))

    def probe_failures(self) -> int:
        """How many probes the kernel refused since the last call (device gone, no IPv6 there)."""
        count = 0
        while True:
            try:
                buffer = self._probe.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return count
            count += sum(1 for kind, _, _, _ in decode.split(buffer) if kind == NLMSG_ERROR)


def open_socket() -> socket.socket:
    """A NETLINK_ROUTE socket in the calling thread's namespace, bound to a port the kernel chooses."""
    with ExitStack() as undo:
        each = undo.enter_context(
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        )
        each.bind((0, 0))
        undo.pop_all()
        return each


def enlarge(each: socket.socket, size: int) -> None:
    """Give the receive buffer `size` bytes, past net.core.rmem_max where the privilege is there."""
    try:
        each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A netlink message with its header."""
    return decode.HEADER.pack(decode.HEADER.size + len(body), kind, flags, sequence, 0) + body


def refused(request: int, code: int) -> NetlinkError:
    """The exception for an errno the kernel answered with."""
    return NetlinkError(
        f"the kernel did not dump its tables (request {request})",
        f"netlink: {os.strerror(code)}",
        "reading needs no privilege; if this repeats, the kernel lacks the feature or its network namespace is going",
        code,
    )
