"""What one client has of a broker: programs with their claims, and its sockets. It goes with the connection."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, cast

from xdpstack.device import netdev
from xdpstack.device.broker import wire
from xdpstack.device.broker.policy import Peer, Policy
from xdpstack.device.broker.wire import VERSION
from xdpstack.device.claims import Claim, Endpoint, Vlan
from xdpstack.device.drivers import native_lacks
from xdpstack.device.hints import checked, open_attached
from xdpstack.device.holders import AF_XDP
from xdpstack.device.local import local_addresses
from xdpstack.device.queues import active_queues
from xdpstack.device.redirect_err import RedirectErrors
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.tuning.journal import namespace
from xdpstack.device.tuning.tuner import Tuner
from xdpstack.device.xdp import Granted, Mode
from xdpstack.errors import BrokerError, ConfigurationError, ModeRefused, NoSuchInterface
from xdpstack.netlink import Link, Mirror, Snapshot

log = logging.getLogger("xdpstack")
#: What a request comes to: values for JSON, and descriptors to send along.
Answer = tuple[Any, tuple[int, ...]]
#: Claims of one interface at a time. Those on addresses that the host does not have take no room in the program's tables,
#: which would bound them, but memory of the broker, and its time whenever another of the same port is made.
CLAIMS = 4096


class Slow(NamedTuple):
    """A request that takes long: `work` is for another thread; `answer` says afterwards, in this one, what it comes to."""

    work: Callable[[], None]
    answer: Callable[[], Answer]


class Opened:
    """One interface of a client: the program, and a copy of each socket's descriptor, for the program's map."""

    def __init__(self, link: Link, mode: str, hints: tuple[str, ...]) -> None:
        """Attach. Raises what XdpProgram.open and attach raise; then nothing is left."""
        self.name = link.name
        self.link = link
        self.sockets: dict[int, int] = {}
        self.vlans: set[Vlan | None] = {None}
        self.tuner = Tuner(link.name, link.index, Tuning())
        lacks = native_lacks(link.name) if mode in ("auto", "native") else ""
        if lacks and mode == "native":
            raise ModeRefused(f"native mode is of no use on {link.name}", lacks, "mode='auto' takes what there is.")
        if mode not in ("auto", "native", "generic"):
            raise ConfigurationError(f"mode is {mode!r}; it can be auto, native or generic")
        with contextlib.ExitStack() as undo:
            undo.callback(self.tuner.undo)
            self.tuner.repair()
            self.tuner.before_attach()
            attached = open_attached(
                link.name,
                link.rx_queues,
                "generic" if lacks else cast(Mode, mode),
                checked(hints),
                netdev.features(link.index),
            )
            self.program, self.granted, self.why = attached.program, attached.granted, attached.why
            undo.callback(self.program.close)
            redirects = RedirectErrors(link.rx_queues)
            undo.callback(redirects.close)
            self.redirects = redirects
            self.lost = redirects.watch(self.program.maps["xs_xsks"])
            self.tuner.after_attach(self.granted.mode, len(active_queues(link.name, link.index)))
            undo.pop_all()

    def follow(self, snapshot: Snapshot) -> None:
        """The host's addresses and the device's MAC, which the client has no say in."""
        link = snapshot.links.get(self.link.index)
        if link is not None and link.address != self.link.address:
            self.program.claims.set_mac(link.address)
        self.link = link or self.link
        self.program.claims.set_local(local_addresses(snapshot, self.link.index, self.vlans))

    def close(self) -> None:
        """The kernel has all traffic back."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self.tuner.undo)
            for descriptor in self.sockets.values():
                last_first.callback(os.close, descriptor)
            last_first.callback(self.redirects.close)
            last_first.callback(self.program.close)


