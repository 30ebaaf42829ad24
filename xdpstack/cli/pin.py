"""`xdpstack pin`: attach the program for processes without the privilege to, who open it with pinned=DIRECTORY."""

from __future__ import annotations

from pathlib import Path

import click

from xdpstack.device.links import find_link
from xdpstack.device.pins import pin as pin_program
from xdpstack.device.xdp import Mode
from xdpstack.netlink import Mirror


@click.command()
@click.argument("interface")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--user", default="", help="Who may use it, a name or number; root alone if nobody is named.")
@click.option("--group", default="", help="A group whose members may.")
@click.option(
    "--mode", type=click.Choice(["auto", "native", "generic"]), default="auto", show_default=True, help="Of XDP."
)
def pin(interface: str, directory: Path, user: str, group: str, mode: Mode) -> None:
    """Attach the program to INTERFACE of this network namespace, and pin it at DIRECTORY, in a BPF file system.

    It stays until `xdpstack unpin DIRECTORY`. While no process uses it the kernel has all traffic.
    """
    with Mirror() as mirror:
        said = pin_program(find_link(mirror.snapshot, interface), directory, mode, user, group)
    click.echo(f"{directory}: program {said.program_id} on {said.interface}, in {said.mode} mode")
