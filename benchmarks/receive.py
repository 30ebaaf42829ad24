"""Receiving 64-byte datagrams: a plain ring loop, ours at napi alone, ours to a socket, and kernel sockets, in one run.

    sudo make bench [ARGS='--seconds 2 --rounds 3 --only rings "xdpstack udp" --json FILE']

Two namespaces, a veth pair, the live-frame generator on one side (benchmarks/peers/generator.c) pinned to one core, the
subject on the other pinned to another. Subjects take turns, round after round; the figures are medians with [worst..best].
What they mean: benchmarks/README.md.
"""

import argparse
import contextlib
import json
import mmap
import os
import platform
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import xdpstack
from benchmarks.counting import counting
from xdpstack.cli.lab import namespace

HERE = Path(__file__).resolve().parent
PORT = 9
ADDRESS, PEER = "10.88.0.1", "10.88.0.2"
#: As the extension is built: what is compared is the code, not the compiler.
FLAGS = ("-O3", *(("-march=x86-64-v2",) if platform.machine() == "x86_64" else ()))
SETTLE = 0.5  # seconds of load before the window
READY_SECONDS = 120  # a subject in Python under valgrind takes a while to begin; one that takes longer has failed


@dataclass(frozen=True)
class Subject:
    """One way to receive. `command` makes the program's words from (interface, ring, count file)."""

    name: str
    command: Callable[[str, int, str], list[str]]
    needs_program: bool = False  # the receiving veth needs an XDP program, and the subject has none


def python(*words: str) -> list[str]:
    return [sys.executable, *words]


def subjects(build: Path) -> list[Subject]:
    sink = str(HERE / "subjects.py")
    return [
        Subject("rings", lambda i, ring, count: [str(build / "rings"), i, "0", str(ring), count]),
        Subject(
            "xdpstack napi", lambda i, ring, count: python(sink, "napi", i, str(ring), count, str(build / "drop.so"))
        ),
        Subject("xdpstack udp", lambda i, ring, count: python(sink, "udp", i, str(ring), count)),
        Subject("xdpstack recvfrom", lambda i, ring, count: python(sink, "recvfrom", i, str(ring), count)),
        Subject("kernel udp C", lambda i, ring, count: [str(build / "udp_sink"), str(PORT), count], needs_program=True),
        Subject(
            "kernel udp Python", lambda i, ring, count: python(sink, "kernel", i, str(ring), count), needs_program=True
        ),
    ]


