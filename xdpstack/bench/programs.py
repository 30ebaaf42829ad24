"""The subjects in Python, each run in a process of its own.

    python -m xdpstack.bench.programs NAME CASE SPOT

SPOT is xdpstack.bench.subjects.Spot as JSON. Each says "ready", and writes the number of packets it has received (sent,
where it sends) into the mapped file that SPOT names. Those with a stack leave beside it what that was granted and counted.
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xdpstack
from xdpstack.bench.process import counter
from xdpstack.bench.subjects import Spot
from xdpstack.native.core import ALWAYS_US

#: Asked for by every socket, ours and the kernel's: 2 MiB as the kernel counts.
RECEIVE_BUFFER = 1 << 20
SO_RCVBUFFORCE = 33
BURST = 256
#: Frames that are sent by one call.
TRAIN = 4096
#: Bytes of the largest frame that is asked for, and more.
LARGEST = 9216


@contextmanager
def opened(spot: Spot, **options: Any) -> Iterator[xdpstack.Stack]:
    """A stack; what it was granted and what it counted is noted when it ends."""
    names = [name for name in (spot.interface, spot.other) if name]
    if sys.argv[1] == "xdpstack-spin":
        options["spin_us"] = ALWAYS_US
    queues = list(range(spot.queues))
    with xdpstack.open(*names, queues=queues, rx_ring=spot.ring, tx_ring=spot.ring, **options) as stack:
        try:
            yield stack
        finally:
            found = {"info": stack.info(), "counters": stack.counters(), "reasons": stack.reasons()}
            Path(f"{spot.count}.json").write_text(json.dumps(found, default=str))


def stack_rx(spot: Spot) -> Iterator[int]:
    """The first stage alone: rings, descriptors, the walk; then a stage in C drops everything."""
    stage = xdpstack.load_stage(Path(spot.build) / "drop_stage.so")
    dropped = counter(spot.count)  # it counts where the harness looks
    ctypes.c_void_p.in_dll(stage.library, "dropped").value = ctypes.addressof(dropped)
    with opened(spot) as stack, stack.frames(xdpstack.SocketClaim(spot.address, spot.port)):
        stack.hook("taps.rx", stage)
        yield 0
        while True:
            stack.run(1)
            yield dropped.value


def udp_rx(spot: Spot) -> Iterator[int]:
    """The whole path to a socket, read in batches."""
    with opened(spot) as stack, stack.udp((spot.address, spot.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        yield (total := 0)
        while True:
            with sock.recv_batch(1024) as batch:
                total += len(batch)
            yield total


def udp_echo(spot: Spot) -> Iterator[int]:
    """The whole path to a socket and back, in batches."""
    with opened(spot) as stack, stack.udp((spot.address, spot.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        yield (total := 0)
        while True:
            with sock.recv_batch(BURST) as batch:
                total += sock.send_batch(batch.payloads(), batch)
            yield total


def udp_recvfrom(spot: Spot) -> Iterator[int]:
    """The whole path to a socket, a datagram at a time."""
    with opened(spot) as stack, stack.udp((spot.address, spot.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        yield (total := 0)
        while True:
            for _ in range(64):
                sock.recvfrom(LARGEST)
            total += 64
            yield total


def udp_recvfrom_echo(spot: Spot) -> Iterator[int]:
    """The whole path to a socket and back, a datagram at a time."""
    with opened(spot) as stack, stack.udp((spot.address, spot.port)) as sock:
        yield from _echo(sock)


def stack_tx(spot: Spot) -> Iterator[int]:
    """Whole frames out of one buffer."""
    frame = Path(spot.frame).read_bytes()
    with opened(spot, transmit_only=True) as stack, stack.frames() as sender:
        yield (total := 0)
        while True:
            total += sender.send_packed(frame, [len(frame)], times=TRAIN)
            yield total


def stack_forward(spot: Spot) -> Iterator[int]:
    """Frames that leave by the other device: no copy, no Python."""
    with opened(spot) as stack, stack.redirect(xdpstack.EverythingBut(any_mac=True), to=spot.other):
        yield 0
        while True:
            stack.run(0.2)
            yield stack.ledger().sent


def _echo(sock: Any) -> Iterator[int]:
    yield (total := 0)
    while True:
        data, address = sock.recvfrom(LARGEST)
        sock.sendto(data, address)
        total += 1
        yield total


@contextmanager
def kernel_socket(spot: Spot) -> Iterator[socket.socket]:
    """The kernel's socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        sock.bind((spot.address, spot.port))
        yield sock


def kernel_rx(spot: Spot) -> Iterator[int]:
    """The kernel's socket, from Python."""
    with kernel_socket(spot) as sock:
        yield (total := 0)
        while True:
            sock.recvfrom(LARGEST)
            total += 1
            yield total


