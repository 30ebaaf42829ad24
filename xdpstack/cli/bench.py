"""`xdpstack bench`: what this costs and carries, beside a plain ring loop, DPDK, kernel sockets and scapy, in one run."""

from __future__ import annotations

import datetime
import json
import os
import signal
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xdpstack.bench import histograms as writing
from xdpstack.bench import plots as drawing
from xdpstack.bench.cases import Setting
from xdpstack.bench.results import BenchError, Report
from xdpstack.bench.runner import Plan, run
from xdpstack.bench.subjects import CASES, SUBJECTS, USUAL
from xdpstack.bench.wire import JUMBO_BYTES

Several = tuple[str, ...]


def _power_of_two(context: click.Context, parameter: click.Parameter, value: int) -> int:
    if value & (value - 1):
        lower = 1 << (value.bit_length() - 1)
        raise click.BadParameter(f"{value} is no power of two; {lower} and {2 * lower} are.")
    return value


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(CASES))
@click.option("-i", "--interface", default="", help="Measure on this interface; without: on veth pairs of its own.")
@click.option(
    "--peer", help="The interface at the other end of the wire, to generate by; without: somebody else sends."
)
@click.option("--peer-netns", help="The network namespace that the peer is in.")
@click.option("--forward-to", help="The second interface of `forward`.")
@click.option("--forward-peer", help="The interface at the other end of that wire, where packets are counted.")
@click.option(
    "--only", multiple=True, type=click.Choice([s.name for s in SUBJECTS]), help="A subject; may be repeated."
)
@click.option(
    "--seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, 3600, min_open=True),
    help="Length of a window.",
)
@click.option(
    "--settle",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 3600),
    help="Load before a window, in seconds.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option(
    "--frame-bytes",
    multiple=True,
    type=click.IntRange(64, JUMBO_BYTES),
    help="With FCS; may be repeated. Default: 64, and for rfc2544 the sizes of that RFC.",
)
@click.option("--queues", multiple=True, type=click.IntRange(1, 64), default=(1,), show_default=True)
@click.option(
    "--ring",
    default=2048,
    show_default=True,
    type=click.IntRange(64, 32768),
    callback=_power_of_two,
    help="Slots of the rings, a power of two.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the results there.",
)
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False), help="A folder for plots, PNG and SVG.")
@click.option(
    "--histograms",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for HdrHistogram's files of round trips.",
)
@click.option("--instructions/--no-instructions", default=True, help="Count them, by callgrind where the CPU does not.")
@click.option(
    "--instruction-clock",
    is_flag=True,
    help="Count kernel and user instructions, and nothing else; in the NIC lab's guest for it (make bench-instructions).",
)
@click.option(
    "--callgrind",
    type=click.Path(path_type=Path, file_okay=False),
    help="Count instructions of rx with callgrind, and keep its files in this folder.",
)
def bench(
    cases: Several,
    interface: str,
    peer: str | None,
    peer_netns: str | None,
    forward_to: str | None,
    forward_peer: str | None,
    only: Several,
    seconds: float,
    settle: float,
    rounds: int,
    frame_bytes: tuple[int, ...],
    queues: tuple[int, ...],
    ring: int,
    json_file: Path | None,
    plots: Path | None,
    histograms: Path | None,
    instructions: bool,
    instruction_clock: bool,
    callgrind: Path | None,
) -> None:
    """Measure CASES (without any: all but rfc2544) for all subjects in turn, round after round.

    Needs root. Nothing is left behind, also when it is interrupted. Exit status 1: a subject failed.
    """
    for option, value, with_option, other in (
        ("--peer", peer, "-i", interface),
        ("--peer-netns", peer_netns, "--peer", peer),
        ("--forward-to", forward_to, "-i", interface),
        ("--forward-peer", forward_peer, "--forward-to", forward_to),
    ):
        if value and not other:
            raise click.UsageError(f"{option} says nothing without {with_option}")
    if os.geteuid():
        raise click.ClickException("XDP programs and network namespaces need root: run it with sudo")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    setting = Setting(seconds=seconds, settle=settle, ring=ring)
    near = (interface, peer, peer_netns, forward_to, forward_peer)
    counted = (instructions, callgrind, instruction_clock)
    plan = Plan(cases or USUAL, only, frame_bytes, queues, rounds, setting, *near, *counted)
    try:
        _require(json_file, plots, histograms, callgrind)
        report = _run(plan)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    _show(report)
    if json_file:
        from xdpstack.bench import as_json

        json_file.write_text(json.dumps(as_json(report), indent=2) + "\n")
    if plots:
        drawing.draw(report, plots)
    if histograms:
        writing.write(report, histograms)
    raise SystemExit(1 if report.failed else 0)


def _require(json_file: Path | None, plots: Path | None, histograms: Path | None, callgrind: Path | None) -> None:
    """What is not installed is said before the run, not after it; folders for what it finds are made. Raises BenchError."""
    if plots:
        drawing.require()
    if histograms:
        writing.require()
    for folder in (json_file and json_file.absolute().parent, plots, histograms, callgrind):
        try:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchError(f"no folder {folder} for what is found: {error.strerror}") from error


def _run(plan: Plan) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    console.print(f"takes about {datetime.timedelta(seconds=round(plan.seconds()))}, callgrind not counted")
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("building", total=plan.steps())
        return run(plan, lambda what: bar.update(task, advance=1, description=what))


def _show(report: Report) -> None:
    from xdpstack.bench.table import tables

    console = Console()
    wide = Console(width=180) if not console.is_terminal else console
    for each in tables(report):
        wide.print(each)
