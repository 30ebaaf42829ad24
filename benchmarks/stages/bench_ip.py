"""What ip.rx, ip.local and ip.tx cost a packet: `PYTHONPATH=. python benchmarks/stages/bench_ip.py`.

Instructions are exact: callgrind counts inside the stages' functions and nowhere else (valgrind is needed). Nanoseconds are
differences: batches of 64 through napi.rx alone, then with ip.rx behind it, then with ip.local too, in turn, and the median
of the rounds; what the walk adds for a stage is in them. The frames are in the cache; on a busy machine only the best case
says something.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.stages.packets import HOPOPTS, UDP, chain, ethernet, ipv4, ipv6, options_header, udp
from tests.stages.test_ip_tx import Sender
from xdpstack.device.memory_queue import Rings
from xdpstack.native import check, lib
from xdpstack.testing.memory_walk import MemoryWalk, TestDevice

PAYLOAD = udp(b"x" * 22)  # 64 bytes with an IPv4 header and the FCS
FRAMES = {
    "IPv4": ethernet(ipv4(PAYLOAD)),
    "IPv6": ethernet(ipv6(PAYLOAD)),
    "IPv4, options": ethernet(ipv4(PAYLOAD, options=b"\x94\x04\0\0")),
    "IPv6, hop-by-hop": ethernet(chain(options_header(UDP, b"\x05\x02\0\0"), first=HOPOPTS, last=PAYLOAD)),
}
FUNCTIONS = {"ip.rx": "xs_ip_rx", "ip.local": "xs_ip_local", "ip.tx": "xs_ip_tx"}
STAGES = {"napi": ("napi.rx",), "+ ip.rx": ("napi.rx", "ip.rx"), "+ ip.local": ("napi.rx", "ip.rx", "ip.local")}
ROUNDS, POLLS, BATCH = 100, 10, 64


def walk_through(stages: tuple[str, ...]) -> MemoryWalk:
    """Packets go through `stages` and straight out again."""
    rings = Rings(rx=256, tx=256, fill=512, completion=256)
    present = {*stages, "napi.tx"}
    after = {"napi.rx": "ip.rx", "ip.rx": "routing.rx", "ip.local": "netfilter.input"}
    walk = MemoryWalk(TestDevice("a0", rings=rings), present=present, catch=set(after.values()) - present)
    for source, target in zip(stages, (*stages[1:], "napi.tx"), strict=True):
        walk.direct(source, target)
    return walk


def poll_ns(walk: MemoryWalk, frames: list[bytes]) -> float:
    """Nanoseconds a packet, of polls that find a full batch."""
    worker, spent = walk.core.workers[0], 0
    for _ in range(POLLS):
        assert walk.inject("a0", *frames) == len(frames)
        before = time.perf_counter_ns()
        taken = lib.xs_worker_poll(worker, BATCH)
        spent += time.perf_counter_ns() - before
        assert check(taken, "poll") == len(frames)
        walk.sent("a0")
        walk.step()
    return spent / POLLS / len(frames)


def nanoseconds(frame: bytes) -> dict[str, float]:
    """Per stage: what it adds to a packet, the median over rounds."""
    walks = {name: walk_through(stages) for name, stages in STAGES.items()}
    rounds = [{name: poll_ns(walk, [frame] * BATCH) for name, walk in walks.items()} for _ in range(ROUNDS)]
    for walk in walks.values():
        walk.close()
    rx = statistics.median(each["+ ip.rx"] - each["napi"] for each in rounds)
    local = statistics.median(each["+ ip.local"] - each["+ ip.rx"] for each in rounds)
    return {"ip.rx": rx, "ip.local": local}


def run_once(name: str, polls: int) -> None:
    """What callgrind watches: `polls` full batches of one kind of packet through receive, then transmit."""
    walk = walk_through(STAGES["+ ip.local"])
    for _ in range(polls):
        walk.inject("a0", *[FRAMES[name]] * BATCH)
        walk.step(2)
        walk.sent("a0")
    walk.close()
    sender = Sender()
    sender.fields = {"flags": lib.XS_PKT_IPV6 if "IPv6" in name else 0}
    for _ in range(polls):
        sender.walk.inject("a0", *[PAYLOAD] * BATCH)
        sender.walk.step()
    sender.walk.close()


def instructions(name: str, polls: int = 4) -> dict[str, float]:
    """Per stage: instructions a packet."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        grind = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
        grind += [f"--toggle-collect={function}" for function in FUNCTIONS.values()]
        subprocess.run([*grind, sys.executable, __file__, name, str(polls)], check=True, capture_output=True)
        text = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", out],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    found = {}
    for stage, function in FUNCTIONS.items():
        counts = re.findall(rf"^ *([\d,]+) .*:{function}\b", text, re.MULTILINE)  # of it with and without what it calls
        found[stage] = max(int(count.replace(",", "")) for count in counts) / polls / BATCH
    return found


def row(name: str, unit: str, values: Iterable[float]) -> None:
    print(f"{name:18}{unit:>12}" + "".join(f"{value:10.1f}" for value in values))


def main() -> None:
    print(f"{'64 bytes':18}{'':>12}{'ip.rx':>10}{'ip.local':>10}{'ip.tx':>10}")
    for name, frame in FRAMES.items():
        if shutil.which("valgrind"):
            row(name, "instructions", instructions(name).values())
        row(name, "ns", nanoseconds(frame).values())


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run_once(sys.argv[1], int(sys.argv[2]))
    else:
        main()
