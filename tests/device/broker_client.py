"""A process that opens a stack as another user than the test: by a broker, by a pin, or as root that gives up to be root.

It reads lines of JSON, {"do": ..., ...}, and answers each with a line: {"ok": ...} or {"error": ...}.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xdpstack
from xdpstack.device import privileges
from xdpstack.device.broker.wire import claim_from_json
from xdpstack.device.device import KernelBackend
from xdpstack.device.pins import unpin
from xdpstack.observe import server
from xdpstack.stack import Stack
from xdpstack.testing.veth import End

USER = 65534
START = f"""
import sys
sys.path.append({str(Path(__file__).parents[2])!r})
from tests.device.broker_client import become, main
become(int(sys.argv[1]), *map(int, sys.argv[2:]))
main()
"""
PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 4, 8
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def become(user: int, *keeps: int) -> None:
    """From root on, an ordinary user, with these capabilities; who may not be let into the folder of the package."""
    for module in pkgutil.walk_packages(xdpstack.__path__, "xdpstack."):
        if not module.name.startswith(("xdpstack.testing", "xdpstack.bench", "xdpstack.__main__")):
            importlib.import_module(module.name)
    "localhost".encode("idna")  # what the library of sockets and threads loads when it is first used
    if user == 0:
        return
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    mask = sum(1 << each for each in keeps)
    data = struct.pack("=6I", mask, mask, 0, 0, 0, 0)  # effective, permitted, inheritable: of 32 capabilities, twice
    assert libc.capset(struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0), data) == 0
    assert libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0  # its own /proc/self is its own, as after exec


class Client:
    """The process, from the test's side."""

    def __init__(self, end: End, user: int = USER, keeps: Sequence[int] = ()) -> None:
        numbers = map(str, (user, *keeps))
        words = ["ip", "netns", "exec", end.netns.name, sys.executable, "-B", "-c", START, *numbers]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, do: str, **values: Any) -> Any:
        """What it says; an exception there is the AssertionError here."""
        answer = self.try_to(do, **values)
        assert "ok" in answer, answer
        return answer["ok"]

    def try_to(self, do: str, **values: Any) -> dict[str, Any]:
        """What it says, in full."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"do": do, **values}), file=self.process.stdin, flush=True)
        return dict(json.loads(self.process.stdout.readline()))

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.communicate(timeout=60)

    def end(self) -> int:
        """Its input ends; its exit status."""
        self.process.communicate(timeout=60)
        return self.process.returncode

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Served:
    """What the process does when asked."""

    def __init__(self) -> None:
        self.stack: Stack | None = None
        self.socks: list[Any] = []

    def opened(self) -> Stack:
        assert self.stack is not None
        return self.stack

    def do_open(self, interfaces: list[str], **options: Any) -> Any:
        self.stack = xdpstack.open(
            *interfaces, **{"frames": 1024, "rx_ring": 64, "tx_ring": 64, "observable": False, **options}
        )
        devices = self.stack.info()["devices"]
        return {name: devices[0][name] for name in ("mode", "queues", "redirect_errors", "why")}

    def do_capabilities(self) -> Any:
        return sorted(privileges.effective())

    def do_drop(self, **who: Any) -> Any:
        xdpstack.drop_privileges(**who)

    def do_threads(self) -> Any:
        """Of each thread its name, its four user numbers, its four group numbers, and the capabilities it can use."""
        found = []
        for task in Path("/proc/self/task").iterdir():
            lines = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            held = {lines[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
            found.append([lines["Name"].strip(), lines["Uid"].split(), lines["Gid"].split(), sorted(held)])
        return found

    def do_poll(self) -> Any:
        return self.opened().poll()

    def do_deadline(self) -> Any:
        """How far away the dead-man deadline is, in ns."""
        backend = self.opened()._backend
        assert isinstance(backend, KernelBackend)
        program = backend.interfaces[0].program
        assert program is not None
        return program.deadman.deadline_ns - time.monotonic_ns()

    def do_send(self, to: list[Any], payload: str) -> Any:
        return self.socks[-1].sendto(payload.encode(), tuple(to))

    def do_unlink(self, path: str) -> Any:
        Path(path).unlink()

    def do_unpin(self, path: str) -> Any:
        unpin(Path(path))

    def do_observed(self) -> Any:
        return [str(each.path) for each in server.servers()]

    def do_limit(self, most: int) -> Any:
        """Locked memory of `most` bytes, or as much less as there is; how many."""
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        hard = most if hard == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        return hard

    def do_udp(self, address: list[Any], **options: Any) -> Any:
        self.socks.append(self.opened().udp((address[0], address[1]), **options))
        return self.socks[-1].getsockname()

    def do_echo(self, count: int) -> Any:
        for _ in range(count):
            self.socks[-1].settimeout(10.0)
            data, peer = self.socks[-1].recvfrom(65535)
            self.socks[-1].sendto(data, peer)
        return {key: value for key, value in self.opened().counters().items() if key.startswith(("udp", "xdp"))}

    def do_counters(self) -> Any:
        return self.opened().counters()

    def do_claim(self, claim: dict[str, Any]) -> Any:
        self.opened().frames(claim_from_json(claim))

    def do_events(self) -> Any:
        return [(event.what, event.detail) for event in self.opened().events()]

    def do_asked(self) -> Any:
        return self.opened().info()["asked"]

    def do_raw(self) -> Any:
        socket.socket(44, socket.SOCK_RAW)  # AF_XDP

    def do_close(self) -> Any:
        self.opened().close()
        assert self.stack is not None
        return self.stack.ledger().missing


def main() -> None:
    served = Served()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(served, "do_" + request.pop("do"))(**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "errno": getattr(error, "errno", None)}
        print(json.dumps(answer), flush=True)
    if served.stack is not None:
        served.stack.close()
