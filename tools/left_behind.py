"""Runs a command and fails if it leaves something behind: a process, a namespace, a link, an XDP program, a pin.

    python tools/left_behind.py COMMAND...

Exits with the command's status, or with 1 if that is 0 and something is left. Says nothing if nothing is left. A
process is known as the command's by a mark in its environment, which it has from its parents even when they are gone.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

MARK = "XDPSTACK_LEFT_BEHIND"
#: What is being torn down when the command ends may take this long to be gone (a namespace's links go asynchronously).
GRACE_S = 5.0


def machine() -> set[str]:
    """What outlives a process, each as a line for the report."""
    found = {f"network namespace {path.name}" for path in Path("/run/netns").glob("*")}
    found |= {f"pinned BPF object {path}" for path in Path("/sys/fs/bpf").rglob("*") if not path.is_dir()}
    found |= {f"link {path.name}" for path in Path("/sys/class/net").iterdir()}
    if shutil.which("ip"):
        links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
        found |= {f"XDP program on {link['ifname']}" for link in links if "xdp" in link}
    return found


def processes(mark: str) -> set[str]:
    """The processes that have the mark, each as a line for the report."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found.add(f"process {folder.name}: {' '.join(words)}")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is another user's
    return found


def main(command: list[str]) -> int:
    if not command:
        sys.exit(__doc__)
    mark = f"{os.getpid()}-{time.time_ns()}"
    before = machine()
    status = subprocess.run(command, env={**os.environ, MARK: mark}).returncode
    deadline = time.monotonic() + GRACE_S
    while left := (machine() - before) | processes(mark):
        if time.monotonic() > deadline:
            print("left behind:", *sorted(left), sep="\n  ", file=sys.stderr)
            return status or 1
        time.sleep(0.1)
    return status if status >= 0 else 128 - status  # ended by a signal: as a shell says it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
