"""Stack: devices, walk, layers and sockets put together; opened, driven and closed as one.

Backend (devices) --- queues ---> workers (C) <--- wires --- Walk (path table, hooks)
Control (mirror, events) --- tables ---> workers
sockets, frames() --- claims ---> Backend
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Self

from xdpstack import leaving
from xdpstack.answers import answers
from xdpstack.closing import drain, drop_held
from xdpstack.control import Control
from xdpstack.device.backend import Backend, Device, DeviceEvent
from xdpstack.device.claims import Claim, Vlan
from xdpstack.device.device import KernelBackend
from xdpstack.device.hints import checked as checked_hints
from xdpstack.device.modes import BusyPoll, SocketModes
from xdpstack.device.offloads import checked as checked_offloads
from xdpstack.device.options import Options
from xdpstack.device.prefilter import Prefilter
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.watchdog import WINDOW_SECONDS
from xdpstack.device.xdp import Mode
from xdpstack.driving import Driving, threads_of
from xdpstack.engines import NATIVE, Engine, checked, stand_ins
from xdpstack.engines import text as text_of
from xdpstack.errors import ClosedError, ForkedError, naming_what_ran_out
from xdpstack.frames import FrameQueues, Frames
from xdpstack.hook import HookBatch, make_hook, run_hooks
from xdpstack.host import StackHost
from xdpstack.native import lib
from xdpstack.native.core import BUDGET, Core, HugePagesAsked, Ledger
from xdpstack.netlink import Snapshot, text
from xdpstack.observe import trace
from xdpstack.observe.server import Server
from xdpstack.path import PATH
from xdpstack.redirect import Redirect, Redirects
from xdpstack.routing.layer import RoutingLayer
from xdpstack.routing.native import NativeRouting
from xdpstack.stages import rps
from xdpstack.stages.neigh import Neigh
from xdpstack.udp.address import Address
from xdpstack.udp.layer import UdpLayer
from xdpstack.udp.socket import UdpSocket
from xdpstack.udp.stepwise import Stepwise
from xdpstack.walk import CStage, Hook, Walk, c_stages

log = logging.getLogger("xdpstack")

#: Frames per worker unless said otherwise: what a queue of each of four devices keeps, and as many for sockets (32 MiB).
FRAMES = 16384
#: How long the control thread is waited for where a hook does not come back at the end of the interpreter, in seconds.
CONTROL_SECONDS = 1.0


class Stack:
    """One stack over its devices. Made by `xdpstack.open()`; a context manager.

    Any thread may call anything. What drives a worker (`poll()`, `run()`, receiving, sending) is done by one thread at a
    time; another that comes meanwhile does not wait for it but for its packets. With `threads` each worker of `core` has a
    thread of its own, pinned to a CPU of `cpus` each if there are any.
    """

    def __init__(
        self,
        backend: Backend,
        core: Core,
        observable: bool = False,
        engines: Mapping[str, Engine] | None = None,
        threads: bool = False,
        cpus: Sequence[int] = (),
    ) -> None:
        self._engines = checked(engines)
        self._pid = os.getpid()
        self._closed = False
        self._backend = backend
        self._core = core
        self._closing = False
        off = {row.name for row in PATH if row.where == "asked"}
        self._walk = Walk(core.workers, set(c_stages()) - off, run_parked=self._run_parked_quietly)
        self._driving = Driving(core, self._walk)
        self._rps = rps.Rps(core, self._walk)
        self._host = StackHost(self, core, backend, self._walk)
        self._frames = FrameQueues(self._host)
        self._redirects = Redirects(self._host)
        self._routing = NativeRouting(core.pointer)
        layer = RoutingLayer(forwards=False)
        in_python = any(engine != NATIVE for engine in self._engines.values())
        self._sockets = UdpLayer(self._host, self._stepwise if in_python else None)
        for hook in stand_ins(self._engines, self._host, layer, self._routing, self._sockets):
            self._walk.replace_row(hook)
        self._walk.wire()
        self._server: Server | None = None
        devices, mirror = backend.open(core)
        with ExitStack() as undo:
            undo.callback(mirror.close)
            undo.callback(backend.close)
            numbers = {device.ifindex: device.index for device in devices}
            self._neigh = Neigh(core, numbers)
            layer.publishers.append(lambda snapshot, tables: self._routing.publish(snapshot, numbers, tables))
            route: Callable[[Snapshot], object] = layer.apply
            if self._engines["routing"] == NATIVE:
                route = lambda snapshot: self._routing.publish(snapshot, numbers)  # noqa: E731  # compiles what it needs
            tables = {"routing": route, "neighbours": self._neigh.publish}
            self._control = Control(core, backend, devices, mirror, tables)
            undo.pop_all()
            undo.callback(self.close)
            self._control.publish()
            self._start_control(observable)
            if threads:
                self._driving.start(cpus)
                if in_python:
                    self._driving.serve_hooks()
            undo.pop_all()
        leaving.watch(self)

    def _stepwise(self, index: int, view: Any) -> Stepwise:
        return Stepwise(view, self._walk, self._core, index % len(self._core.workers))

    def _start_control(self, observable: bool) -> None:
        self._control.listen(self._neigh.fileno(), lambda: self._neigh.handle_events(self._control.mirror))
        if self._control.mirror.fileno() < 0:
            return  # a memory stack: whoever tests it drives the control side too
        if observable:
            self._server = Server(answers(self, self._walk))
            self._control.serve(self._server)
        self._control.start()

    # ---- sockets ----

    def udp(
        self,
        address: Address,
        *,
        family: socket.AddressFamily | None = None,
        device: str | None = None,
        vlan: Vlan | None = None,
        v6only: bool = False,
        reserve: bool = True,
        reuse_address: bool = False,
        recverr: bool = False,
        broadcast: bool = False,
    ) -> UdpSocket:
        """A UDP socket bound to `address`: (host, port), as Python's sockets take it.

        When this returns, the XDP program lifts its datagrams. Port 0 takes a free one; the wildcards "0.0.0.0" and
        "::" (which carries IPv4 too unless `v6only`) take all addresses of the host. `device` names the one that
        datagrams must come by; `vlan` the VLAN they are tagged with, and what is sent, or (service VLAN, VLAN) for two
        tags (docs/vlan.md). `broadcast` takes broadcast and multicast too, and allows to send there. A kernel socket
        reserves the port and takes what is not lifted (fragments, clients on this host); `reserve=False` does without.
        `recverr` raises every ICMP error, as IP_RECVERR does. Raises AddressNotAvailable (with those there are),
        AddressInUse, OutOfMemory, TooManyOpenFiles, ConfigurationError.
        """
        with naming_what_ran_out(f"open a socket at {address}"):
            return self._sockets.open(
                address,
                family=family,
                device=device,
                vlan=vlan,
                v6only=v6only,
                reserve=reserve,
                reuse_address=reuse_address,
                recverr=recverr,
                broadcast=broadcast,
            )

    def frames(self, claim: Claim | None = None) -> Frames:
        """Whole frames: those that `claim` lifts in, any out. `claim` None: only sending.

        Raises ClaimTaken when they are claimed already, ConfigurationError for what cannot be.
        """
        self._check()
        with naming_what_ran_out("open a queue of frames"):
            return self._frames.open(claim)

    def redirect(self, claim: Claim, to: str | Mapping[str, str], *, swap_macs: bool = False) -> Redirect:
        """Have the frames that `claim` lifts leave by the device `to`, in C, without a copy, whole and as they are.

        `to` is one device of the stack for all frames, or for each device the one by which leaves what it receives:
        XDP_REDIRECT through a map of devices; where the two are the same, XDP_TX. `swap_macs` exchanges source and
        destination MAC, as a reflector does. It happens before GRO, taps and tc, and somebody has to drive. A frame too
        large for the other device's MTU is dropped (PKT_TOO_BIG), as is one for a device that is down (DEV_READY) or gone
        (DEVICE_GONE), or behind 1,024 others that wait for the TX ring (QDISC_DROP). `counters()` has those that left as
        `xdp.redirect.redirected`. `close()` of what is returned ends it.

        Raises ClaimTaken when the frames are claimed already; ConfigurationError: a device is not of this stack, or one of
        several has no word said about it, or a hook called this.
        """
        self._check()
        with naming_what_ran_out("redirect frames"):
            return self._redirects.open(claim, to, swap_macs)

    # ---- driving ----

    @property
    def driven(self) -> bool:
        """Whether threads poll, of the workers or in `run()`: then a socket that waits does not have to."""
        return self._driving.driven

    def poll(self, budget: int = BUDGET) -> int:
        """One round over all queues of all workers; returns packets received. Runs Python hooks that have packets.

        Raises what a hook raised, after its packets were dropped.
        """
        self._check()
        return self._driving.poll(budget)

    def _run_parked(self, worker: Any) -> None:
        """Run the Python hooks for which `worker` has parked packets. Raises what a hook raised, once all have run."""
        if lib.xs_worker_parked(worker):
            run_hooks(self._walk, worker, self._core)

    def _run_parked_quietly(self, worker: Any) -> None:
        """For a change of the path, which is not to fail by what hooks raise."""
        try:
            self._run_parked(worker)
        except Exception:
            log.exception("a hook failed on the last packets before the path changed")

    def run(self, seconds: float | None = None) -> None:
        """Drive the stack until `stop()` is called from elsewhere, or for `seconds`. It may be called again.

        With `workers=N` their threads drive; then this runs Python hooks, and waits. A `stop()` that came before makes it
        return at once. Raises what a hook raised, after its packets were dropped.
        """
        self._check()
        self._driving.run(seconds)

    def stop(self) -> None:
        """Make `run()` return, in every thread that is in it. Any thread, signal handlers included."""
        self._driving.stop()

    # ---- steering ----

    def rps(
        self,
        weights: Sequence[int] = (),
        *,
        flows: int = 0,
        max_backlog: int = rps.MAX_BACKLOG,
        flow_limit: bool = False,
    ) -> None:
        """Spread what is received over the workers by the hash of its flow (RPS), and what is sent over queues (XPS).

        `weights`: how much each worker gets of the flows, 0 = nothing; empty: all the same. `flows`: about as many as there
        are at a time; then a flow goes to the worker on whose CPU it is read (RFS), which `open(cpus=[...])` has pinned; 0:
        no RFS. `max_backlog`: packets that may wait for a worker, else they are dropped (CPU_BACKLOG); with `flow_limit` a
        flow that takes more than half of it is cut earlier. It may be called again, while packets flow; see
        docs/stages/rps.md. Raises ConfigurationError, OutOfMemory.
        """
        self._check()
        cpus = {cpu: worker for worker, cpu in enumerate(self._driving.cpus)}
        self._rps.on(weights, flows, cpus, max_backlog, flow_limit)

    def rps_off(self) -> None:
        """What is received stays with the worker that has its queue."""
        self._check()
        self._rps.off()

    # ---- custom stages ----

    def hook(
        self,
        row: str,
        stage: Callable[[HookBatch], None] | CStage,
        *,
        name: str = "",
        priority: int = 0,
        edges: Mapping[str, str] | None = None,
    ) -> Hook:
        """Put a custom stage on `row` of the path ("tc.rx", "netfilter.input", ...): a Python callable or `load_stage()`.

        It runs before the row's own stage; of several on a row, the lowest priority first. `edges` are further ways out
        by name, each to a row; the first edge, "accept", always goes on as if the hook were not there. A C stage's own
        edge names beyond its first must all be given. Packets see the path with the hook or without it, never a part of the
        change. Raises ConfigurationError: the row takes no hooks, an edge leads nowhere, or a hook called this.
        """
        self._check()
        made = make_hook(row, stage, name, priority, edges or {})
        self._walk.add_hook(made)
        if made.parks:
            self._driving.serve_hooks()
        return made

    def unhook(self, hook: Hook) -> None:
        """Take a custom stage out again, when it has seen all packets that it was to see.

        What a C stage holds it must have let go before. Raises ConfigurationError: it is not there, or a hook called this.
        """
        self._check()
        self._walk.remove_hook(hook)

    # ---- what can be seen ----

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices as they are now, in stack index order; for one that was bound anew, as it was granted last."""
        return self._backend.devices

    @property
    def snapshot(self) -> Snapshot:
        """What the mirror knows: links, addresses, routes, rules, neighbours."""
        return self._control.mirror.snapshot

    def addresses(self) -> list[str]:
        """The addresses of the stack's devices, as text."""
        return [text(address) for address in self._host.local_addresses()]

    def events(self) -> list[DeviceEvent]:
        """What happened to the devices since the last call: "down", "gone", "up", "queues", "bound", "queue-error"."""
        return self._control.take_events()

    def counters(self) -> dict[str, int]:
        """Every counter that is not zero: of the stages, the XDP program, the AF_XDP sockets, and control."""
        unread = self._sockets.unread_at_close
        return {
            **self._walk.counters(),
            **({"udp.unread_at_close": unread} if unread else {}),
            **self._backend.stats(),
            **self._control.tables.counters(),
        }

    def reasons(self) -> dict[str, int]:
        """Dropped packets by reason."""
        return self._walk.drops()

    def frames_by_owner(self) -> dict[str, int]:
        """Where every frame is; sums to the number of frames."""
        self._check_process()
        return self._core.frame_counts()

    def ledger(self) -> Ledger:
        """The packet ledger; `ledger().missing` is 0 unless there is a defect."""
        self._check_process()
        return self._core.ledger()

    def info(self) -> dict[str, Any]:
        """What was asked for and what was granted."""
        devices = [{**asdict(device), "mac": device.mac.hex(":")} for device in self.devices]
        return {
            "devices": devices,
            "frames_total": self._core.frames,
            "frame_bytes": self._core.frame_bytes,
            "huge_pages": self._core.huge_pages_info(),
            "workers": len(self._core.workers),
            "threads": self._driving.threads,
            "spin_us": self._core.spin_us,
            "cpus": self._driving.cpus,
            "rps": self._rps.info,
            "engines": {layer: text_of(engine) for layer, engine in self._engines.items()},
            "tables": self._control.tables.info(),
            **self._backend.info(),
        }

    def trace_start(self, packets: int = 1, *, row: str | None = None, reason: str | None = None) -> None:
        """Record the walk of the next `packets` packets of each worker, up to 4,096.

        `row`: of those that come to that row or hook. `reason`: of those that are dropped for it. Both: dropped there.
        Raises ConfigurationError for a name that is none, with those there are.
        """
        self._check()
        trace.start(self._walk, packets, row, reason)

    def trace_read(self) -> list[trace.Walked]:
        """What was recorded so far."""
        self._check_process()
        return trace.read(self._walk)

    def trace_stop(self) -> None:
        """Forget what was recorded."""
        self._check_process()
        trace.stop(self._walk)

    # ---- life ----

    def _check(self) -> None:
        """Raise ClosedError or ForkedError when nothing may be called any more."""
        if self._closed:
            raise ClosedError("the stack is closed")
        self._check_process()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(
                f"the stack was opened by process {self._pid}, this is {os.getpid()}",
                cause="A forked child has neither its rings nor its frames.",
                fix="Open a stack in the child, or start the child before opening.",
            )

    def close(self) -> None:
        """Give everything back, in the order that loses nothing: claims, frames under way, program, sockets. Idempotent.

        Threads in `run()` return first; those of the workers end when nothing is lifted any more. When something fails, the
        rest is given back all the same before it is raised. The end of the interpreter closes what is open still.
        Raises ConfigurationError inside of a hook: call `stop()` there.
        """
        if self._closing or os.getpid() != self._pid:
            return
        self._walk.refuse_inside_hook()
        self._closing = True
        leaving.forget(self)
        with ExitStack() as steps:  # the last one first
            steps.callback(lib.xs_stack_close, self._core.pointer)
            steps.callback(self._control.mirror.close)
            steps.callback(drop_held, self._core, self._neigh)
            steps.callback(self._backend.close)
            if self._server is not None:
                steps.callback(self._server.close)
            steps.callback(self._control.stop)
            steps.callback(setattr, self, "_closed", True)
            steps.callback(drain, self._core, self.poll)
            steps.callback(self._driving.end)
            steps.callback(self._backend.withdraw)
            steps.callback(self._sockets.close)
            steps.callback(self._frames.close)
            steps.callback(self._redirects.close)
            steps.callback(self._driving.refuse_runs)

    def _leave(self, hooks_seconds: float) -> bool:
        """The end of the interpreter (xdpstack.leaving). After False the stack is never to be used again."""
        if self._driving.stop_hooks(hooks_seconds):
            self.close()
            return True
        self._closing = True
        with ExitStack() as steps:  # the last one first
            steps.callback(self._backend.close)
            if self._server is not None:
                steps.callback(self._server.close)
            steps.callback(self._control.stop, CONTROL_SECONDS)
            steps.callback(self._driving.stop_threads)
            steps.callback(self._backend.withdraw)
        return False

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self._closing

    def __repr__(self) -> str:
        devices = ", ".join(f"{device.name} ({device.mode})" for device in self.devices)
        return f"<Stack {devices}{' closed' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open(  # noqa: A001  # the word that users expect, as in socket.open or tarfile.open
    *interfaces: str,
    netns: str | None = None,
    mode: Mode = "auto",
    zero_copy: bool | None = None,
    queues: str | Sequence[int] = "all",
    rx_ring: int = 2048,
    tx_ring: int = 2048,
    transmit_only: bool = False,
    metadata: Collection[str] = (),
    offloads: Collection[str] = (),
    frames: int = FRAMES,
    frame_bytes: int = 2048,
    huge_pages: HugePagesAsked = False,
    need_wakeup: bool = True,
    busy_poll: bool | BusyPoll = False,
    tx_budget: int | None = None,
    prefilter: Prefilter | None = None,
    deadman_seconds: float = WINDOW_SECONDS,
    observable: bool = True,
    engines: Mapping[str, Engine] | None = None,
    workers: int | None = None,
    cpus: Sequence[int] = (),
    spin_us: int = 0,
    tune: Tuning | None = None,
    broker: str | None = None,
    pinned: str | None = None,
    coexist: bool = False,
) -> Stack:
    """Open a stack over network interfaces, in the caller's network namespace or in `netns`.

    An XDP program is attached to each interface and an AF_XDP socket bound to each of `queues`; nothing is lifted
    before a socket is made or frames are claimed. `mode`: "auto" takes native and falls back to generic, and says so in
    `info()`; "native" or "generic" demand it. `zero_copy`: True demands it, False refuses it, None takes what there is.
    `rx_ring` and `tx_ring` are slots; `frames` of `frame_bytes` each (2048 or 4096) are the memory. `huge_pages`: True
    demands pages of 2 MiB for it, "auto" takes them where there are enough. `transmit_only`: no program is attached,
    and nothing received. `metadata`: what the devices are to say of each frame, of "hash", "timestamp" and "vlan"
    (docs/metadata.md); `info()` says what was granted, and why not the rest. `offloads`: what they are to do with the
    frames to send, of "checksum" and "timestamp" (docs/metadata.md). Packets that wait for longer than
    `deadman_seconds` without progress go to the kernel. `observable`: answer `xdpstack show` and `xdpstack trace`.
    `engines`: what runs a layer, "routing" or "udp": "native" (C, the default), "python" (its plain definition), or an
    object with `process(batch)` in its place; see docs/engines.md. `workers`: so many threads, in C and without the
    GIL, each with `frames` of its own, drive the stack; queue i is worker i's, over again. `cpus` pins them, one CPU
    each. None: whoever receives or is in `run()` drives; see docs/workers.md. `spin_us`: who drives polls for so many
    microseconds without finding anything before it sleeps. `tune`: what to change of the devices
    while the stack is open; None is `Tuning()`; see docs/tuning.md. `need_wakeup`, `busy_poll` (True, or a BusyPoll)
    and `tx_budget`: how the AF_XDP sockets are driven; `prefilter`: frames that the NIC itself is to drop; see
    docs/modes.md. `broker`: the socket of `xdpstack broker`, which attaches the program and makes the sockets for
    a process without privileges; see docs/broker.md. `pinned`: the directory of a program that `xdpstack pin` has
    attached, for a process with CAP_NET_RAW alone; see docs/without-root.md. `coexist`: join the XDP programs that are
    there already, through libxdp's dispatcher; see docs/device.md.

    Raises PrivilegeError, NamespaceError, NoSuchInterface, InterfaceDown, ProgramAttached, QueueTaken, ModeRefused,
    TuningRefused, BrokerError, PinError, MtuTooLarge, OutOfMemory, TooManyOpenFiles or ConfigurationError; then nothing
    is left behind.
    """
    hints, asked = checked_hints(metadata), checked_offloads(offloads)
    modes = SocketModes(need_wakeup, BusyPoll.asked(busy_poll), tx_budget)
    options = Options(
        netns,
        queues,
        mode,
        zero_copy,
        rx_ring,
        tx_ring,
        transmit_only,
        tune or Tuning(),
        hints,
        modes,
        prefilter,
        asked,
        broker,
        pinned,
        coexist,
    )
    backend = KernelBackend(*interfaces, options=options, window_seconds=deadman_seconds)
    with naming_what_ran_out(f"open {', '.join(interfaces)}"):
        core = Core(threads_of(workers, cpus), frames, frame_bytes, huge_pages, hints=bool(hints), spin_us=spin_us)
        try:
            threads = workers is not None
            return Stack(backend, core, observable=observable, engines=engines, threads=threads, cpus=cpus)
        except BaseException:
            core.destroy()  # else they would be there for as long as somebody keeps the exception
            raise
