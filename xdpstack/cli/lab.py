"""`xdpstack lab`: two network namespaces with a veth pair between them, and a shell in one. Try everything without a NIC."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click

from xdpstack.lab import ip, namespace

#: Addresses of the two ends: ours, and the peer's.
OURS = ("10.77.0.1/24", "fd77::1/64")
PEERS = ("10.77.0.2/24", "fd77::2/64")


@contextmanager
def lab(queues: int = 1) -> Iterator[tuple[str, str]]:
    """The two namespaces, wired: interface veth0 in the first, veth1 in the second. Yields their names."""
    with ExitStack() as stack:
        ours = stack.enter_context(namespace(f"xdplab-{os.getpid()}"))
        peer = stack.enter_context(namespace(f"xdplab-peer-{os.getpid()}"))
        counts = ["numrxqueues", str(queues), "numtxqueues", str(queues)]
        ip("-n", ours, "link", "add", "veth0", *counts, "type", "veth", "peer", "name", "veth1", *counts, "netns", peer)
        for where, interface, addresses in ((ours, "veth0", OURS), (peer, "veth1", PEERS)):
            for address in addresses:
                # nodad: an IPv6 address can be used at once, there is nobody else to ask
                ip("-n", where, "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
            ip("-n", where, "link", "set", interface, "up")
        yield ours, peer


@click.command(name="lab", context_settings={"ignore_unknown_options": True})
@click.option("--queues", default=1, show_default=True, help="Queues of the veth pair.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def lab_command(queues: int, command: tuple[str, ...]) -> None:
    """Open a shell (or run COMMAND) beside a veth pair; the other end is a namespace of its own."""
    if os.geteuid():
        raise click.ClickException("making network namespaces needs root: run it with sudo")
    for number in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed
        signal.signal(number, signal.default_int_handler)
    with lab(queues) as (ours, peer):
        click.echo(
            f"veth0 here has {' and '.join(OURS)}; the peer is {' and '.join(PEERS)}.\n"
            f"Run something at the peer:  ip netns exec {peer} ping {OURS[0].partition('/')[0]}\n"
            "Serve on AF_XDP here:       python examples/udp_echo.py veth0 7\n"
            "Both namespaces go when this shell ends."
        )
        words = list(command) or [os.environ.get("SHELL", "/bin/sh")]
        environment = {**os.environ, "XDPSTACK_LAB_PEER": peer}
        done = subprocess.run(["ip", "netns", "exec", ours, *words], env=environment, check=False)
    raise SystemExit(done.returncode)
