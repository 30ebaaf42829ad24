"""DPDK's testpmd as a subject: its command line, and its counters through the telemetry socket."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from xdpstack.bench.results import BenchError

#: What testpmd calls each of our cases. 5tswap turns addresses and ports around, as the other subjects do.
MODES = {"rx": "rxonly", "echo": "5tswap", "latency": "5tswap", "rfc2544": "5tswap", "tx": "txonly", "forward": "io"}
READY_SECONDS = 30.0
ANSWER_BYTES = 16384


def words(
    driver: str, case: str, interfaces: list[str], queues: int, ring: int, frame_bytes: int, cpu: int
) -> list[str]:
    """The command. `driver` is "af_xdp" (busy polling off: on veth it costs more than it brings) or "af_packet".

    On veth net_af_xdp knows of one queue: it is given a device for each. Two in a row are a pair that forwards.
    """
    if driver == "af_xdp":
        options = [f"start_queue={queue},queue_count=1,busy_budget=0" for queue in range(queues)]
        queues = 1
    else:
        options = [f"qpairs={queues}"]
    wanted = [f"iface={name},{option}" for option in options for name in interfaces]
    devices = [f"--vdev=net_{driver}{number},{each}" for number, each in enumerate(wanted)]
    memory = ["--no-huge", "-m", "256", "--no-pci", "--file-prefix", "bench"]
    forwarding = [f"--forward-mode={MODES[case]}", "--nb-cores=1", f"--rxq={queues}", f"--txq={queues}"]
    sizes = [f"--rxd={ring}", f"--txd={ring}", "--total-num-mbufs=32768"]
    if case == "tx":
        sizes.append(f"--txpkts={frame_bytes - 4}")
    return ["dpdk-testpmd", f"--lcores=0@{cpu},1@{cpu}", *memory, *devices, "--", *forwarding, *sizes]


class Telemetry:
    """A counter of a testpmd whose RUNTIME_DIRECTORY is `folder`, over all its ports."""

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
                if all((self._ask(f"/ethdev/info,{port}") or {}).get("nb_rx_queues") for port in self._ports()):
                    int(self)
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
        total = 0
        for port in self._ports():
            answer = self._ask(f"/ethdev/stats,{port}")
            if answer is None:
                raise BenchError("testpmd tells no counters")
            total += int(answer[self._name])
        return total

    def _ports(self) -> list[int]:
        """BenchError: it has none yet."""
        ports: list[int] | None = self._ask("/ethdev/list")
        if not ports:
            raise BenchError("testpmd has no ports")
        return ports

    def _ask(self, what: str) -> Any:
        """Its answer; None when it has none, as on counters of queues that are not made yet."""
        assert self._socket is not None
        self._socket.send(what.encode())
        return next(iter(json.loads(self._socket.recv(ANSWER_BYTES)).values()))

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
