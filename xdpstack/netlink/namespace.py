"""Doing something inside another network namespace, without moving this program there.

A namespace belongs to a thread. `run_in` starts a thread, moves it with setns(2), runs one function in it and lets it
end; what the function opened (sockets, files) stays bound to that namespace and may be used from anywhere.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from xdpstack.errors import NamespaceError

Result = TypeVar("Result")

CLONE_NEWNET: Final = 0x40000000
NAMED: Final = "/run/netns"


def path_of(netns: str) -> str:
    """The file that stands for a namespace: `blue` is /run/netns/blue (as `ip netns` makes it), a path is itself."""
    return netns if "/" in netns else f"{NAMED}/{netns}"


def run_in(netns: str | None, function: Callable[[], Result]) -> Result:
    """What `function()` returns when it runs in `netns`; in the caller's own namespace and thread for None.

    NamespaceError: no such namespace, or no right to enter it. What `function` raises is raised here.
    """
    if netns is None:
        return function()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def visit() -> None:
        try:
            enter(netns)
            outcome.append(function())
        except BaseException as error:  # handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=visit, name=f"xdpstack-netns-{netns}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def enter(netns: str) -> None:
    """Move the calling thread into `netns`, for good."""
    path = path_of(netns)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(
            f"network namespace {netns!r} cannot be opened",
            f"{path}: {error.strerror}",
            "name one of `ip netns list`, or the path of a namespace such as /proc/PID/ns/net",
            error.errno,
        ) from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise NamespaceError(
                f"network namespace {netns!r} cannot be entered",
                f"setns({path}): {os.strerror(code)}",
                "run as root (CAP_SYS_ADMIN is needed to enter a namespace)",
                code,
            )
    finally:
        os.close(descriptor)
