"""One memory for all queues of several devices, on real veth pairs: a frame goes from one to another by its number."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.device.harness import EXPERIMENTAL, Harness, frame
from xdpstack.device.claims import EthertypeClaim
from xdpstack.native import lib
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root
MakeNetns, MakeVeth, MakePeer = Callable[..., Namespace], Callable[..., Veth], Callable[..., Peer]
CLAIM = EthertypeClaim(EXPERIMENTAL)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_one_registration_for_all_queues_of_two_devices(
    mode: str, netns: MakeNetns, veth: MakeVeth, peer: MakePeer
) -> None:
    """As a stack opens them. What is received on one is on the TX ring of the other under the same number, untouched."""
    here = netns("here")
    one, two = veth(netns_near=here, near_name="a0", queues=2), veth(netns_near=here, near_name="b0", queues=2)
    left, right = peer(one.far), peer(two.far)
    with Harness() as harness:
        backend = harness.open(one.near, two.near, mode=mode)
        backend.claim(CLAIM)
        assert sum(len(interface.sockets) for interface in backend.interfaces) == 4
        assert backend.info()["registrations"] == 1
        seen: list[tuple[int, bytes]] = []

        def across(packet: bytes, number: int) -> int:
            harness.core.packets[number].device ^= 1
            seen.append((number, packet))
            return 0

        for i in range(300):  # more than either ring has frames
            payload = i.to_bytes(2, "big") * 40
            for pair, sender, receiver in ((one, left, right), (two, right, left)):
                sent = frame(pair.far, pair.near, payload)
                sender.send(sent)
                harness.handle(1, across)
                assert receiver.receive() == sent
                number, lay_there = seen[-1]
                assert lay_there == sent
                assert harness.core.packets[number].owner_device != (0 if pair is one else 1)
        assert (harness.core.ledger().sent, harness.core.ledger().dropped) == (600, 0)


def test_devices_of_several_modes(netns: MakeNetns, veth: MakeVeth, peer: MakePeer) -> None:
    """One takes packets of several frames, the other does not: each kind of socket has its registration, frames keep their
    numbers. What the second cannot send is dropped here, with all its frames."""
    here = netns("here")
    large, small = veth(netns_near=here, near_name="a0", mtu=9000), veth(netns_near=here, near_name="b0")
    left, right = peer(large.far), peer(small.far)
    with Harness() as harness:
        backend = harness.open(large.near, small.near)
        backend.claim(CLAIM)
        assert [device.multi_buffer for device in backend.devices] == [True, False]
        assert backend.info()["registrations"] == 2

        def across(packet: bytes, number: int) -> int:
            harness.core.packets[number].device ^= 1
            return 0

        for size in (60, 1400):
            for pair, sender, receiver in ((large, left, right), (small, right, left)):
                sent = frame(pair.far, pair.near, bytes(size))
                sender.send(sent)
                harness.handle(1, across)
                assert receiver.receive() == sent
        left.send(frame(large.far, large.near, bytes(8000)))
        harness.handle(1, across)
        assert harness.drops(harness.tx) == {"TX_TOO_MANY_FRAGS": 1}
        until(lambda: harness.poll() == 0 and harness.core.frame_counts()["transmitting"] == 0)
        assert lib.xs_worker_parked(harness.worker) == 0
