"""`xdpstack show`: the path, and a running stack's counters, drop reasons and settings."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from xdpstack.cli import find
from xdpstack.observe.server import ask, running
from xdpstack.path import ASKED_BY, PATH
from xdpstack.walk import c_stages

#: Columns of a terminal from which on the table of the path has a column for everything.
WIDE = 130


@click.group()
def show() -> None:
    """Show the path, counters, drop reasons, or what was granted."""


@show.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def path(as_json: bool) -> None:
    """The path of a packet as a table; with a stack running, its hooks and packets too."""
    counts: dict[str, int] = {}
    nodes: list[dict[str, Any]] = []
    found = running()
    if len(found) == 1:
        counts = ask(found[0], "counters")
        nodes = ask(found[0], "nodes")
    rows = path_rows(counts, nodes)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    console.print(path_table(rows, narrow=console.width < WIDE))


def path_table(rows: list[dict[str, Any]], narrow: bool) -> Table:
    """The path as a table. `narrow`: what a row does, mirrors and leads to is in one column, a line each."""
    table = Table(title="The path of a packet: down for receive, then on for transmit")
    for column in ("stage", "what it does, mirrors, next") if narrow else ("stage", "what it does", "next", "mirrors"):
        table.add_column(column, no_wrap=column in ("stage", "next"), overflow="fold")
    table.add_column("packets", justify="right")
    for row in rows:
        edges = "\n".join(f"{edge} -> {target}" for edge, target in row["edges"].items())
        cells = [row["what"], edges, row["mirrors"]]
        if narrow:
            cells = ["\n".join(filter(None, (row["what"], row["mirrors"], edges)))]
        style = None if row["present"] else "dim"
        last = row["name"] == "udp.rx"
        table.add_row(row["name"], *cells, str(row["packets"] or ""), style=style, end_section=last)
    return table


def path_rows(counts: dict[str, int], nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the path table, with the hooks of a running stack in their places."""
    present = {node["name"] for node in nodes} if nodes else set(c_stages()) - set(ASKED_BY)
    engines = {node["name"]: node.get("engine", "") for node in nodes}
    rows: list[dict[str, Any]] = []
    for row in PATH:
        for node in nodes:
            if node["row"] == row.name:
                edges = dict(zip(node["edges"], node["targets"], strict=True))
                rows.append(
                    {
                        "name": node["name"],
                        "what": f"custom stage on {row.name}",
                        "edges": edges,
                        "mirrors": "",
                        "present": True,
                        "packets": counts.get(f"{node['name']}.packets", 0),
                    }
                )
        here = row.where == "kernel" or row.name in present
        rows.append(
            {
                "name": row.name,
                "what": f"{row.what} (engine: {engines[row.name]})" if engines.get(row.name) else row.what,
                "edges": dict(row.edges),
                "mirrors": row.mirrors,
                "present": here,
                "packets": counts.get(f"{row.name}.packets", 0),
            }
        )
    return rows


@show.command()
@find.option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def counters(pid: int | None, as_json: bool) -> None:
    """Every counter of a running stack that is not zero, in the order of the path."""
    values = ask(find.running(pid), "counters")
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    _print("Counters", ordered(values))


def ordered(values: dict[str, int]) -> dict[str, int]:
    """Counters in the order of the path; what is of no row comes last."""
    order = {row.name: at for at, row in enumerate(PATH)}
    return dict(
        sorted(values.items(), key=lambda item: (order.get(".".join(item[0].split(".")[:2]), len(order)), item[0]))
    )


@show.command()
@find.option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reasons(pid: int | None, as_json: bool) -> None:
    """Why packets were dropped, and how many."""
    values = ask(find.running(pid), "reasons")
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    table = Table(title="Dropped packets by reason")
    for column in ("reason", "packets", "meaning"):
        table.add_column(column)
    for name, (count, meaning) in sorted(values.items(), key=lambda item: -item[1][0]):
        table.add_row(name, str(count), meaning)
    Console().print(table if values else "no packet was dropped")


@show.command()
@find.option
def info(pid: int | None) -> None:
    """What was asked for and what was granted; where every frame and packet is."""
    click.echo(json.dumps(ask(find.running(pid), "info"), indent=2))


def _print(title: str, values: dict[str, int]) -> None:
    table = Table(title=title)
    table.add_column("counter")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, str(value))
    Console().print(table if values else "nothing counted yet")
