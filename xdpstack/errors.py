"""Every exception of the package.

Each is a name of `xdpstack` too: `except xdpstack.QueueTaken`. Each says what happened, why (`cause`) and what mends it
(`fix`). Where the operating system has an errno for it, the exception is an OSError with that errno too, so that code
written for sockets goes on working.
"""

from __future__ import annotations

import errno as _errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


class XdpstackError(Exception):
    """Base of all. `cause` and `fix` are full sentences for a person; either may be empty."""

    def __init__(self, message: str, cause: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.message]
        if self.cause:
            parts.append(f"Cause: {self.cause}")
        if self.fix:
            parts.append(f"Fix: {self.fix}")
        return "\n".join(parts)


class XdpstackOSError(XdpstackError, OSError):
    """An XdpstackError that is an OSError too; each class has its errno in `NUMBER`."""

    NUMBER = _errno.EIO

    def __init__(self, message: str, cause: str = "", fix: str = "", number: int | None = None) -> None:
        XdpstackError.__init__(self, message, cause, fix)
        self.errno = self.NUMBER if number is None else number
        self.strerror = os.strerror(self.errno)

    __str__ = XdpstackError.__str__


class PrivilegeError(XdpstackOSError, PermissionError):
    """A capability is missing: which one is in the message."""

    NUMBER = _errno.EPERM


class NamespaceError(XdpstackOSError):
    """The network namespace cannot be entered."""

    NUMBER = _errno.ENOENT


class NetlinkError(XdpstackOSError):
    """The kernel refused or did not answer a netlink request; `errno` is the kernel's."""


class NoSuchInterface(XdpstackOSError):
    """There is no network interface of that name in the network namespace."""

    NUMBER = _errno.ENODEV


class InterfaceDown(XdpstackOSError):
    """The interface is administratively down, or went down or away while in use."""

    NUMBER = _errno.ENETDOWN


class MtuTooLarge(XdpstackOSError):
    """Frames of the interface's MTU do not fit; the message has the largest MTU that does."""

    NUMBER = _errno.EMSGSIZE


class ProgramAttached(XdpstackOSError):
    """Another XDP program is attached; the message names it."""

    NUMBER = _errno.EBUSY


class QueueTaken(XdpstackOSError):
    """Another AF_XDP socket is bound to the queue; the message names its holder where that can be known."""

    NUMBER = _errno.EBUSY


class TooManyOpenFiles(XdpstackOSError):
    """The process, or the machine, has as many file descriptors as it may have."""

    NUMBER = _errno.EMFILE


class ModeRefused(XdpstackOSError):
    """The XDP mode, or zero-copy, that was demanded cannot be had."""

    NUMBER = _errno.EOPNOTSUPP


class TuningRefused(XdpstackOSError):
    """The device cannot be tuned as was asked; what was changed of it before has been put back."""

    NUMBER = _errno.EOPNOTSUPP


class BrokerError(XdpstackOSError):
    """There is no broker, it has ended, or it does not understand what was asked."""

    NUMBER = _errno.ECONNRESET


class PinError(XdpstackOSError):
    """There is no pinned program, it is of another release, or another process uses it."""

    NUMBER = _errno.ENOENT


class OutOfMemory(XdpstackOSError, MemoryError):
    """The UMEM, a ring or a table could not be allocated or pinned."""

    NUMBER = _errno.ENOMEM


class VerifierError(XdpstackError):
    """The kernel refused a BPF program; `log` is the verifier's."""

    def __init__(self, message: str, log: str, cause: str = "", fix: str = "") -> None:
        super().__init__(message, cause, fix)
        self.log = log


class AddressNotAvailable(XdpstackOSError):
    """The device does not have the address; the message lists those it has."""

    NUMBER = _errno.EADDRNOTAVAIL


class AddressInUse(XdpstackOSError):
    """Another socket, of this stack or of the kernel, has the address and port."""

    NUMBER = _errno.EADDRINUSE


class ClaimTaken(AddressInUse):
    """Another claim covers the same frames; the message names it."""


class TableFull(XdpstackOSError):
    """A table of the XDP program has no room; the message has its name and size. Nothing was changed."""

    NUMBER = _errno.ENOSPC


class SendBatchError(XdpstackOSError):
    """Some datagrams of a batch could not be sent: `errors` has the errno by index; the `sent` others were sent."""

    def __init__(self, sent: int, errors: dict[int, int]) -> None:
        first = min(errors)
        text = f"{len(errors)} of {sent + len(errors)} datagrams not sent; number {first}: {os.strerror(errors[first])}"
        super().__init__(text, number=errors[first])
        self.sent = sent
        self.errors = errors


class ForkedError(XdpstackError):
    """The stack was opened in a parent process; a forked child must open its own."""


class ClosedError(XdpstackError, ValueError):
    """The object was closed (or released) before this call."""


class ConfigurationError(XdpstackError, ValueError):
    """An argument cannot be what it is; the message says what it can be."""


@contextmanager
def naming_what_ran_out(action: str) -> Iterator[None]:
    """Raises TooManyOpenFiles or OutOfMemory for what `action` ("open eth1") could not have, whoever found out first."""
    try:
        yield
    except OSError as error:
        if error.errno in (_errno.EMFILE, _errno.ENFILE):
            raise _too_many_open_files(action, error.errno) from error
        if error.errno != _errno.ENOMEM or isinstance(error, XdpstackError):
            raise
        raise _no_memory(action, str(error)) from error
    except MemoryError as error:
        raise _no_memory(action, "Python could not allocate an object") from error
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise no_thread(action) from error


def no_thread(action: str) -> OutOfMemory:
    """For EAGAIN of pthread_create(3), which says no more than that."""
    cause = "This process gets no further thread: RLIMIT_NPROC, pids.max of its cgroup, or no memory for its stack."
    return OutOfMemory(f"cannot {action}: no thread can be started", cause, "ulimit -u; pids.max of /proc/self/cgroup")


def _too_many_open_files(action: str, number: int) -> TooManyOpenFiles:
    message = f"cannot {action}: {os.strerror(number)}"
    if number == _errno.ENFILE:
        return TooManyOpenFiles(message, "The machine has as many as fs.file-max.", "sysctl fs.file-max", number)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    cause = f"RLIMIT_NOFILE lets this process have {limit} file descriptors; a stack takes some 30, and one a queue."
    return TooManyOpenFiles(
        message, cause, "ulimit -n, LimitNOFILE= of a systemd unit, or close what is not used.", number
    )


def _no_memory(action: str, said: str) -> OutOfMemory:
    return OutOfMemory(
        f"cannot {action}: no memory", f"{said}.", "Ask for fewer frames or smaller rings; see `free -m`."
    )
