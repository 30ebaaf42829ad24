"""`xdpstack broker`: attach programs and make sockets for clients without privileges, within a policy."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import click

from xdpstack.device.broker.policy import load
from xdpstack.device.broker.server import SOCKET, Broker


@click.command()
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="/etc/xdpstack/broker.toml",
    show_default=True,
    help="Who may have what; see docs/broker.md.",
)
@click.option("--socket", "path", type=click.Path(path_type=Path), default=SOCKET, show_default=True)
def broker(policy: Path, path: Path) -> None:
    """Serve clients that open stacks with broker=PATH, in this network namespace, until interrupted.

    When a client ends, or this does, the kernel has its traffic back.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with Broker(load(policy), path) as serving:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: serving.stop())
        click.echo(f"listening at {path}")
        serving.run()
