"""What is measured: one subject, one case, one round.

rx        the generator floods; packets that the subject receives
          rx-one-core: the same with the generator on the subject's core (runner.py)
echo      the generator floods; answers that come back to it, counted by its XDP program
tx        the subject floods; what comes at the far end, counted there
forward   the generator floods one wire; what comes by the other
latency   a client in C has one datagram under way; round trips, and how long each took
rfc2544   a sender keeps a rate, the subject answers; the highest rate at which no answer is missing
"""

from __future__ import annotations

import json
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsInt

from xdpstack.bench.counting import Counted, counting
from xdpstack.bench.process import Count, running
from xdpstack.bench.results import BenchError, percentile
from xdpstack.bench.subjects import Spot, Subject
from xdpstack.bench.testpmd import Telemetry
from xdpstack.bench.wire import (
    ETHERNET_BYTES,
    FCS_BYTES,
    NOBODY,
    PORT,
    USUAL_BYTES,
    End,
    Wire,
    datagram,
    forwarding,
    introduce,
    payload_bytes,
)

#: Times of round trips that are kept, the latest of a round: 4 MiB.
SAMPLES = 1 << 20
PATIENCE_SECONDS = 10.0
STILL_SECONDS = 0.1
#: Of a search: packets that the first trial sends for each second of a window, when it ends, and slots of the sender's ring.
FIRST_TRIAL, RESOLUTION, SENDER_RING = 200_000, 1 / 64, 512
PERCENTILES = {"latency_us_p50": 0.5, "latency_us_p99": 0.99, "latency_us_p99_9": 0.999, "latency_us_max": 1.0}


@dataclass(frozen=True, slots=True)
class Setting:
    """How long, how large, and on which cores: the subject's, and those of generators and clients."""

    seconds: float = 2.0
    settle: float = 0.5
    ring: int = 2048
    frame_bytes: int = 64
    queues: int = 1
    subject_cpu: int = 1
    far_cpus: tuple[int, ...] = (0,)


@dataclass(slots=True)
class Round:
    """What one round found. `granted` is what a stack's devices were granted; `versions` those a subject told of."""

    figures: dict[str, float] = field(default_factory=dict)
    samples: list[int] = field(default_factory=list)
    granted: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Bench:
    """One subject on one wire, set up piece by piece; what was set up goes when `stack` is closed."""

    case: str
    subject: Subject
    wire: Wire
    setting: Setting
    programs: Path
    folder: Path
    stack: ExitStack
    sent: Count = field(init=False)
    seen: Count = field(init=False)
    reported: Count = field(init=False)
    spot: Spot = field(init=False)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sent, self.seen, self.reported = (Count(self.folder) for _ in range(3))
        near, far = self.wire.near, self.wire.far
        fits = near.mtu + ETHERNET_BYTES + FCS_BYTES
        if self.setting.frame_bytes > fits:
            raise BenchError(f"{near.name} has an MTU of {near.mtu}: frames of {fits} bytes at most")
        frame = self.folder / "frame"
        if far is not None:
            away = Wire(far, near)  # a NIC takes what is for its own MAC
            sent = (away, far.address) if self.case == "tx" else (self.wire, self.target)
            frame.write_bytes(datagram(sent[0], self.setting.frame_bytes, sent[1]))
        self.spot = Spot(
            interface=near.name,
            address=near.address,
            peer=far.address if far else "",
            port=PORT,
            queues=self.setting.queues,
            ring=self.setting.ring,
            frame_bytes=self.setting.frame_bytes,
            payload_bytes=payload_bytes(self.setting.frame_bytes),
            cpu=self.setting.subject_cpu,
            count=str(self.reported.path),
            frame=str(frame),
            build=str(self.programs),
            other=self.wire.second.near.name if self.wire.second and self.case == "forward" else "",
        )

    @property
    def target(self) -> str:
        """The address that datagrams go to."""
        if self.subject.routed:
            return self.second().address
        return NOBODY if self.subject.raw and self.wire.near.netns else self.wire.near.address

    def far(self) -> End:
        """The far end. BenchError if it is not ours."""
        if self.wire.far is None:
            raise BenchError("needs the other end of the wire: name it with --peer")
        return self.wire.far

    def second(self) -> End:
        """The far end of the wire to forward to. BenchError if there is none."""
        if self.wire.second is None or self.wire.second.far is None:
            raise BenchError("needs another pair of interfaces: name it with --forward-to and --forward-peer")
        return self.wire.second.far

    @property
    def is_live(self) -> bool:
        """Whether live frames are what is sent: across a veth, and of one page at most."""
        return self.wire.is_veth and self.setting.frame_bytes <= USUAL_BYTES

    def passing(self) -> None:
        """A veth hands live frames on only if there is an XDP program; some subjects have none."""
        if self.subject.kernel and self.is_live:
            self._start(self.wire.near, self.setting.subject_cpu, "pass", self.wire.near.name)

    def generate(self, answers: Count | None = None) -> None:
        """Flood from the far end: live frames, a generator a queue (veth takes that of the sender's core), or rings."""
        if self.case == "tx" or self.wire.far is None:
            return  # nobody does, or somebody else
        cpus = self.setting.far_cpus
        if not self.is_live:
            if answers:
                self.count_at(self.far(), answers)
            self.stack.enter_context(running(self.far().netns, cpus[0], self.sender(self.setting.queues, self.sent)))
            return
        for number in range(self.setting.queues):
            back = [str(answers.path)] if answers and not number else []
            words = ["send", self.far().name, self.spot.frame, str(self.sent.path), *back]
            self._start(self.far(), cpus[number % len(cpus)], *words)

    def sender(self, queues: int, sent: Count, *pace: str) -> list[str]:
        """A command that sends from the far end through AF_XDP: it takes frames of any size, and can keep a rate."""
        rings = str(self.programs / "rings")
        return [rings, "tx", self.far().name, str(queues), str(SENDER_RING), str(sent.path), self.spot.frame, *pace]

    def count_at(self, end: End, count: Count | None = None) -> None:
        """Count, and drop, what comes to an end: in `seen`, if no other count is given."""
        self._start(end, self.setting.far_cpus[0], "count", end.name, str((count or self.seen).path))

    def _start(self, end: End, cpu: int, *words: str) -> None:
        self.stack.enter_context(running(end.netns, cpu, [str(self.programs / "generator"), *words]))

    def start(self) -> tuple[int, SupportsInt]:
        """Start the subject; its process, and what counts for it."""
        words = self.subject.commands[self.case](self.spot)
        where, cpu = self.wire.near.netns, self.setting.subject_cpu
        if self.subject.routed:
            self.stack.enter_context(forwarding(self.wire.near))
        if not self.subject.telemetry:
            child = self.stack.enter_context(running(where, cpu, words))
            return child.pid, self.reported
        telemetry = Telemetry(self.folder)
        self.stack.callback(telemetry.close)
        environment = {"RUNTIME_DIRECTORY": str(self.folder)}
        child = self.stack.enter_context(running(where, cpu, words, telemetry.ready, environment))
        self.versions["dpdk"] = telemetry.version
        return child.pid, telemetry


