"""UdpSocket: a UDP socket whose datagrams walk the stack. Its methods are those of Python's `socket.socket`.

What differs from a kernel socket is in docs/sockets.md. Calls look at the receive queue, or walk a datagram out, in C with
the GIL kept (csrc/views/); only waiting releases it. Unless threads of the stack poll, whoever waits polls: the call drives
the worker itself.
"""

from __future__ import annotations

import builtins
import errno
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from xdpstack.batch import Batch
from xdpstack.device.claims import vlan_of
from xdpstack.errors import ClosedError, SendBatchError, XdpstackError
from xdpstack.native import ffi, lib, views
from xdpstack.native.core import BUDGET
from xdpstack.udp import bpf, effects, groups, options
from xdpstack.udp.address import Address, is_scoped, nth, resolve, resolve_many, unpacked
from xdpstack.udp.endpoint import Endpoint
from xdpstack.udp.errors import SocketError
from xdpstack.udp.waiting import DONTWAIT

if TYPE_CHECKING:
    from xdpstack.udp.layer import UdpLayer

T = TypeVar("T")

#: Errors that `errors` keeps; older ones go first.
ERRORS_KEPT = 64


class UdpSocket:
    """One UDP socket of a stack. Made by `stack.udp()`; a context manager; any thread may use it.

    `family`, `type` and `proto` are as Python's; `reserved` says whether a kernel socket backs it.
    """

    def __init__(self, layer: UdpLayer, endpoint: Endpoint, broadcast: bool = False) -> None:
        self._layer = layer
        self._waiting = layer.waiting
        self._host = layer.host
        self._endpoint = endpoint
        self._view: views.Socket = endpoint.view
        self._peer: Address | None = None
        self._timeout: float | None = None
        self._epoll: select.epoll | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._values = {(socket.SOL_SOCKET, socket.SO_BROADCAST): int(broadcast)}
        self._errors: deque[SocketError] = deque(maxlen=ERRORS_KEPT)

    # ---- who it is ----

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET if self._endpoint.bound.family == 4 else socket.AF_INET6

    @property
    def proto(self) -> int:
        """IPPROTO_UDP."""
        return socket.IPPROTO_UDP

    @property
    def reserved(self) -> bool:
        """Whether a kernel socket reserves the port and takes what is not lifted."""
        return self._endpoint.shadow is not None

    def getsockname(self) -> Address:
        """Our address: (host, port), or for IPv6 (host, port, flowinfo, scope_id)."""
        bound = self._endpoint.bound
        return unpacked(
            bound.address, bound.port, bound.family, self._endpoint.ifindex if is_scoped(bound.address) else 0
        )

    def getpeername(self) -> Address:
        """The address given to `connect()`; OSError(ENOTCONN) when there is none."""
        if self._peer is None or not self._peer[1]:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._peer

    # ---- receiving ----

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Address]:
        """The next datagram, at most `bufsize` bytes of it (the rest is discarded), and its sender.

        Raises TimeoutError or BlockingIOError as Python's sockets do, and the OSError of an ICMP error (see `errors`).
        """
        got = None if flags else self._view.recvfrom(bufsize)
        return got if got is not None else self._receive(self._view.recvfrom, flags, bufsize)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """As `recvfrom()`, without the sender."""
        got = None if flags else self._view.recv(bufsize)
        return got if got is not None else self._receive(self._view.recv, flags, bufsize)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Address]:
        """The next datagram into `buffer` (at most `nbytes` of it, 0: as much as fits): its length there, and its sender."""
        got = None if flags else self._view.recvfrom_into(buffer, nbytes)
        return got if got is not None else self._receive(self._view.recvfrom_into, flags, buffer, nbytes)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As `recvfrom_into()`, without the sender."""
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recv_batch(self, most: int = 64, flags: int = 0) -> Batch:
        """What has come, at least one datagram and at most `most` (1,024 at a time): a Batch, to be released."""
        got = None if flags else self._view.recv_batch(most)
        return Batch(got or self._receive(self._view.recv_batch, flags, most, budget=max(most, BUDGET)))

    def _receive(self, take: Callable[..., T | None], flags: int, *arguments: Any, budget: int = BUDGET) -> T:
        """Wait as the time-out says, driving the worker unless others do, until `take` has something."""
        if flags:  # without, `take` was asked just now: it has raised for whatever forbids to go on
            self._check(flags)
        timeout = 0.0 if flags & DONTWAIT else self._timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        if flags and (got := take(*arguments)) is not None:
            return got
        while True:
            left = -1 if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
            self._waiting.for_datagram(self._endpoint.pointer, left, budget)
            if (got := take(*arguments)) is not None:
                return got
            if deadline is not None and time.monotonic() >= deadline:
                raise _would_block(timeout)

    def _check(self, flags: int = 0) -> None:
        self._host.check()
        if self._closed:
            raise ClosedError("the socket is closed")
        if flags & ~DONTWAIT:
            raise OSError(errno.EOPNOTSUPP, f"flags {flags:#x}: only MSG_DONTWAIT is there")

    # ---- sending ----

    def sendto(self, data: Any, *arguments: Any) -> int:
        """`sendto(data, address)` or `sendto(data, flags, address)`: one datagram; returns its length.

        Raises the OSError that sendto(2) would: ENETUNREACH, EHOSTUNREACH, EMSGSIZE, ENOBUFS, EACCES, EPERM, ...
        """
        if len(arguments) == 1:
            return self._send(data, arguments[0], 0)
        if len(arguments) == 2:
            return self._send(data, arguments[1], arguments[0])
        raise TypeError(f"sendto() takes 2 or 3 arguments ({len(arguments) + 1} given)")

    def send(self, data: Any, flags: int = 0) -> int:
        """One datagram to the peer given to `connect()`."""
        return self._send(data, None, flags)

    def _send(self, data: Any, address: Address | None, flags: int) -> int:
        view = self._view
        try:
            sent = None if flags else view.sendto(data, address)
        except LookupError:  # not a numeric host
            sent = None
        if sent is None:
            self._check(flags)
            if address is not None:
                address = resolve(address, self._endpoint.bound.family)
            sent = self._waiting_for_room(partial(view.sendto, data, address), flags)
        if view.parked:
            self._host.run_all_parked()
        return sent

    def send_batch(
        self, payloads: Sequence[Any], addresses: Address | Sequence[Address] | Batch | None = None, flags: int = 0
    ) -> int:
        """Many datagrams in few walks. Returns how many were sent: all of them, unless it would block.

        `addresses`: one for all, one each, None (connected), or the Batch to whose senders to answer, in order. A socket
        that does not block may send fewer; BlockingIOError when none could be sent. Datagrams that fail do not stop the
        others: SendBatchError is raised at the end, with the errno of each.
        A pending ICMP error is raised before any is sent.
        """
        self._check(flags)
        given = list(payloads)
        where = resolve_many(addresses, len(given), self._endpoint.bound.family)
        errors: dict[int, int] = {}
        done = 0
        while done < len(given):
            attempt = partial(self._view.send_batch, given, where, done, errors)
            try:
                done += attempt() or self._waiting_for_room(partial(_or_none, attempt), flags)
            except (BlockingIOError, TimeoutError):
                if done:
                    break
                raise
            if self._view.parked:
                self._host.run_all_parked()
        for index in [index for index, number in errors.items() if number == errno.EAGAIN]:
            # it had to wait, and those behind it had not, which leave by another device
            try:
                self._send(given[index], nth(where, index), flags)
            except OSError as error:
                errors[index] = error.errno or errno.EAGAIN
            else:
                del errors[index]
        if errors:
            raise SendBatchError(sent=done - len(errors), errors=errors)
        return done

    def _waiting_for_room(self, attempt: Callable[[], int | None], flags: int) -> int:
        timeout = 0.0 if flags & DONTWAIT else self._timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        if (sent := attempt()) is not None:
            return sent
        while True:
            self._waiting.for_room(1 if timeout != 0 else 0)
            if (sent := attempt()) is not None:
                return sent
            if deadline is not None and time.monotonic() >= deadline:
                raise _would_block(timeout)
            self._check()

    # ---- connecting ----

    def connect(self, address: Address) -> None:
        """Fix the peer: only its datagrams are received, `send()` goes to it, its ICMP errors are raised.

        A socket bound to the wildcard address gets the source address that routing takes, as in Linux.
        """
        self._check()
        numeric = resolve(address, self._endpoint.bound.family)
        with self._lock:
            self._peer = self._layer.connect(self._endpoint, numeric)

    # ---- options ----

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        """Set an option (xdpstack/udp/options.py has the list). OSError(ENOPROTOOPT) for one that is not there."""
        self._check()
        with self._lock:
            if (level, name) in options.OF_KERNEL:
                options.hand_over(self._endpoint.shadow, level, name, value)
                self._layer.apply_option(self._endpoint, level, name, value)
            else:
                family = self._endpoint.bound.family
                held = options.settle(self._endpoint.shadow, family, level, name, value, self._host.sysctl)
                self._values[options.read_by(level, name)] = held
                if held == -1:
                    del self._values[level, name]
                self._layer.apply_option(self._endpoint, level, name, held)
        if (level, name) in groups.CHANGES:
            self._host.follow_groups()

    def getsockopt(self, level: int, name: int, buflen: int = 0) -> int:
        """The value of an option, as the kernel would give it. SO_ERROR: the pending ICMP error, which is then forgotten."""
        self._check()
        if buflen:
            raise OSError(errno.EOPNOTSUPP, "options are numbers here: leave buflen out")
        if (level, name) == (socket.SOL_SOCKET, socket.SO_ERROR):
            return int(lib.xs_socket_take_error(self._endpoint.pointer))
        if (level, name) == (socket.SOL_SOCKET, socket.SO_TYPE):
            return int(socket.SOCK_DGRAM)
        family = self._endpoint.bound.family
        if (held := options.held_by(self._endpoint.shadow, family, level, name)) is not None:
            return held
        if (level, name) in effects.HELD_HERE or (level, name) not in self._values:
            return effects.default(self._endpoint, level, name)
        return self._values[level, name]

    def attach_filter(self, program: Sequence[Sequence[int]]) -> None:
        """Attach a classic BPF program, as SO_ATTACH_FILTER does: instructions (code, jt, jf, k), see bpf.py.

        It sees each datagram from its UDP header on; what it returns is how many bytes to keep, 0 drops (SOCKET_FILTER).
        An empty program detaches. Raises ConfigurationError for a program that is none, OSError for one the kernel refuses.
        """
        self._check()
        checked = bpf.checked(program) if len(program) else []
        with self._lock:
            self._layer.attach_filter(self._endpoint, checked)

    def settimeout(self, seconds: float | None) -> None:
        """None: wait for ever; 0: never wait; else raise TimeoutError after so many seconds."""
        if seconds is not None and not seconds >= 0:
            raise ValueError("Timeout value out of range")
        self._timeout = None if seconds is None else float(seconds)

    def gettimeout(self) -> float | None:
        """What was set."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """`settimeout(None)` or `settimeout(0)`."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Whether calls wait at all."""
        return self._timeout != 0

    # ---- what can be seen ----

    @property
    def errors(self) -> list[SocketError]:
        """ICMP errors about what was sent, oldest first: the latest 64 of those that were asked for.

        Up to 64 wait to be asked for; what comes then is lost, and counted (`stats()`, errors_lost).
        """
        self._take_errors()
        return list(self._errors)

    def _take_errors(self) -> None:
        room = ffi.new("struct xs_socket_error[64]")
        with self._lock:
            for value in room[0 : lib.xs_socket_take_errors(self._endpoint.pointer, room, 64)]:
                self._errors.append(SocketError.of(value, self._endpoint.bound.family))

    def stats(self) -> dict[str, int]:
        """`datagrams` queued so far, `queued` now, `rmem` and `rcvbuf` in bytes, `slow_sent`, `errors_lost`, and `drops`.

        `drops` are the datagrams that were refused, as sk_drops counts them: `drops_rcvbuf` for want of room in the
        receive buffer (SOCKET_RCVBUFF: read faster, or SO_RCVBUF), `drops_memory` because sockets have all frames of a
        worker that they may have (PROTO_MEM: close batches sooner, or `open(frames=...)`), `drops_filter` by the
        filter, `drops_kernel` by the kernel socket, as of the last datagram that came by it.
        """
        return {**self._endpoint.stats(), "slow_sent": self._view.slow_sent}

    def fileno(self) -> int:
        """A descriptor for select, poll and event loops; -1 once closed. Readable: there may be something to receive.

        Unless threads of the stack poll, it also becomes readable when the devices have something for the stack: then
        receiving (with `setblocking(False)` or MSG_DONTWAIT) drives the stack. So it may be spurious.
        """
        if self._closed:
            return -1
        with self._lock:
            if self._epoll is None:
                self._epoll = self._waiting.export(self._endpoint.pointer)
            return self._epoll.fileno()

    # ---- life ----

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def close(self) -> None:
        """Claim out, what was under way taken in, queue emptied, port free. Idempotent. What nobody read is counted."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._layer.close_socket(self._endpoint)
        if self._epoll is not None:
            self._epoll.close()
        if self._endpoint.bound.groups:
            # the stack is closed, or another process's; and what fails is tried again
            with suppress(XdpstackError, OSError, ValueError):
                self._host.check()
                self._host.follow_groups()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: builtins.type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def type(self) -> socket.SocketKind:
        """SOCK_DGRAM."""
        return socket.SOCK_DGRAM

    def __repr__(self) -> str:
        host, port = self.getsockname()[:2]
        peer = f" to {self._peer[0]} port {self._peer[1]}" if self._peer else ""
        vlan = vlan_of(self._endpoint.bound.vlan)
        within = f", VLAN {vlan}" if vlan else ""
        return f"<UdpSocket {host} port {port}{peer}{within}{', closed' if self._closed else ''}>"


def _or_none(attempt: Callable[[], int]) -> int | None:
    return attempt() or None


def _would_block(timeout: float | None) -> OSError:
    if timeout == 0:
        return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return TimeoutError("timed out")
