"""Doing something inside another network namespace, without moving this program there.

A namespace belongs to a thread. A thread is started, moved with setns(2), runs one function there and ends; what
the function opened (sockets, files) stays bound to that namespace and may be used from anywhere.
"""

import ctypes
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Final, Self, TypeVar

from xdpstack.errors import ClosedError, NamespaceError

Result = TypeVar("Result")

CLONE_NEWNET: Final = 0x40000000
NAMED: Final = "/run/netns"
#: A signal that comes just before its thread sleeps on a lock is seen no later than this.
SIGNALS_SECONDS: Final = 0.1

_in_place = False


def visit_in_place() -> None:
    """From now on whoever visits a namespace does it himself, and returns: at the end of the interpreter.

    There no thread can be started any more (Python 3.12), and nobody is left whom a thread that moves could surprise.
    """
    global _in_place
    _in_place = True


def path_of(netns: str) -> str:
    """The file that stands for a namespace: `blue` is /run/netns/blue (as `ip netns` makes it), a path is itself."""
    return netns if "/" in netns else f"{NAMED}/{netns}"


class HeldNamespace:
    """A network namespace that is held by a descriptor: it can be visited until `close`, whatever becomes of its name.

    `netns` is a name under /run/netns or a path; None is the namespace of whichever thread calls `run`. Usable from any
    thread. NamespaceError: there is none, or no right to open it.
    """

    def __init__(self, netns: str | None) -> None:
        self.netns = netns
        self._descriptor = -1 if netns is None else _open(netns)
        self._resident: _Resident | None = None

    def settle(self) -> None:
        """Have a thread live there from now on, which runs what is to be run there, one thing after the other.

        So it can still be visited when the process has no right to enter it any more. Nothing to do for None, and
        idempotent. NamespaceError: no right to enter it.
        """
        if self.netns is not None and self._resident is None:
            self._resident = _Resident(self._descriptor, self.netns)

    def run(self, function: Callable[[], Result]) -> Result:
        """What `function()` returns when it runs there, in a thread of its own; for None in the caller's thread.

        NamespaceError: no right to enter it. What `function` raises is raised here; and what a signal handler does (Ctrl-C),
        when `function` has returned: what it is doing there goes on, with all that the caller may be about to give up.
        """
        if self.netns is None:
            return function()
        if self._descriptor < 0:
            raise ClosedError(f"the network namespace {self.netns!r} is not held any more")
        if self._resident is not None:
            return self._resident.run(function)
        if _in_place:
            return _visit(self._descriptor, self.netns, function)
        name, answer = self.netns, Future[Result]()

        def visit() -> Result:
            _move(self._descriptor, name)
            return function()

        thread = threading.Thread(target=_answer, args=(visit, answer), name=f"xdpstack-netns-{name}")
        try:
            return _ask(thread.start, answer)
        finally:
            if thread.ident is not None:
                thread.join()

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._resident is not None:
            resident, self._resident = self._resident, None
            resident.end()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Resident:
    """A thread that lives in a namespace, and does there what others ask for. Raises NamespaceError."""

    def __init__(self, descriptor: int, netns: str) -> None:
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=f"xdpstack-netns-{netns}", daemon=True)
        self._thread.start()
        try:
            self.run(lambda: _move(descriptor, netns))
        except BaseException:
            self.end()
            raise

    def run(self, function: Callable[[], Result]) -> Result:
        """What `function()` returns there; what it raises is raised here."""
        if threading.current_thread() is self._thread:
            return function()
        answer: Future[Result] = Future()
        return _ask(lambda: self._asked.put((function, answer)), answer)

    def _live(self) -> None:
        while (asked := self._asked.get()) is not None:
            _answer(*asked)
            del asked

    def end(self) -> None:
        """It ends when it has done what it was asked for; in a forked child there is none."""
        self._asked.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _answer(function: Callable[[], Result], answer: Future[Result]) -> None:
    """Do what is asked for, unless who asks has given it up; what it raises is handed to him."""
    if answer.set_running_or_notify_cancel():
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)


def _ask(begin: Callable[[], object], answer: Future[Result]) -> Result:
    """Another thread's answer to what `begin()` asks for. What a signal handler raises waits for what is under way."""
    interrupted: BaseException | None = None
    try:
        begin()
    except BaseException as error:
        if answer.cancel():  # it is not under way, and never will be
            raise
        interrupted = error
    while not answer.done():
        try:
            wait((answer,), SIGNALS_SECONDS)
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
    return answer.result()


def run_in(netns: str | None, function: Callable[[], Result]) -> Result:
    """What `function()` returns when it runs in `netns`; in the caller's own namespace and thread for None.

    NamespaceError: no such namespace, or no right to enter it. What `function` raises is raised here.
    """
    with HeldNamespace(netns) as place:
        return place.run(function)


def _open(netns: str) -> int:
    path = path_of(netns)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(
            f"network namespace {netns!r} cannot be opened",
            f"{path}: {error.strerror}",
            "name one of `ip netns list`, or the path of a namespace such as /proc/PID/ns/net",
            error.errno,
        ) from error


def _visit(descriptor: int, netns: str, function: Callable[[], Result]) -> Result:
    """What `function()` returns there; the calling thread is back when this returns."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _move(descriptor, netns)
        try:
            return function()
        finally:
            _move(home, "/proc/thread-self/ns/net")
    finally:
        os.close(home)


def _move(descriptor: int, netns: str) -> None:
    """Move the calling thread into the namespace, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise NamespaceError(
            f"network namespace {netns!r} cannot be entered",
            f"setns({path_of(netns)}): {os.strerror(code)}",
            "run as root (CAP_SYS_ADMIN is needed to enter a namespace)",
            code,
        )