def measure(
    case: str,
    subject: Subject,
    wire: Wire,
    setting: Setting,
    programs: Path,
    how: Callable[[Bench], Round] | None = None,
) -> Round:
    """One round. `programs` is where the peers were compiled to. BenchError when nothing can be measured.

    `how`: other than as is usual for the case.
    """
    with _bench(case, subject, wire, setting, programs) as bench:
        found = (how or {"latency": _latency, "rfc2544": _search}.get(case, _flood))(bench)
        found.versions = bench.versions
        bench.stack.close()  # a stack notes what it was granted when it ends
        _noted(Path(f"{bench.spot.count}.json"), found)
    return found


@contextmanager
def _bench(case: str, subject: Subject, wire: Wire, setting: Setting, programs: Path) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(case, subject, wire, setting, programs, Path(folder), stack)
        introduce(wire)
        yield bench


def _flood(bench: Bench) -> Round:
    """Packets per second, and what each cost; what the generator offered meanwhile, if it is ours."""
    pid, counts = started(bench)
    bench.generate(bench.seen if bench.case == "echo" else None)
    settle(counts, bench.setting)
    with counting(pid) as counted:
        before, sent_before, began = int(counts), int(bench.sent), time.monotonic()
        packets = _window(counts, before, bench.setting.seconds)
        sent, took = int(bench.sent) - sent_before, time.monotonic() - began
    figures = {"pps": packets / took}
    if sent:
        figures["offered_pps"] = sent / took
    if not bench.subject.routed:
        figures |= _costs(counted, packets)
    return Round(figures)


def started(bench: Bench) -> tuple[int, SupportsInt]:
    """The subject's process, which waits for what feeds it, and what counts the packets of the case."""
    if bench.case == "tx":
        bench.count_at(bench.far())
    elif bench.case == "forward":
        bench.count_at(bench.second())
        bench.passing()
    else:
        if bench.case == "echo":
            bench.far()
        bench.passing()
    pid, counts = bench.start()
    return pid, counts if bench.case == "rx" else bench.seen


