"""Batch: received datagrams (or whole frames) at once, as columns and payloads.

    batch = sock.recv_batch(64)
    lengths = numpy.asarray(batch.lengths)          # no copy
    for payload, address in batch: ...
    batch.release()

The datagrams' frames are lent to the batch: as long as it has them, the device has that many less. `release()` gives them
back at once, but for those of which a view (`view()`, `views()`) is alive: these go back when their last view dies. Columns
and views that were taken stay valid memory whatever happens to the batch, the socket and the stack; asking for more raises
ClosedError after `release()`. A batch that is collected is released.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self


class Batch:
    """What `recv_batch()` returns; a context manager that releases, and an iterable of (payload, address).

    Columns are read-only memoryviews, one row a datagram; one that was taken stays readable after release:

    - `sources`, `destinations`: 16 bytes each (shape (n, 16)), network order, IPv4 mapped;
    - `source_ports`, `source_scopes`: host order; the scope is the interface index of a link-local source, else 0;
    - `lengths`: of the payloads, in bytes;
    - `stamps_ns`: when it came, CLOCK_REALTIME, for sockets with SO_TIMESTAMPNS; else 0;
    - `drops`: how many datagrams the socket had refused before it (`UdpSocket.stats()`), for sockets with SO_RXQ_OVFL, as
      recvmsg(2) tells it; else 0. It wraps at 2**32;
    - `device_stamps_ns`, `hashes`, `hash_types`: what the device says, of a stack opened with `metadata=`; 0 is none. The
      clock is the device's own (its PTP hardware clock), unlike that of `stamps_ns`; types are enum xdp_rss_hash_type;
    - `vlan_tcis`: priority and VLAN of the outermost tag, or -1 for untagged ones;
    - `slow`: whether it came through the kernel (a shadow socket) and not through AF_XDP;
    - `devices`: the stack's index of the device it came by; 255 when it came through the kernel.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def sources(self) -> memoryview:
        """Addresses of the senders: shape (n, 16), bytes."""
        return self._column("sources")

    @property
    def destinations(self) -> memoryview:
        """Our addresses that they were sent to: shape (n, 16), bytes."""
        return self._column("destinations")

    @property
    def source_ports(self) -> memoryview:
        """Ports of the senders: n times uint16."""
        return self._column("source_ports")

    @property
    def source_scopes(self) -> memoryview:
        """Interface indices of link-local senders: n times uint32."""
        return self._column("source_scopes")

    @property
    def lengths(self) -> memoryview:
        """Payload lengths in bytes: n times uint32."""
        return self._column("lengths")

    @property
    def stamps_ns(self) -> memoryview:
        """Arrival, in ns since 1970: n times uint64; 0 where not asked for."""
        return self._column("stamps_ns")

    @property
    def drops(self) -> memoryview:
        """What the socket had refused when the datagram was queued (SO_RXQ_OVFL): n times uint32; 0 where not asked for."""
        return self._column("drops")

    @property
    def device_stamps_ns(self) -> memoryview:
        """Arrival by the device's own clock, in ns: n times uint64; 0 where it said none, or was not asked."""
        return self._column("device_stamps_ns")

    @property
    def hashes(self) -> memoryview:
        """The device's flow hashes: n times uint32; 0 where it said none, or was not asked."""
        return self._column("hashes")

    @property
    def hash_types(self) -> memoryview:
        """What was hashed, enum xdp_rss_hash_type: n times uint32; 0 is unknown."""
        return self._column("hash_types")

    @property
    def vlan_tcis(self) -> memoryview:
        """The outermost VLAN tag: priority << 13 | DEI << 12 | VLAN, n times int32; -1 where there is none."""
        return self._column("vlan_tcis")

    @property
    def slow(self) -> memoryview:
        """Came through the kernel: n times bool."""
        return self._column("slow")

    @property
    def devices(self) -> memoryview:
        """Devices they came by: n times uint8."""
        return self._column("devices")

    def _column(self, name: str) -> memoryview:
        column: memoryview = getattr(self._inner, name)
        return column

    def payload(self, index: int) -> bytes:
        """A copy of one payload."""
        payload: bytes = self._inner.payload(index)
        return payload

    def payloads(self) -> list[bytes]:
        """Copies of all payloads."""
        payloads: list[bytes] = self._inner.payloads()
        return payloads

    def view(self, index: int) -> memoryview:
        """One payload where it lies: read-only, no copy, and its frame stays lent as long as the view lives.

        A payload that lies in several frames (larger than a frame) is copied after all; the view is on the copy.
        """
        view: memoryview = self._inner.view(index)
        return view

    def views(self) -> list[memoryview]:
        """All payloads where they lie."""
        views: list[memoryview] = self._inner.views()
        return views

    def address(self, index: int) -> tuple[Any, ...]:
        """The sender of one datagram, as recvfrom() gives it."""
        address: tuple[Any, ...] = self._inner.address(index)
        return address

    def addresses(self) -> list[tuple[Any, ...]]:
        """The senders of all datagrams."""
        addresses: list[tuple[Any, ...]] = self._inner.addresses()
        return addresses

    def __iter__(self) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
        return iter(zip(self.payloads(), self.addresses(), strict=True))

    @property
    def released(self) -> bool:
        """Whether `release()` was called."""
        return bool(self._inner.released)

    def release(self) -> None:
        """Give the frames back, those with living views when these die. Idempotent."""
        self._inner.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Batch of {len(self)}{', released' if self.released else ''}>"
