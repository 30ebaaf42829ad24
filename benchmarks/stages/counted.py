"""Counts the instructions of whole paths over a memory stack, function by function: what bench_<stage>.py print from.

callgrind counts user instructions exactly; no privilege and no hardware counters are needed. The program below runs under
it: batches of 64 frames of 64 bytes go through a `memory_stack`, that is through the production stages, walk, rings and
tables. It warms up before counting begins. The cost of a function is that of all calls of it, with what it calls.

    python -m benchmarks.stages.counted CASE BATCHES      (under callgrind; see `count`)
"""

import ctypes
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import xdpstack
from tests.stages.packets import HOST, OTHER, PEER, ipv4, ipv6, udp
from xdpstack.testing import MemoryStack, memory_stack

BATCH = 64
BATCHES = 8
V4, V6 = "10.0.0.1", "fd00::1"
US4, US6 = bytes([10, 0, 0, 1]), bytes.fromhex("fd000000000000000000000000000001")
PAYLOAD = b"x" * 18
CLAIM = xdpstack.PrefixClaim("10.0.0.0/24")


def ethernet(packet: bytes) -> bytes:
    """The packet in a frame from the peer to us."""
    return HOST + PEER + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


def datagram4(sender: int = 8, payload: bytes = PAYLOAD) -> bytes:
    source = bytes([10, 0, 0, sender])
    return ethernet(ipv4(udp(payload, sum_with=source + US4), src=source, dst=US4))


def with_options() -> bytes:
    """As datagram4(), with four NOPs."""
    source = bytes([10, 0, 0, 8])
    return ethernet(ipv4(udp(PAYLOAD, sum_with=source + US4), options=b"\1" * 4, src=source, dst=US4))


def datagram6(sender: int = 8) -> bytes:
    source = bytes.fromhex("fd0000000000000000000000000000") + bytes([sender])
    return ethernet(ipv6(udp(PAYLOAD, sum_with=source + US6), src=source, dst=US6))


def a_stack(workers: int = 1) -> MemoryStack:
    neighbours = ["10.0.0.8 dev a0 lladdr 02:00:00:00:00:99", "fd00::8 dev a0 lladdr 02:00:00:00:00:99"]
    addresses = {"a0": [f"{V4}/24", f"{V6}/64"]}
    return memory_stack("a0", addresses=addresses, neighbours=neighbours, workers=workers)


# ---- cases: each yields a function that takes one batch through ----

Turn = Callable[[], object]


def receiving(stack: MemoryStack, address: str, frames: Sequence[bytes]) -> Turn:
    sock = stack.udp((address, 7))

    def turn() -> None:
        assert stack.inject("a0", *frames) == BATCH
        assert stack.poll() == BATCH
        with sock.recv_batch(BATCH) as batch:
            assert len(batch) == BATCH

    return turn


def sending(stack: MemoryStack, address: str, peer: str) -> Turn:
    sock = stack.udp((address, 7))

    def turn() -> None:
        assert sock.send_batch([PAYLOAD] * BATCH, (peer, 9)) == BATCH
        stack.poll()
        assert len(stack.sent("a0")) == BATCH

    return turn


def whole_frames(stack: MemoryStack) -> Turn:
    frames = stack.frames(CLAIM)
    given = [datagram4()] * BATCH

    def turn() -> None:
        assert stack.backend.inject("a0", *given, claim=CLAIM) == BATCH
        stack.poll()
        with frames.recv_batch(BATCH) as batch:
            assert len(batch) == BATCH

    return turn


def raw(stack: MemoryStack, frames: Sequence[bytes]) -> Turn:
    stack.hook("taps.rx", built("drop_stage", PEERS))

    def turn() -> None:
        assert stack.inject("a0", *frames) == BATCH
        assert stack.poll() == BATCH

    return turn


def redirected(stack: MemoryStack) -> Turn:
    stack.redirect(CLAIM, to="a0")
    given = [datagram4()] * BATCH

    def turn() -> None:
        assert stack.backend.inject("a0", *given, claim=CLAIM) == BATCH
        assert stack.poll() == BATCH
        assert len(stack.sent("a0")) == BATCH

    return turn


def sent_frames(stack: MemoryStack, packed: bool) -> Turn:
    frames = stack.frames()
    frame = datagram4()
    given = [frame] * BATCH

    def turn() -> None:
        sent = frames.send_packed(frame, [len(frame)], times=BATCH) if packed else frames.send(given)
        assert sent == BATCH
        stack.poll()
        assert len(stack.sent("a0")) == BATCH

    return turn


def split(stack: MemoryStack, ways: int) -> Turn:
    stage = built("split")
    ctypes.c_uint32.in_dll(stage.library, "ways").value = ways
    stack.hook("netfilter.prerouting", stage, edges={"other": "routing.rx"})
    return receiving(stack, V4, [datagram4()] * BATCH)


def steered(stack: MemoryStack, senders: int = 1, flows: int = 0) -> Turn:
    """To the last worker of the stack."""
    workers = len(stack._core.workers)
    stack._rps.on([0] * (workers - 1) + [1], flows, dict.fromkeys(range(1024), workers - 1), 1000, False)
    sock = stack.udp((V4, 7))
    frames = [datagram4(8 + i % senders) for i in range(BATCH)]

    def turn() -> None:
        assert stack.inject("a0", *frames) == BATCH
        stack.poll()
        with sock.recv_batch(BATCH) as batch:
            assert len(batch) == BATCH

    return turn


