"""The client's side: what a stack without privileges has of a broker, in the shape in which an interface has its own.

One request at a time, from any thread. When the broker is gone, whatever is asked raises BrokerError, and what is given
back is given back already: the kernel has the traffic since the broker's end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from collections.abc import Collection, Iterable
from typing import Any

from xdpstack.device.broker import wire
from xdpstack.device.broker.wire import VERSION
from xdpstack.device.claims import Claim, LocalAddress
from xdpstack.device.deadman import Deadman
from xdpstack.device.redirect_err import Counts
from xdpstack.device.tuning.journal import namespace
from xdpstack.device.verdict import Cause
from xdpstack.device.xdp import Granted, Hint, Mode, XdpCounters
from xdpstack.errors import BrokerError, ConfigurationError, ForkedError
from xdpstack.netlink import Mirror, Neighbour

#: How long an answer may take, in seconds: attaching resets some NICs.
ANSWER_SECONDS = 30.0


class BrokerClient:
    """A connection. Raises BrokerError (nobody listens there), ConfigurationError (it serves another namespace)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with contextlib.ExitStack() as undo:
            undo.callback(self._connection.close)
            self._connection.settimeout(ANSWER_SECONDS)
            try:
                self._connection.connect(path)
            except OSError as error:
                raise BrokerError(
                    f"no broker at {path}", f"{error.strerror}.", "Start one: xdpstack broker", error.errno
                ) from error
            hello, _ = self.ask("hello", version=VERSION)
            if tuple(hello["namespace"]) != namespace():
                raise ConfigurationError(
                    f"the broker at {path} serves another network namespace",
                    "A client reads links, addresses and routes itself, where it is.",
                    "Start the client there, or a broker here.",
                )
            undo.pop_all()

    @property
    def gone(self) -> bool:
        """Whether the broker has ended."""
        if self._connection.fileno() < 0:
            return True
        look = select.poll()
        look.register(self._connection, select.POLLRDHUP)
        return bool(look.poll(0))

    def ask(self, question: str, **values: Any) -> tuple[Any, list[int]]:
        """The answer, and descriptors that came with it, the caller's now. Raises what the broker said, and BrokerError."""
        if self._pid != os.getpid():
            raise ForkedError("the connection to the broker belongs to the parent process")
        with self._lock:
            try:
                with contextlib.suppress(BrokenPipeError):  # who hangs up may have said why
                    wire.send(self._connection, {"ask": question, **values})
                answer, descriptors = wire.receive(self._connection)
            except (OSError, EOFError, ValueError) as error:
                self._connection.close()
                raise BrokerError(
                    f"the broker at {self.path} is gone",
                    f"{error}. The kernel has the traffic: the program went with the broker.",
                    "Start it again, and open the stack anew.",
                ) from error
            except BaseException:  # the answer is still to come, and would be taken for that of the next question
                self._connection.close()
                raise
        if "error" in answer:
            raise wire.error_from_json(answer["error"])
        return answer["ok"], descriptors

    def attach(self, interface: str, mode: Mode, metadata: Collection[Hint]) -> BrokeredProgram:
        """Have a program attached. Raises what XdpProgram.attach raises, and PrivilegeError for what the policy refuses."""
        said, descriptors = self.ask("attach", interface=interface, mode=mode, metadata=list(metadata))
        return BrokeredProgram(self, interface, said, descriptors)

    def socket(self, interface: str, queue: int) -> int:
        """The descriptor of an AF_XDP socket for that queue, neither set up nor bound. Raises PrivilegeError."""
        _, [descriptor] = self.ask("socket", interface=interface, queue=queue)
        return descriptor

    def close(self) -> None:
        """The broker takes everything back. Idempotent."""
        self._connection.close()


