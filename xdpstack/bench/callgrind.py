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

from xdpstack.bench.cases import Bench, Setting
from xdpstack.bench.results import BenchError
from xdpstack.bench.subjects import Spot, Subject
from xdpstack.bench.wire import Wire

STILL_SECONDS, PATIENCE_SECONDS = 0.3, 10.0


def can_count(case: str, subject: Subject) -> bool:
    """Whether there is something to count with: testpmd does not run under valgrind, nor a rate be had there."""
    return case == "rx" and not (subject.telemetry or subject.slow) and shutil.which("valgrind") is not None


def user_instructions(
    subject: Subject, wire: Wire, setting: Setting, programs: Path, keep: Path | None = None
) -> float:
    """Of one packet received: counting begins before the first and ends after the last. `keep`: a folder for the files."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        out = folder / "out"
        # It does not know all commands of bpf(2), and says so each time.
        grind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        grind.append(f"--log-file={folder}/valgrind")
        plain = subject.commands["rx"]

        def under(spot: Spot) -> list[str]:
            return [*grind, *plain(spot)]

        watched = replace(subject, commands={"rx": under})
        bench = Bench("rx", watched, wire, setting, programs, folder, stack)
        bench.passing()
        pid, counts = bench.start()
        _switch(pid, "on")
        with ExitStack() as sending:
            Bench("rx", subject, wire, setting, programs, folder, sending).generate()
            time.sleep(setting.seconds)
        packets, deadline, seen = int(counts), time.monotonic() + PATIENCE_SECONDS, -1
        while packets != seen:
            if time.monotonic() > deadline:
                raise BenchError("packets go on coming after the last was sent")
            seen = packets
            time.sleep(STILL_SECONDS)
            packets = int(counts)
        _switch(pid, "off")
        stack.close()  # the subject ends, and writes its counts
        if keep:
            shutil.copy(out, keep / f"callgrind.{subject.name}")
        totals = re.findall(r"(?:summary|totals): (\d+)", out.read_text())
    if not packets or not totals:
        raise BenchError("received nothing under callgrind")
    return int(totals[-1]) / packets


def _switch(pid: int, state: str) -> None:
    done = subprocess.run(["callgrind_control", "-i", state, str(pid)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"callgrind_control: {done.stderr.strip()}")
