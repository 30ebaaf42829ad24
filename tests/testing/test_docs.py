"""The examples of docs/testing.md, docs/engines.md and docs/hooks.md run."""

import os
import re
import textwrap
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpstack.native import ffi
from xdpstack.testing import MemoryStack, memory_stack

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


def datagram(**ip: str) -> bytes:
    return bytes(Ether(dst="02:00:00:00:00:01") / IP(src="10.0.0.2", **ip) / UDP(sport=9, dport=7) / b"x")


def run_hook_example(stack: MemoryStack, name: str, **names: object) -> None:
    """Define the hook of docs/hooks.md with this name, and hook it as it is done there."""
    page = (ROOT / "docs/hooks.md").read_text()
    found = re.search(rf"^    def {name}\(.*?^    stack\.hook\([^\n]*", page, re.MULTILINE | re.DOTALL)
    assert found
    exec(textwrap.dedent(found[0]), {"stack": stack, **names})


def test_the_hook_that_drops() -> None:
    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}) as stack, stack.udp(("10.0.0.1", 7)) as sock:
        run_hook_example(stack, "no_chargen")
        chargen = Ether(datagram(dst="10.0.0.1"))
        chargen[UDP].dport = 19
        stack.inject("a0", bytes(chargen), datagram(dst="10.0.0.1"))
        stack.step()
        assert stack.counters()["no_chargen.drop.HOOK"] == 1
        assert sock.recv(9, 0x40) == b"x"


def test_the_hook_that_leads_back() -> None:
    """Rewritten for another address, the packet is checked and routed again, and comes by the hook a second time."""

    def rewrite(data: memoryview) -> None:
        data[:] = datagram(dst="10.0.0.3")

    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24", "10.0.0.3/24"]}) as stack:
        run_hook_example(stack, "redirect", rewrite=rewrite)
        with stack.udp(("10.0.0.1", 7)) as before, stack.udp(("10.0.0.3", 7)) as after:
            stack.inject("a0", datagram(dst="10.0.0.1"))
            stack.step()
            assert after.recv(9, 0x40) == b"x"
            assert before.stats()["queued"] == 0
        counters = stack.counters()
        assert [counters[f"{row}.packets"] for row in ("napi.rx", "ip.rx", "redirect", "udp.rx")] == [1, 2, 2, 1]


def test_every_fault_is_in_the_table() -> None:
    table = (ROOT / "docs/memory-device.md").read_text().partition("## What it can do wrong")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == {name for name, _ in ffi.typeof("struct xs_fake_faults").fields}
