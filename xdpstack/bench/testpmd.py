"""DPDK's testpmd as a subject: its command line, and its counters through the telemetry socket."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

from xdpstack.bench.results import BenchError

#: What testpmd calls each of our cases. 5tswap turns addresses and ports around, as the other subjects do.
MODES = {"rx": "rxonly", "echo": "5tswap", "latency": "5tswap", "rfc2544": "5tswap", "tx": "txonly", "forward": "io"}
READY_SECONDS = 30.0
ANSWER_BYTES = 16384


def words(
    driver: str, case: str, interfaces: list[str], queues: int, ring: int, frame_bytes: int, cpu: int
) -> list[str]:
    """The command. `driver` is "af_xdp" (busy polling off: on veth it costs more than it brings) or "af_packet"."""
    options = {
        "af_xdp": f"start_queue=0,queue_count={queues},busy_budget=0",
        "af_packet": f"qpairs={queues}",
    }[driver]
    devices = [f"--vdev=net_{driver}{number},iface={name},{options}" for number, name in enumerate(interfaces)]
    memory = ["--no-huge", "-m", "256", "--no-pci", "--file-prefix", "bench"]
    forwarding = [f"--forward-mode={MODES[case]}", "--nb-cores=1", f"--rxq={queues}", f"--txq={queues}"]
    sizes = [f"--rxd={ring}", f"--txd={ring}", "--total-num-mbufs=32768"]
    if case == "tx":
        sizes.append(f"--txpkts={frame_bytes - 4}")
    return ["dpdk-testpmd", f"--lcores=0@{cpu},1@{cpu}", *memory, *devices, "--", *forwarding, *sizes]


class Telemetry:
    """The counters of a testpmd whose RUNTIME_DIRECTORY is `folder`."""

    def __init__(self, folder: Path, name: str = "ipackets") -> None:
        self._folder = folder
        self._name = name
        self._socket: socket.socket | None = None
        #: Of DPDK, once it is ready.
        self.version = ""

    def ready(self, child: subprocess.Popen[str]) -> None:
        """Wait until it counts. BenchError when it ends, or takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self._connect()
                # Before its queues are there it counts too: nothing.
                if (self._ask("/ethdev/info,0") or {}).get("nb_rx_queues") and int(self) >= 0:
                    return
            except (OSError, ValueError, BenchError):
                pass
            self.close()
            if child.poll() is not None:
                raise BenchError(f"ended with {child.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise BenchError(f"was not ready within {READY_SECONDS:.0f} s")
            time.sleep(0.05)

    def _connect(self) -> None:
        path = next(self._folder.glob("dpdk/bench/dpdk_telemetry.v2"), None)
        if path is None:
            raise FileNotFoundError("no telemetry socket yet")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(5)
        self._socket.connect(str(path))
        self.version = json.loads(self._socket.recv(ANSWER_BYTES))["version"].removeprefix("DPDK ")

    def __int__(self) -> int:
        if (answer := self._ask("/ethdev/stats,0")) is None:
            raise BenchError("testpmd tells no counters")
        return int(answer[self._name])

    def _ask(self, what: str) -> dict[str, int] | None:
        """Its answer; None when it has none, as on counters of queues that are not made yet."""
        assert self._socket is not None
        self._socket.send(what.encode())
        answer: dict[str, int] | None = next(iter(json.loads(self._socket.recv(ANSWER_BYTES)).values()))
        return answer

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
