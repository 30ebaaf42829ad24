"""What the XDP program costs per frame, by BPF_PROG_TEST_RUN: nothing is attached and no frame moves. Needs root.

    sudo .venv/bin/python benchmarks/stages/bench_xdp.py

Each line: ns per frame, median of the rounds [worst..best], among them the loop of the kernel's test run itself, which the
first line bounds: the program's own least work is reading the clock. All lines are measured in turn in each round.
"""

import socket
import statistics
import struct
from ipaddress import IPv4Address, IPv6Address

from xdpstack.device.claims import Claim, EverythingBut, LocalAddress, PrefixClaim, SocketClaim
from xdpstack.device.deadman import NEVER
from xdpstack.device.xdp import XdpProgram

ROUNDS, REPEAT = 11, 200_000
MAC = bytes.fromhex("020000000007")
ETHERNET = MAC + bytes.fromhex("020000000001")
V4, V6 = "10.0.0.2", "fd00::2"


def udp(version: int, port: int = 7, protocol: int = 17) -> bytes:
    """An Ethernet frame of 64 bytes or a little more."""
    transport = struct.pack("!HHHH", 9, port, 26, 0) + bytes(18)
    if version == 4:
        addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton(V4)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 46, 0, 0, 64, protocol, 0)
        return ETHERNET + b"\x08\x00" + header + addresses + transport
    addresses = socket.inet_pton(socket.AF_INET6, "fd00::1") + socket.inet_pton(socket.AF_INET6, V6)
    return ETHERNET + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, 26, protocol, 64) + addresses + transport


MANY = tuple(SocketClaim(address, port) for address in (V4, V6) for port in range(1000, 5000))
EXACT = (*MANY, SocketClaim(V4, 7), SocketClaim(V6, 7))
WILDCARD = (*MANY, SocketClaim(IPv4Address(0), 7), SocketClaim(IPv6Address(0), 7))
#: What is measured: claims, the frame, and whether the deadline is over.
LINES: dict[str, tuple[tuple[Claim, ...], bytes, bool]] = {
    "the deadline is over": ((), udp(4), True),
    "nothing is claimed": ((), udp(4), False),
    "sockets are claimed: TCP": (MANY, udp(4, protocol=6), False),
    "sockets are claimed: UDP to another port": (MANY, udp(4), False),
    "socket among 8,002, IPv4": (EXACT, udp(4), False),
    "socket among 8,002, IPv6": (EXACT, udp(6), False),
    "wildcard socket, IPv4": (WILDCARD, udp(4), False),
    "wildcard socket, IPv6": (WILDCARD, udp(6), False),
    "prefix": ((PrefixClaim("10.0.0.0/8"),), udp(4), False),
    "everything": ((EverythingBut(),), udp(4), False),
}


def main() -> None:
    with XdpProgram.open("lo", 1) as program, socket.socket(44, socket.SOCK_RAW) as xsk:
        xsk.setsockopt(283, 2, struct.pack("=i", 64))  # SOL_XDP, XDP_RX_RING: newer kernels ask for one
        program.set_socket(0, xsk.fileno())
        program.claims.set_mac(MAC)
        program.claims.set_local([LocalAddress(V4), LocalAddress(V6)])
        figures: dict[str, list[int]] = {line: [] for line in LINES}
        for _ in range(ROUNDS):
            for line, (claims, frame, over) in LINES.items():
                program.claims.replace(tuple(program.claims.list()), claims)
                program.deadman.deadline_ns = 0 if over else NEVER
                figures[line].append(program.test_run(frame, repeat=REPEAT).duration_ns)
    for line, values in figures.items():
        print(f"{line:42} {statistics.median(values):5.0f} ns [{max(values)}..{min(values)}]")


if __name__ == "__main__":
    main()
