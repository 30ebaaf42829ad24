"""Which running stack a command means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from xdpstack.observe import server

Command = TypeVar("Command", bound=Callable[..., Any])


def option(command: Command) -> Command:
    """The option that chooses the stack."""
    return click.option("--pid", type=int, help="Process of the stack; needed when several run.")(command)


def running(pid: int | None) -> Path:
    """The socket of the one stack meant; a clear error otherwise."""
    found = server.running()
    if pid is not None:
        found = [path for path in found if path.name.startswith(f"{pid}-")]
    if not found:
        whose = f"of process {pid} " if pid is not None else ""
        raise click.ClickException(f"no stack {whose}is running (none answers in {server.DIRECTORY})")
    if len(found) > 1:
        pids = ", ".join(path.name.partition("-")[0] for path in found)
        raise click.ClickException(f"several stacks are running: say which with --pid (one of {pids})")
    return found[0]
