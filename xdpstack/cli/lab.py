"""`xdpstack lab`: two network namespaces with a veth pair between them, and a shell in one. Try everything without a NIC."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import click

#: Addresses of the two ends: ours, and the peer's.
OURS = ("10.77.0.1/24", "fd77::1/64")
PEERS = ("10.77.0.2/24", "fd77::2/64")


def _ip(*words: str) -> str:
    """Run ip(8); what it prints. A failure shows its own words."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals that end a program wait until the block is done; a terminal's do not end the block's children either."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace; at the end, also when interrupted (KeyboardInterrupt), what runs in it is killed and it goes."""
    made = False
    try:
        with _uninterrupted():
            _ip("netns", "add", name)
            made = True
        _ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        if made:
            with _uninterrupted():
                for pid in _ip("netns", "pids", name).split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                _ip("netns", "delete", name)


@contextmanager
def lab(queues: int = 1) -> Iterator[tuple[str, str]]:
    """The two namespaces, wired: interface veth0 in the first, veth1 in the second. Yields their names."""
    with ExitStack() as stack:
        ours = stack.enter_context(namespace(f"xdplab-{os.getpid()}"))
        peer = stack.enter_context(namespace(f"xdplab-peer-{os.getpid()}"))
        counts = ["numrxqueues", str(queues), "numtxqueues", str(queues)]
        _ip(
            "-n", ours, "link", "add", "veth0", *counts, "type", "veth", "peer", "name", "veth1", *counts, "netns", peer
        )
        for where, interface, addresses in ((ours, "veth0", OURS), (peer, "veth1", PEERS)):
            for address in addresses:
                # nodad: an IPv6 address can be used at once, there is nobody else to ask
                _ip("-n", where, "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
            _ip("-n", where, "link", "set", interface, "up")
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
