"""The harness measures each case on a real wire and leaves nothing behind: tiny windows, few subjects."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xdpstack.bench import BenchError, Plan, Setting, as_json, run, subjects
from xdpstack.bench.peers import Need
from xdpstack.bench.subjects import USUAL
from xdpstack.testing.wait import until

TINY = Setting(seconds=0.1, settle=0.05, ring=512)
FIELDS = {"case", "subject", "frame_bytes", "queues", "metric", "unit", "median", "worst", "best", "rounds"}
LATENCIES = {"latency_us_p50", "latency_us_p99", "latency_us_p99_9", "latency_us_max", "lost"}


Sizes = tuple[int, ...]


def plan(cases: tuple[str, ...], *names: str, frame_bytes: Sizes = (64,), queues: Sizes = (1,)) -> Plan:
    return Plan(cases, names, frame_bytes, queues, rounds=1, setting=TINY, instructions=False)


@pytest.fixture(scope="module")
def measured() -> Any:
    """The JSON of a run of the usual cases."""
    return json.loads(json.dumps(as_json(run(plan(USUAL, "xdpstack", "rings", "kernel-udp-c", "kernel-routing")))))


@pytest.mark.root
@pytest.mark.parametrize("case", USUAL)
def test_each_case_is_measured(measured: Any, case: str) -> None:
    assert [failed for failed in measured["environment"]["failed"] if failed["case"] == case] == []
    results = [result for result in measured["results"] if result["case"] == case]
    names = {"xdpstack", "rings"} | ({"kernel-udp-c"} if case != "forward" else set())
    kernel = {"kernel-routing"} if case == "forward" else set()
    assert {result["subject"] for result in results} == names | kernel
    metrics = {"pps", "cpu_ns_per_packet"} | (LATENCIES if case == "latency" else set())
    metrics |= {"offered_pps"} if case in ("rx", "rx-one-core", "echo", "forward") else set()
    for name in names:
        assert metrics <= {result["metric"] for result in results if result["subject"] == name}
    for result in results:
        assert set(result) == FIELDS
        assert (result["frame_bytes"], result["queues"], result["rounds"]) == (64, 1, 1)
    assert all(result["median"] > 0 for result in results if result["metric"] == "pps")
    granted = measured["environment"]["granted"][case][0]
    mode = "transmit only" if case == "tx" else "native"
    assert (granted["name"], granted["mode"], granted["zero_copy"]) == ("veth0", mode, False)


@pytest.mark.root
def test_a_rate_without_loss_is_searched_for() -> None:
    report = run(plan(("rfc2544",), "rings"))
    assert report.failed == {}
    ((found,),) = report.figures.values()
    assert 0 <= found["pps"] <= found["offered_pps"]  # 0: some packet was lost at every rate
    assert found["offered_pps"] > 0


@pytest.mark.root
def test_the_environment_is_told(measured: Any) -> None:
    told = measured["environment"]
    assert (told["nic"], told["driver"], told["kernel"]) == ("veth0", "veth", os.uname().release)
    assert (told["knobs"]["ring"], told["knobs"]["rounds"], told["missing"]) == (512, 1, {})


@pytest.mark.root
def test_frame_sizes_and_queues_are_measured_apart() -> None:
    report = run(plan(("rx",), "rings", frame_bytes=(64, 1518), queues=(1, 2)))
    assert report.failed == {}
    assert {(key.frame_bytes, key.queues) for key in report.figures} == {(64, 1), (1518, 1), (64, 2), (1518, 2)}


@pytest.mark.root
def test_jumbo_frames_are_measured() -> None:
    subjects = "xdpstack", "rings", "kernel-udp-c", "kernel-routing"
    report = run(plan(("rx", "forward", "echo"), *subjects, frame_bytes=(9018,), queues=(2,)))
    assert report.failed == {}
    assert len(report.figures) == 3 + 3 + 3
    assert all(found["pps"] > 0 for (found,) in report.figures.values())


@pytest.mark.root
def test_instructions_are_counted_by_callgrind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)  # a sanitizer's library: valgrind runs no program that has one
    counted = replace(plan(("rx", "tx", "forward"), "rings"), instructions=True, callgrind=tmp_path)
    report = run(counted)
    assert report.failed == {}
    assert all(0 < found["user_instructions_per_packet"] < 1000 for (found,) in report.figures.values())
    assert {path.name for path in tmp_path.iterdir()} == {f"callgrind.{case}.rings" for case in counted.cases}


@pytest.mark.root
def test_an_instruction_clock_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts time, or instructions of several CPUs, is refused before anything is measured."""
    counted = replace(plan(("rx",), "rings"), instruction_clock=True)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(BenchError, match="one CPU is needed"):
        run(counted)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("xdpstack.bench.instruction_clock.LEAST", 1000.0)
    with pytest.raises(BenchError, match="ns for an instruction, not one"):
        run(counted)


