"""The control side of a stack: takes in what Linux and the workers say, and publishes tables to the workers.

    netlink --> mirror --> snapshot --> publish: devices, FIB, neighbours --> workers (C)
                                                 local addresses --> XDP programs      (publishing.py)
    workers --> events (a neighbour is wanted) --> mirror.probe()
    Unix socket --> questions of `xdpstack show` and `xdpstack trace`

A thread of its own runs it for real devices; over memory devices the caller does, so that tests are deterministic.
Everything here is a few calls a second, never per packet, and may hold locks: workers never wait for it.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from xdpstack.device.backend import Backend, Device, DeviceEvent, MirrorLike
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.netlink import Snapshot
from xdpstack.netlink.uapi import AF_INET, AF_INET6
from xdpstack.observe.server import Server
from xdpstack.publishing import Publication, Publications
from xdpstack.routing.native import device_flags
from xdpstack.routing.tables import compile_device

log = logging.getLogger("xdpstack")

#: RFC 8200, 5.
IPV6_MIN_MTU = 1280
#: There is no ip_forward yet: whatever the host does, a stack is a host and no router, and drops what is not for it.
FORWARDING = lib.XS_DEV_FORWARDING | lib.XS_DEV_FORWARDING6 | lib.XS_DEV_BC_FORWARDING

#: What the mirror takes to take in changes, from so many seconds on, it rests for so many times as long, up to so many
#: seconds: with very many routes. What comes meanwhile is kept.
MIRROR_SECONDS, MIRROR_SHARE, MIRROR_REST_SECONDS = 0.005, 4, 0.25

#: How often a worker is asked for a tick that another thread drives; whoever drives all the time makes ticks himself.
_TICK_TRIES = 10


class Control:
    """Publishes, listens, answers; collects what happens to the devices.

    `publishers` are further tables by name, published after the devices and before the addresses.
    """

    def __init__(
        self,
        core: Core,
        backend: Backend,
        devices: Sequence[Device],
        mirror: MirrorLike,
        publishers: Mapping[str, Callable[[Snapshot], object]],
    ) -> None:
        self.lock = threading.RLock()
        self.mirror = mirror
        self._events: list[DeviceEvent] = []
        self._events_lock = threading.Lock()  # not `lock`, which is held while tables are made
        self._core = core
        self._backend = backend
        self._devices = devices
        self.tables = Publications(
            [
                Publication("devices", self._publish_devices),
                *(Publication(name, publish) for name, publish in publishers.items()),
                Publication("addresses", backend.set_local),
            ]
        )
        self._down: set[int] = set()
        self._sources: list[tuple[int, Callable[[], Any]]] = []
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._mirror_rested = 0.0
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    # ---- publishing ----

    def publish(self) -> None:
        """Give the workers and programs what the mirror knows, for the first time. Raises what stood in the way."""
        with self.lock:
            for error in self._publish():
                raise error

    def _publish(self) -> Sequence[Exception]:
        """Bring each table to the mirror's snapshot that is not yet; of one snapshot all. What stood in the way.

        The thread, which comes again by itself, lets them rest in between; who calls `step()` has them at once.
        """
        snapshot = self.mirror.snapshot
        failures = self.tables.bring_to(snapshot, at_once=self._thread is None)
        if failures is None:
            return ()
        self._watch_devices(snapshot)
        self.wake_workers()
        return failures

    def _publish_devices(self, snapshot: Snapshot) -> None:
        values = ffi.new("struct xs_device_values[]", len(self._devices))
        for value, device in zip(values, self._devices, strict=True):
            fill_device(value, device, snapshot)
        check(lib.xs_stack_set_devices(self._core.pointer, values, len(self._devices)), "publish the devices")

    def _watch_devices(self, snapshot: Snapshot) -> None:
        for device in self._devices:
            link = snapshot.links.get(device.ifindex)
            down = link is None or not link.is_up
            if down and device.index not in self._down:
                self._down.add(device.index)
                self.note(DeviceEvent(device, "gone" if link is None else "down"))
            elif not down and device.index in self._down:
                self._down.discard(device.index)
                self.note(DeviceEvent(device, "up"))

    def is_down(self, device: Device) -> bool:
        """Down or gone, as far as the mirror knows."""
        return device.index in self._down

    def note(self, event: DeviceEvent) -> None:
        """Something happened to a device: log it, keep it, wake who sleeps."""
        log.warning("%s: %s %s", event.device.name, event.what, event.detail)
        with self._events_lock:
            self._events.append(event)
        self.wake_workers()

    def take_events(self) -> list[DeviceEvent]:
        """What has happened since the last call."""
        with self._events_lock:
            out, self._events = self._events, []
        return out

    def wake_workers(self) -> None:
        """Make sleeping workers look again."""
        for worker in self._core.workers:
            lib.xs_worker_wake(worker)

    # ---- one round ----

    def step(self) -> None:
        """Take in what has come since the last time, without blocking.

        A table that cannot be published is tried again a second later; `tables` knows which. Nothing that fails
        keeps the rest from being done; what the mirror, the devices or an answer raise is raised then.
        """
        with self.lock, ExitStack() as steps:  # the last one first, whatever the others raise
            if self._stopping:
                return
            for _, handle in reversed(self._sources):
                steps.callback(handle)
            steps.callback(self._note_events)
            steps.callback(self._publish)
            if self._thread is not None and time.monotonic() < self._mirror_rested:
                self.mirror.collect()
            else:
                self._process()

    def follow_groups(self) -> None:
        """Have workers and programs know which multicast groups the host has joined, for who has just joined or left one.

        What cannot be published is tried again, as ever. Raises what the mirror raises.
        """
        with self.lock:
            if self._stopping:
                return
            self.mirror.doubt_groups()
            self._process()
            self.tables.bring_to(self.mirror.snapshot)

    def _process(self) -> None:
        begun = time.monotonic()
        self.mirror.process()
        ended = time.monotonic()
        if ended - begun >= MIRROR_SECONDS:
            self._mirror_rested = ended + min(MIRROR_SHARE * (ended - begun), MIRROR_REST_SECONDS)

    def _note_events(self) -> None:
        for event in self._backend.events():
            self.note(event)

    def tick(self) -> None:
        """Send what waited for something that is known now, or has waited too long, though nobody drives the workers."""
        for worker in self._core.workers:
            for _ in range(_TICK_TRIES):
                if lib.xs_worker_tick(worker) != -errno.EBUSY:
                    break
                time.sleep(0.001)  # another thread is in a poll, which may have been past its tick

    def listen(self, descriptor: int, handle: Callable[[], Any]) -> None:
        """Have `handle` called in every round; `descriptor` readable wakes the thread. Before `start()` only."""
        self._sources.append((descriptor, handle))

    def serve(self, server: Server) -> None:
        """Answer questions through `server`."""
        self.listen(server.fileno(), server.handle)

    # ---- the thread ----

    def start(self) -> None:
        """Run rounds in a thread of their own, whenever something comes, a table has rested, and once a second."""
        with ExitStack() as undo:
            selector = undo.enter_context(selectors.DefaultSelector())
            for descriptor in (self._wake_fd, self.mirror.fileno(), *(d for d, _ in self._sources)):
                if descriptor >= 0:
                    selector.register(descriptor, selectors.EVENT_READ)
            thread = threading.Thread(target=self._run, args=(selector,), name="xdpstack-control", daemon=True)
            thread.start()
            self._thread = thread
            undo.pop_all()

    def _run(self, selector: selectors.BaseSelector) -> None:
        with selector:
            while not self._stopping:
                selector.select(timeout=self._wait())
                try:
                    self.step()
                    self.tick()
                except Exception:
                    log.exception("control round failed; the tables published before go on serving")

    def _wait(self) -> float:
        """Seconds until there is something to do though nothing comes."""
        tables, mirror = self.tables.wait(self.mirror.snapshot), self._mirror_rested - time.monotonic()
        return min(1.0, 1.0 if tables is None else tables, mirror if mirror > 0 else 1.0)

    def stop(self, seconds: float | None = None) -> None:
        """End the thread. Idempotent. `seconds`: how long it is waited for at most, at the end of the interpreter."""
        with self.lock:
            if self._stopping:
                return
            self._stopping = True
        os.eventfd_write(self._wake_fd, 1)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)
            if self._thread.is_alive():
                return  # it looks at its descriptors as long as it is there
        os.close(self._wake_fd)


def fill_device(value: Any, device: Device, snapshot: Snapshot) -> None:
    """What the stages need to know of one device (struct xs_device_values), from link and sysctls."""
    link = snapshot.links.get(device.ifindex)
    switches = snapshot.sysctls
    name = link.name if link else device.name
    value.ifindex = device.ifindex
    value.mtu = link.mtu if link else 0
    value.nqueues = len(device.queues)
    value.mac = list(link.address if link else device.mac)
    value.ttl = switches["ipv4.ip_default_ttl"]
    value.hop_limit = switches.conf(AF_INET6, name, "hop_limit") & 0xFF
    routed = compile_device(snapshot, link) if link else None
    value.rp_filter = routed.rp_filter if routed else 0
    flags = device_flags(routed) & ~FORWARDING if routed else 0
    for flag, on in (
        (lib.XS_DEV_PARTIAL_CSUM, device.partial_checksums),
        (lib.XS_DEV_SOURCE_ROUTE, switches.conf_and(AF_INET, name, "accept_source_route")),
        # a device with a smaller MTU has no IPv6 (addrconf_notify)
        (lib.XS_DEV_IPV6_DISABLED, switches.conf(AF_INET6, name, "disable_ipv6") or value.mtu < IPV6_MIN_MTU),
        # `all` counts for IPv4 (IN_DEV_ORCONF), and means nothing for IPv6 (ip6_rcv_core)
        (
            lib.XS_DEV_DROP_UNICAST_IN_MULTICAST,
            switches.conf_or(AF_INET, name, "drop_unicast_in_l2_multicast"),
        ),
        (
            lib.XS_DEV_DROP_UNICAST_IN_MULTICAST6,
            switches.conf(AF_INET6, name, "drop_unicast_in_l2_multicast"),
        ),
    ):
        flags |= flag if on else 0
    value.flags = flags
