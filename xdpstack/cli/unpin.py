"""`xdpstack unpin`: detach what `xdpstack pin` has attached."""

from __future__ import annotations

from pathlib import Path

import click

from xdpstack.device.pins import unpin as unpin_program


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def unpin(directory: Path) -> None:
    """Detach the program that is pinned at DIRECTORY, and remove the directory. Not while a process uses it."""
    unpin_program(directory)
