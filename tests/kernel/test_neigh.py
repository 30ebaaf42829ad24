"""neigh.tx against Linux: how many datagrams wait for a neighbour that nobody has resolved yet, and which of them leave.

The same datagrams go through a kernel socket over a veth pair and through a stack over a memory device. Nobody answers; then
the neighbour is given by hand, and what had waited leaves.
"""

import socket
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdpstack.netlink import Mirror, Snapshot
from xdpstack.routing.native import NativeRouting, device_flags
from xdpstack.routing.tables import compile_device
from xdpstack.stages.neigh import Neigh
from xdpstack.testing import memory_stack
from xdpstack.testing.memory_walk import MemoryWalk, TestDevice
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import make_veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root

PORT = 7
SO_SNDBUFFORCE = 32
COUNT = 400
TO_ALL = b"\xff" * 6
PEERS = {socket.AF_INET: ("10.0.0.1/24", "10.0.0.9"), socket.AF_INET6: ("fd00::1/64", "fd00::9")}


def payloads(size: int) -> list[bytes]:
    return [number.to_bytes(2, "big") + bytes(size - 2) for number in range(COUNT)]


def numbers(frames: list[bytes], family: socket.AddressFamily) -> list[int]:
    """The numbers of our datagrams among `frames`, in order."""
    at = 14 + (20 if family == socket.AF_INET else 40)
    proto = 14 + (9 if family == socket.AF_INET else 6)
    ours = [f for f in frames if len(f) >= at + 10 and f[proto] == 17 and f[at + 2 : at + 4] == PORT.to_bytes(2, "big")]
    return [int.from_bytes(frame[at + 8 : at + 10], "big") for frame in ours]


def through_linux(family: socket.AddressFamily, size: int) -> list[int]:
    near, far = Namespace("neigh-near"), Namespace("neigh-far")
    own, peer = PEERS[family]
    try:
        pair = make_veth(near, far, near=[own], far=[], ipv6="nodad" if family == socket.AF_INET6 else "off")
        wire = far.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        with wire, near.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sender:
            wire.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
            wire.bind((pair.far.name, 0))
            wire.setblocking(False)
            sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 24)  # what waits is charged to its sender
            for payload in payloads(size):
                sender.sendto(payload, (peer, PORT))
            near.ip(f"neigh replace {peer} dev {pair.near.name} lladdr 02:00:00:00:00:77 nud permanent")
            seen: list[bytes] = []

            def last_came() -> bool:
                while True:
                    try:
                        seen.append(wire.recv(2048))
                    except BlockingIOError:
                        return numbers(seen, family)[-1:] == [COUNT - 1]

            until(last_came, message="the last datagram leaves")
            return numbers(seen, family)
    finally:
        near.delete()
        far.delete()


def through_us(family: socket.AddressFamily, size: int) -> list[int]:
    own, peer = PEERS[family]
    with memory_stack("a0", addresses={"a0": [own]}) as stack:
        with stack.udp((own.partition("/")[0], 9), reserve=False) as sender:
            for payload in payloads(size):
                sender.sendto(payload, (peer, PORT))
        stack.host.learn(f"{peer} dev a0 lladdr 02:00:00:00:00:77 nud permanent")
        stack.step(8)
        return numbers(stack.sent("a0"), family)


@pytest.mark.parametrize("family", PEERS, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("size", [2, 18, 100, 500, 1000, 1400])
def test_as_many_wait_as_in_linux(family: socket.AddressFamily, size: int) -> None:
    linux = through_linux(family, size)
    assert linux == through_us(family, size)
    assert 0 < len(linux) < COUNT


class Router(MemoryWalk):
    """Forwards from device a0, as a namespace that is mirrored would from `near` to `far`."""

    def __init__(self, snapshot: Snapshot, near: int, far: int) -> None:
        present = {"napi.rx", "ip.rx", "routing.rx", "neigh.tx", "napi.tx"}
        super().__init__(TestDevice("a0"), TestDevice("b0"), present=present, catch=("ip.local",))
        devices = {near: 0, far: 1}
        a0, b0 = (device_flags(compile_device(snapshot, snapshot.links[index])) for index in devices)
        self.set_devices(a0=a0, b0=b0)
        NativeRouting(self.core.pointer).publish(snapshot, devices)
        Neigh(self.core, devices).publish(replace(snapshot, neighbours={}))

    def ask(self, destination: str) -> bytes:
        """What MAC a packet to `destination` is sent to; empty while that is being asked for."""
        packet = IP(src="10.9.0.9", dst=destination) / UDP(sport=9, dport=9)
        self.inject("a0", bytes(Ether(dst=self.mac("a0")) / packet))
        self.step()
        (*_, sent) = [b"", *self.sent("b0")]
        return bytes(sent[:6])


@pytest.mark.parametrize("rules", [(), ("rule add to 192.0.2.0/24 table 9",)], ids=["default-rules", "own-rules"])
def test_the_broadcast_addresses_are_those_of_linux(rules: tuple[str, ...]) -> None:
    """Whom the kernel does not ask for when it is to use a neighbour (NTF_USE), as it knows the MAC (arp_constructor)."""
    addresses = [f"10.{net}.0.{host}" for net in range(4) for host in (2, 7, 63, 64, 127, 255)]
    near, far = Namespace("neigh-near"), Namespace("neigh-far")
    try:
        pair = make_veth(near, far, near=["10.0.0.1/24", "10.1.0.1/25", "10.2.0.65/26"], far=[])
        device = pair.near.name
        near.ip(
            *rules,
            f"route add broadcast 10.1.0.64 dev {device} table local",
            f"route add broadcast 10.1.0.63 dev {device} table main",  # one trie with local, until there is a rule
            f"route add broadcast 10.3.0.0/25 dev {device} table local",
            f"route add 10.3.0.7 dev {device} table local",
            f"route add default dev {device}",
            "link add came type veth peer name went",
            "addr add 10.9.0.1/24 dev came",
            "link set went up",
            "link set came up",
        )
        near.sysctl(
            net__ipv4__ip_forward=1, net__ipv4__conf__all__bc_forwarding=1, net__ipv4__conf__came__bc_forwarding=1
        )
        near.ip(*(f"neigh add {address} dev {device} use" for address in addresses))
        shown = near.show("neigh", "show", "dev", device, "nud", "all")
        with Mirror(near.name) as mirror:
            index = {link.name: link.index for link in mirror.snapshot.links.values()}
            with Router(mirror.snapshot, index["came"], index[device]) as router:
                ours = {address: router.ask(address) for address in addresses}
                router.clock.advance(4_000_000_000)  # nobody waits for longer
                router.step(4)
    finally:
        near.delete()
        far.delete()
    linux = {
        each["dst"]: bytes.fromhex(each["lladdr"].replace(":", "")) if each["state"] == ["NOARP"] else b""
        for each in shown
        if each["dst"] in addresses
    }
    assert ours == linux
    known = {address for address, mac in linux.items() if mac == TO_ALL}
    assert {"10.0.0.255", "10.1.0.127", "10.1.0.64", "10.2.0.127", "10.3.0.2"} <= known
    assert ("10.1.0.63" in known) == (not rules)
    assert not {"10.0.0.2", "10.3.0.7", "10.3.0.255"} & known
