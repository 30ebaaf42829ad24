"""A process that sends every claimed frame back where it came from, for tests that stop, kill and fork it.

Its arguments: NETNS INTERFACE WINDOW_SECONDS [fork]. It prints "ready"; then answers each line of its input with
[first_pass_ns, lapses, stats] as JSON; ends with its input. With `fork`, a child that does nothing lives until then.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.device.harness import EXPERIMENTAL, Harness
from xdpstack.device.claims import EthertypeClaim
from xdpstack.device.device import KernelBackend
from xdpstack.device.options import Options
from xdpstack.native import lib
from xdpstack.testing.veth import End

#: Behind the path it has already, on which the package may be another build of it.
START = f"""
import sys
sys.path.append({str(Path(__file__).parents[2])!r})
from tests.device.server import main
main(*sys.argv[1:])
"""


class Server:
    """The process, from the test's side."""

    def __init__(self, end: End, window_seconds: float, *words: str) -> None:
        command = [sys.executable, "-c", START, end.netns.name, end.name, str(window_seconds), *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self) -> tuple[int, int, dict[str, int]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        first_pass_ns, lapses, stats = json.loads(self.process.stdout.readline())
        return first_pass_ns, lapses, stats

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Ends it; its exit status, 0 if both ledgers were exact."""
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
        self.process.communicate(timeout=60)
        return self.process.returncode


def main(netns: str, name: str, window_seconds: str, *words: str) -> None:
    with Harness() as harness:
        options = Options(netns=netns, rx_ring=64, tx_ring=64)
        harness.backend = backend = KernelBackend(name, options=options, window_seconds=float(window_seconds))
        _, harness.mirror = backend.open(harness.core)
        backend.claim(EthertypeClaim(EXPERIMENTAL))
        if "fork" in words and not os.fork():
            sys.stdin.read()
            os._exit(0)
        print("ready", flush=True)
        ending = threading.Event()

        def answer() -> None:
            program = backend.interfaces[0].program
            assert program is not None
            for _ in sys.stdin:
                print(json.dumps([program.deadman.first_pass_ns, program.deadman.lapses, backend.stats()]), flush=True)
            ending.set()

        threading.Thread(target=answer, daemon=True).start()
        while not ending.is_set():
            harness.poll()
            harness.resume([harness.send_back(harness.bytes_of(each), each) for each in harness.parked()])
            lib.xs_worker_wait(harness.worker, 50)