def sending_by_xps(stack: MemoryStack) -> Turn:
    stack.rps()
    return sending(stack, V4, "10.0.0.8")


def hooked(stack: MemoryStack, touch: bool) -> Turn:
    def look(batch: xdpstack.HookBatch) -> None:
        if touch:
            for packet in batch:
                assert packet.l4_proto

    stack.hook("netfilter.input", look)
    return receiving(stack, V4, [datagram4()] * BATCH)


CASES: Mapping[str, Callable[[MemoryStack], Turn]] = {
    "rx IPv4": lambda s: receiving(s, V4, [datagram4()] * BATCH),
    "rx IPv6": lambda s: receiving(s, V6, [datagram6()] * BATCH),
    "rx IPv4, 64 senders": lambda s: receiving(s, V4, [datagram4(8 + i) for i in range(BATCH)]),
    "rx IPv6, 64 senders": lambda s: receiving(s, V6, [datagram6(8 + i) for i in range(BATCH)]),
    "rx IPv4, one with options": lambda s: receiving(s, V4, [datagram4()] * (BATCH - 1) + [with_options()]),
    "rx IPv4, 1472 bytes": lambda s: receiving(s, V4, [datagram4(payload=b"x" * 1472)] * BATCH),
    "tx IPv4": lambda s: sending(s, V4, "10.0.0.8"),
    "tx IPv6": lambda s: sending(s, V6, "fd00::8"),
    "raw": lambda s: raw(s, [datagram4()] * BATCH),
    "raw, two routers": lambda s: raw(s, [datagram4(), datagram4()[:6] + OTHER + datagram4()[12:]] * (BATCH // 2)),
    "redirect": redirected,
    "send frames": lambda s: sent_frames(s, packed=False),
    "send packed": lambda s: sent_frames(s, packed=True),
    "whole frames": whole_frames,
    "rps": steered,
    "rps, 64 senders": lambda s: steered(s, senders=BATCH),
    "rps, steered": steered,
    "rps, steered, RFS": lambda s: steered(s, flows=1024),
    "rps, tx": sending_by_xps,
    "uniform": lambda s: split(s, 1),
    "scatter": lambda s: split(s, 2),
    "Python hook": lambda s: hooked(s, touch=False),
    "Python hook, each packet": lambda s: hooked(s, touch=True),
}


HERE, PEERS = Path(__file__).parent, Path(xdpstack.__file__).parent / "bench/peers"


@functools.cache
def built(name: str, sources: Path = HERE) -> xdpstack.hook.CStage:
    """A custom stage, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        out, source = Path(folder, f"{name}.so"), sources / f"{name}.c"
        words = ["cc", "-O3", "-shared", "-fPIC", "-I", xdpstack.get_include(), "-o", str(out), str(source)]
        subprocess.run(words, check=True)
        return xdpstack.load_stage(out)


# ---- under callgrind ----


def run(case: str, batches: int) -> None:
    """The program that callgrind watches."""
    with a_stack(workers=2 if "steered" in case else 1) as stack:
        turn = CASES[case](stack)
        for _ in range(8):
            turn()

        switch("on")
        for _ in range(batches):
            turn()
        switch("off")


def switch(state: str) -> None:
    """Have the callgrind that runs us begin or end to count."""
    subprocess.run(["callgrind_control", "-i", state, str(os.getpid())], check=True, capture_output=True)


# ---- counting ----


class Costs:
    """Instructions per packet of each function in one case; and of everything, Python included: `total`."""

    def __init__(self, inclusive: Mapping[str, int], total: int, packets: int) -> None:
        self._inclusive = inclusive
        self.total = total / packets
        self._packets = packets

    def __getitem__(self, function: str) -> float:
        return self._inclusive.get(function, 0) / self._packets


def calls(text: str) -> dict[str, int]:
    """Instructions of each function, with what it calls, from callgrind's file: the sum over the calls of it."""
    names: dict[str, str] = {}
    costs: dict[str, int] = defaultdict(int)
    callee, follows = "", False
    for line in text.splitlines():
        if named := re.match(r"(c?fn)=\((\d+)\)(?: (.*))?", line):
            kind, number, name = named.groups()
            if name:
                names[number] = re.sub(r"'\d+$", "", name)
            if kind == "cfn":
                callee = names[number]
        elif line.startswith("calls="):
            follows = True
        elif follows:
            costs[callee] += int(line.split()[1])
            follows = False
    return costs


@functools.cache
def count(case: str, batches: int = BATCHES) -> Costs:
    """Run one case under callgrind."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        grind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        words = [*grind, sys.executable, "-m", "benchmarks.stages.counted", case, str(batches)]
        subprocess.run(words, check=True, stderr=subprocess.PIPE)
        text = out.read_text()
    (total,) = re.findall(r"^totals: (\d+)", text, re.MULTILINE)
    return Costs(calls(text), int(total), batches * BATCH)


def table(title: str, functions: Mapping[str, str], cases: Sequence[str]) -> None:
    """Print instructions per packet: a line a case, a column a row of the path (its C function in `functions`)."""
    if not shutil.which("valgrind"):
        sys.exit("this needs valgrind")
    print(f"{title}: instructions per packet")
    print(f"{'':24}" + "".join(f"{row:>14}" for row in functions))
    for case in cases:
        costs = count(case)
        print(f"{case:24}" + "".join(f"{costs[function]:14.1f}" for function in functions.values()), flush=True)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
