"""Network namespaces for tests: made under names of their own, deleted with all that is in them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from xdpstack.netlink import run_in
from xdpstack.testing.wait import until

Result = TypeVar("Result")

#: Names are xs-PID-NUMBER[-LABEL]: whose process is gone can be deleted by anybody.
PREFIX = "xs"
NAMED = Path("/run/netns")
#: No command of ip(8) or ethtool(8) takes longer unless something is wrong, in seconds.
COMMAND_SECONDS = 30

_numbers = itertools.count()


def run(*words: str, text: str = "") -> str:
    """Run a command; what it prints. RuntimeError with what it says when it fails."""
    done = subprocess.run(words, input=text, text=True, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}{_numbered(text)}")
    return done.stdout


def _numbered(text: str) -> str:
    return "".join(f"\n  {i}: {line}" for i, line in enumerate(text.splitlines(), 1))


class Namespace:
    """One network namespace, with loopback up. Made by the `netns` fixture, which also deletes it."""

    def __init__(self, label: str = "") -> None:
        self.name = "-".join(filter(None, (PREFIX, str(os.getpid()), str(next(_numbers)), label)))
        run("ip", "netns", "add", self.name)
        self.ip("link set lo up")

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    def ip(self, *commands: str) -> None:
        """Run commands of `ip`, each a line, in one batch. RuntimeError, with the lines, when one fails."""
        run("ip", "-n", self.name, "-batch", "-", text="".join(f"{command}\n" for command in commands))

    def show(self, *words: str) -> Any:
        """What `ip -json WORDS` prints: `show("route", "show", "table", "all")`."""
        return json.loads(run("ip", "-n", self.name, "-json", "-details", *words) or "[]")

    def run(self, *words: str) -> str:
        """Run a program in the namespace; what it prints. RuntimeError when it fails."""
        return run("ip", "netns", "exec", self.name, *words)

    def call(self, function: Callable[[], Result]) -> Result:
        """What `function()` returns when it runs in the namespace, in a thread of its own; this thread stays out.

        Sockets that it makes belong to the namespace for as long as they live.
        """
        return run_in(self.name, function)

    def sysctl(self, **values: int | str) -> None:
        """Set sysctls of the namespace. Dots are written as two underscores: `sysctl(net__ipv4__ip_forward=1)`."""

        def write() -> None:
            for name, value in values.items():
                (Path("/proc/sys") / name.replace("__", "/")).write_text(str(value))

        self.call(write)

    def without_ipv6(self) -> None:
        """Turn IPv6 off, on what is there and on what comes: no neighbour discovery among what a test counts."""
        self.sysctl(net__ipv6__conf__all__disable_ipv6=1, net__ipv6__conf__default__disable_ipv6=1)

    def without_dad(self) -> None:
        """IPv6 addresses are usable at once, and no router is asked for: nothing is sent before a test sends."""
        names = ("accept_dad", "dad_transmits", "router_solicitations", "accept_ra")
        self.sysctl(**{f"net__ipv6__conf__{where}__{name}": 0 for where in ("all", "default") for name in names})

    def processes(self) -> list[int]:
        """The processes that live in the namespace."""
        return [int(pid) for pid in run("ip", "netns", "pids", self.name).split()]

    @property
    def exists(self) -> bool:
        """Whether it still has its name."""
        return (NAMED / self.name).exists()

    def delete(self) -> None:
        """Delete it. Idempotent. AssertionError, after they were killed, if processes were left in it."""
        if not self.exists:
            return
        left = {pid: _command(pid) for pid in self.processes() if pid != os.getpid()}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if left:
            until(lambda: not set(self.processes()) & set(left), message="killed processes are still there")
        run("ip", "netns", "delete", self.name)
        assert not left, f"processes were left behind in {self.name}: {left}"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except FileNotFoundError:
        return "(gone)"


def delete_orphans() -> list[str]:
    """Delete namespaces of test runs that were killed; their names."""
    deleted = []
    for path in NAMED.glob(f"{PREFIX}-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            run("ip", "netns", "delete", path.name)
            deleted.append(path.name)
    return deleted
