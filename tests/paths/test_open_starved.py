"""Opening a stack where each call that can fail for want of memory, a descriptor or a thread does, one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.csrc.compile import library
from tests.paths.failing import Attempt
from tests.paths.world import FAR, NEAR, MakeVeth

pytestmark = pytest.mark.root


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer has the C library's calls")
def test_whatever_fails_nothing_is_left_and_the_lack_is_named(veth: MakeVeth, tmp_path: Path) -> None:
    """Of the C library's calls by our library and by libbpf. That nothing is left is looked at after each attempt."""
    pair = veth(near=NEAR, far=FAR)
    done = subprocess.run(
        [sys.executable, "-m", "tests.paths.failing", pair.near.netns.name, pair.near.name],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LD_PRELOAD": str(library("failing_calls.c", tmp_path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    attempts = [Attempt(**each) for each in json.loads(done.stdout)]
    failed = [attempt for attempt in attempts if attempt.kind]
    calls = Counter(attempt.call for attempt in failed)
    assert {"mmap", "calloc", "aligned_alloc", "eventfd", "socket", "bind", "setsockopt", "syscall"} <= set(calls)
    assert calls["pthread_create"] == 1
    for attempt in failed:
        assert attempt.kind == "OutOfMemory", attempt
    # What is asked of the kernel to see what it can, and what makes sending faster, may be refused; and the program that
    # counts failed redirects is missed by nobody, but says why.
    opened = [attempt for attempt in attempts if not attempt.kind and not attempt.said]
    assert {attempt.call for attempt in opened} <= {"syscall", "setsockopt"}
    uncounted = [attempt for attempt in attempts if not attempt.kind and attempt.said]
    assert {"calloc", "malloc"} <= {attempt.call for attempt in uncounted}
    assert all("memory" in attempt.said for attempt in uncounted)
