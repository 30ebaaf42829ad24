"""`xdpstack replay`: walk a capture through a configuration, and print where each packet went and why. Without privilege."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

from xdpstack.device.memory import MemoryBackend, MemoryDevice
from xdpstack.device.memory_mirror import Given
from xdpstack.native.core import Core
from xdpstack.observe.describe import frame_line
from xdpstack.observe.trace import Walked
from xdpstack.stack import Stack


@click.command()
@click.argument("capture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", default="a0", show_default=True, help="Name of the device the frames arrive at.")
@click.option("--mac", help="Its MAC; default: the destination of the capture's first unicast frame.")
@click.option("--mtu", default=1500, show_default=True)
@click.option("--address", "addresses", multiple=True, help="An address of the device: 10.0.0.1/24. Repeat.")
@click.option(
    "--route", "routes", multiple=True, help='As "ip route" says it: "default via 10.0.0.254 dev a0". Repeat.'
)
@click.option("--neighbour", "neighbours", multiple=True, help='"10.0.0.2 dev a0 lladdr 02:00:00:00:00:02". Repeat.')
@click.option("--sysctl", "sysctls", multiple=True, help='"ipv4.conf.a0.rp_filter=1". Repeat.')
@click.option("--socket", "sockets", multiple=True, help="A UDP socket: 10.0.0.1:53, [fd00::1]:53 or :53. Repeat.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON a packet.")
def replay(
    capture: Path,
    device: str,
    mac: str | None,
    mtu: int,
    addresses: tuple[str, ...],
    routes: tuple[str, ...],
    neighbours: tuple[str, ...],
    sysctls: tuple[str, ...],
    sockets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Walk the frames of CAPTURE (pcap or pcapng) through a stack over a memory device."""
    frames = read(capture)
    own = bytes.fromhex(mac.replace(":", "")) if mac else first_unicast(frames)
    switches = {name: int(value) for name, _, value in (each.partition("=") for each in sysctls)}
    core = Core(frames=4096, manual_clock=True)
    given = Given({device: addresses}, routes, (), neighbours, switches)
    backend = MemoryBackend(core, [MemoryDevice(device, own, mtu, partial_checksums=True)], given)
    ends: Counter[str] = Counter()
    with Stack(backend, core) as stack:
        opened = [stack.udp(parse_socket(each), reserve=False) for each in sockets]
        for number, frame in enumerate(frames, 1):
            walked, refused = walk_one(stack, backend, device, frame)
            summary, end = frame_line(frame), f"not received: {os.strerror(refused)}" if refused else walked[0].end
            ends[end] += 1
            if as_json:
                click.echo(json.dumps({"packet": number, "what": summary, "walk": [w.as_json() for w in walked]}))
            else:
                way = " > ".join([step.stage for walk in walked for step in walk.steps] + [end])
                click.echo(f"{number:6}  {summary}\n        {way}")
            for sock in opened:
                sock.setblocking(False)
                drain(sock)
    if not as_json:
        for end, count in ends.most_common():
            click.echo(f"{count:6}  {end}")


def read(capture: Path) -> list[bytes]:
    """The frames of a pcap or pcapng file."""
    try:
        from scapy.error import Scapy_Exception
        from scapy.utils import RawPcapReader
    except ImportError:
        raise click.ClickException("reading captures needs scapy: pip install scapy") from None
    open_capture: Any = RawPcapReader  # its types want a name, which it would leave open when it cannot read the file
    try:
        with capture.open("rb") as file, open_capture(file) as reader:
            return [bytes(packet[0]) for packet in reader]
    except (Scapy_Exception, EOFError) as error:
        raise click.ClickException(f"{capture} is not a capture that can be read: {error}") from None


def first_unicast(frames: list[bytes]) -> bytes:
    """Whom the capture is about, as far as one can tell: the first frame's destination that is no group."""
    return next((frame[:6] for frame in frames if len(frame) >= 14 and not frame[0] & 1), b"\2\0\0\0\0\1")


def parse_socket(text: str) -> tuple[str, int]:
    """An address and a port: "10.0.0.1:53", "[fd00::1]:53", or ":53" for every address."""
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise click.ClickException(f"--socket {text}: say ADDRESS:PORT, as 10.0.0.1:53, [fd00::1]:53 or :53")
    return host.strip("[]") or "::", int(port)


def walk_one(stack: Stack, backend: MemoryBackend, device: str, frame: bytes) -> tuple[list[Walked], int]:
    """One frame through the stack: its walk, or the errno for which the device refused it."""
    stack.trace_start(1)
    if refused := backend.queues[device][0].inject_one(frame):
        return [], refused
    stack.poll()
    backend.sent(device)
    return stack.trace_read(), 0


def drain(sock: Any) -> None:
    """Nobody reads what a replay delivers."""
    try:
        while True:
            sock.recv_batch(64).release()
    except BlockingIOError:
        return