@contextlib.contextmanager
def running(where: str, cpu: int, words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A program in a namespace, on one core, that has said "ready". An interrupt from the terminal is for us alone."""
    command = ["ip", "netns", "exec", where, "taskset", "-c", str(cpu), *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert child.stdout is not None
        if not select.select([child.stdout], [], [], READY_SECONDS)[0]:
            raise RuntimeError(f"{' '.join(words)} was not ready within {READY_SECONDS} s")
        if child.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{' '.join(words)} ended with {child.wait()}")
        yield child
    finally:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Count:
    """A number that another process writes into a mapped file."""

    def __init__(self, folder: str) -> None:
        descriptor, self.path = tempfile.mkstemp(dir=folder)
        os.ftruncate(descriptor, 8)
        self._map = mmap.mmap(descriptor, 8)
        os.close(descriptor)

    def __int__(self) -> int:
        return int.from_bytes(self._map[:8], sys.byteorder)


def build_peers(folder: Path) -> None:
    """Compile benchmarks/peers/*.c and the stage of benchmarks/drop.c."""
    for source in sorted((HERE / "peers").glob("*.c")):
        subprocess.run(["cc", *FLAGS, "-o", str(folder / source.stem), str(source), "-lbpf"], check=True)
    stage = ["-shared", "-fPIC", "-I", xdpstack.get_include(), "-o", str(folder / "drop.so"), str(HERE / "drop.c")]
    subprocess.run(["cc", *FLAGS, *stage], check=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def wire() -> Iterator[tuple[str, str, bytes]]:
    """A veth pair between two namespaces without IPv6 chatter; the names, and a 64-byte frame from peer to us."""
    with namespace(f"bench-rx-{os.getpid()}") as here, namespace(f"bench-tx-{os.getpid()}") as peer:
        for where in (here, peer):
            words = ["ip", "netns", "exec", where, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]
            subprocess.run([*words, "net.ipv6.conf.default.disable_ipv6=1"], check=True)
        ip("-n", here, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", peer)
        macs = []
        for where, name, address in ((here, "veth0", ADDRESS), (peer, "veth1", PEER)):
            ip("-n", where, "address", "add", f"{address}/24", "dev", name)
            ip("-n", where, "link", "set", name, "up")
            shown = subprocess.run(["ip", "-n", where, "-j", "link", "show", name], capture_output=True, check=True)
            macs.append(json.loads(shown.stdout)[0]["address"])
        yield here, peer, datagram(*macs)


def datagram(to_mac: str, from_mac: str) -> bytes:
    """A UDP datagram in a frame of 60 bytes (64 with its checksum on a wire)."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    return bytes(Ether(dst=to_mac, src=from_mac) / IP(src=PEER, dst=ADDRESS) / UDP(sport=1000, dport=PORT) / bytes(18))


def measure(
    subject: Subject, wires: tuple[str, str, bytes], build: Path, ring: int, seconds: float
) -> dict[str, float]:
    """One round of one subject: packets a second, CPU and instructions per packet received."""
    here, peer, frame = wires
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        received, sent = Count(folder), Count(folder)
        frame_file = Path(folder) / "frame"
        frame_file.write_bytes(frame)
        if subject.needs_program:
            stack.enter_context(running(here, 1, [str(build / "generator"), "pass", "veth0"]))
        child = stack.enter_context(running(here, 1, subject.command("veth0", ring, received.path)))
        words = [str(build / "generator"), "send", "veth1", str(frame_file), sent.path]
        stack.enter_context(running(peer, 0, words))
        time.sleep(SETTLE)
        with counting(child.pid) as counted:
            before, began = int(received), time.monotonic()
            time.sleep(seconds)
            packets, took = int(received) - before, time.monotonic() - began
    if not packets:
        raise RuntimeError(f"{subject.name} received nothing")
    figures = {"pps": packets / took, "cpu_ns_per_packet": counted.cpu_ns / packets}
    for which in ("user", "kernel"):
        instructions = getattr(counted, f"{which}_instructions")
        if instructions is not None:
            figures[f"{which}_instructions_per_packet"] = instructions / packets
    return figures


def instructions(
    subject: Subject, wires: tuple[str, str, bytes], build: Path, ring: int, seconds: float, keep: Path | None
) -> float:
    """User instructions per packet, counted by callgrind while the subject receives: exact, and no hardware is needed.

    Counting begins before the first packet and ends after the last, so that both counts are of the same packets. `keep`
    is a folder for callgrind's files (callgrind_annotate reads them).
    """
    here, peer, frame = wires
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        received, sent = Count(folder), Count(folder)
        frame_file, out = Path(folder) / "frame", Path(folder) / "out"
        frame_file.write_bytes(frame)
        if subject.needs_program:
            stack.enter_context(running(here, 1, [str(build / "generator"), "pass", "veth0"]))
        grind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        grind.append(f"--log-file={folder}/valgrind")  # it does not know all commands of bpf(2), and says so each time
        words = [*grind, *subject.command("veth0", ring, received.path)]
        child = stack.enter_context(running(here, 1, words))
        callgrind(child.pid, "on")
        send = [str(build / "generator"), "send", "veth1", str(frame_file), sent.path]
        with running(peer, 0, send):
            time.sleep(seconds)
        packets = settled(received)
        callgrind(child.pid, "off")
        stack.close()  # the subject ends, and writes its counts
        if keep:
            shutil.copy(out, keep / f"callgrind.{subject.name.replace(' ', '-')}")
        totals = re.findall(r"(?:summary|totals): (\d+)", out.read_text())
    if not packets:
        raise RuntimeError(f"{subject.name} received nothing under callgrind")
    return int(totals[-1]) / packets


def settled(count: Count) -> int:
    """The count once it stands still: nobody sends any more, and the subject has read what was on its way."""
    deadline, seen = time.monotonic() + 10, -1
    while seen != (now := int(count)):
        if time.monotonic() > deadline:
            raise RuntimeError("packets go on coming after the last was sent")
        seen = now
        time.sleep(0.3)
    return seen


def callgrind(pid: int, state: str) -> None:
    """Switch counting on or off in a running subject."""
    subprocess.run(["callgrind_control", "-i", state, str(pid)], check=True, capture_output=True)


def environment() -> dict[str, str | int]:
    model = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ":"
    )
    return {
        "kernel": platform.release(),
        "cpu": model.partition(":")[2].strip(),
        "cores": os.cpu_count() or 0,
        "nic": "veth",
    }


def spread(values: list[float], best: Callable[[list[float]], float]) -> tuple[float, float, float]:
    """Median, worst and best."""
    worst = min(values) if best(values) == max(values) else max(values)
    return statistics.median(values), worst, best(values)


def report(figures: dict[str, list[dict[str, float]]]) -> tuple[Table, list[dict[str, object]]]:
    table = Table(title="Receiving 64-byte frames: median [worst..best]")
    columns = {
        "pps": ("packets/s", 1e-3, "k", max),
        "cpu_ns_per_packet": ("CPU ns/packet", 1, "", min),
        "user_instructions_per_packet": ("user instr/packet", 1, "", min),
        "kernel_instructions_per_packet": ("kernel instr/packet", 1, "", min),
    }
    table.add_column("subject")
    for title, *_ in columns.values():
        table.add_column(title, justify="right")
    results: list[dict[str, object]] = []
    for name, rounds in figures.items():
        cells = [name]
        for metric, (_, scale, unit, best) in columns.items():
            values = [r[metric] for r in rounds if metric in r]
            if not values:
                cells.append("no counters")
                continue
            middle, worst, top = spread(values, best)
            exact = unit == "" and len(set(values)) == 1  # counted once, not round by round
            spread_of = "" if exact else f" [{worst * scale:.0f}..{top * scale:.0f}]"
            digits = 1 if exact else 0
            cells.append(f"{middle * scale:.{digits}f}{unit}{spread_of}")
            result = {"case": "rx", "subject": name, "frame_bytes": 64, "queues": 1, "metric": metric}
            results.append({**result, "median": middle, "worst": worst, "best": top, "rounds": len(values)})
        table.add_row(*cells)
    return table, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ring", type=int, default=2048, help="slots of the RX ring")
    parser.add_argument("--only", nargs="*", default=[], help="subjects, by name")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--callgrind", type=Path, help="a folder for callgrind's files, one a subject")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and children go in that case too
    figures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, wire() as wires:
        build = Path(folder)
        build_peers(build)
        for number in range(options.rounds):
            for subject in subjects(build):
                if options.only and subject.name not in options.only:
                    continue
                print(f"round {number + 1}: {subject.name}", file=sys.stderr)
                figures.setdefault(subject.name, []).append(
                    measure(subject, wires, build, options.ring, options.seconds)
                )
        for subject in subjects(build):
            if subject.name in figures and shutil.which("valgrind"):
                print(f"instructions: {subject.name}", file=sys.stderr)
                counted = instructions(subject, wires, build, options.ring, options.seconds, options.callgrind)
                for figure in figures[subject.name]:
                    figure["user_instructions_per_packet"] = counted
    table, results = report(figures)
    Console(width=130).print(table)
    if options.json:
        options.json.write_text(json.dumps({"environment": environment(), "results": results}, indent=2))


if __name__ == "__main__":
    main()
