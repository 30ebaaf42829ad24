"""Scratch network namespaces: made with ip(8), gone at the end with all that runs in them, also when interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xdpstack.errors import NamespaceError


def ip(*words: str) -> str:
    """Run a command of iproute2; what it prints. NamespaceError, with its own words, when it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NamespaceError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that end a program wait until the block is done; a terminal's do not end the block's children either."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace; at the end, also when interrupted (KeyboardInterrupt), what runs in it is killed and it goes."""
    made = False
    try:
        with uninterrupted():
            ip("netns", "add", name)
            made = True
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        if made:
            with uninterrupted():
                for pid in ip("netns", "pids", name).split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                ip("netns", "delete", name)
