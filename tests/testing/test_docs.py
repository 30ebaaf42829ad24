"""The examples of docs/testing.md and docs/engines.md run."""

import os
import re
from pathlib import Path

import pytest

from xdpstack.native import ffi

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page, at_least", [("testing", 4), ("engines", 1)])
def test_the_examples_run(pytester: pytest.Pytester, page: str, at_least: int) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(), re.DOTALL)
    blocks = [block for block in blocks if "xdpstack.open(" not in block]
    assert len(blocks) >= at_least
    for number, block in enumerate(blocks):
        pytester.makepyfile(**{f"test_{number}": block})
    tests = sum(block.count("def test_") for block in blocks)
    result = pytester.runpytest_subprocess("-p", "xdpstack.testing.plugin")
    left_out = 0 if os.geteuid() == 0 else sum(block.count("@pytest.mark.root") for block in blocks)
    result.assert_outcomes(passed=tests - left_out, deselected=left_out)


def test_every_fault_is_in_the_table() -> None:
    table = (ROOT / "docs/memory-device.md").read_text().partition("## What it can do wrong")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == {name for name, _ in ffi.typeof("struct xs_fake_faults").fields}
