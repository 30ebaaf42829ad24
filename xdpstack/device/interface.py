"""One network interface of a stack: its XDP program, its AF_XDP sockets, and how they come and go.

    check:   what cannot be is refused; nothing has been changed
    open:    program loaded and attached -> queues counted (attaching may change them) -> sockets bound, into the XSKMAP,
             and to their workers -> the watchdog renews the deadline
    unbind:  sockets off their workers and closed, every frame home; the program stays, and passes all to the kernel
    bind:    the sockets again, when the interface is back
    close:   deadline over -> program detached -> sockets closed. Detaching first: kernels have panicked on the other order

Control thread only, except where said; the socket calls are made inside the interface's network namespace.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from xdpstack.device import ethtool, netdev
from xdpstack.device.attaching import Program, attach, check_others
from xdpstack.device.backend import Device
from xdpstack.device.broker.client import BrokerClient
from xdpstack.device.carrier import await_carrier
from xdpstack.device.drivers import added_queues, native_lacks, zero_copy_lacks
from xdpstack.device.holders import holders
from xdpstack.device.kernel import kernel_version
from xdpstack.device.modes import granted, interrupts_go_on
from xdpstack.device.netdev import XdpFeature
from xdpstack.device.offloads import Offloads
from xdpstack.device.options import Options
from xdpstack.device.overdue import Deadlines, taken_away
from xdpstack.device.plan import PARAVIRTUAL, Plan, choose_queues, next_power_of_two, plan
from xdpstack.device.queues import active_queues, not_bound, queues_released
from xdpstack.device.redirect_err import CountsRedirects, RedirectErrors, Watched, by_name
from xdpstack.device.stripping import tags_taken_off
from xdpstack.device.tuning.tuner import Tuner
from xdpstack.device.umem import BUSY_SECONDS, Umem
from xdpstack.device.watchdog import Watchdog
from xdpstack.device.xdp import OPTIONS, Granted, Mode
from xdpstack.device.xsk import XDP_COPY, BindFailed, Rings, Xsk, explain
from xdpstack.errors import ModeRefused, QueueTaken
from xdpstack.native import check, lib
from xdpstack.native.core import Core
from xdpstack.netlink import HeldNamespace, Link

#: How long opening waits for a queue that no process has: the kernel is letting the last one's socket go, behind other work.
ORPHAN_SECONDS = 10.0


class Interface:
    """An interface while it belongs to a stack. `index` is the stack's number of it."""

    def __init__(
        self,
        link: Link,
        index: int,
        options: Options,
        core: Core,
        umem: Umem,
        watchdog: Watchdog,
        redirects: RedirectErrors,
        place: HeldNamespace,
        broker: BrokerClient | None = None,
    ) -> None:
        self.link = link
        self.index = index
        self.name = link.name
        self.queues: tuple[int, ...] = ()
        self.sockets: list[Xsk] = []
        self.program: Program | None = None
        self.gone = False
        self._place = place
        self._broker = broker
        self._options = options
        self._core = core
        self._umem = umem
        self._watchdog = watchdog
        self._redirects = redirects
        self._lost: CountsRedirects = Watched()
        self._plan = Plan(0)
        self._granted_zero_copy = False
        self._copy_because = ""
        self._no_carrier = self._no_native = ""
        self._granted: Granted | None = None
        self._rings = Rings()
        self._no_hints = ""  # why not all were granted
        self._untold = ""  # why it is not known which claim has lifted a frame
        self._offloads = Offloads(options.offloads)
        self._watched = False
        self._past: dict[str, int] = {}
        self._deadlines = Deadlines()
        self._busy_seconds, self._orphan_seconds = BUSY_SECONDS, ORPHAN_SECONDS
        self._added: Sequence[int] = ()  # queues that are there only while a program is attached
        self._tuner = Tuner(link.name, link.index, options.tune)

    # ---- opening; inside the namespace ----

    def check(self) -> None:
        """Refuse what cannot be, as far as can be known. Raises as `open`.

        Nothing has been changed, but that what dead processes left is put back: what there is now is not theirs.
        """
        check_others(self.name, self._options, self._broker)
        self._tuner.repair()
        options, active = self._options, active_queues(self.name, self.link.index)
        mode = "transmit only" if options.transmit_only else self._expected_mode()
        there = self._tuner.check(mode, len(active))
        self._added = added_queues(self.name, there) if mode == "native" else ()
        there += len(self._added)
        self.queues = self._choose_queues(active if there == len(active) else range(there))
        self._make_plan(mode)

    def _choose_queues(self, active: Sequence[int]) -> tuple[int, ...]:
        chosen = choose_queues(self.name, self._options.queues, active)
        self._umem.reserve(self.name, chosen)
        return chosen

    def _expected_mode(self) -> str:
        """Native, unless generic was demanded or the driver says that it has no other."""
        features = netdev.features(self.link.index)
        lacking = features is not None and XdpFeature.BASIC not in features.xdp
        return "generic" if self._choose_mode() == "generic" or (lacking and self._options.mode == "auto") else "native"

    def open(self) -> None:
        """Tune, attach and bind. On failure everything is undone. Raises what Tuner, XdpProgram and `bind` raise."""
        with ExitStack() as undo:
            undo.callback(self.close)
            self._tuner.before_attach()
            before = active_queues(self.name, self.link.index)
            if not self._options.transmit_only:
                self._attach(self._choose_mode())
            self._await_carrier()
            active = active_queues(self.name, self.link.index)  # attaching may have changed them
            self._added = [queue for queue in active if queue not in before]
            self._tuner.after_attach(self._granted.mode if self._granted else "transmit only", len(active))
            self._await_carrier()
            self.queues = self._choose_queues(active)
            self._rings = self._choose_rings()
            self.bind()
            if self.program is not None:
                self._watchdog.add(self.program.deadman)
                self._watched = True
            undo.pop_all()

    def _attach(self, mode: Mode) -> None:
        attached = attach(self.link, mode, self._options, self._redirects, self._broker)
        self.program, self._granted, self._no_hints = attached.program, attached.granted, attached.why
        self._tuner.why |= attached.tuning
        self._untold, self._lost = attached.untold, attached.redirects

    def _choose_mode(self) -> Mode:
        """Generic instead of native, which was not demanded, where the driver would take the program in vain.

        Raises ModeRefused.
        """
        mode = self._options.mode
        self._no_native = native_lacks(self.name) if mode in ("auto", "native") else ""
        if self._no_native and mode == "native":
            raise ModeRefused(
                f"native mode is of no use on {self.name}", self._no_native, "mode='auto' takes what there is."
            )
        return "generic" if self._no_native else mode

    def _await_carrier(self) -> None:
        if self.link.has_carrier:
            self._no_carrier = await_carrier(self.name)

    def _choose_rings(self) -> Rings:
        """The fill ring holds what the NIC's ring and ours can, or a NIC that takes its frames at once starves."""
        options = self._options
        own = ethtool.ring_sizes(self.name)
        fill = next_power_of_two(options.rx_ring + (own.rx if own else 0))
        target = 1 if options.transmit_only else min(fill, self._umem.fill_share(len(self.queues)))
        return Rings(options.rx_ring, options.tx_ring, fill, next_power_of_two(options.tx_ring), target)

    # ---- sockets ----

    def bind(self) -> None:
        """Bind all queues and give each to its worker, queue i to worker i, over again where there are more queues.

        The queues of a device share one mode. Where zero-copy was not demanded, and the driver grants it to some queues and
        refuses it to another, all are bound in copy mode, and the reason is in `why`.

        Raises QueueTaken, ModeRefused, MtuTooLarge, OutOfMemory, PrivilegeError, InterfaceDown or NoSuchInterface; then
        nothing is bound.
        """
        self._plan = self._make_plan(self._mode())
        self._copy_because = ""
        try:
            self._bind_queues(self._plan.flags)
        except ModeRefused as refused:
            if not self._granted_zero_copy or self._options.zero_copy:
                raise
            self._copy_because = f"{refused.message}, and the queues of a device share one mode. {refused.cause}"
            self._bind_queues(self._plan.flags | XDP_COPY)

    def _bind_queues(self, flags: int) -> None:
        self._granted_zero_copy = False
        try:
            for number, queue in enumerate(self.queues):
                xsk = self._open_socket(queue, flags)
                self._granted_zero_copy |= xsk.zero_copy
                self.sockets.append(xsk)
                if self.program is not None:
                    lib.xs_xsk_set_hints(xsk.pointer, sum(OPTIONS[hint] for hint in self.program.hints))
                    self.program.set_socket(queue, xsk.fileno())
                self._offloads.ask(xsk, netdev.features(self.link.index))
                worker = self._core.workers[number % len(self._core.workers)]
                check(lib.xs_worker_attach(worker, xsk.pointer, self.index), f"attach queue {queue} of {self.name}")
        except BaseException:
            self.unbind()
            raise

    def _mode(self) -> str:
        return self._granted.mode if self._granted else "native"

    def _make_plan(self, mode: str) -> Plan:
        """The bind flags for the link as it is now, with the program in `mode`."""
        driver = ethtool.driver(self.name)
        return plan(
            self.name,
            mode,
            self._options.zero_copy,
            netdev.features(self.link.index),
            self.link.mtu,
            self._core.frame_bytes,
            kernel_version(),
            driver.name if driver else "",
            self._options.modes.need_wakeup,
            [queue for queue in self._added if queue in self.queues],
        )

    def fits(self) -> bool:
        """Whether the sockets are what they would be if bound now: the MTU may have come to need several frames, or not to.

        Raises as `bind`. From any namespace.
        """
        return self._place.run(lambda: self._make_plan(self._mode())).flags == self._plan.flags

    def _open_socket(self, queue: int, flags: int, orphan: bool = False) -> Xsk:
        try:
            rings, modes, segments = self._rings, self._options.modes, self._plan.zc_max_segs
            patience = self._orphan_seconds if orphan else self._busy_seconds
            return self._umem.open(self.link.index, queue, rings, flags, patience, modes, segments)
        except BindFailed as failed:
            zero_copy = bool(self._options.zero_copy) or self._granted_zero_copy
            error = explain(failed, self.name, queue, self._umem.size, zero_copy)
            if isinstance(error, ModeRefused) and zero_copy and (lacks := zero_copy_lacks(self.name)):
                raise ModeRefused(error.message, f"{failed}. {lacks}", error.fix, number=failed.errno) from None
            if isinstance(error, QueueTaken):
                who = holders(self.link.index, queue, [xsk.fileno() for xsk in self._umem.sockets])
                if who.nobody and self._orphan_seconds and not orphan:
                    return self._open_socket(queue, flags, orphan=True)
                raise QueueTaken(
                    f"queue {queue} of {self.name} has another AF_XDP socket ({who})",
                    "A queue has one AF_XDP socket, and it was still there when the wait for it was over.",
                    "End that process, or take other queues: queues=[...].",
                ) from None
            raise error from None

    def unbind(self, await_release: bool = True) -> int:
        """Take the sockets off their workers and close them; returns how many frames came home. Idempotent."""
        for worker in self._core.workers:
            lib.xs_worker_unplug(worker, self.index)
        if self.sockets and self._granted_zero_copy and await_release:  # until then the NIC goes on with its frames
            self._place.run(lambda: queues_released(self.link.index, self.queues))
        home = int(lib.xs_stack_take_home(self._core.pointer, self.index)) if self.sockets else 0
        self._past = self._of_sockets()
        self._deadlines.clear()
        for xsk in self.sockets:
            self._umem.release(xsk)
        self.sockets = []
        return home

    def rebind(self, busy_seconds: float = BUSY_SECONDS) -> None:
        """Count the queues, which may be others now, and bind again; from any namespace. Raises as `bind`.

        `busy_seconds`: how long a queue that is taken is waited for.
        """
        self._busy_seconds, self._orphan_seconds = busy_seconds, 0.0  # who rebinds looks again later
        self._place.run(self._rebind)

    def _rebind(self) -> None:
        self.queues = self._choose_queues(active_queues(self.name, self.link.index))
        self._rings = self._choose_rings()
        self.bind()

    def other_queues(self) -> str:
        """What has become of the number of queues, if all are to be bound and others are active than are; from anywhere."""
        if self._options.queues != "all" or not self.sockets:
            return ""
        active = tuple(self._place.run(lambda: active_queues(self.name, self.link.index)))
        return f"{len(self.queues)} queues have become {len(active)}" if active != self.queues else ""

    def faults(self) -> list[str]:
        """Of each socket that the kernel has taken away, which queue and why."""
        return taken_away(self.sockets)

    def stalled(self) -> list[str]:
        """Of each socket whose frames the kernel has for too long, which queue and how many. None without a carrier."""
        return self._deadlines.stalled(self.sockets) if self.link.has_carrier else []

    # ---- closing ----

    def close(self) -> int:
        """Everything back, each thing whatever comes of the others; returns how many frames came home. Idempotent."""
        program, self.program = self.program, None
        home: list[int] = []
        with ExitStack() as last_first:
            last_first.callback(self._tuner.forget if self.gone else lambda: self._place.run(self._tuner.undo))
            last_first.callback(lambda: home.append(self.unbind(await_release=False)))
            if program is not None:
                last_first.callback(self._place.run, program.close)  # libxdp looks for its interface
                if self._watched:
                    self._watched = False
                    last_first.callback(self._watchdog.remove, program.deadman)
        return sum(home)

    def forget(self) -> None:
        """In a forked child: let go of the descriptors, so that what the parent holds ends with the parent."""
        if self.program is not None:
            self.program.close()
        for xsk in self.sockets:
            descriptor = xsk.fileno()
            if descriptor >= 0:
                os.close(descriptor)

    # ---- what can be seen ----

    def device(self) -> Device:
        """What was granted."""
        kind = driver.name if (driver := ethtool.driver(self.name)) else self.link.kind
        modes = granted(self._options.modes, self.sockets)
        why = {**self._plan.why, **modes.why, **self._tuner.why}
        if modes.busy_poll and modes.busy_poll.prefer and (reason := interrupts_go_on(self.name)):
            why["prefer_busy_poll"] = reason
        if self._no_carrier and not ethtool.has_link(self.name):
            why["carrier"] = self._no_carrier
        if refused := [*filter(None, [self._no_native]), *(self._granted.refused if self._granted else ())]:
            why["mode"] = "; ".join(refused)
        mode = self._granted.mode if self._granted else "transmit only"
        hints = self.program.hints if self.program else ()
        stripped = tags_taken_off(self.name, self.link.index, kind, mode, hints)
        reasons = {
            "zero_copy": self._copy_because,
            "vlan_stripping": stripped,
            "queues": not_bound(self.name, self.link.index, self.queues, mode),
            "claims": self._untold,
            "redirect_errors": self._lost.why,
            "metadata": self._no_hints,
            "offloads": self._offloads.why,
        }
        why |= {name: reason for name, reason in reasons.items() if reason}
        zero_copy = bool(self.sockets) and all(xsk.zero_copy for xsk in self.sockets)
        if self._options.zero_copy is None and not zero_copy:
            lacks = zero_copy_lacks(self.name)
            why.setdefault(
                "zero_copy", lacks or "The driver was asked for it and refused; the kernel does not say why."
            )
        return Device(
            name=self.name,
            index=self.index,
            ifindex=self.link.index,
            mac=self.link.address,
            queues=self.queues,
            asked=self._options.mode,
            mode=mode,
            zero_copy=zero_copy,
            multi_buffer=any(xsk.multi_buffer for xsk in self.sockets),
            partial_checksums=kind in PARAVIRTUAL or self.link.kind in PARAVIRTUAL,
            driver=kind,
            rx_ring=self._rings.rx,
            tx_ring=self._rings.tx,
            need_wakeup=modes.need_wakeup,
            busy_poll=modes.busy_poll,
            tx_budget=modes.tx_budget,
            vlan_stripping=bool(stripped),
            metadata=hints,
            offloads=self._offloads.granted,
            redirect_errors=self.program is not None and not self._lost.why,
            why=why,
            tuned=dict(self._tuner.tuned),
        )

    @property
    def tuned(self) -> list[str]:
        """What closing it will have to put back, by name."""
        return self._tuner.changed

    def stats(self) -> dict[str, int]:
        """`<name>.<queue>.<counter>` since the stack was opened: XDP_STATISTICS, failed redirects by error, and our own."""
        return self._of_sockets() | by_name(self.name, self._lost.counts())

    def _of_sockets(self) -> dict[str, int]:
        total = dict(self._past)
        for xsk in self.sockets:
            for counter, value in xsk.counters().items():
                key = f"{self.name}.{xsk.queue}.{counter}"
                total[key] = total.get(key, 0) + value
        return total
