"""The report for people: a table a case, and what could not be measured, with what mends it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from xdpstack.bench.results import METRICS, Key, Report, Result, metric, summary


def tables(report: Report) -> Iterator[RenderableType]:
    """For a rich console, one after the other."""
    groups = dict.fromkeys((key.case, key.frame_bytes, key.queues) for key in report.figures)
    for case, frame_bytes, queues in groups:
        keys = [key for key in report.figures if (key.case, key.frame_bytes, key.queues) == (case, frame_bytes, queues)]
        yield _table(f"{case}, {frame_bytes} bytes, {queues} queue{'s' * (queues != 1)}", keys, report)
    for name, install in report.missing.items():
        yield f"[yellow]missing[/] {name}: [bold]{escape(install)}[/] (or, in the source tree: sudo make bench-peers)"
    for key, why in report.failed.items():
        yield f"[red]failed[/] {key.case} {key.subject}, {key.frame_bytes} bytes: {escape(why)}"


def _table(title: str, keys: list[Key], report: Report) -> Table:
    rows = {key: {result.metric: result for result in summary(key, report.figures[key])} for key in keys}
    shown = [name for name in METRICS if any(name in row for row in rows.values())]
    table = Table(title=f"{title}: median \\[worst..best]")
    table.add_column("subject")
    for name in shown:
        table.add_column(metric(name).title, justify="right")
    drops = any(name.startswith("drops_") for row in rows.values() for name in row)
    if drops:
        table.add_column("drops")
    for key, row in rows.items():
        cells = [_cell(row[name]) if name in row else "" for name in shown]
        reasons = [f"{metric(name).title} {row[name].median:.0f}" for name in row if name.startswith("drops_")]
        table.add_row(key.subject, *cells, *([", ".join(reasons)] if drops else []))
    return table


def _cell(result: Result) -> str:
    digits = metric(result.metric).digits
    values = [result.median, result.worst, result.best]
    texts = [f"{value / 1000:.0f}k" if value >= 100_000 else f"{value:.{digits}f}" for value in values]
    if result.rounds == 1 or texts[1] == texts[2]:
        return texts[0]
    return f"{texts[0]} \\[{texts[1]}..{texts[2]}]"
