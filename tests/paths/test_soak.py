"""Opening and closing again and again leaves nothing: no descriptor, thread, mapping, BPF object or frame, and no memory.

`make soak` does it a thousand times: XDPSTACK_SOAK_ROUNDS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.paths.soak import Soaked
from tests.paths.world import FAR, NEAR, MakeVeth

pytestmark = pytest.mark.root
ROUNDS = int(os.environ.get("XDPSTACK_SOAK_ROUNDS", "50"))
#: The verifier's logs, 1 MiB each, go back to the kernel at once: glibc would begin to keep them on a heap that small blocks
#: then hold in place, or not.
STEADY = {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
#: Of what was freed, a build with sanitizers keeps much for a while: it is to keep little here.
FORGETFUL = "quarantine_size_mb=1:thread_local_quarantine_size_kb=16:malloc_context_size=0"
#: What the allocators may take more, once what is set up at the first times is there.
GROWTH_BYTES = 1 << 20


DRIVEN = {"need_wakeup": False, "busy_poll": True, "tx_budget": 64, "huge_pages": "auto", "zero_copy": False}


@pytest.mark.parametrize(
    "options, mtu",
    [({}, 1500), ({"workers": 2}, 1500), ({"mode": "generic"}, 1500), ({}, 9000), (DRIVEN, 9000)],
    ids=["inline", "threads", "generic", "jumbo", "driven"],
)
def test_opening_and_closing_leaves_nothing(veth: MakeVeth, options: dict[str, Any], mtu: int) -> None:
    """In every mode; with an MTU of 9,000 by packets of several frames."""
    pair = veth(near=NEAR, far=FAR, mtu=mtu)
    words = [pair.near.netns.name, pair.near.name, pair.far.netns.name, str(ROUNDS), json.dumps(options)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.paths.soak", *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **STEADY, "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:{FORGETFUL}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60 + ROUNDS,
    )
    soaked = Soaked(**json.loads(done.stdout))
    assert soaked.objects == []
    assert soaked.made >= 10 * ROUNDS  # programs, maps and a link, new ones in each round
    assert not pair.near.has_xdp()
    assert "7777" not in pair.near.netns.run("ss", "-uanH")
    # The middle of many rounds: some end with memory that goes with the next, and after some an allocator tidies up.
    fifth = ROUNDS // 5
    growth = round(median(soaked.memory[-fifth:]) - median(soaked.memory[fifth : 2 * fifth]))
    print(f"{ROUNDS} rounds, memory of the process grew by {growth} bytes in the last {3 * fifth}")
    assert growth < GROWTH_BYTES, soaked.memory
