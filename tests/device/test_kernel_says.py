"""What the kernel says of a device, held against what ip and ethtool print."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.device.harness import Harness
from tests.device.test_device import holder
from xdpstack.device import ethtool, netdev, sysfs
from xdpstack.device.holders import bound_inodes, holders
from xdpstack.device.netdev import XdpFeature
from xdpstack.device.queues import active_queues
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import Veth

pytestmark = pytest.mark.root
MakeNetns, MakeVeth = Callable[..., Namespace], Callable[..., Veth]


def test_features(veth: MakeVeth) -> None:
    pair = veth()
    found = pair.near.netns.call(lambda: netdev.features(pair.near.index))
    assert found is not None
    assert XdpFeature.BASIC | XdpFeature.REDIRECT in found.xdp
    assert XdpFeature.XSK_ZEROCOPY not in found.xdp
    assert pair.near.netns.call(lambda: netdev.features(12345)) is None


@pytest.mark.parametrize("queues", [1, 3])
def test_queues_by_every_way(queues: int, veth: MakeVeth) -> None:
    pair = veth(queues=queues)
    numbers = list(range(queues))

    def look() -> None:
        told = netdev.rx_queues(pair.near.index)
        assert told is not None
        assert [queue.number for queue in told] == numbers
        channels = ethtool.channels("near0")
        assert channels is not None
        assert (channels.receiving, channels.rx_max) == (queues, queues)
        assert sysfs.queue_numbers("near0") == numbers
        assert active_queues("near0", pair.near.index) == numbers

    pair.near.netns.call(look)


def test_sysfs_is_that_of_the_namespace(netns: MakeNetns) -> None:
    here = netns()
    here.ip("link add br77 type bridge")

    def look() -> None:
        with sysfs.class_net() as folder:
            assert folder is not None
            assert {each.name for each in Path(f"/proc/self/fd/{folder}").iterdir()} >= {"br77", "lo"}
        assert sysfs.queue_numbers("br77") == [0]
        assert sysfs.queue_numbers("nothere") == []

    here.call(look)
    assert not Path("/sys/class/net/br77").exists()


def test_queues_without_channels(netns: MakeNetns) -> None:
    """A bridge has no ethtool channels."""
    here = netns()
    here.ip("link add br77 type bridge")
    assert here.call(lambda: ethtool.channels("br77")) is None
    assert here.call(lambda: active_queues("br77", 0)) == [0]


def test_driver_and_rings(veth: MakeVeth) -> None:
    pair = veth()
    driver = pair.near.netns.call(lambda: ethtool.driver("near0"))
    assert driver is not None
    assert driver.name == "veth"
    assert pair.near.netns.call(lambda: ethtool.ring_sizes("near0")) is None
    assert pair.near.netns.call(lambda: ethtool.driver("nothere")) is None


def test_offloads_as_ethtool_has_them(veth: MakeVeth) -> None:
    pair = veth(offloads=("tx off", "gro on"))
    ours = pair.near.netns.call(lambda: ethtool.offloads("near0"))
    assert ours is not None
    theirs = pair.near.netns.run("ethtool", "-k", "near0")
    for name, line in (
        ("rx-gro", "generic-receive-offload: on"),
        ("tx-checksum-ip-generic", "tx-checksum-ip-generic: off"),
        ("rx-lro", "large-receive-offload: off [fixed]"),
        ("highdma", "highdma: on"),
    ):
        assert line in theirs
        assert (ours[name].on, ours[name].fixed) == (": on" in line, "[fixed]" in line), name
    shown = [line for line in theirs.splitlines() if ": " in line]
    assert len([line for line in shown if "[fixed]" in line]) > 5
    assert pair.near.netns.call(lambda: ethtool.offloads("nothere")) is None


def test_carrier(veth: MakeVeth) -> None:
    pair = veth()
    assert pair.near.netns.call(lambda: ethtool.has_link("near0")) is True
    pair.far.netns.ip("link set far0 down")
    assert pair.near.netns.call(lambda: ethtool.has_link("near0")) is False
    assert pair.near.netns.call(lambda: ethtool.has_link("nothere")) is None


def test_holders(veth: MakeVeth) -> None:
    pair = veth()
    netns, index = pair.near.netns, pair.near.index
    with holder(pair.near) as process:
        found = netns.call(lambda: holders(index, 0))
        assert process.pid in {each.pid for each in found.processes}
        exact = netns.call(lambda: bound_inodes(index, 0)) is not None
        assert found.exact == exact
        other = netns.call(lambda: holders(index, 1))
        assert (process.pid in {each.pid for each in other.processes}) == (not exact)
        assert str(process.pid) in str(found)


def test_our_own_sockets_are_not_somebody_elses(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        harness.attach(pair.near)
        found = pair.near.netns.call(lambda: holders(pair.near.index, 0))
        me = subprocess.run(
            ["sh", "-c", "echo $PPID"], capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()
        assert int(me) not in {each.pid for each in found.processes}
