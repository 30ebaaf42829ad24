"""neigh.tx against Linux: how many datagrams wait for a neighbour that nobody has resolved yet, and which of them leave.

The same datagrams go through a kernel socket over a veth pair and through a stack over a memory device. Nobody answers; then
the neighbour is given by hand, and what had waited leaves.
"""

import socket

import pytest

from xdpstack.testing import memory_stack
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import make_veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root

PORT = 7
SO_SNDBUFFORCE = 32
COUNT = 400
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
