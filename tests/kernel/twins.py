"""Two hosts that are alike: on one Linux' own sockets, on the other a stack's. The same frames go to both.

    wires w0, w1 (AF_PACKET) ----veth---- d0, d1  of `linux`   kernel sockets
    wires w2, w3             ----veth---- d0, d1  of `ours`    XDP program, stack over both devices, shadow sockets

Names, interface indices, MACs, addresses, routes and switches are the same, so that whatever differs in what their sockets
get is a difference between Linux and us; by which way a datagram came, lifted or by the shadow, makes none.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.paths.world import SMALL
from tests.stages.packets import ethernet, ipv4
from xdpstack import open as open_stack
from xdpstack.stack import Stack
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.wait import PATIENCE
from xdpstack.udp.address import is_scoped, packed

SOL, IP6 = socket.SOL_SOCKET, socket.IPPROTO_IPV6
UDP_NO_CHECK6_RX = 102
DEVICES = ("d0", "d1")
MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x11")
FIRST_INDEX = 10
ADDRESSES = {
    "d0": ("10.0.0.2/24 broadcast 10.0.0.255", "10.0.0.3/24", "fd00::2/64", "fd00::3/64", "fe80::2/64"),
    "d1": ("10.0.1.2/24 broadcast 10.0.1.255", "fd00:1::2/64", "fe80::2/64"),
    "lo": ("10.9.9.9/32", "fd09::9/128"),
}
GROUPS = {"d0": ("224.0.0.9", "239.1.2.3", "ff05::9", "ff02::9"), "d1": ("224.0.0.9", "ff05::9")}
#: Where what is sent last arrives: then everything before it has.
LAST = ("10.9.9.9", 9999)
SWITCHES = ("rp_filter", "accept_local", "accept_source_route", "drop_unicast_in_l2_multicast", "route_localnet")


@dataclass(frozen=True)
class Wanted:
    """A socket to make on both hosts; `options` (level, name, value) are set once it is bound."""

    family: int
    address: tuple[Any, ...]
    device: str | None = None
    v6only: bool = False
    reuse: bool = True
    no_check6_rx: bool = False
    peer: tuple[Any, ...] | None = None
    options: tuple[tuple[int, int, Any], ...] = ()
    broadcast: bool = True


class Host:
    """One of the twins: its namespace, and the wires into its devices."""

    def __init__(self, label: str) -> None:
        self.netns = Namespace(label)
        self.far = Namespace(f"{label}-far")
        self.netns.without_dad()
        # with it, what comes to a connected socket is not judged by rp_filter once something has come; not so with us
        self.netns.sysctl(net__ipv4__udp_early_demux=0)
        for at, device in enumerate(DEVICES):
            index = FIRST_INDEX + at
            self.netns.ip(f"link add {device} index {index} type veth peer name w{at} netns {self.far}")
            self.netns.ip(f"link set {device} address {MACS[at].hex(':')}", f"link set {device} addrgenmode none")
            self.far.without_ipv6()
            self.far.ip(f"link set w{at} up")
            self.netns.ip(f"link set {device} up")
        for device, addresses in ADDRESSES.items():
            self.netns.ip(*(f"address add {a} dev {device}{' nodad' if ':' in a else ''}" for a in addresses))
        for device, groups in GROUPS.items():
            self.netns.ip(
                *(f"address add {g}/{128 if ':' in g else 32} dev {device} autojoin" for g in groups),
            )
        self.netns.ip("route add default via 10.0.0.1", "route add default via fd00::1")
        self.wires = self.far.call(lambda: [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in DEVICES])
        for at, wire in enumerate(self.wires):
            wire.bind((f"w{at}", 0))

    def send(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """(device, frame) each; then the last one, by each device."""
        for device, frame in frames:
            self.wires[device].send(frame)
        for device in range(len(DEVICES)):
            self.wires[device].send(last(device))

    def snmp(self) -> Counter[str]:
        """The counters of IP and UDP of both families: "Udp.InErrors", "Ip6.InHdrErrors"."""

        def read() -> dict[str, int]:
            found: dict[str, int] = {}
            lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
            for names, values in zip(lines[::2], lines[1::2], strict=True):
                found |= {f"{names[0][:-1]}.{n}": int(v) for n, v in zip(names[1:], values[1:], strict=True)}
            for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines():
                name, value = line.split()
                layer = next((each for each in ("Udp6", "Ip6") if name.startswith(each)), "")
                found[f"{layer}.{name[len(layer) :]}"] = int(value)
            return found

        return Counter(self.netns.call(read))

    def close(self) -> None:
        for wire in self.wires:
            wire.close()
        self.far.delete()
        self.netns.delete()


def last(device: int) -> bytes:
    """A datagram to LAST."""
    payload = struct.pack(">HHHH", 9, LAST[1], 8, 0)
    src = bytes([10, 0, device, 1])
    return ethernet(ipv4(payload, src=src, dst=bytes([10, 9, 9, 9])), dst=MACS[device])


class Twins:
    """Both hosts. `opened()` makes sockets; `same()` sends and compares."""

    def __init__(self) -> None:
        self.linux, self.ours = Host("linux"), Host("ours")

    def close(self) -> None:
        self.linux.close()
        self.ours.close()

    def switches(self, values: dict[str, dict[str, int]]) -> None:
        """Switches by "ipv4 all", then name: on both hosts."""
        for where, switches in values.items():
            family, device = where.split()
            for host in (self.linux, self.ours):
                host.netns.sysctl(**{f"net__{family}__conf__{device}__{name}": v for name, v in switches.items()})

    @contextmanager
    def opened(self, devices: Sequence[str] = DEVICES, mode: Any = "native") -> Iterator[Stack]:
        """A stack over `devices` of our twin."""
        with open_stack(*devices, netns=self.ours.netns.name, mode=mode, **SMALL) as stack:
            yield stack

    @contextmanager
    def sockets(
        self, stack: Stack, wanted: Sequence[Wanted], later: Sequence[tuple[int, tuple[Any, ...]]] = ()
    ) -> Iterator[tuple[list[Any], list[Any]]]:
        """Kernel sockets and ours, pair by pair. AssertionError where one is refused that the other is not.

        When all are there, those of `later` (number, address) are connected, one after the other.
        """
        theirs: list[Any] = [kernel_socket(self.linux.netns, Wanted(4, LAST))]
        mine: list[Any] = [our_socket(stack, Wanted(4, LAST))]
        places: dict[int, list[Any]] = {}
        try:
            for at, one in enumerate(wanted):
                if device_of(one) not in (None, *(device.name for device in stack.devices)):
                    continue  # refused with a ConfigurationError: docs/sockets.md
                made = [
                    attempt(kernel_socket, self.linux.netns, one),
                    attempt(our_socket, stack, one),
                ]
                for sock, to in zip(made, (theirs, mine), strict=True):
                    if not isinstance(sock, str):
                        to.append(sock)
                assert len(theirs) == len(mine), f"{one}: Linux {made[0]}, ours {made[1]}"
                if isinstance(made[0], str):
                    continue
                for option in one.options:
                    told = [attempt(sock.setsockopt, *option) for sock in made]
                    assert told[0] == told[1], f"{one}: {option}: Linux {told[0]}, ours {told[1]}"
                places[at] = made
                if one.peer:
                    connect(made, one, one.peer)
            for at, peer in later:
                if at in places:
                    connect(places[at], wanted[at], peer)
            yield theirs, mine
        finally:
            for sock in [*theirs, *mine]:
                sock.close()

    def differences(
        self, pair: tuple[list[Any], list[Any]], frames: Sequence[tuple[int, bytes]]
    ) -> list[tuple[int, list[Any], list[Any]]]:
        """(number of the pair of sockets, what each got, sorted), where it differs."""
        theirs, mine = pair
        self.linux.send(frames)
        self.ours.send(frames)
        for first in (theirs[0], mine[0]):
            first.settimeout(PATIENCE)
            for _ in DEVICES:
                first.recv(1)
            first.setblocking(False)
        got = [[sorted(drained(sock)) for sock in side[1:]] for side in (theirs, mine)]
        return [(at, a, b) for at, (a, b) in enumerate(zip(*got, strict=True)) if a != b]


def device_of(one: Wanted) -> str | None:
    """The device that a socket is bound to by its address or by its name."""
    scope = one.address[3] if one.family == 6 and is_scoped(packed(one.address, 6)) else 0
    return DEVICES[scope - FIRST_INDEX] if scope else one.device


def connect(pair: Sequence[Any], one: Wanted, peer: tuple[Any, ...]) -> None:
    """Connect a kernel socket and ours. AssertionError where that ends differently."""
    told = [(attempt(sock.connect, peer), attempt(sock.getsockname), attempt(sock.getpeername)) for sock in pair]
    assert told[0] == told[1], f"{one}: connect({peer}): Linux {told[0]}, ours {told[1]}"


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or the name of its errno."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))


def drained(sock: Any) -> list[tuple[bytes, Any]]:
    """Everything that a socket has; of ours, also what its shadow still has."""
    found, empty = [], 0
    while empty < 2:
        try:
            found.append(sock.recvfrom(65536))
        except BlockingIOError:
            empty += 1
    return found


def kernel_socket(netns: Namespace, one: Wanted) -> socket.socket:
    kind = socket.AF_INET if one.family == 4 else socket.AF_INET6
    sock = netns.call(lambda: socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
    try:
        sock.setsockopt(SOL, socket.SO_REUSEADDR, one.reuse)
        sock.setsockopt(SOL, socket.SO_BROADCAST, one.broadcast)
        if one.family == 6:
            sock.setsockopt(IP6, socket.IPV6_V6ONLY, one.v6only)
        if one.device:
            sock.setsockopt(SOL, socket.SO_BINDTODEVICE, one.device.encode())
        if one.no_check6_rx:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
        sock.bind(one.address)
    except BaseException:
        sock.close()
        raise
    return sock


def our_socket(stack: Stack, one: Wanted) -> Any:
    sock = stack.udp(
        one.address,
        family=socket.AF_INET if one.family == 4 else socket.AF_INET6,
        device=one.device,
        v6only=one.v6only,
        reuse_address=one.reuse,
        broadcast=one.broadcast,
    )
    sock.setblocking(False)
    if one.no_check6_rx:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
    return sock


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """What is sent on one CPU arrives in order."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
