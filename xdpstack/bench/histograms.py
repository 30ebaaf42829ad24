"""Round trips as HdrHistogram's text files, which its plotter and others read. Needs hdrhistogram (the extra `bench`)."""

from __future__ import annotations

from pathlib import Path

from xdpstack.bench.peers import HISTOGRAMS
from xdpstack.bench.results import BenchError, Report

LOWEST_NS, DIGITS = 1, 3
NS_PER_US = 1000.0


def require() -> None:
    """BenchError, with what installs it, when hdrhistogram is not there."""
    if not HISTOGRAMS.met:
        raise BenchError(f"histograms need hdrhistogram: {HISTOGRAMS.install}")


def write(report: Report, folder: Path) -> list[Path]:
    """A file for each subject and frame size, in us, three digits exact; the files. BenchError: see `require()`."""
    require()
    from hdrh.histogram import HdrHistogram

    made = []
    for key, ordered in report.samples.items():
        histogram = HdrHistogram(LOWEST_NS, max(ordered[-1], 2 * LOWEST_NS), DIGITS)
        for sample in ordered:
            histogram.record_value(sample)
        made.append(folder / f"latency-{key.subject}-{key.frame_bytes}-{key.queues}.hgrm")
        with made[-1].open("wb") as out:
            histogram.output_percentile_distribution(out, NS_PER_US)
    return made
