"""Pictures of a report, as PNG and SVG: rate against frame size, round trips by percentile, cost against queues.

Needs matplotlib, which the extra `bench` installs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xdpstack.bench.peers import PLOTS
from xdpstack.bench.results import BenchError, Report, Result, percentile

SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999)


def require() -> None:
    """BenchError, with what installs it, when there is nothing to draw with: better known before a run."""
    if not PLOTS.met:
        raise BenchError(f"plots need matplotlib: {PLOTS.install}")


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw what the report has, into `folder`; the files. BenchError: matplotlib is not there."""
    require()
    made = []
    for name, figure in _figures(report):
        for ending in ("png", "svg"):
            made.append(folder / f"{name}.{ending}")
            figure.savefig(made[-1])
    return made


def _figures(report: Report) -> Iterator[tuple[str, Any]]:
    results = report.results()
    for case in dict.fromkeys(key.case for key in report.figures):
        of_case = [result for result in results if result.case == case]
        if case != "latency":
            rates = [result for result in of_case if result.metric == "pps"]
            yield f"{case}-rate", _against("frame_bytes", "frame size, bytes", rates, f"{case}: packets/s")
        costs = [result for result in of_case if result.metric == "cpu_ns_per_packet"]
        if costs:
            yield f"{case}-cost", _against("queues", "queues", costs, f"{case}: CPU ns per packet")
    if report.samples:
        yield "latency", _percentiles(report)


def _axes(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _against(what: str, label: str, results: list[Result], title: str) -> Any:
    """A line a subject, with bars from worst to best; apart by what else varies."""
    other = "queues" if what == "frame_bytes" else "frame_bytes"
    figure, axes = _axes(title)
    axes.set_xlabel(label)
    several = len({getattr(result, other) for result in results}) > 1
    lines: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        lines.setdefault((result.subject, getattr(result, other)), []).append(result)
    for (subject, value), line in lines.items():
        line.sort(key=lambda result: int(getattr(result, what)))
        lows = [result.median - min(result.worst, result.best) for result in line]
        highs = [max(result.worst, result.best) - result.median for result in line]
        name = f"{subject}, {value} {other.replace('_', ' ')}" if several else subject
        points = [getattr(result, what) for result in line], [result.median for result in line]
        axes.errorbar(*points, yerr=(lows, highs), marker="o", capsize=3, label=name)
    axes.set_xticks(sorted({getattr(result, what) for result in results}))
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _percentiles(report: Report) -> Any:
    """Each percentile that is told is one step to the right: the tail has as much room as the middle."""
    figure, axes = _axes("round trips, us")
    steps = range(len(SHARES))
    several = len({(key.frame_bytes, key.queues) for key in report.samples}) > 1
    for key, ordered in report.samples.items():
        name = f"{key.subject}, {key.frame_bytes} bytes, {key.queues} queues" if several else key.subject
        axes.plot(steps, [percentile(ordered, share) / 1000 for share in SHARES], marker="o", label=name)
    axes.set_xticks(steps, [f"{share * 100:g}" for share in SHARES])
    axes.set_xlabel("percentile")
    axes.set_yscale("log")
    axes.legend()
    return figure
