"""Where is measured: a veth pair of the run's own, or interfaces that are there.

netns near: veth0  <---- wire ---->  veth1 :netns far      subject near, generator, counter and client far
netns near: veth2  <--- second --->  veth3 :netns far      for `forward`
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xdpstack.bench.results import BenchError
from xdpstack.device import ethtool
from xdpstack.errors import NamespaceError
from xdpstack.lab import ip, namespace, uninterrupted
from xdpstack.netlink import run_in

PORT = 9
NEAR, FAR = "10.88.0.1", "10.88.0.2"
#: What subjects that take whole frames are sent: nobody has it, so the kernel, which may see the frames too, is silent.
NOBODY = "10.88.0.9"
FCS_BYTES, ETHERNET_BYTES, HEADER_BYTES = 4, 14, 14 + 20 + 8
#: Of usual and of jumbo frames, and what the largest have with their FCS.
USUAL_MTU, JUMBO_MTU = 1500, 9000
USUAL_BYTES, JUMBO_BYTES = USUAL_MTU + ETHERNET_BYTES + FCS_BYTES, JUMBO_MTU + ETHERNET_BYTES + FCS_BYTES


@dataclass(frozen=True, slots=True)
class End:
    """An interface in a namespace (None: the caller's)."""

    netns: str | None
    name: str
    mac: str
    address: str
    mtu: int = USUAL_MTU
    driver: str = "veth"


@dataclass(frozen=True, slots=True)
class Wire:
    """Two ends. `far` None: what is on the other end is not ours. `second`: another wire, to forward to."""

    near: End
    far: End | None
    second: Wire | None = None

    @property
    def is_veth(self) -> bool:
        """Whether frames cross by a function call, and the receiver is run by the sender."""
        return self.far is not None and self.far.driver == self.near.driver == "veth"


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Names of interfaces that are there. `second` is where `forward` goes, by its far end packets are counted."""

    near: str
    far: str | None = None
    far_netns: str | None = None
    second: str | None = None
    second_far: str | None = None


def _end(netns: str | None, name: str, address: str = "") -> End:
    where = ["-n", netns] if netns else []
    (link,) = (each for each in json.loads(ip(*where, "-j", "address", "show", "dev", name)) if each)
    found = next((info["local"] for info in link["addr_info"] if info["family"] == "inet"), "")
    driver = run_in(netns, lambda: ethtool.driver(name))
    return End(netns, name, link["address"], address or found, link["mtu"], driver.name if driver else "")


@contextmanager
def veth(queues: int, second: bool = False, mtu: int = USUAL_MTU) -> Iterator[Wire]:
    """A veth pair between two namespaces without IPv6 chatter, and another if asked for; all of it goes at the end."""
    with ExitStack() as stack:
        near = stack.enter_context(namespace(f"bench-near-{os.getpid()}"))
        far = stack.enter_context(namespace(f"bench-far-{os.getpid()}"))
        for where in (near, far):
            run_in(where, _without_ipv6)
        like = ["mtu", str(mtu), "numrxqueues", str(queues), "numtxqueues", str(queues)]
        found = _pair(near, far, ("veth0", "veth1"), (NEAR, FAR), like)
        if second:
            other = _pair(near, far, ("veth2", "veth3"), ("10.89.0.1", "10.89.0.2"), like)
            found = Wire(found.near, found.far, other)
        yield found


def _without_ipv6() -> None:
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")


def _pair(near: str, far: str, names: tuple[str, str], addresses: tuple[str, str], like: list[str]) -> Wire:
    ip("-n", near, "link", "add", names[0], *like, "type", "veth", "peer", "name", names[1], *like, "netns", far)
    for where, name, address in zip((near, far), names, addresses, strict=True):
        ip("-n", where, "address", "add", f"{address}/24", "dev", name)
        ip("-n", where, "link", "set", name, "up")
    ends = _end(near, names[0], addresses[0]), _end(far, names[1], addresses[1])
    # A kernel sender leaves checksums to its device; behind AF_XDP there is none that would fill them in.
    ip("netns", "exec", far, "ethtool", "-K", names[1], "tx", "off")
    return Wire(*ends)


@contextmanager
def interfaces(names: Interfaces) -> Iterator[Wire]:
    """Interfaces that are there. What `introduce()` told of them goes at the end.

    BenchError if one of them has no IPv4 address.
    """
    near, far = _end(None, names.near), _end(names.far_netns, names.far) if names.far else None
    second = None
    if names.second:
        second = Wire(_end(None, names.second), _end(names.far_netns, names.second_far) if names.second_far else None)
    found = Wire(near, far, second)
    for end in (wired for wire in (found, second) if wire for wired in (wire.near, wire.far) if wired):
        if not end.address:
            raise BenchError(f"{end.name} has no IPv4 address")
    try:
        yield found
    finally:
        with uninterrupted():
            for end, address, _ in _neighbours(found):
                with suppress(NamespaceError):  # a link that went down has forgotten it
                    _ip(end, "neighbour", "delete", address, "dev", end.name)


@contextmanager
def forwarding(end: End) -> Iterator[None]:
    """The kernel forwards what comes in by that interface, as long as the block runs."""
    path = Path(f"/proc/sys/net/ipv4/conf/{end.name}/forwarding")
    before = run_in(end.netns, path.read_text)
    run_in(end.netns, lambda: path.write_text("1"))
    try:
        yield
    finally:
        with uninterrupted():
            run_in(end.netns, lambda: path.write_text(before))


def introduce(wire: Wire) -> None:
    """Tell the ends of each other, before each round: a subject that takes a link down has its kernel forget.

    So nobody asks: counters at the far end count answers only, and who takes whole frames answers no ARP.
    """
    for end, address, mac in _neighbours(wire):
        _ip(end, "neighbour", "replace", address, "lladdr", mac, "dev", end.name, "nud", "permanent")


def _neighbours(wire: Wire) -> Iterator[tuple[End, str, str]]:
    """At which end, which address has which MAC."""
    for each in (wire, wire.second):
        if each is None or each.far is None:
            continue
        yield each.near, each.far.address, each.far.mac
        yield each.far, each.near.address, each.near.mac
        if each.near.netns:
            yield each.far, NOBODY, each.near.mac


def _ip(end: End, *words: str) -> str:
    return ip(*(["-n", end.netns] if end.netns else []), *words)


def payload_bytes(frame_bytes: int) -> int:
    """Bytes of UDP payload in a frame of that size."""
    return frame_bytes - FCS_BYTES - HEADER_BYTES


def datagram(wire: Wire, frame_bytes: int, to: str) -> bytes:
    """A UDP datagram from the far end to address `to`, to the near end's MAC, in a frame of that size less its FCS."""
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
