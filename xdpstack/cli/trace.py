"""`xdpstack trace`: the walk of the next packets through a running stack, stage by stage."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.console import Console
from rich.tree import Tree

from xdpstack.cli import find
from xdpstack.observe.describe import frame_line
from xdpstack.observe.server import ask


@click.command()
@click.option("-n", "--packets", default=1, show_default=True, type=click.IntRange(1, 4096), help="Packets to follow.")
@click.option("--seconds", default=10.0, show_default=True, help="Wait for them no longer than this.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--row", help="Only packets that come to this row of the path, or to this hook.")
@click.option("--drop", "reason", help="Only packets that are dropped for this reason; with --row, dropped there.")
@find.option
def trace(packets: int, seconds: float, as_json: bool, row: str | None, reason: str | None, pid: int | None) -> None:
    """Follow the next N packets: every stage they pass, the edge taken, the verdict and its reason."""
    path = find.running(pid)
    try:
        ask(path, "trace_start", packets=packets, row=row, reason=reason)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    which = (f" that come to {row}" if row and not reason else "") + (f" dropped for {reason}" if reason else "")
    click.echo(f"waiting for {packets} packet{'s' if packets > 1 else ''}{which}", err=True)
    walked: list[dict[str, Any]] = []
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            walked = ask(path, "trace_read")
            if len(walked) >= packets:
                break
            time.sleep(0.05)
    finally:
        ask(path, "trace_stop")
    if as_json:
        click.echo(json.dumps(walked, indent=2))
    else:
        console = Console()
        for packet in walked:
            console.print(tree(packet))
    if len(walked) < packets:
        raise click.ClickException(f"{len(walked)} of {packets} packets came within {seconds:g} s")


def tree(packet: dict[str, Any]) -> Tree:
    """One packet's walk as a tree of one branch, with the time since it entered."""
    steps = packet["steps"]
    began = steps[0]["now_ns"] if steps else 0
    root = Tree(f"packet {packet['number']}: {frame_line(bytes.fromhex(packet['head']))}")
    for step in steps:
        late = f"+{(step['now_ns'] - began) / 1000:.1f} us"
        if step["edge"] == "DROP":
            root.add(f"[red]{step['stage']}  {late}  dropped: {step['reason']}")
        elif step["edge"] == "KEPT":
            root.add(f"[green]{step['stage']}  {late}  took it")
        else:
            root.add(f"{step['stage']}  {late}  {step['edge']} -> {step['target']}")
    return root