def kernel_echo(spot: Spot) -> Iterator[int]:
    """The kernel's socket, from Python, and back."""
    with kernel_socket(spot) as sock:
        yield from _echo(sock)


def kernel_tx(spot: Spot) -> Iterator[int]:
    """The kernel's socket, from Python, as fast as it sends."""
    payload = bytes(spot.payload_bytes)
    with kernel_socket(spot) as sock:
        yield (total := 0)
        while True:
            sock.sendto(payload, (spot.peer, spot.port))
            total += 1
            yield total


def scapy_rx(spot: Spot) -> Iterator[int]:
    """Scapy's sniff(), packet by packet; waits a tenth of a second at most, so that it can be ended."""
    from scapy.config import conf
    from scapy.sendrecv import sniff

    total = 0

    def one(_packet: object) -> None:
        nonlocal total
        total += 1

    with conf.L2listen(iface=spot.interface) as packets:
        yield 0
        while True:
            sniff(opened_socket=packets, prn=one, store=False, count=16, timeout=0.1)
            yield total


def scapy_echo(spot: Spot) -> Iterator[int]:
    """Scapy turns addresses and ports around, and sends."""
    from scapy.config import conf
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    with conf.L2socket(iface=spot.interface) as link:
        yield (total := 0)
        while True:
            packet = link.recv()
            # It sees what it sends, too: an answer has the peer's address as its destination.
            if packet is None or UDP not in packet or packet[IP].dst == spot.peer:
                continue
            ether, ip, udp = packet[Ether], packet[IP], packet[UDP]
            ether.src, ether.dst = ether.dst, ether.src
            ip.src, ip.dst = ip.dst, ip.src
            udp.sport, udp.dport = udp.dport, udp.sport
            link.send(packet)
            total += 1
            yield total


def scapy_forward(spot: Spot) -> Iterator[int]:
    """Scapy's sniff() here, and out there; waits a tenth of a second at most, so that it can be ended."""
    from scapy.config import conf
    from scapy.packet import Packet
    from scapy.sendrecv import sniff

    total = 0

    with conf.L2listen(iface=spot.interface) as packets, conf.L2socket(iface=spot.other) as out:

        def one(packet: Packet) -> None:
            nonlocal total
            out.send(packet)
            total += 1

        yield 0
        while True:
            sniff(opened_socket=packets, prn=one, store=False, count=16, timeout=0.1)
            yield total


def scapy_tx(spot: Spot) -> Iterator[int]:
    """Scapy's sendp(), on one socket."""
    from scapy.config import conf
    from scapy.layers.l2 import Ether
    from scapy.sendrecv import sendp

    packet = Ether(Path(spot.frame).read_bytes())
    with conf.L2socket(iface=spot.interface) as link:
        yield (total := 0)
        while True:
            sendp(packet, socket=link, count=16, verbose=False)
            total += 16
            yield total


PROGRAMS = {
    ("xdpstack", "rx"): stack_rx,
    ("xdpstack", "tx"): stack_tx,
    ("xdpstack", "forward"): stack_forward,
    ("xdpstack", "echo"): udp_echo,
    ("xdpstack", "latency"): udp_recvfrom_echo,
    ("xdpstack", "rfc2544"): udp_echo,
    ("xdpstack-spin", "rx"): stack_rx,
    ("xdpstack-spin", "echo"): udp_echo,
    ("xdpstack-spin", "latency"): udp_recvfrom_echo,
    ("xdpstack-udp", "rx"): udp_rx,
    ("xdpstack-recvfrom", "rx"): udp_recvfrom,
    ("xdpstack-recvfrom", "echo"): udp_recvfrom_echo,
    ("python-socket", "rx"): kernel_rx,
    ("python-socket", "echo"): kernel_echo,
    ("python-socket", "latency"): kernel_echo,
    ("python-socket", "rfc2544"): kernel_echo,
    ("python-socket", "tx"): kernel_tx,
    ("scapy", "rx"): scapy_rx,
    ("scapy", "echo"): scapy_echo,
    ("scapy", "latency"): scapy_echo,
    ("scapy", "rfc2544"): scapy_echo,
    ("scapy", "tx"): scapy_tx,
    ("scapy", "forward"): scapy_forward,
}


def main() -> None:
    """Run one until it is ended by a signal."""
    name, case, given = sys.argv[1:]
    spot = Spot(**json.loads(given))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    count = counter(spot.count)
    with suppress(KeyboardInterrupt):
        run = PROGRAMS[name, case](spot)
        next(run)  # set up
        print("ready", flush=True)
        for total in run:
            count.value = total


if __name__ == "__main__":
    main()
