"""Where is measured: a veth pair of the run's own, or interfaces that are there.

netns near: veth0  <---- wire ---->  veth1 :netns far      subject near, generator, counter and client far
netns near: veth2  <--- second --->  veth3 :netns far      for `forward`
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xdpstack.bench.results import BenchError
from xdpstack.lab import ip, namespace, uninterrupted
from xdpstack.netlink import run_in

PORT = 9
NEAR, FAR = "10.88.0.1", "10.88.0.2"
#: What subjects that take whole frames are sent: nobody has it, so the kernel, which may see the frames too, is silent.
NOBODY = "10.88.0.9"
FCS_BYTES, HEADER_BYTES = 4, 14 + 20 + 8


@dataclass(frozen=True, slots=True)
class End:
    """An interface in a namespace (None: the caller's)."""

    netns: str | None
    name: str
    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class Wire:
    """Two ends. `far` None: what is on the other end is not ours. `second`: another wire, to forward to."""

    near: End
    far: End | None
    second: Wire | None = None


def _end(netns: str | None, name: str, address: str = "") -> End:
    where = ["-n", netns] if netns else []
    (link,) = (each for each in json.loads(ip(*where, "-j", "address", "show", "dev", name)) if each)
    found = next((info["local"] for info in link["addr_info"] if info["family"] == "inet"), "")
    return End(netns, name, link["address"], address or found)


@contextmanager
def veth(queues: int, second: bool = False) -> Iterator[Wire]:
    """A veth pair between two namespaces without IPv6 chatter, and another if asked for; all of it goes at the end."""
    with ExitStack() as stack:
        near = stack.enter_context(namespace(f"bench-near-{os.getpid()}"))
        far = stack.enter_context(namespace(f"bench-far-{os.getpid()}"))
        for where in (near, far):
            run_in(where, _without_ipv6)
        found = _pair(near, far, ("veth0", "veth1"), (NEAR, FAR), queues)
        if second:
            other = _pair(near, far, ("veth2", "veth3"), ("10.89.0.1", "10.89.0.2"), queues)
            found = Wire(found.near, found.far, other)
        yield found


def _without_ipv6() -> None:
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")


def _pair(near: str, far: str, names: tuple[str, str], addresses: tuple[str, str], queues: int) -> Wire:
    counts = ["numrxqueues", str(queues), "numtxqueues", str(queues)]
    link = ["link", "add", names[0], *counts, "type", "veth", "peer", "name", names[1], *counts, "netns", far]
    ip("-n", near, *link)
    for where, name, address in zip((near, far), names, addresses, strict=True):
        ip("-n", where, "address", "add", f"{address}/24", "dev", name)
        ip("-n", where, "link", "set", name, "up")
    ends = _end(near, names[0], addresses[0]), _end(far, names[1], addresses[1])
    # Neighbours are known, nobody asks: counters on the far end count answers only, and raw subjects answer no ARP.
    neighbours = ((near, names[0], addresses[1], ends[1].mac), (far, names[1], addresses[0], ends[0].mac))
    for where, name, address, mac in (*neighbours, (far, names[1], NOBODY, ends[0].mac)):
        ip("-n", where, "neighbour", "replace", address, "lladdr", mac, "dev", name, "nud", "permanent")
    # A kernel sender leaves checksums to its device; behind AF_XDP there is none that would fill them in.
    ip("netns", "exec", far, "ethtool", "-K", names[1], "tx", "off")
    return Wire(*ends)


@contextmanager
def interfaces(near: str, far: str | None, far_netns: str | None, other: str | None) -> Iterator[Wire]:
    """Interfaces that are there. If the far one is named, both know each other as neighbours for the time of the run.

    BenchError if one of them has no IPv4 address.
    """
    found = Wire(_end(None, near), _end(far_netns, far) if far else None)
    for end in (found.near, found.far):
        if end is not None and not end.address:
            raise BenchError(f"{end.name} has no IPv4 address")
    if other:
        found = Wire(found.near, found.far, Wire(_end(None, other), found.far))
    with ExitStack() as stack:
        if found.far is not None:
            stack.enter_context(_neighbour(found.near, found.far))
            stack.enter_context(_neighbour(found.far, found.near))
        yield found


@contextmanager
def _neighbour(end: End, other: End) -> Iterator[None]:
    """Nobody has to ask: a subject that takes whole frames answers no ARP. Afterwards the kernel asks anew."""
    where = ["-n", end.netns] if end.netns else []
    entry = [other.address, "dev", end.name]
    ip(*where, "neighbour", "replace", *entry, "lladdr", other.mac, "nud", "permanent")
    try:
        yield
    finally:
        with uninterrupted():
            ip(*where, "neighbour", "delete", *entry)


def payload_bytes(frame_bytes: int) -> int:
    """Bytes of UDP payload in a frame of that size."""
    return frame_bytes - FCS_BYTES - HEADER_BYTES


def datagram(wire: Wire, frame_bytes: int, to: str) -> bytes:
    """A UDP datagram from the far end to address `to` near, in a frame of that size less its FCS."""
    assert wire.far is not None
    source = wire.far.address or FAR
    length = payload_bytes(frame_bytes) + 8
    udp = _words(1000, PORT, length, 0) + bytes(payload_bytes(frame_bytes))
    addresses = bytes(map(int, f"{source}.{to}".split(".")))
    udp = udp[:6] + (_checksum(addresses + _words(17, length) + udp) or 0xFFFF).to_bytes(2, "big") + udp[8:]
    header = _words(0x4500, 20 + length, 0, 0x4000, 64 << 8 | 17, 0) + addresses
    header = header[:10] + _checksum(header).to_bytes(2, "big") + header[12:]
    macs = bytes.fromhex((wire.near.mac + wire.far.mac).replace(":", ""))
    return macs + _words(0x0800) + header + udp


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def _checksum(data: bytes) -> int:
    """RFC 1071, over an even number of bytes or one that a zero follows."""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