@pytest.mark.root
def test_by_an_instruction_clock_nothing_else_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that counts time: what is shown is that packets and the subject's CPU time are of the same window."""
    monkeypatch.setattr("xdpstack.bench.instruction_clock.require", lambda _: 1.0)
    cases = ("rx", "tx", "forward", "echo")
    report = run(replace(plan((*cases, "latency"), "rings", "xdpstack"), instruction_clock=True))
    assert {(key.case, why.split(":")[0]) for key, why in report.failed.items()} == {
        ("latency", "latency is about time")
    }
    assert {(key.case, key.subject) for key in report.figures} == {(c, s) for c in cases for s in ("rings", "xdpstack")}
    for (found,) in report.figures.values():
        assert 0 < found["instructions_per_packet"] < 100_000
        assert not {"pps", "offered_pps", "cpu_ns_per_packet"} & set(found)
    assert report.environment["ns_per_instruction"] == 1.0


@pytest.mark.root
@pytest.mark.parametrize("queues", [1, 2])
@pytest.mark.parametrize("name", ["testpmd-af_xdp", "testpmd-af_packet"])
def test_testpmd_is_measured(name: str, queues: int) -> None:
    report = run(plan(("rx", "forward"), name, "kernel-routing", queues=(queues,)))
    assert report.failed == {}
    assert len(report.figures) == 3
    assert report.environment["versions"]["dpdk"]


@pytest.mark.root
def test_what_is_not_there_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = subjects.Subject("scapy", {}, (Need("pip install it", module="no_such_module"),))
    monkeypatch.setattr("xdpstack.bench.runner.SUBJECTS", (absent,))
    assert as_json(run(plan(("rx",), "scapy")))["environment"]["missing"] == {"scapy": "pip install it"}


@pytest.mark.root
def test_what_fails_is_told_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = subjects.Subject("scapy", {"rx": lambda _: ["sh", "-c", "echo no luck >&2; exit 3"]})
    monkeypatch.setitem(subjects.BY_NAME, "scapy", broken)
    report = run(plan(("rx",), "scapy", "rings"))
    assert [key.subject for key in report.figures] == ["rings"]
    ((key, why),) = report.failed.items()
    assert (key.subject, why) == ("scapy", "sh ended by itself with status 3: no luck: ended before it was ready")


@pytest.mark.root
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "xdpstack", "bench", "rx", "--only", "rings", "--seconds", "60", "--no-instructions"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    child = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    names = [f"bench-near-{child.pid}", f"bench-far-{child.pid}"]
    sending = ["ip", "netns", "pids", names[1]]

    def pids() -> list[str]:
        return subprocess.run(sending, capture_output=True, text=True, check=False).stdout.split()

    until(lambda: bool(pids()), seconds=30, message="the generator does not run")
    generators = pids()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=20)
    assert child.returncode != 0
    assert not any(Path("/run/netns", name).exists() for name in names)
    assert not any(Path("/proc", pid).exists() for pid in generators)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_interfaces_that_are_there_are_left_as_they_were() -> None:
    """Both ends, and a second pair to forward to; the kernel forwards while it is measured."""
    second = """
        ip link add veth2 type veth peer name veth3 netns $XDPSTACK_LAB_PEER
        ip address add 10.99.0.1/24 dev veth2 && ip link set veth2 up
        ip -n $XDPSTACK_LAB_PEER address add 10.99.0.2/24 dev veth3 && ip -n $XDPSTACK_LAB_PEER link set veth3 up
    """
    ends = ["-i", "veth0", "--peer", "veth1", "--forward-to", "veth2", "--forward-peer", "veth3"]
    tiny = ["--no-instructions", "--seconds", "0.1", "--settle", "0", "--rounds", "1"]
    words = [sys.executable, "-m", "xdpstack", "bench", "echo", "forward", *ends, *tiny]
    words += ["--only", "rings", "--only", "kernel-routing", "--peer-netns", "$XDPSTACK_LAB_PEER"]
    after = "ip -o neigh && ip -o link && cat /proc/sys/net/ipv4/conf/veth0/forwarding"
    lab = [sys.executable, "-m", "xdpstack", "lab", "--", "sh", "-ec", f"{second}\n{' '.join(words)} && {after}"]
    done = subprocess.run(lab, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(words in done.stdout for words in ("echo, 64 bytes", "forward, 64 bytes", "kernel-routing"))
    assert "PERMANENT" not in done.stdout
    assert "prog/xdp" not in done.stdout
    assert done.stdout.endswith("\n0\n"), "the kernel forwards still"
