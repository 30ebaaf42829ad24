"""neigh: the next hop's MAC, and the packets that wait for it.

neigh.tx
========
Does: writes the Ethernet header of the next hop, or holds the packet until its MAC is known.
Mirrors: ip_finish_output2, ip6_finish_output2, neigh_output, neigh_event_send, __neigh_event_send,
    neigh_update_process_arp_queue, neigh_invalidate, arp_constructor; ip_eth_mc_map, ipv6_eth_mc_map; RFC 826, RFC 4861,
    RFC 1112 6.4, RFC 2464 7.
Reads: nexthop, l3_off, data_off, flags IPV6, VLAN and ROUTED_MULTICAST; vlan_proto and vlan_tci of the cold descriptor
    with flag VLAN; the destination in the IP header; table `local`, of an IPv4 address that is no neighbour: for a
    broadcast address of the link the header is made at once.
Writes: device (that of the next hop), data_off, len, pkt_len, l3_proto, the Ethernet header, with the tag that its sender
    wants; flag VLAN of a forwarded packet (cleared: the tag was part of its old header); owner HELD of what waits, and its
    meta.scratch[0].
Next:
    xmit: the header is there.
Drops:
    NEIGH_DEAD: the next hop is gone, with the route that chose it, for so long that its id is another's.
    NEIGH_QUEUEFULL: 212,992 bytes wait for this neighbour: the oldest packet goes, as in Linux; or the worker's bound.
    NEIGH_CREATEFAIL: 128 neighbours are waited for already.
    NEIGH_FAILED: the kernel gave up on the neighbour, or three seconds are over.
    DEVICE_GONE: the device went down or away while the packet waited.
Holds: packets whose neighbour is missing, incomplete or failed; for each 212,992 bytes by truesize, in all 1024 packets
    or a quarter of the worker's frames. They leave in their order when the neighbour is valid: looked at in each tick in
    which a table has changed or a time is over, and when a packet for the same neighbour comes, which goes behind them.
State: the neighbour table (csrc/tables/neigh.h): cells changed in place, the table replaced when it fills; Neigh.publish().
Cost: benchmarks/stages/bench_neigh.py
Differs from Linux:
    - The kernel resolves: a worker asks it through control (NTF_USE), once a second for each neighbour at most, for missing
      and failed entries and for stale ones, as the kernel does not see the packets that would have made it look. What is
      delayed or being probed the kernel is looking at already.
    - unres_qlen_bytes, mcast_solicit and retrans_time are taken at their defaults; the time limit is that of the wait, not
      of the kernel's own tries.
    - No ICMP host unreachable is sent, and no error is queued on the socket, for what fails.
    - Devices without ARP (IFF_NOARP, point to point) are not Ethernet, and not of a stack.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from typing import Any, Protocol

from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.netlink import Neighbour, Snapshot

#: Events taken at once.
_CHUNK = 64
_MAPPED = bytes(10) + b"\xff\xff"


class Prober(Protocol):
    """Whoever can ask the kernel to resolve a neighbour: the mirror."""

    def probe(self, neighbour: Neighbour | tuple[int, bytes]) -> bool:
        """Ask for (ifindex, packed address); False when it was asked for a moment ago."""
        ...


def mapped(address: bytes) -> bytes:
    """A packed address in 16 bytes; IPv4 becomes ::ffff:a.b.c.d."""
    return address if len(address) == 16 else _MAPPED + address


def unmapped(address: bytes) -> bytes:
    """The packed address behind 16 bytes."""
    return address[12:] if address.startswith(_MAPPED) else address


class Neigh:
    """Publishes the mirror's neighbours to the workers, and passes on what workers want resolved.

    `devices` has the stack's index of each of its devices, by interface index. Control alone calls it.
    """

    def __init__(self, core: Core, devices: Mapping[int, int]) -> None:
        self._core = core
        self._devices = dict(devices)
        self._ifindexes = {index: ifindex for ifindex, index in devices.items()}
        self._neighbours: Mapping[tuple[int, bytes], Neighbour] | None = None
        self._published: dict[tuple[int, bytes], tuple[bytes, int]] = {}
        self._events = ffi.new("struct xs_event[]", _CHUNK)
        self._replace({})

    def publish(self, snapshot: Snapshot) -> None:
        """Make the snapshot's neighbours the workers'. Changes a few in place; a table that is too full is replaced."""
        if snapshot.neighbours is self._neighbours:
            return
        wanted = {
            (self._devices[entry.index], entry.address): (entry.lladdr or bytes(6), entry.state)
            for entry in snapshot.neighbours.values()
            if entry.index in self._devices
        }
        for key in self._published.keys() | wanted.keys():
            before, after = self._published.get(key), wanted.get(key, (bytes(6), 0))
            if before == after:
                continue
            values = ffi.new("struct xs_neigh_values *")
            _fill(values, key, after)
            if lib.xs_stack_update_neighbour(self._core.pointer, values) == -errno.ENOSPC:
                self._replace(wanted)
                break
            self._published[key] = after  # one by one: the rest may fail
        self._published = wanted
        self._neighbours = snapshot.neighbours

    def _replace(self, wanted: dict[tuple[int, bytes], tuple[bytes, int]]) -> None:
        values = ffi.new("struct xs_neigh_values[]", max(1, len(wanted)))
        for i, (key, value) in enumerate(wanted.items()):
            _fill(values[i], key, value)
        check(lib.xs_stack_set_neighbours(self._core.pointer, values, len(wanted)), "publish the neighbours")
        self._published = wanted

    def fileno(self) -> int:
        """Readable when workers want something."""
        return int(lib.xs_stack_event_fd(self._core.pointer))

    def handle_events(self, prober: Prober) -> int:
        """Have what workers want resolved; how many questions that were."""
        with contextlib.suppress(BlockingIOError):  # there may be events all the same, of a poll that is still going on
            os.eventfd_read(self.fileno())
        asked = 0
        for worker in self._core.workers:
            while n := lib.xs_worker_events(worker, self._events, _CHUNK):
                for event in self._events[0:n]:
                    address = unmapped(bytes(event.address))
                    prober.probe((self._ifindexes[event.device], address))
                asked += n
        return asked

    def held(self) -> int:
        """Packets that wait for a neighbour, over all workers."""
        return sum(lib.xs_worker_neigh_held(worker) for worker in self._core.workers)


def _fill(values: Any, key: tuple[int, bytes], value: tuple[bytes, int]) -> None:
    device, address = key
    mac, state = value
    values.device = device
    values.address = mapped(address)
    values.mac = (mac + bytes(6))[:6]
    values.state = state & 0xFF
