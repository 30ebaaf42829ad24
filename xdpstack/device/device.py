"""The devices of a stack that runs on Linux: KernelBackend.

    stack --open, claim, set_local, close--> KernelBackend --> Interface (program, sockets), one per name
                                              |   |
                                              |   +--> Umem: who shares which registration of the frames
                                              +------> Watchdog: puts off the deadline of every program

An interface that goes down loses its sockets, with every frame home, and gets new ones when it is up again; its program
stays. One that is deleted is closed for good. Both are seen in the snapshots of the mirror (`set_local`). A queue that the
kernel takes away by itself is an event, and is bound anew at the next snapshot.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from xdpstack.device import privileges
from xdpstack.device.backend import Device, DeviceEvent, MirrorLike
from xdpstack.device.broker.client import BrokerClient, BrokeredMirror
from xdpstack.device.claims import Claim, Vlan
from xdpstack.device.interface import Interface
from xdpstack.device.kernel import kernel_version
from xdpstack.device.links import find_link
from xdpstack.device.local import local_addresses
from xdpstack.device.offloads import KERNEL as OFFLOAD_KERNEL
from xdpstack.device.options import Options
from xdpstack.device.prefilter import PrefilterProgram
from xdpstack.device.redirect_err import RedirectErrors
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.umem import BUSY_SECONDS, Umem
from xdpstack.device.watchdog import WINDOW_SECONDS, Watchdog
from xdpstack.errors import ConfigurationError, XdpstackError
from xdpstack.native import check, lib
from xdpstack.native.core import Core
from xdpstack.netlink import HeldNamespace, Link, Mirror, Snapshot

#: What opening needs: for AF_XDP sockets, for the program, for attaching it.
CAPABILITIES = ("CAP_NET_RAW", "CAP_BPF", "CAP_NET_ADMIN")

#: How often queues are counted, and frames that do not come back looked for, in seconds: netlink tells of neither.
LOOK_SECONDS = 1.0

_open_backends: weakref.WeakSet[KernelBackend] = weakref.WeakSet()


class KernelBackend:
    """Interfaces of the Linux kernel, by name, of one network namespace (`options.netns`; None: the caller's).

    `window_seconds` is how long packets may wait, without progress, before the kernel has the traffic.
    """

    def __init__(self, *names: str, options: Options | None = None, window_seconds: float = WINDOW_SECONDS) -> None:
        if not 0 < len(set(names)) == len(names) <= lib.XS_DEVICES_MAX:
            raise ConfigurationError(f"name 1 to {lib.XS_DEVICES_MAX} interfaces, each once", fix="ip link lists them.")
        self.names = names
        self.options = self._asked = options or Options()
        self.interfaces: list[Interface] = []
        self.watchdog: Watchdog | None = None
        self._window_seconds = window_seconds
        self._prefilters: list[PrefilterProgram] = []
        self._umem: Umem | None = None
        self._redirects: RedirectErrors | None = None
        self.devices: tuple[Device, ...] = ()
        self._place = HeldNamespace(None)
        self._mirror: Mirror | None = None
        self.privileged = True
        self._broker: BrokerClient | None = None
        self._broker_gone = False
        self._events: list[DeviceEvent] = []
        self._look_again = 0.0
        self._claims: list[Claim] = []
        self._vlans: set[Vlan | None] = {None}  # that some claim has named
        self._snapshot: Snapshot | None = None
        self._lock = threading.RLock()
        self._closed = False

    # ---- opening ----

    def open(self, core: Core) -> tuple[tuple[Device, ...], MirrorLike]:
        """Attach programs and sockets; nothing is claimed yet. On failure nothing is left.

        Raises PrivilegeError, NoSuchInterface, InterfaceDown, ProgramAttached, QueueTaken, ModeRefused, MtuTooLarge,
        OutOfMemory, VerifierError, ConfigurationError.
        """
        if self.options.broker is not None:
            self._broker = BrokerClient(self.options.broker)
            self.options = replace(self.options, tune=Tuning(merging="keep"), broker=None)
        elif lacking := set(CAPABILITIES[:1] if self.options.pinned else CAPABILITIES) - privileges.effective():
            raise privileges.missing(f"open {', '.join(self.names)}", lacking)
        elif self.options.pinned is not None:
            if len(self.names) > 1:
                raise ConfigurationError("a pinned program is one interface's", fix="Name that alone.")
            self.options = replace(self.options, tune=Tuning(merging="keep"))
        self._mirror = mirror = BrokeredMirror(self._broker) if self._broker else Mirror(self.options.netns)
        mirror.privileged = "CAP_NET_ADMIN" in privileges.effective()
        with contextlib.ExitStack() as undo:
            undo.callback(mirror.close)
            undo.callback(self.close)
            links = [find_link(mirror.start() if not i else mirror.snapshot, name) for i, name in enumerate(self.names)]
            self._place = mirror.place
            self._umem = Umem(core, self._broker, len(links))
            self._umem.tx_metadata = bool(self.options.offloads) and kernel_version() >= OFFLOAD_KERNEL
            self.watchdog = Watchdog(core, self._window_seconds)
            self._redirects = redirects = RedirectErrors(sum(link.rx_queues for link in links))
            for index, link in enumerate(links):
                shared = (core, self._umem, self.watchdog, redirects, self._place, self._broker)
                self.interfaces.append(Interface(link, index, self.options, *shared))
            self.devices = tuple(self._place.run(self._open_all))
            self._offload(core)
            self.set_local(mirror.snapshot)
            undo.pop_all()
        _open_backends.add(self)
        return self.devices, mirror

    def _offload(self, core: Core) -> None:
        """Sockets leave their checksums to devices if all of these do them."""
        checksums = all("checksum" in device.offloads for device in self.devices)
        stamps = any("timestamp" in device.offloads for device in self.devices)
        check(lib.xs_stack_set_offloads(core.pointer, checksums, stamps), "keep when frames were sent")

    def _open_all(self) -> list[Device]:
        for interface in self.interfaces:
            interface.check()
        if self.options.prefilter is not None:  # loaded before anything is changed, in force when all is open
            for name in self.names:
                self._prefilters.append(PrefilterProgram.load(name, self.options.prefilter))
        for interface in self.interfaces:
            interface.open()
        for prefilter in self._prefilters:
            prefilter.attach()
        return [interface.device() for interface in self.interfaces]

    def live_without_privileges(self) -> None:
        """From now on do without: a thread stays in the namespace, neighbours are provoked, nothing is bound anew.

        Idempotent; a broker's client does without already. Raises NamespaceError.
        """
        with self._lock:
            self._place.settle()
            if self._mirror is not None and self._broker is None:
                self.privileged = self._mirror.privileged = False

    # ---- claims ----

    def claim(self, claim: Claim) -> tuple[int, ...]:
        """Lift what `claim` names, on every interface; when this returns the programs have it. All or none.

        Returns its id by interface, 0 where there is no program.
        """
        with self._lock:
            self._meet_vlan(claim.vlan)
            done: list[Interface] = []
            ids: list[int] = []
            try:
                for interface in self.interfaces:
                    if interface.program is not None:
                        ids += interface.program.claims.add(claim)
                        done.append(interface)
                    else:
                        ids.append(0)
            except BaseException:
                for interface in done:
                    assert interface.program is not None
                    interface.program.claims.remove(claim)
                raise
            if not done:
                raise ConfigurationError("nothing can be claimed: no interface has a program", fix="Not transmit_only.")
            self._claims.append(claim)
            return tuple(ids)

    def unclaim(self, claim: Claim) -> None:
        """Lift it no longer."""
        with self._lock:
            self._claims.remove(claim)
            for interface in self.interfaces:
                if interface.program is not None and claim in interface.program.claims:
                    interface.program.claims.remove(claim)

    def withdraw(self) -> None:
        """All claims out; idempotent."""
        with self._lock:
            self._claims.clear()
            for interface in self.interfaces:
                if interface.program is not None:
                    interface.program.claims.clear()

    def _meet_vlan(self, vlan: Vlan | None) -> None:
        """The host's addresses are its own in every VLAN: the programs have them for each that is claimed."""
        if vlan in self._vlans:
            return
        self._vlans.add(vlan)
        try:
            self._set_addresses()
        except BaseException:  # no room: without the VLAN the addresses can go on being followed
            self._vlans.discard(vlan)
            self._set_addresses()  # of interfaces that had room
            raise

    def _set_addresses(self) -> None:
        for interface in self.interfaces:
            self._give_addresses(interface)

    def _give_addresses(self, interface: Interface) -> None:
        if interface.program is not None and self._snapshot is not None:
            local = local_addresses(self._snapshot, interface.link.index, self._vlans)
            interface.program.claims.set_local(local)

    # ---- following Linux ----

    def set_local(self, snapshot: Snapshot) -> None:
        """Follow the interfaces (gone, down, up, another MAC or MTU), and give the programs the host's own addresses.

        Raises TableFull or OSError when a program does not take them; the other interfaces are followed all the same.
        """
        with self._lock, contextlib.ExitStack() as steps:  # the last one first
            if self._closed:
                return
            self._snapshot = snapshot
            for interface in reversed(self.interfaces):
                steps.callback(self._give_addresses, interface)
            for interface in reversed(self.interfaces):
                steps.callback(self._follow, interface, snapshot.links.get(interface.link.index))

    def _follow(self, interface: Interface, link: Link | None) -> None:
        if interface.gone:
            return
        if link is None:
            interface.gone = True
            interface.close()
            return
        if link.address != interface.link.address and interface.program is not None:
            interface.program.claims.set_mac(link.address)
        same_mtu, was_up = link.mtu == interface.link.mtu, interface.link.is_up
        interface.link = link
        if not link.is_up:
            interface.unbind()
            return
        if not interface.sockets and was_up and not self.privileged:
            return  # it could not when the link came up, and was told of
        try:
            if interface.sockets and not same_mtu and not interface.fits():
                interface.unbind()
            if not interface.sockets:
                self._bind_again(interface)
        except XdpstackError as error:
            self._not_bound(interface, error)

    def _bind_again(self, interface: Interface, busy_seconds: float = BUSY_SECONDS) -> None:
        interface.rebind(busy_seconds)
        granted = self._place.run(interface.device)
        self.devices = tuple(granted if each.index == granted.index else each for each in self.devices)

    def _not_bound(self, interface: Interface, error: XdpstackError) -> None:
        interface.unbind()
        self._note(interface, "queue-error", f"cannot be bound again: {error.message}")

    def _note(self, interface: Interface, what: str, detail: str) -> None:
        self._events.append(DeviceEvent(self.devices[interface.index], what, detail))

    def events(self) -> Sequence[DeviceEvent]:
        """What has happened to queues since the last call.

        The kernel has taken one away: the interface is unbound, every frame is home. There are other queues than were bound:
        likewise, and it is bound anew. Frames that were to be sent do not come back: see overdue.py. What could not be bound
        is tried again.
        """
        with self._lock:
            looked = time.monotonic() >= self._look_again
            if looked and self._broker is not None and not self._broker_gone and self._broker.gone:
                self._broker_gone = True
                for interface in self.interfaces:
                    self._note(interface, "queue-error", "the broker has ended: the kernel has the traffic")
            for interface in () if self._closed else self.interfaces:
                if faults := interface.faults():
                    home = interface.unbind()
                    self._note(interface, "queue-error", f"{'; '.join(faults)}; {home} frames came home")
                elif looked:
                    self._look(interface)
            if looked:
                self._look_again = time.monotonic() + LOOK_SECONDS
            found, self._events = self._events, []
            return found

    def _look(self, interface: Interface) -> None:
        """Without waiting for a queue that is taken: it is looked at again soon."""
        if not interface.sockets:
            if interface.gone or not interface.link.is_up or not self.privileged:
                return
            with contextlib.suppress(XdpstackError):
                self._bind_again(interface, 0)
                self._note(interface, "bound", f"queues {', '.join(map(str, interface.queues))}")
            return
        stalled = "; ".join(interface.stalled())
        if stalled and not (self.privileged and all(xsk.zero_copy for xsk in interface.sockets)):
            self._note(interface, "queue-error", stalled)
        elif self.privileged and (reason := stalled or interface.other_queues()):
            home = interface.unbind()
            self._note(interface, "queue-error" if stalled else "queues", f"{reason}; {home} frames came home")
            try:
                self._bind_again(interface, 0 if stalled else BUSY_SECONDS)
            except XdpstackError as error:
                self._not_bound(interface, error)

    # ---- what can be seen ----

    def kernel_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket | None:
        """A kernel socket in the interfaces' network namespace."""
        return self._place.run(lambda: socket.socket(family, kind))

    def stats(self) -> Mapping[str, int]:
        """Of sockets, programs and pre-filters, those that are not zero.

        `<device>.<queue>.<counter>`, `xdp.rx.<cause>`, `<device>.prefilter.<verdict>`.
        """
        total: dict[str, int] = {}
        with self._lock:
            for interface in self.interfaces:
                total |= interface.stats()
                if interface.program is not None:
                    for cause, frames in interface.program.counters().frames.items():
                        key = f"xdp.rx.{cause.name.lower()}"
                        total[key] = total.get(key, 0) + frames
            for prefilter in self._prefilters:
                total |= {f"{prefilter.interface}.prefilter.{name}": n for name, n in prefilter.counts().items()}
        return {key: value for key, value in total.items() if value}

    def info(self) -> Mapping[str, Any]:
        """What was asked of the interfaces together, and what the watchdog and the frames' registrations are."""
        return {
            "netns": self.options.netns or "",
            "asked": self._asked.as_info(),
            "claims": [str(claim) for claim in self._claims],
            "watchdog_window_seconds": self._window_seconds,
            "registrations": self._umem.registrations if self._umem else 0,
        }

    # ---- closing ----

    def close(self) -> None:
        """Programs detached, queues off their workers, sockets closed; idempotent. Does nothing in a forked child."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            _open_backends.discard(self)
            with contextlib.ExitStack() as last_first:
                if self._broker is not None:
                    last_first.callback(self._broker.close)
                if self._redirects is not None:
                    last_first.callback(self._redirects.close)
                if self.watchdog is not None:
                    last_first.callback(self.watchdog.stop)
                for interface in self.interfaces:
                    last_first.callback(interface.close)
                for prefilter in self._prefilters:
                    last_first.callback(prefilter.close)
                self._prefilters = []  # their counters go with them

    def forget(self) -> None:
        """In a forked child: what the parent holds is to end with the parent."""
        self._closed = True
        self._place.close()
        if self._broker is not None:
            self._broker.close()
        if self._redirects is not None:
            self._redirects.forget()
        for interface in self.interfaces:
            interface.forget()
        for prefilter in self._prefilters:
            prefilter.close()
        self._prefilters = []


def open_backends() -> list[KernelBackend]:
    """Those of this process that hold interfaces."""
    return [each for each in _open_backends if not each._closed]


def _after_fork() -> None:
    for backend in list(_open_backends):
        backend.forget()


os.register_at_fork(after_in_child=_after_fork)
