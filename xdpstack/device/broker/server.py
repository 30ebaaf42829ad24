"""The broker: listens, and serves its clients one request at a time. It holds no packet and sees none.

    client --connect--> SO_PEERCRED: who it is --> Session --requests--> policy --> program, sockets
    client dies: the connection ends --> its programs are detached: the kernel has its traffic
    broker dies: the links of all programs go with it --> likewise

Whoever may reach the socket may ask; what is granted is the policy's word.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from xdpstack.device import privileges
from xdpstack.device.broker import wire
from xdpstack.device.broker.policy import Peer, Policy
from xdpstack.device.broker.session import Session
from xdpstack.device.tuning.journal import DIRECTORY
from xdpstack.errors import BrokerError, XdpstackError
from xdpstack.netlink import Mirror

log = logging.getLogger("xdpstack")

SOCKET = DIRECTORY / "broker.sock"
#: What it needs: AF_XDP sockets, programs, attaching them; and CAP_SYS_ADMIN if it is to serve another namespace.
CAPABILITIES = ("CAP_NET_RAW", "CAP_BPF", "CAP_NET_ADMIN")
#: Connections at a time, of all clients and of one user.
CLIENTS, OF_ONE_USER = 64, 8
#: How long it waits when it has no descriptor for who connects, in seconds: the listener stays readable.
EXHAUSTED_SECONDS = 0.05


class Broker:
    """Listening from the moment it is made, in the calling thread's network namespace; a context manager.

    Raises PrivilegeError, and BrokerError when another one listens there.
    """

    def __init__(self, policy: Policy, path: Path = SOCKET) -> None:
        if lacking := set(CAPABILITIES) - privileges.effective():
            raise privileges.missing("be a broker", lacking)
        self.path = path
        self._policy = policy
        self._sessions: dict[int, Session] = {}
        self._stopping = False
        self._exhausted = False
        with contextlib.ExitStack() as undo:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wake)
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._listener = undo.enter_context(_listen(path))
            undo.callback(path.unlink, missing_ok=True)
            self._mirror = undo.enter_context(Mirror())
            for each in (self._wake, self._listener.fileno(), self._mirror.fileno()):
                self._selector.register(each, selectors.EVENT_READ)
            undo.callback(self._close_sessions)
            self._undo = undo.pop_all()

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            self.step(1.0)

    def step(self, seconds: float) -> None:
        """Serve what has come, waiting for it for at most so long."""
        for key, _ in self._selector.select(seconds):
            if key.fd == self._listener.fileno():
                self._accept()
            elif key.fd in self._sessions:
                self._guard(key.fd, lambda session: session.answer())
        if self._mirror.process():
            for descriptor in list(self._sessions):
                self._guard(descriptor, lambda session: session.follow(self._mirror.snapshot))

    def stop(self) -> None:
        """Make `run` return. Any thread, signal handlers included."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Every client's programs detached; the socket gone. Idempotent."""
        self._undo.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if not self._exhausted:
                log.warning("nobody can connect: %s", error)
            self._exhausted = True
            time.sleep(EXHAUSTED_SECONDS)
            return
        self._exhausted = False
        connection.setblocking(False)  # who does not take an answer is not waited for
        peer = Peer(*struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
        try:
            self._check(peer)
        except XdpstackError as error:
            log.warning("%s", error.message)
            _refuse(connection, error)
            return
        self._sessions[connection.fileno()] = Session(connection, peer, self._policy, self._mirror)
        self._selector.register(connection.fileno(), selectors.EVENT_READ)

    def _check(self, peer: Peer) -> None:
        """Raises PrivilegeError and BrokerError: those of whom no rule speaks, and one user, do not keep the others out."""
        self._policy.check_peer(peer)
        if len(self._sessions) >= CLIENTS:
            raise BrokerError(f"the broker refuses {peer}: it has {CLIENTS} connections")
        if sum(session.peer.uid == peer.uid for session in self._sessions.values()) >= OF_ONE_USER:
            raise BrokerError(f"the broker refuses {peer}: this user has {OF_ONE_USER} connections")

    def _guard(self, descriptor: int, serve: Callable[[Session], None]) -> None:
        """Serve a session. Whatever it raises ends this session, and nothing else."""
        session = self._sessions[descriptor]
        try:
            serve(session)
        except Exception as error:
            if not isinstance(error, EOFError):
                ours = not isinstance(error, OSError | ValueError)
                log.warning("%s: %s: %s", session.peer, type(error).__name__, error, exc_info=ours)
            self._selector.unregister(descriptor)
            del self._sessions[descriptor]
            try:
                session.close()
            except Exception:
                log.exception("%s is gone, but not all that it had", session.peer)
            else:
                log.info("%s is gone, and has nothing any more", session.peer)

    def _close_sessions(self) -> None:
        with contextlib.ExitStack() as last_first:
            for session in self._sessions.values():
                last_first.callback(session.close)
            self._sessions = {}


def _refuse(connection: socket.socket, error: XdpstackError) -> None:
    """Hang up, and say why. Who is heard no more before that gets no reset, which would overtake the answer."""
    with connection, contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
        while connection.recv(1):
            pass
        wire.send(connection, {"error": wire.error_as_json(error)})


def _listen(path: Path) -> socket.socket:
    """A listening socket that anybody may connect to. Its folder is made if need be, for others to pass through alone."""
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o711, parents=True)
    mode = path.parent.stat().st_mode
    if mode & 0o011 != 0o011 and path.parent == DIRECTORY:
        path.parent.chmod(mode | 0o011)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    with contextlib.ExitStack() as undo:
        undo.callback(listener.close)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            try:
                other.connect(str(path))
            except OSError:  # nobody there
                path.unlink(missing_ok=True)
            else:
                raise BrokerError(f"another broker listens at {path}", fix="End it, or name another --socket.")
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(CLIENTS)
        undo.pop_all()
    return listener
