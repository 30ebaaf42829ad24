"""A whole run: all subjects in turn, round after round, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from xdpstack.bench import instruction_clock
from xdpstack.bench.callgrind import can_count, user_instructions
from xdpstack.bench.cases import Setting, measure
from xdpstack.bench.environment import environment
from xdpstack.bench.peers import build
from xdpstack.bench.results import BenchError, Key, Report
from xdpstack.bench.subjects import BY_NAME, ONE_CORE, SUBJECTS, USUAL, Subject
from xdpstack.bench.wire import JUMBO_MTU, USUAL_BYTES, USUAL_MTU, Interfaces, Wire, interfaces, veth

Progress = Callable[[str], None]
#: What it takes to start a subject, and to end it; trials of a search.
START_SECONDS, TRIALS = 1.5, 7
#: Bytes of a frame where no size is asked for; of RFC 2544, section 9.1, those of Ethernet.
SMALLEST, RFC2544 = (64,), (64, 128, 256, 512, 1024, 1280, 1518)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. No `interface`: on veth pairs of the run's own. `subjects` empty: all but those alike another.

    No `frame_bytes`: 64, and in `rfc2544` the sizes of that RFC.
    `instructions` are counted by callgrind where the CPU does not count them, each in a run of its own; `callgrind`: always,
    and into that folder. `instruction_clock`: nothing but kernel and user instructions, by a clock that counts them.
    """

    cases: tuple[str, ...] = USUAL
    subjects: tuple[str, ...] = ()
    frame_bytes: tuple[int, ...] = ()
    queues: tuple[int, ...] = (1,)
    rounds: int = 3
    setting: Setting = field(default_factory=Setting)
    interface: str = ""
    peer: str | None = None
    peer_netns: str | None = None
    forward_to: str | None = None
    forward_peer: str | None = None
    instructions: bool = True
    callgrind: Path | None = None
    instruction_clock: bool = False

    def chosen(self) -> list[Subject]:
        """The subjects, in the order of the catalogue."""
        return [s for s in SUBJECTS if (s.name in self.subjects if self.subjects else not s.alike)]

    def wanted(self) -> list[Key]:
        """What is measured in each round."""
        sizes = {case: self.frame_bytes or (RFC2544 if case == "rfc2544" else SMALLEST) for case in self.cases}
        return [
            Key(case, size, queues, subject.name)
            for case in self.cases
            for size, queues, subject in itertools.product(sizes[case], self.queues, self.chosen())
            if subject.can(case) and size <= subject.largest
        ]

    def steps(self) -> int:
        """Calls of the progress function that a run makes at most."""
        return len(self.wanted()) * (self.rounds + 1)

    def seconds(self) -> float:
        """About how long it takes: windows, and what it takes to start each; without the runs under callgrind."""
        windows = sum(TRIALS if key.case == "rfc2544" else 1 for key in self.wanted())
        return windows * self.rounds * (self.setting.seconds + self.setting.settle + START_SECONDS)


def cores() -> tuple[int, tuple[int, ...]]:
    """A core for the subject, and those for what feeds it: others, where there are others."""
    mine = sorted(os.sched_getaffinity(0))
    subject = mine[1] if len(mine) > 1 else mine[0]
    return subject, (mine[0], *(cpu for cpu in mine[2:]), *([subject] if len(mine) > 1 else []))


def wired(plan: Plan, queues: int, mtu: int) -> AbstractContextManager[Wire]:
    """What is measured on; what is there has the MTU that it has."""
    if plan.interface:
        ends = plan.interface, plan.peer, plan.peer_netns, plan.forward_to, plan.forward_peer
        return interfaces(Interfaces(*ends))
    return veth(queues, "forward" in plan.cases, mtu)


