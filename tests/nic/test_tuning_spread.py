"""How packets are spread over the queues of a real driver: the RSS table, and what its hash covers.

Behind the tests of channels: a table that was written once keeps the kernel from taking away queues that it names.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.nic.expected import EXPECTED
from tests.paths.world import FAR, NEAR, OURS, PORT, echo_once, kernel_udp, opened
from xdpstack import Tuning
from xdpstack.device import ethtool_set
from xdpstack.device.tuning.journal import journals
from xdpstack.errors import TuningRefused
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import PATIENCE

pytestmark = pytest.mark.root
HERE = EXPECTED[os.environ["XDPSTACK_NIC_MODEL"]]
MakeVeth = Callable[..., Veth]
FLOWS = 16


def queues_of_flows(pair: Veth, tune: Tuning) -> set[int]:
    """The queues on which flows between one pair of addresses came in, which differ in their source port alone."""
    seen: set[int] = set()
    with opened(pair.near, tune=tune) as stack, stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        stack.hook("netfilter.input", lambda batch: seen.update(packet.queue for packet in batch), name="look")
        for number in range(FLOWS):
            client = kernel_udp(pair.far.netns, to=OURS[0])
            client.send(bytes([number]))
            echo_once(sock)
            assert client.recv(100) == bytes([number])
            client.close()
    return seen


def hashed(end: End) -> str | None:
    """What the hash of UDP over IPv4 covers; None where the driver does not say."""
    try:
        return end.netns.call(lambda: ethtool_set.fields_text(ethtool_set.hash_fields(end.name, "udp4")))
    except OSError:
        return None


def asked_for(end: End, tune: Tuning) -> None:
    """Granted or refused; with no word of where flows then go."""
    try:
        opened(end, tune=tune).close()
    except TuningRefused as refused:
        print("refused:", refused)


@pytest.mark.parametrize("queue", [0, 1])
def test_the_table_says_which_queue(queue: int, veth: MakeVeth) -> None:
    pair = veth(near=NEAR, far=FAR)
    tune = Tuning(rss_weights=[0] * queue + [1])
    if HERE.rss_table:
        assert queues_of_flows(pair, tune) == {queue}
    else:
        asked_for(pair.near, tune)
    assert journals() == []


def test_the_hash_covers_what_it_is_told_to(veth: MakeVeth) -> None:
    """Flows between the same addresses share a queue, until their ports are in the hash."""
    pair = veth(near=NEAR, far=FAR)
    before = hashed(pair.near)
    if HERE.hash_fields:
        assert len(queues_of_flows(pair, Tuning(rss_fields={"udp4": "sd"}))) == 1
        assert queues_of_flows(pair, Tuning(rss_fields={"udp4": "sdfn"})) == set(range(HERE.queues))
    else:
        asked_for(pair.near, Tuning(rss_fields={"udp4": "sd"}))
    assert hashed(pair.near) == before
    assert journals() == []