class BrokeredClaims:
    """The claims of an interface, as `Claims`; addresses and MAC are the broker's business."""

    def __init__(self, client: BrokerClient, interface: str) -> None:
        self._client = client
        self._interface = interface
        self._claims: set[Claim] = set()

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._claims

    def add(self, *claims: Claim) -> tuple[int, ...]:
        """As Claims.add; one at a time. Raises PrivilegeError for what the policy refuses."""
        ids: list[int] = []
        for claim in claims:
            said, _ = self._client.ask("claim", interface=self._interface, claim=wire.claim_as_json(claim))
            ids += said
            self._claims.add(claim)
        return tuple(ids)

    def remove(self, *claims: Claim) -> None:
        """As Claims.remove; a broker that is gone has forgotten them."""
        for claim in claims:
            with contextlib.suppress(BrokerError):
                self._client.ask("unclaim", interface=self._interface, claim=wire.claim_as_json(claim))
            self._claims.discard(claim)

    def clear(self) -> None:
        """As Claims.clear."""
        self._claims.clear()
        with contextlib.suppress(BrokerError):
            self._client.ask("clear", interface=self._interface)

    def set_local(self, addresses: Iterable[LocalAddress]) -> None:
        """The broker follows them itself."""

    def set_mac(self, mac: bytes) -> None:
        """The broker follows it itself."""


class BrokeredRedirects:
    """Redirects that failed, as the broker counts them: a CountsRedirects."""

    def __init__(self, client: BrokerClient, interface: str, why: str) -> None:
        self.why = why
        self._client = client
        self._interface = interface
        self._last: Counts = {}

    def counts(self) -> Counts:
        """The last that were known, when the broker is gone or has detached the program."""
        with contextlib.suppress(BrokerError):
            said, _ = self._client.ask("redirects", interface=self._interface)
            self._last = {int(queue): errors for queue, errors in said.items()}
        return self._last


class BrokeredProgram:
    """A program that the broker has attached: what an Interface asks of its XdpProgram."""

    def __init__(self, client: BrokerClient, interface: str, said: dict[str, Any], descriptors: list[int]) -> None:
        self._client = client
        self._interface = interface
        self._pid = os.getpid()
        self._closed = False
        self._last = XdpCounters({}, 0, 0)
        self.claims = BrokeredClaims(client, interface)
        self.hints: tuple[Hint, ...] = tuple(said["hints"])
        self.why = str(said["why"])
        self.redirects = BrokeredRedirects(client, interface, str(said["no_redirects"]))
        self.tuning: dict[str, str] = said["tuning"]
        self.granted = Granted(**{**said["granted"], "refused": tuple(said["granted"]["refused"])})
        [deadman] = descriptors
        try:
            self.deadman = Deadman(deadman)
        finally:
            os.close(deadman)  # the mapping stays

    def set_socket(self, queue: int, socket_fd: int) -> None:
        """Frames of this queue go to the socket that the broker made for it last, which is bound now."""
        self._client.ask("bound", interface=self._interface, queue=queue)

    def counters(self) -> XdpCounters:
        """As XdpProgram.counters; the last ones that were known, when the broker is gone."""
        with contextlib.suppress(BrokerError):
            said, _ = self._client.ask("counters", interface=self._interface)
            frames = {Cause[name]: count for name, count in said["frames"].items()}
            self._last = XdpCounters(frames, said["last_redirect_ns"], said["last_pass_ns"])
        return self._last

    def close(self) -> None:
        """Have it detached; idempotent. In a forked child only the mapping goes."""
        if self._closed:
            return
        self._closed = True
        self.deadman.close()
        if self._pid == os.getpid():
            with contextlib.suppress(OSError):  # no broker, or the kernel's word to it: no use to who closes
                self.redirects.counts()  # they stay
                self._client.ask("detach", interface=self._interface)


class BrokeredMirror(Mirror):
    """The mirror of a process without CAP_NET_ADMIN, which may look at everything but ask the kernel for no neighbour."""

    def __init__(self, client: BrokerClient) -> None:
        super().__init__(None)
        self._client = client

    def probe(self, neighbour: Neighbour | tuple[int, bytes]) -> bool:
        """As Mirror.probe, by the broker."""
        ifindex, address = neighbour if isinstance(neighbour, tuple) else (neighbour.index, neighbour.address)
        try:
            said, _ = self._client.ask("probe", ifindex=ifindex, address=address.hex())
        except OSError as error:
            if error.errno not in (errno.EPERM, BrokerError.NUMBER):
                raise
            self.counters.probe_failures += 1
            return False
        self.counters.probes += bool(said)
        self.counters.probes_spared += not said
        return bool(said)
