"""Kernel and user instructions per packet, where the clock counts instructions: in an emulated machine (tools/nic_lab).

QEMU with `-icount shift=0` has its clock go on by 1 ns for each instruction that the guest executes. With one CPU the time
that the scheduler counts for a thread is then the number of instructions of its turns: its own, those of its system calls,
and of interrupts and softirqs that came meanwhile. On veth the receiver's NAPI is run by the sender, so it is the sender's.
Turns of others, generators and the idle task too, are theirs: they count for nothing here.

The subject is stopped at both ends of the window, until what it has sent is counted: packets and instructions are of the
same turns. A loop of known length shows beforehand that the clock is such a one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import SupportsInt

from xdpstack.bench.cases import PATIENCE_SECONDS, Bench, Round, settle, started
from xdpstack.bench.counting import cpu_ns
from xdpstack.bench.results import BenchError

CASES = ("rx", "tx", "forward", "echo")
#: Of the known loop; and the ns that one of them may take: the guest measures the clock's rate, and interrupts come between.
LOOP_INSTRUCTIONS, LEAST, MOST = 100_000_000, 0.999, 1.02
STILL_SECONDS = 0.02


def require(programs: Path) -> float:
    """The ns that an instruction of the known loop took. BenchError if that is not one, or several CPUs share the clock."""
    if os.cpu_count() != 1:
        raise BenchError("a clock that counts instructions counts those of all CPUs: one CPU is needed (tools/nic_lab)")
    words = [str(programs / "known_loop"), str(LOOP_INSTRUCTIONS // 2)]
    each = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) / LOOP_INSTRUCTIONS
    if not LEAST <= each <= MOST:
        raise BenchError(f"the clock counts {each:.3f} ns for an instruction, not one: not in an emulated machine?")
    return each


def count(bench: Bench) -> Round:
    """One round, for `xdpstack.bench.cases.measure`. BenchError when nothing can be measured."""
    if bench.case not in CASES:
        raise BenchError(f"{bench.case} is about time: where the clock counts instructions there is none")
    if bench.subject.routed or (bench.subject.telemetry and bench.case == "rx"):
        raise BenchError(f"{bench.subject.name} cannot be stopped and counted")
    pid, counts = started(bench)
    bench.generate(bench.seen if bench.case == "echo" else None)
    settle(counts, bench.setting)
    try:
        instructions, packets = _stopped(pid, counts)
        os.kill(pid, signal.SIGCONT)
        time.sleep(bench.setting.seconds)
        after = _stopped(pid, counts)
    finally:
        os.kill(pid, signal.SIGCONT)
    instructions, packets = after[0] - instructions, after[1] - packets
    if not packets:
        raise BenchError("no packet came")
    return Round({"instructions_per_packet": instructions / packets})


def _stopped(pid: int, counts: SupportsInt) -> tuple[int, int]:
    """The process stopped; its instructions and packets so far. BenchError if it does not stop, or packets go on coming."""
    os.kill(pid, signal.SIGSTOP)
    deadline, seen = time.monotonic() + PATIENCE_SECONDS, -1
    while not _is_stopped(pid) or (packets := int(counts)) != seen:
        if time.monotonic() > deadline:
            raise BenchError("packets go on coming from a process that is stopped")
        seen = int(counts)
        time.sleep(STILL_SECONDS)
    return cpu_ns(pid), packets


def _is_stopped(pid: int) -> bool:
    """All its threads."""
    return all(
        (task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in Path(f"/proc/{pid}/task").iterdir()
    )
