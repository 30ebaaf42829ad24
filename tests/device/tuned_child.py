"""A process that opens a stack with what is asked, says so, and waits to be killed. Arguments: NETNS INTERFACE TUNING..."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import xdpstack
from xdpstack.testing.veth import End

START = f"""
import sys
sys.path.append({str(Path(__file__).parents[2])!r})
from tests.device.tuned_child import main
main(*sys.argv[1:])
"""


def start(end: End, **tuning: int) -> subprocess.Popen[str]:
    """The process, once its stack is open."""
    words = [f"{name}={value}" for name, value in tuning.items()]
    command = [sys.executable, "-c", START, end.netns.name, end.name, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def main(netns: str, name: str, *words: str) -> None:
    values: dict[str, Any] = {key: int(value) for key, _, value in (word.partition("=") for word in words)}
    with xdpstack.open(name, netns=netns, frames=1024, observable=False, tune=xdpstack.Tuning(**values)):
        print("ready", flush=True)
        sys.stdin.read()
