"""User instructions per packet where the CPU does not count them: by callgrind, exactly, in a run of their own."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import SupportsInt

from xdpstack.bench.cases import Bench, Setting, started
from xdpstack.bench.results import BenchError
from xdpstack.bench.subjects import Spot, Subject
from xdpstack.bench.wire import Wire, introduce

#: A batch takes a while under callgrind, the first of them most of all.
STILL_SECONDS, PATIENCE_SECONDS = 0.5, 30.0
ENOUGH_PACKETS, ENOUGH_SECONDS = 300_000, 20.0


def can_count(case: str, subject: Subject) -> bool:
    """Whether there is something to count with: testpmd does not run under valgrind, and nothing answers in time there."""
    if subject.telemetry or subject.slow or subject.routed:
        return False
    return case in ("rx", "tx", "forward") and shutil.which("valgrind") is not None


def user_instructions(
    case: str, subject: Subject, wire: Wire, setting: Setting, programs: Path, keep: Path | None = None
) -> float:
    """Of one packet. `keep`: a folder for the files.

    Where the subject receives, counting begins before the first packet and ends after the last; `tx`: it is a window.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        out = folder / "out"
        # It does not know all commands of bpf(2), and says so each time.
        grind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        grind.append(f"--log-file={folder}/valgrind")
        plain = subject.commands[case]

        def under(spot: Spot) -> list[str]:
            return [*grind, *plain(spot)]

        watched = replace(subject, commands={case: under})
        bench = Bench(case, watched, wire, setting, programs, folder, stack)
        introduce(wire)
        pid, counts = started(bench)
        _switch(pid, "on")
        before = int(counts)
        with ExitStack() as sending:
            Bench(case, subject, wire, setting, programs, folder, sending).generate()
            time.sleep(setting.seconds)
            _until_enough(counts, before)
        if case != "tx":
            _until_still(counts, before)
        _switch(pid, "off")
        packets = int(counts) - before
        stack.close()  # the subject ends, and writes its counts
        if keep:
            shutil.copy(out, keep / f"callgrind.{case}.{subject.name}")
        totals = re.findall(r"(?:summary|totals): (\d+)", out.read_text())
    if not packets or not totals:
        raise BenchError("no packet was counted under callgrind")
    return int(totals[-1]) / packets


def _until_enough(counts: SupportsInt, before: int) -> None:
    """Until what the first packets cost, and waiting for them, does not show; or it has taken too long."""
    deadline = time.monotonic() + ENOUGH_SECONDS
    while int(counts) - before < ENOUGH_PACKETS and time.monotonic() < deadline:
        time.sleep(0.05)


def _until_still(counts: SupportsInt, before: int) -> None:
    """Until packets have come, and no more do. BenchError if none comes, or they go on coming."""
    packets, deadline, seen = int(counts), time.monotonic() + PATIENCE_SECONDS, before
    while packets == before or packets != seen:
        if time.monotonic() > deadline:
            raise BenchError("no packet came" if packets == before else "packets go on coming after the last was sent")
        seen = packets
        time.sleep(STILL_SECONDS)
        packets = int(counts)


def _switch(pid: int, state: str) -> None:
    done = subprocess.run(["callgrind_control", "-i", state, str(pid)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"callgrind_control: {done.stderr.strip()}")
