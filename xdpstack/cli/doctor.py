"""`xdpstack doctor`: whether a stack will run on an interface, and what will surprise its user."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xdpstack.device.doctor import Report, examine
from xdpstack.device.finding import Level

MARKS = {
    Level.OK: "[green]ok[/]",
    Level.NOTE: "[cyan]note[/]",
    Level.WARNING: "[yellow]warning[/]",
    Level.ERROR: "[bold red]error[/]",
}


@click.command()
@click.argument("interface")
@click.option("--netns", help="Network namespace: a name of `ip netns`, or a path.")
@click.option("--mode", type=click.Choice(["auto", "native", "generic"]), default="auto", show_default=True)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="UDP port that is to be claimed, to look at the firewall for."
)
@click.option("--frame-bytes", type=click.Choice(["2048", "4096"]), default="2048", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(interface: str, netns: str | None, mode: str, port: int | None, frame_bytes: str, as_json: bool) -> None:
    """Say whether a stack will run on INTERFACE, and what mends what is wrong. Changes nothing.

    Exit status 0: it will run. 1: it will not.
    """
    report = examine(interface, netns=netns, mode=mode, port=port, frame_bytes=int(frame_bytes))
    if as_json:
        findings = [finding.as_json() for finding in report.findings]
        click.echo(json.dumps({"interface": interface, "runs": report.runs, "findings": findings}, indent=2))
    else:
        console = Console()
        console.print(table(report))
        console.print(f"{interface}: " + ("[green]will run[/]" if report.runs else "[bold red]will not run[/]"))
    raise SystemExit(0 if report.runs else 1)


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
