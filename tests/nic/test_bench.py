"""The benchmark on interfaces that are there: each case does its work, with a generator on the other NIC. No speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nic.expected import EXPECTED
from xdpstack.testing.veth import Veth

pytestmark = pytest.mark.root
HERE = EXPECTED[os.environ["XDPSTACK_NIC_MODEL"]]
CASES = ("rx", "tx", "forward", "latency", "rfc2544")
SUBJECTS = ("xdpstack", "rings")
SECONDS = 600.0
SHORT = ("--rounds", "1", "--seconds", "0.3", "--settle", "0.2", "--no-instructions")


@pytest.fixture
def wired(veth: Callable[..., Veth]) -> Iterator[tuple[Veth, list[str]]]:
    """The NICs, and a veth pair between their namespaces to forward to; the options that name them all."""
    pair = veth()
    near, far = pair.near.netns, pair.far.netns
    like = f"numrxqueues {HERE.queues} numtxqueues {HERE.queues}"
    near.ip(f"link add out0 {like} type veth peer name back0 {like} netns {far}", "address add 10.99.0.1/24 dev out0")
    try:
        near.ip("link set out0 up")
        far.ip("address add 10.99.0.2/24 dev back0", "link set back0 up")
        ends = ["-i", "near0", "--peer", "far0", "--peer-netns", str(far)]
        yield pair, [*ends, "--forward-to", "out0", "--forward-peer", "back0"]
    finally:
        near.ip("link delete out0")


def test_every_case_is_measured(wired: tuple[Veth, list[str]], tmp_path: Path) -> None:
    """In one run, as its programs are compiled in it. One flow comes in on whichever queue the NIC chose: all are served."""
    pair, ends = wired
    out = tmp_path / "out.json"
    words = [sys.executable, "-m", "xdpstack", "bench", *CASES, *ends, *SHORT, "--json", str(out)]
    words += ["--frame-bytes", "64", "--queues", str(HERE.queues)]
    words += [word for name in SUBJECTS for word in ("--only", name)]
    inside = ["ip", "netns", "exec", str(pair.near.netns), *words]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=SECONDS, check=False)
    print(done.stdout, done.stderr)
    told = json.loads(out.read_text())
    assert told["environment"]["failed"] == []
    assert done.returncode == 0
    assert (told["environment"]["nic"], told["environment"]["driver"]) == ("near0", HERE.driver)
    for case in CASES:
        for name in SUBJECTS:
            check_figures(
                case,
                {
                    each["metric"]: each["median"]
                    for each in told["results"]
                    if (each["case"], each["subject"]) == (case, name)
                },
            )
        check_granted(told["environment"]["granted"][case][0], case)
    for end in pair.ends():
        assert "PERMANENT" not in end.netns.run("ip", "neighbour", "show", "dev", end.name)


def check_figures(case: str, found: dict[str, float]) -> None:
    """What was counted, of one subject."""
    if case == "rfc2544":  # at which rate nothing is lost is the guest's matter: it is slow, and not steadily so
        assert 0 <= found["pps"] <= found["offered_pps"]
        assert found["offered_pps"] > 0
        return
    assert found["pps"] > 0
    assert found["cpu_ns_per_packet"] > 0
    if case == "latency":
        assert 0 < found["latency_us_p50"] <= found["latency_us_p99"] <= found["latency_us_max"]


def check_granted(device: dict[str, Any], case: str) -> None:
    """What is measured is what the driver has."""
    mode = "transmit only" if case == "tx" else "native" if HERE.native else "generic"
    assert (device["name"], device["mode"]) == ("near0", mode)
