"""A network namespace of its own for a test, driven with ip(8)."""

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from xdpstack.netlink import Change, Mirror

COUNT = itertools.count()


class Namespace:
    """`ip -n NAME …`, and waiting for what it causes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ip(self, *commands: str, options: tuple[str, ...] = (), check: bool = True) -> None:
        """Run ip(8) commands in one batch; any failure fails the test, unless `check` is off."""
        text = "".join(f"{command}\n" for command in commands)
        run = ["ip", *options, "-n", self.name, "-batch", "-"]
        done = subprocess.run(run, input=text, text=True, capture_output=True, check=False, timeout=30)
        if check and done.returncode:
            raise RuntimeError(done.stderr.strip())

    def sysctl(self, *settings: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name, "sysctl", "-qw", *settings], check=True, timeout=30)

    @contextlib.contextmanager
    def peer(self, name: str) -> "Iterator[Namespace]":
        """A second namespace, for the other end of a veth pair."""
        with made(name) as other:
            yield other


def until(mirror: Mirror, condition: Callable[[], bool], seconds: float = 10.0) -> list[Change]:
    """Process events until `condition()` holds; returns all changes seen on the way."""
    seen: list[Change] = []
    deadline = time.monotonic() + seconds
    while True:
        seen += mirror.process()
        if condition():
            return seen
        assert time.monotonic() < deadline, f"condition not met in {seconds} s; changes seen: {[*map(str, seen)]}"
        time.sleep(0.01)


@contextlib.contextmanager
def made(name: str) -> Iterator[Namespace]:
    """Make a namespace with loopback up, and delete it afterwards."""
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
    try:
        namespace = Namespace(name)
        namespace.ip("link set lo up")
        yield namespace
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=30)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A fresh namespace with loopback up, deleted afterwards."""
    with made(f"mirror-{os.getpid()}-{next(COUNT)}") as namespace:
        yield namespace


@pytest.fixture
def wait() -> Callable[..., list[Change]]:
    return until
