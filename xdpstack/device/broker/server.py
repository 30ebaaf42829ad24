"""The broker: listens, and serves its clients one request at a time. It holds no packet and sees none.

    client --connect--> SO_PEERCRED: who it is --> Session --requests--> policy --> program, sockets
    client dies: the connection ends --> its programs are detached: the kernel has its traffic
    broker dies: the links of all programs go with it --> likewise

Whoever may reach the socket may ask; what is granted is the policy's word.

Programs are attached and detached in a thread of their own, one after the other, for some NICs reset for seconds meanwhile;
what others ask is answered. When the host cannot be followed, what is known of it stays, and it is tried again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pwd
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
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
#: How long it waits until it tries again to follow the host, in seconds.
RETRY_SECONDS = 1.0
#: Python's getsockopt gives no more than 1,024 bytes: so many groups.
SO_PEERGROUPS, GROUPS_AT_ONCE = 59, 256
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
        self._retry_at = 0.0  # when to try again to follow the host; 0: it can be followed
        self._done: deque[tuple[Session, Future[None]]] = deque()
        with contextlib.ExitStack() as undo:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wake)
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._listener = undo.enter_context(_listen(path))
            undo.callback(path.unlink, missing_ok=True)
            self._mirror = undo.enter_context(Mirror())
            for each in (self._wake, self._listener.fileno(), self._mirror.fileno()):
                self._selector.register(each, selectors.EVENT_READ)
            self._slow = undo.enter_context(ThreadPoolExecutor(1, "xdpstack-broker"))
            undo.callback(self._close_sessions)
            self._undo = undo.pop_all()

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            self.step(1.0)

    def step(self, seconds: float) -> None:
        """Serve what has come, waiting for it for at most so long."""
        if self._retry_at:
            seconds = min(seconds, max(0.0, self._retry_at - time.monotonic()))
        for key, _ in self._selector.select(seconds):
            if key.fd == self._listener.fileno():
                self._accept()
            elif key.fd == self._wake:
                os.eventfd_read(self._wake)
            elif key.fd in self._sessions:
                self._guard(key.fd, self._answer)
        while self._done:
            session, work = self._done.popleft()
            if session.connection.fileno() in self._sessions:
                self._guard(session.connection.fileno(), partial(self._resume, work))
            else:  # it has failed meanwhile
                with contextlib.suppress(Exception):
                    session.finish(work)
                self._slow.submit(_end, session)
        if self._follow_host():
            for descriptor in list(self._sessions):
                self._guard(descriptor, lambda session: session.follow(self._mirror.snapshot))

    def _answer(self, session: Session) -> None:
        """Serve a request. Of one that takes long the rest comes later, and until then its client is not listened to."""
        session.answer()
        if session.slow is None:
            return
        self._selector.unregister(session.connection)
        self._slow.submit(session.slow).add_done_callback(partial(self._note_done, session))

    def _note_done(self, session: Session, work: Future[None]) -> None:
        """In the thread that has done it."""
        self._done.append((session, work))
        os.eventfd_write(self._wake, 1)

    def _resume(self, work: Future[None], session: Session) -> None:
        self._selector.register(session.connection, selectors.EVENT_READ)
        session.finish(work)

    def _follow_host(self) -> bool:
        """Whether anything has changed. What cannot be read now is read again later, all of it."""
        if self._retry_at > time.monotonic():
            return False
        try:
            changed = self._mirror.resync() if self._retry_at else self._mirror.process()
        except (OSError, XdpstackError) as error:
            if not self._retry_at:
                log.warning("the host's addresses cannot be followed: %s", error)
                self._selector.unregister(self._mirror)  # it may be readable all the time
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        if self._retry_at:
            log.warning("the host's addresses are followed again")
            self._selector.register(self._mirror, selectors.EVENT_READ)
            self._retry_at = 0.0
        return bool(changed)

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
        peer = peer_of(connection)
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
            del self._sessions[descriptor]
            if session.slow is None:
                self._selector.unregister(descriptor)
                self._slow.submit(_end, session)
            session.connection.close()

    def _close_sessions(self) -> None:
        """What is under way is done first, and then taken back with the rest."""
        self._slow.shutdown()
        for session, work in self._done:
            with contextlib.suppress(Exception):
                session.finish(work)
            if session not in self._sessions.values():  # it had failed meanwhile
                _end(session)
        self._done.clear()
        with contextlib.ExitStack() as last_first:
            for session in self._sessions.values():
                last_first.callback(session.close)
            self._sessions = {}


def _end(session: Session) -> None:
    """In the thread for what takes long."""
    try:
        session.close()
    except Exception:
        log.exception("%s is gone, but not all that it had", session.peer)
    else:
        log.info("%s is gone, and has nothing any more", session.peer)


def peer_of(connection: socket.socket) -> Peer:
    """Who it was that connected: with the groups of that process, or his user's if they are more than can be asked for."""
    pid, uid, gid = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * GROUPS_AT_ONCE)
        groups = struct.unpack(f"={len(found) // 4}I", found)
    except OSError as error:
        if error.errno not in (errno.ERANGE, errno.ENOPROTOOPT):  # Linux before 4.13 does not say
            raise
        try:
            groups = tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
        except KeyError:  # a user without a name
            groups = ()
    return Peer(pid, uid, gid, frozenset(groups))


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
            except OSError as error:  # nobody there
                if path.exists() and not path.is_socket():
                    raise BrokerError(f"{path} is there, and no socket", fix="Name another --socket.") from error
                path.unlink(missing_ok=True)
            else:
                raise BrokerError(f"another broker listens at {path}", fix="End it, or name another --socket.")
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(CLIENTS)
        undo.pop_all()
    return listener
