"""A process that echoes every datagram, for tests that stop and kill it.

    python -m tests.paths.server NETNS INTERFACE WINDOW_SECONDS recv|epoll|threads

Prints "ready"; then answers each line of its input with a line of JSON; ends with its input, or with SIGINT.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.paths.world import PORT, devices_of, opened
from xdpstack.stack import Stack
from xdpstack.testing.veth import End
from xdpstack.udp.socket import UdpSocket


@dataclass(frozen=True)
class Facts:
    """What the process says of itself. `first_pass_ns` and `lapses` are the XDP program's."""

    first_pass_ns: int
    lapses: int
    missing: int
    counters: dict[str, int]


class Server:
    """The process, from the test's side; ended with its `with` block, which checks that it ended well unless killed."""

    def __init__(self, end: End, how: str = "recv", window_seconds: float = 0.5) -> None:
        words = [sys.executable, "-m", "tests.paths.server", end.netns.name, end.name, str(window_seconds), how]
        self.process = subprocess.Popen(
            words, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self) -> Facts:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        return Facts(*json.loads(self.process.stdout.readline()))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
        self.process.communicate(timeout=20)
        if kind is None:
            assert self.process.returncode in (0, -signal.SIGKILL)


def facts(stack: Stack) -> str:
    [interface] = devices_of(stack).interfaces
    deadman = interface.program.deadman
    return json.dumps([deadman.first_pass_ns, deadman.lapses, stack.ledger().missing, stack.counters()])


def echo(sock: UdpSocket) -> None:
    while True:
        data, address = sock.recvfrom(65535)
        sock.sendto(data, address)


def echo_by_epoll(sock: UdpSocket) -> None:
    sock.setblocking(False)
    epoll = select.epoll()
    epoll.register(sock.fileno(), select.EPOLLIN)
    while True:
        epoll.poll()
        with contextlib.suppress(BlockingIOError):
            echo(sock)


def main(netns: str, name: str, window_seconds: str, how: str) -> None:
    end = End(type("Named", (), {"name": netns})(), name)
    workers = 2 if how == "threads" else None
    with opened(end, deadman_seconds=float(window_seconds), workers=workers) as stack, stack.udp(("::", PORT)) as sock:

        def answer() -> None:
            for _ in sys.stdin:
                print(facts(stack), flush=True)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=answer, daemon=True).start()
        print("ready", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            {"recv": echo, "epoll": echo_by_epoll, "threads": echo}[how](sock)


if __name__ == "__main__":
    main(*sys.argv[1:])
