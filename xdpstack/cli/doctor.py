"""`xdpstack doctor`: whether a stack will run on an interface, and what will surprise its user."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xdpstack.device.doctor import Report, examine
from xdpstack.device.finding import Level
from xdpstack.device.tuning.restore import undo_leftovers

MARKS = {
    Level.OK: "[green]ok[/]",
    Level.NOTE: "[cyan]note[/]",
    Level.WARNING: "[yellow]warning[/]",
    Level.ERROR: "[bold red]error[/]",
}


@click.command()
@click.argument("interface", required=False)
@click.option("--netns", help="Network namespace: a name of `ip netns`, or a path.")
@click.option("--mode", type=click.Choice(["auto", "native", "generic"]), default="auto", show_default=True)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="UDP port that is to be claimed, to look at the firewall for."
)
@click.option("--frame-bytes", type=click.Choice(["2048", "4096"]), default="2048", show_default=True)
@click.option("--undo", is_flag=True, help="Undo what stacks that were killed have tuned: on INTERFACE, or wherever.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(
    interface: str | None, netns: str | None, mode: str, port: int | None, frame_bytes: str, undo: bool, as_json: bool
) -> None:
    """Say whether a stack will run on INTERFACE, and what mends what is wrong. Changes nothing, unless told to --undo.

    Exit status 0: it will run. 1: it will not. With --undo, 0: nothing is left to undo. 1: something could not be.
    """
    if undo:
        raise SystemExit(undo_tuning(interface, as_json))
    if interface is None:
        raise click.UsageError("Name an INTERFACE.")
    report = examine(interface, netns=netns, mode=mode, port=port, frame_bytes=int(frame_bytes))
    if as_json:
        findings = [finding.as_json() for finding in report.findings]
        click.echo(json.dumps({"interface": interface, "runs": report.runs, "findings": findings}, indent=2))
    else:
        console = Console()
        console.print(table(report))
        console.print(f"{interface}: " + ("[green]will run[/]" if report.runs else "[bold red]will not run[/]"))
    raise SystemExit(0 if report.runs else 1)


def undo_tuning(interface: str | None, as_json: bool) -> int:
    """Put back what processes that are dead have left behind, say of each setting what came of it; the exit status."""
    results = undo_leftovers(interface)
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2))
    elif not results:
        click.echo("nothing to undo" + (f" on {interface}" if interface else ""))
    for result in () if as_json else results:
        click.echo(f"{result.interface}: {result.knob}: {result.outcome}: {result.text}")
    return 1 if any(result.outcome == "failed" for result in results) else 0


def table(report: Report) -> Table:
    """The findings, each with cause and fix below it."""
    shown = Table(show_header=False, box=None, pad_edge=False)
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for finding in report.findings:
        lines = [escape(finding.what)]
        lines += [f"[dim]{escape(each)}[/]" for each in (finding.cause, finding.fix) if each]
        lines += [f"[dim]$[/] {escape(finding.command)}"] if finding.command else []
        shown.add_row(MARKS[finding.level], finding.subject, "\n".join(lines))
    return shown
