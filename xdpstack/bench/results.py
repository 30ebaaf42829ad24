"""What a run finds: figures of each round, and what is told of them: median, worst and best."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


class BenchError(RuntimeError):
    """A subject, or what it is measured with, did not do what it should. The rest of a run goes on."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a figure is of: its unit, its column's title, and which of two is better (`max` or `min`)."""

    unit: str
    title: str
    better: Callable[[Iterable[float]], float]
    digits: int = 0


METRICS = {
    "pps": Metric("packets/s", "packets/s", max),
    "offered_pps": Metric("packets/s", "offered/s", max),
    "cpu_ns_per_packet": Metric("ns", "CPU ns /packet", min),
    "user_instructions_per_packet": Metric("instructions", "user instr /packet", min),
    "kernel_instructions_per_packet": Metric("instructions", "kernel instr /packet", min),
    "instructions_per_packet": Metric("instructions", "kernel+user instr /packet", min),
    "latency_us_p50": Metric("us", "p50 us", min, 1),
    "latency_us_p99": Metric("us", "p99 us", min, 1),
    "latency_us_p99_9": Metric("us", "p99.9 us", min, 1),
    "latency_us_max": Metric("us", "max us", min),
    "lost": Metric("packets", "lost", min),
    "packets_per_poll": Metric("packets", "packets /poll", max, 1),
    "packets_per_kick": Metric("packets", "packets /kick", max, 1),
    "kicks": Metric("calls", "kicks", min),
    "kicks_spared": Metric("calls", "kicks spared", max),
}


def metric(name: str) -> Metric:
    """The metric of that name. Those that are not in METRICS are drops, one for each reason."""
    return METRICS.get(name) or Metric("packets", name.removeprefix("drops_"), min)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What was measured: `frame_bytes` counts the FCS, as sizes of Ethernet frames are told."""

    case: str
    frame_bytes: int
    queues: int
    subject: str


@dataclass(frozen=True, slots=True)
class Result:
    """One line of `results` in the JSON."""

    case: str
    subject: str
    frame_bytes: int
    queues: int
    metric: str
    unit: str
    median: float
    worst: float
    best: float
    rounds: int


def summary(key: Key, rounds: list[dict[str, float]]) -> list[Result]:
    """The figures of all rounds of one subject, metric by metric."""
    names = dict.fromkeys(name for figures in rounds for name in figures)
    results = []
    for name in sorted(names, key=[*METRICS, *names].index):
        values = [figures[name] for figures in rounds if name in figures]
        known = metric(name)
        best = known.better(values)
        worst = min(values) if best == max(values) else max(values)
        middle = statistics.median(values)
        told = (middle, worst, best, len(values))
        results.append(Result(key.case, key.subject, key.frame_bytes, key.queues, name, known.unit, *told))
    return results


def percentile(ordered: list[int], share: float) -> int:
    """The smallest of the values that at least `share` (0 to 1) of them do not exceed: nearest rank."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


@dataclass(slots=True)
class Report:
    """All that a run has found. `missing` subjects are told with what installs them, `failed` ones with why."""

    environment: dict[str, Any]
    figures: dict[Key, list[dict[str, float]]] = field(default_factory=dict)
    #: Round trip times in ns, of all rounds, in ascending order.
    samples: dict[Key, list[int]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)

    def results(self) -> list[Result]:
        """What goes into the table and the JSON."""
        return [result for key, rounds in self.figures.items() for result in summary(key, rounds)]
