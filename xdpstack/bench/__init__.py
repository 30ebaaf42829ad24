"""The benchmark harness: xdpstack beside a plain ring loop, DPDK, kernel sockets and scapy, in one run.

    from xdpstack.bench import Plan, run, as_json

    report = run(Plan(cases=("rx",), rounds=1))
    print(as_json(report)["results"])

`xdpstack bench` is this on the command line; docs/bench.md says what is measured, and how to read it. A run needs root.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from xdpstack.bench.cases import Setting
from xdpstack.bench.histograms import buckets
from xdpstack.bench.results import BenchError, Report, Result
from xdpstack.bench.runner import Plan, run
from xdpstack.bench.subjects import CASES, SUBJECTS

__all__ = ["CASES", "SUBJECTS", "BenchError", "Plan", "Report", "Result", "Setting", "as_json", "run"]


def as_json(report: Report) -> dict[str, Any]:
    """The report as one object: `environment`, with what is missing or has failed and why, and `results`.

    `histograms`, where there are round trips: all of them, in ns, as `[largest, count]` of each bucket.
    """
    failed = [
        {"case": k.case, "subject": k.subject, "frame_bytes": k.frame_bytes, "queues": k.queues, "why": w}
        for k, w in report.failed.items()
    ]
    surroundings = {**report.environment, "missing": report.missing, "failed": failed}
    told: dict[str, Any] = {"environment": surroundings, "results": [asdict(result) for result in report.results()]}
    if report.samples:
        told["histograms"] = [
            {"case": k.case, "subject": k.subject, "frame_bytes": k.frame_bytes, "queues": k.queues}
            | {"unit": "ns", "buckets": buckets(samples)}
            for k, samples in report.samples.items()
        ]
    return told
