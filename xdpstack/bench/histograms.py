"""Round trips in the buckets of an HdrHistogram, for the JSON, and as its text files, which its plotter and others read.

The files need hdrhistogram (the extra `bench`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from xdpstack.bench.peers import HISTOGRAMS
from xdpstack.bench.results import BenchError, Report

LOWEST_NS, DIGITS = 1, 3
#: Values that a bucket of each power of two tells apart, in bits: what three digits take.
EXACT_BITS = 11
NS_PER_US = 1000.0


def buckets(samples: Iterable[int]) -> list[tuple[int, int]]:
    """In ascending order, the largest value that a bucket is for, and how many there are in it; three digits are exact."""
    return sorted(Counter(map(_largest_alike, samples)).items())


def _largest_alike(value: int) -> int:
    return value | (1 << max(0, value.bit_length() - EXACT_BITS)) - 1


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