def run(plan: Plan, progress: Progress = lambda _: None) -> Report:
    """Measure. What is not installed, and what fails, is told of in the report; the rest goes on.

    Needs root. KeyboardInterrupt ends it, with nothing left behind.
    """
    subject_cpu, far_cpus = cores()
    setting = replace(plan.setting, subject_cpu=subject_cpu, far_cpus=far_cpus)
    report = Report({})
    report.missing = {subject.name: subject.missing for subject in plan.chosen() if subject.missing}
    keys = [key for key in plan.wanted() if key.subject not in report.missing]
    with tempfile.TemporaryDirectory(prefix="xdpstack-bench-") as name:
        programs = Path(name)
        build(programs)
        ns_per_instruction = instruction_clock.require(programs) if plan.instruction_clock else 0.0
        for (queues, mtu), group in _by_wire(keys):
            with wired(plan, queues, mtu) as wire:
                report.environment = report.environment or environment(wire)
                for number in range(plan.rounds):
                    for key in group:
                        progress(f"{key.case} {key.subject} {key.frame_bytes}, round {number + 1}")
                        each = replace(setting, frame_bytes=key.frame_bytes, queues=queues)
                        _one(report, key, wire, each, programs, plan.instruction_clock)
                _count(report, plan, group, wire, setting, programs, progress)
    knobs: dict[str, Any] = {**asdict(setting), "rounds": plan.rounds, "rx_ring": setting.ring}
    for varying in ("frame_bytes", "queues"):
        del knobs[varying]
    report.environment["knobs"] = knobs
    if plan.instruction_clock:
        report.environment["ns_per_instruction"] = ns_per_instruction
    return report


def _by_wire(keys: list[Key]) -> Iterator[tuple[tuple[int, int], list[Key]]]:
    """What can be measured on one wire: its queues, its MTU."""
    wires: dict[tuple[int, int], list[Key]] = {}
    for key in keys:
        mtu = USUAL_MTU if key.frame_bytes <= USUAL_BYTES else JUMBO_MTU
        wires.setdefault((key.queues, mtu), []).append(key)
    yield from wires.items()


def _one(report: Report, key: Key, wire: Wire, setting: Setting, programs: Path, instructions_only: bool) -> None:
    how = instruction_clock.count if instructions_only else None
    try:
        case, setting = on_one_core(key.case, wire, setting, instructions_only)
        found = measure(case, BY_NAME[key.subject], wire, setting, programs, how)
    except BenchError as error:
        report.failed[key] = str(error)
        return
    report.figures.setdefault(key, []).append(found.figures)
    if found.samples:
        report.samples[key] = sorted(report.samples.get(key, []) + found.samples)
    report.environment["versions"].update(found.versions)
    if found.granted:
        report.environment.setdefault("granted", {})[key.case] = found.granted["devices"]


def on_one_core(case: str, wire: Wire, setting: Setting, instructions_only: bool) -> tuple[str, Setting]:
    """The case that another is but for the cores, and those cores; any other as it is. BenchError where it means nothing."""
    if case not in ONE_CORE:
        return case, setting
    if instructions_only:
        raise BenchError(f"{case} is about time: as many instructions as in {ONE_CORE[case]}")
    if wire.far is None:
        raise BenchError("who sends is elsewhere, and has a core of its own; the other end is named with --peer")
    return ONE_CORE[case], replace(setting, far_cpus=(setting.subject_cpu,))


def _count(
    report: Report, plan: Plan, group: list[Key], wire: Wire, setting: Setting, programs: Path, progress: Progress
) -> None:
    """Where the CPU does not count instructions, callgrind does."""
    counted = report.environment["hardware_counters"] or plan.instruction_clock
    if not plan.callgrind and (counted or not plan.instructions):
        return
    for key in group:
        subject = BY_NAME[key.subject]
        if key not in report.figures or wire.far is None or not can_count(key.case, subject):
            continue
        progress(f"instructions of {key.case} {key.subject} {key.frame_bytes}")
        each = replace(setting, frame_bytes=key.frame_bytes, queues=key.queues)
        try:
            counted = user_instructions(key.case, subject, wire, each, programs, plan.callgrind)
        except BenchError as error:
            report.failed[key] = f"instructions: {error}"
            continue
        for figures in report.figures[key]:
            figures["user_instructions_per_packet"] = counted
