"""Two namespaces and two veth pairs: real UDP sockets on one side, hand-made frames (and a real sender) on the other."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xdpstack.udp.options import IP_MULTICAST_ALL, IPV6_MULTICAST_ALL
from xdpstack.udp.semantics import Bound, Datagram, Family

SENDER, RECEIVER = "udp-oracle-a", "udp-oracle-b"
_LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
UDP_NO_CHECK6_RX = 102
SO_MEMINFO = 55


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Run the block's system calls in the network namespace `name`."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    target = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(target, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _LIBC.setns(before, CLONE_NEWNET)
        os.close(before)
        os.close(target)


def _run(text: str) -> None:
    for line in text.strip().splitlines():
        subprocess.run(line.split(), check=True, capture_output=True)


class Lab:
    """Device n of the receiver is `rx<n>`; its peer `tx<n>` is written to with frames. Local addresses as in strategies."""

    DEVICES = 2

    def __init__(self) -> None:
        self.close()
        _run(f"ip netns add {SENDER}\nip netns add {RECEIVER}")
        for n in range(self.DEVICES):
            _run(f"""
                ip link add tx{n} netns {SENDER} type veth peer name rx{n} netns {RECEIVER}
                ip -n {SENDER} link set tx{n} address 02:00:00:00:00:8{n} up
                ip -n {RECEIVER} link set rx{n} address 02:00:00:00:00:0{n} up
                ip -n {RECEIVER} route add 10.0.0.0/24 dev rx{n} metric {n + 1}
                ip -n {RECEIVER} -6 route add fd00::/64 dev rx{n} metric {n + 1}
                ip -n {RECEIVER} addr add 224.0.0.9/32 dev rx{n} autojoin
                ip -n {RECEIVER} addr add ff05::9/128 dev rx{n} autojoin
            """)
        for n in (1, 2):
            _run(
                f"ip -n {RECEIVER} addr add 10.0.0.{n}/32 dev lo\nip -n {RECEIVER} addr add fd00::{n}/128 dev lo nodad"
            )
        _run(f"ip -n {RECEIVER} link set lo up")
        _run(f"""
            ip -n {SENDER} addr add 10.0.0.8/24 dev tx0
            ip -n {SENDER} addr add fd00::8/64 dev tx0 nodad
            ip -n {SENDER} neigh add 10.0.0.1 dev tx0 lladdr 02:00:00:00:00:00
            ip -n {SENDER} neigh add fd00::1 dev tx0 lladdr 02:00:00:00:00:00
        """)
        with inside(RECEIVER):
            for key in ("all.rp_filter", "rx0.rp_filter", "rx1.rp_filter"):
                _run(f"sysctl -qw net.ipv4.conf.{key}=0")
        with inside(SENDER):
            self.wires = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW) for _ in range(self.DEVICES)]
            for n, wire in enumerate(self.wires):
                wire.bind((f"tx{n}", 0))
        with inside(RECEIVER):
            self.index = [socket.if_nametoindex(f"rx{n}") for n in range(self.DEVICES)]
            self.last = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.last.bind(("10.0.0.1", 9999))

    def close(self) -> None:
        for one in [*getattr(self, "wires", []), *([self.last] if hasattr(self, "last") else [])]:
            one.close()
        for name in (SENDER, RECEIVER):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def socket(self, bound: Bound) -> socket.socket:
        """The real socket that `bound` describes."""
        family = socket.AF_INET if bound.family == 4 else socket.AF_INET6
        with inside(RECEIVER):
            sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._set_up(sock, bound)
        except BaseException:
            sock.close()
            raise
        return sock

    def _set_up(self, sock: socket.socket, bound: Bound) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bound.v6only)
        if bound.no_check6_rx:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
        if bound.device is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"rx{bound.device}".encode())
        for group, device in bound.groups:
            if device is None:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=I", self.index[0]))
            else:
                mreqn = group[12:] + bytes(4) + struct.pack("=i", self.index[device])
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)
        if bound.only_joined is not None:
            sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 4 not in bound.only_joined)
            if bound.family == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 6 not in bound.only_joined)
        sock.bind((address_text(bound, bound.address), bound.port))
        if bound.peer is not None:
            if bound.reconnected:
                sock.connect((address_text(bound, bound.peer), 2000))
            sock.connect((address_text(bound, bound.peer), bound.peer_port))

    def early_demux(self, on: bool) -> None:
        """Of the receiver: net.ipv4.udp_early_demux, which is of both families."""
        with inside(RECEIVER):
            Path("/proc/sys/net/ipv4/udp_early_demux").write_text(str(int(on)))

    def sender(self, family: Family) -> socket.socket:
        """A real socket on the other side, connected to port 7 of the first local address."""
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with inside(SENDER):
            sock = socket.socket(kind, socket.SOCK_DGRAM)
        sock.connect(("10.0.0.1" if family == 4 else "fd00::1", 7))
        return sock

    def send(self, datagram: Datagram) -> None:
        self.wires[datagram.device].send(frame(datagram))

    def settle(self) -> None:
        """Returns when all that was sent before has arrived: frames of one CPU are processed in order."""
        for n in range(self.DEVICES):
            head = struct.pack(">HHHH", 9, 9999, 8, 0)
            self.send(Datagram(4, bytes(12) + bytes([10, 0, 0, 8]), bytes(12) + bytes([10, 0, 0, 1]), head, device=n))
            assert select.select([self.last], [], [], 5)[0], "the last datagram did not arrive"
            self.last.recv(1)


def address_text(bound: Bound, address: bytes) -> str:
    if bound.family == 4:
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def frame(datagram: Datagram) -> bytes:
    """A whole Ethernet frame around `datagram`."""
    mac = bytes([2, 0, 0, 0, 0, datagram.device])
    if datagram.family == 4:
        if datagram.to_many:
            mac = bytes([1, 0, 0x5E]) + bytes([datagram.destination[13] & 0x7F]) + datagram.destination[14:]
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(datagram.data), 0, 0, 64, 17, 0)
        ip += datagram.source[12:] + datagram.destination[12:]
        total = sum(struct.unpack(">10H", ip))
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        ip = ip[:10] + struct.pack(">H", 0xFFFF - total) + ip[12:]
        return mac + bytes.fromhex("0200000000990800") + ip + datagram.data
    if datagram.to_many:
        mac = bytes([0x33, 0x33]) + datagram.destination[12:]
    ip = struct.pack(">IHBB", 6 << 28, len(datagram.data), 17, 64) + datagram.source + datagram.destination
    return mac + bytes.fromhex("02000000009986dd") + ip + datagram.data
