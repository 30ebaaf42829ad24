"""What the programs that are measured and the harness share."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from xdpstack.bench.process import Count

WRITER = """
import sys
from xdpstack.bench.process import counter

count, total = counter(sys.argv[1]), 0
while True:
    total += 0x0101_0101
    count.value = total
"""
READ_SECONDS = 0.5
PATIENCE_SECONDS = 20.0


def test_a_count_never_goes_back(tmp_path: Path) -> None:
    """Whoever looks while it is written sees what it was or what it is: never less than before."""
    count = Count(tmp_path)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(count.path)]) as writer:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (last := int(count)):
                assert time.monotonic() < deadline
            first, end = last, time.monotonic() + READ_SECONDS
            while time.monotonic() < end or last == first:
                assert time.monotonic() < deadline
                now = int(count)
                assert now >= last
                last = now
        finally:
            writer.send_signal(signal.SIGKILL)