class Session:
    """A connection. `answer` serves one request; all in the namespace that the broker serves.

    Of a request that takes long it leaves `slow`, to be called in any thread, and `finish` answers when that is done. All
    else is for one thread.
    """

    def __init__(self, connection: socket.socket, peer: Peer, policy: Policy, mirror: Mirror) -> None:
        self.connection = connection
        self.peer = peer
        self._policy = policy
        self._mirror = mirror
        self._opened: dict[str, Opened] = {}
        self.slow: Callable[[], None] | None = None
        self._rest: Callable[[], Answer] | None = None
        self._questions: dict[str, Callable[..., Answer | Slow]] = {
            name: getattr(self, f"_{name}")
            for name in (
                "hello",
                "attach",
                "socket",
                "bound",
                "claim",
                "unclaim",
                "clear",
                "counters",
                "redirects",
                "probe",
                "detach",
            )
        }

    def answer(self) -> None:
        """Serve one request if there is one; the connection does not block.

        Raises EOFError and OSError when the client is gone or takes no answer, ValueError when it talks nonsense.
        """
        try:
            request, descriptors = wire.receive(self.connection)
        except BlockingIOError:
            return
        for each in descriptors:  # a client has none to give
            os.close(each)
        question = self._questions.get(str(request.pop("ask", "")))
        if question is None:
            error = BrokerError(f"there is no such request; there are {', '.join(self._questions)}")
            wire.send(self.connection, {"error": wire.error_as_json(error)})
            return
        self._reply(lambda: question(**request))

    def finish(self, work: Future[None]) -> None:
        """`slow` is done, well or not: answer. Raises as `answer`."""
        rest = self._rest
        self.slow = self._rest = None
        assert rest is not None

        def answer() -> Answer:
            work.result()
            return rest()

        self._reply(answer)

    def _reply(self, question: Callable[[], Answer | Slow]) -> None:
        made: tuple[int, ...] = ()
        try:
            found = question()
            if isinstance(found, Slow):
                self.slow, self._rest = found
                return
            answer, made = found
            message = {"ok": answer}
        except Exception as error:
            message = {"error": wire.error_as_json(error)}
        wire.send(self.connection, message, made)

    def follow(self, snapshot: Snapshot) -> None:
        """The host's addresses may have changed."""
        for each in self._opened.values():
            each.follow(snapshot)

    def close(self) -> None:
        """All that the client has goes back. Idempotent."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self.connection.close)
            for each in self._opened.values():
                last_first.callback(each.close)
            self._opened = {}

    # ---- requests: each returns values for JSON, and descriptors to send along ----

    def _hello(self, version: int) -> Answer:
        if version != VERSION:
            raise BrokerError(
                f"the broker speaks version {VERSION}, not {version}", fix="Install the same release for both."
            )
        return {"version": VERSION, "namespace": namespace()}, ()

    def _attach(self, interface: str, mode: str, metadata: list[str]) -> Slow:
        self._policy.check_interface(self.peer, interface)
        if interface in self._opened:
            raise BrokerError(f"{interface} is attached already by this connection")
        link = self._mirror.snapshot.link(interface)
        if link is None:
            raise NoSuchInterface(f"no interface {interface!r} in the broker's network namespace")
        made: list[Opened] = []

        def work() -> None:
            made.append(Opened(link, mode, tuple(metadata)))

        return Slow(work, lambda: self._attached(interface, made[0]))

    def _attached(self, interface: str, opened: Opened) -> Answer:
        self._opened[interface] = opened
        opened.follow(self._mirror.snapshot)
        granted: Granted = opened.granted
        log.info("%s has %s, in %s mode", self.peer, interface, granted.mode)
        said = {name: getattr(granted, name) for name in granted.__slots__}
        return {
            "granted": said,
            "why": opened.why,
            "tuning": opened.tuner.why,
            "hints": opened.program.hints,
            "no_redirects": opened.lost.why,
        }, (opened.program.deadman_fd,)

    def _socket(self, interface: str, queue: int) -> Answer:
        opened = self._get(interface)
        if type(queue) is not int or not 0 <= queue < opened.link.rx_queues:
            raise ConfigurationError(f"{interface} has no queue {queue!r}; it has {opened.link.rx_queues}")
        self._policy.check_queue(self.peer, interface, queue)
        with socket.socket(AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as made:
            descriptor = made.detach()
        if queue in opened.sockets:
            os.close(opened.sockets.pop(queue))
        opened.sockets[queue] = descriptor
        return {}, (descriptor,)

    def _bound(self, interface: str, queue: int) -> Answer:
        opened = self._get(interface)
        if queue not in opened.sockets:
            raise BrokerError(f"there is no socket for queue {queue} of {interface}")
        opened.program.set_socket(queue, opened.sockets[queue])
        # the map holds it now; a copy of ours would hold the queue when the client closes its own
        os.close(opened.sockets.pop(queue))
        return {}, ()

    def _claim(self, interface: str, claim: Any) -> Answer:
        opened, made = self._get(interface), self._claim_of(claim)
        self._policy.check_claim(self.peer, interface, made)
        if len(opened.program.claims) >= CLAIMS:
            raise BrokerError(f"{interface} has {CLAIMS} claims, the most that the broker makes for a connection")
        if made.vlan not in opened.vlans:
            opened.vlans.add(made.vlan)
            try:
                opened.follow(self._mirror.snapshot)
            except BaseException:  # no room: without the VLAN the addresses can go on being followed
                opened.vlans.discard(made.vlan)
                raise
        return list(opened.program.claims.add(made)), ()

    def _unclaim(self, interface: str, claim: Any) -> Answer:
        self._get(interface).program.claims.remove(self._claim_of(claim))
        return {}, ()

    def _clear(self, interface: str) -> Answer:
        self._get(interface).program.claims.clear()
        return {}, ()

    def _counters(self, interface: str) -> Answer:
        counters = self._get(interface).program.counters()
        frames = {cause.name: count for cause, count in counters.frames.items()}
        return {
            "frames": frames,
            "last_redirect_ns": counters.last_redirect_ns,
            "last_pass_ns": counters.last_pass_ns,
        }, ()

    def _redirects(self, interface: str) -> Answer:
        return self._get(interface).lost.counts(), ()

    def _probe(self, ifindex: int, address: str) -> Answer:
        link = self._mirror.snapshot.links.get(ifindex)
        self._policy.check_interface(self.peer, link.name if link else "")
        packed = bytes.fromhex(address)
        if len(packed) not in (4, 16):
            raise ConfigurationError(f"an address has 4 or 16 bytes, not {len(packed)}")
        return self._mirror.probe((ifindex, packed)), ()

    def _detach(self, interface: str) -> Slow:
        self._get(interface)
        return Slow(self._opened.pop(interface).close, lambda: ({}, ()))

    def _get(self, interface: str) -> Opened:
        if interface not in self._opened:
            raise BrokerError(f"{interface} is not attached by this connection")
        return self._opened[interface]

    def _claim_of(self, said: Any) -> Claim:
        made = wire.claim_from_json(said)
        if isinstance(made, Endpoint):
            raise ConfigurationError("a port alone is no claim")
        claim: Claim = made
        return claim
