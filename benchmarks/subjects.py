"""The Python subjects of benchmarks/receive.py: subjects.py KIND INTERFACE RING COUNTFILE. Each says "ready" and counts.

`napi` wants the stage of benchmarks/drop.c too, built, as a fifth word.
"""

import ctypes
import mmap
import os
import socket
import struct
import sys
from collections.abc import Iterator

import xdpstack

PORT = 9
ADDRESS = "10.88.0.1"
#: Asked for by every socket, ours and the kernel's: 2 MiB as the kernel counts.
RECEIVE_BUFFER = 1 << 20
SO_RCVBUFFORCE = 33


def napi(interface: str, ring: int, drop: str) -> Iterator[int]:
    """The first stage alone: rings, descriptors, the walk; then a stage in C drops everything."""
    stage = xdpstack.load_stage(drop)
    dropped = ctypes.c_uint64.in_dll(stage.library, "dropped")
    claim = xdpstack.SocketClaim(ADDRESS, PORT)
    with xdpstack.open(interface, rx_ring=ring) as stack, stack.frames(claim):
        stack.hook("taps.rx", stage)
        yield 0
        while True:
            stack.run(0.02)
            yield dropped.value


def udp(interface: str, ring: int) -> Iterator[int]:
    """The whole path to a socket, read in batches."""
    with xdpstack.open(interface, rx_ring=ring) as stack, stack.udp((ADDRESS, PORT)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        yield (total := 0)
        while True:
            with sock.recv_batch(1024) as batch:
                total += len(batch)
            yield total


def recvfrom(interface: str, ring: int) -> Iterator[int]:
    """The whole path to a socket, a datagram at a time."""
    with xdpstack.open(interface, rx_ring=ring) as stack, stack.udp((ADDRESS, PORT)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        yield (total := 0)
        while True:
            for _ in range(64):
                sock.recvfrom(2048)
            total += 64
            yield total


def kernel(interface: str, ring: int) -> Iterator[int]:
    """The kernel's socket, from Python."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        sock.bind((ADDRESS, PORT))
        yield (total := 0)
        while True:
            for _ in range(64):
                sock.recvfrom(2048)
            total += 64
            yield total


def main() -> None:
    kind, interface, ring, path, *more = sys.argv[1:]
    descriptor = os.open(path, os.O_RDWR)
    count = mmap.mmap(descriptor, 8)
    run = {"napi": napi, "udp": udp, "recvfrom": recvfrom, "kernel": kernel}[kind](interface, int(ring), *more)
    next(run)  # set up
    print("ready", flush=True)
    for total in run:
        struct.pack_into("Q", count, 0, total)


if __name__ == "__main__":
    main()