def settle(counts: SupportsInt, setting: Setting) -> None:
    """Until the first packet has come, and then a while. BenchError when none comes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not int(counts):
        if time.monotonic() > deadline:
            raise BenchError(f"no packet came within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.01)
    time.sleep(setting.settle)


def _window(counts: SupportsInt, before: int, seconds: float) -> int:
    """Packets that have come after so many seconds; it takes longer until one has. BenchError when none comes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    time.sleep(seconds)
    while not (packets := int(counts) - before):
        if time.monotonic() > deadline:
            raise BenchError(f"no packet came within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.01)
    return packets


def _costs(counted: Counted, packets: int) -> dict[str, float]:
    """What each packet cost the subject, polls that found nothing included."""
    figures = {"cpu_ns_per_packet": counted.cpu_ns / packets}
    for which in ("user", "kernel"):
        instructions = getattr(counted, f"{which}_instructions")
        if instructions is not None:
            figures[f"{which}_instructions_per_packet"] = instructions / packets
    return figures


def _latency(bench: Bench) -> Round:
    """Round trips: how long they took, how many were lost, and what each cost the subject."""
    lost, samples = Count(bench.folder), bench.folder / "samples"
    samples.write_bytes(bytes(4 * SAMPLES))
    far = bench.far()
    pid, _ = bench.start()
    words = [str(bench.programs / "udp_client"), bench.target, str(PORT), str(bench.spot.payload_bytes)]
    words += [str(bench.seen.path), str(lost.path), str(samples)]
    bench.stack.enter_context(running(far.netns, bench.setting.far_cpus[0], words))
    settle(bench.seen, bench.setting)
    with counting(pid) as counted:
        first, lost_before, began = int(bench.seen), int(lost), time.monotonic()
        last, took = first + _window(bench.seen, first, bench.setting.seconds), time.monotonic() - began
    times = array("I", samples.read_bytes())
    first = max(first, last - SAMPLES)
    ordered = sorted(times[number % SAMPLES] for number in range(first, last))
    figures = {"pps": (last - first) / took, **_costs(counted, last - first)}
    figures |= {name: percentile(ordered, share) / 1000 for name, share in PERCENTILES.items()}
    return Round({**figures, "lost": float(int(lost) - lost_before)}, ordered)


def _search(bench: Bench) -> Round:
    """RFC 2544, section 26.1: the highest rate without a loss, found by halving; `offered_pps`: what the sender can do."""
    bench.passing()
    bench.count_at(bench.far())
    bench.start()
    seconds = bench.setting.seconds
    offered, lost = _trial(bench, 0, max(1, round(FIRST_TRIAL * seconds)))
    low, high = (0.0, offered) if lost else (offered, offered)
    while high - low > RESOLUTION * offered:
        rate = (low + high) / 2
        reached, lost = _trial(bench, round(rate), max(1, round(rate * seconds)))
        if lost:
            high = rate
        elif reached < (low + rate) / 2:  # the sender was kept from its rate: more halving would tell nothing
            low = max(low, reached)
            break
        else:
            low = min(rate, reached)
    return Round({"pps": low, "offered_pps": offered})


def _trial(bench: Bench, rate: int, total: int) -> tuple[float, int]:
    """Send `total` at `rate` (0: as fast as it goes); the rate that was reached, and how many answers were missing."""
    sent, far = Count(bench.folder), bench.far()
    before = int(bench.seen)
    with running(far.netns, bench.setting.far_cpus[0], bench.sender(1, sent, str(rate), str(total))):
        began = time.monotonic()
        deadline = began + bench.setting.seconds + PATIENCE_SECONDS
        while int(sent) < total and time.monotonic() < deadline:
            time.sleep(0.001)
        took = time.monotonic() - began
        came, seen = 0, -1
        while came != seen and came < int(sent) and time.monotonic() < deadline:  # until it stands still
            seen = came
            time.sleep(STILL_SECONDS)
            came = int(bench.seen) - before
    return int(sent) / took, int(sent) - came


def _noted(path: Path, found: Round) -> None:
    """What a stack noted when it ended: over its whole life, not the window alone."""
    if not path.exists():
        return
    noted = json.loads(path.read_text())
    found.granted = noted["info"]
    counters: dict[str, int] = noted["counters"]

    def total(ending: str) -> int:
        return sum(value for name, value in counters.items() if name.endswith(f".{ending}"))

    if counters.get("napi.rx.batches"):
        found.figures["packets_per_poll"] = counters["napi.rx.packets"] / counters["napi.rx.batches"]
    if total("kicks"):
        found.figures["kicks"] = float(total("kicks"))
        found.figures["packets_per_kick"] = counters.get("napi.tx.packets", 0) / total("kicks")
        found.figures["kicks_spared"] = float(total("kicks_spared"))
    found.figures |= {f"drops_{reason}": float(count) for reason, count in noted["reasons"].items()}
