"""The pair of NICs of the lab's guest in place of veth pairs. Outside of the guest there is nothing here to run.

Tests of other folders that need nothing but one pair run here as they are: the modules of this folder import them, and they
find the `veth` fixture of this file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.nic.expected import EXPECTED
from xdpstack.testing.namespace import Namespace, run
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

MODEL = os.environ.get("XDPSTACK_NIC_MODEL", "")
collect_ignore_glob = [] if MODEL else ["test_*.py"]

#: Drivers that reset take seconds until the carrier is back, and the guest is slow.
CARRIER_SECONDS = 30.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Native mode is not tested where there is none: that it is refused there has a test of its own."""
    if not MODEL or EXPECTED[MODEL].native:
        return
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec and callspec.params.get("mode") == "native":
            item.add_marker(pytest.mark.skip(reason="the driver has no native mode"))


@pytest.fixture(scope="session")
def nics(_without_orphans: None) -> Iterator[tuple[End, End]]:
    """near0 and far0, each in a namespace that lasts as long as the guest: moving a NIC resets it."""
    namespaces = [Namespace("near"), Namespace("far")]
    for nic, netns, name in zip(("nic0", "nic1"), namespaces, ("near0", "far0"), strict=True):
        netns.without_dad()
        run("ip", "link", "set", nic, "name", name, "netns", str(netns))
    yield End(namespaces[0], "near0"), End(namespaces[1], "far0")
    for netns in namespaces:
        netns.delete()


@pytest.fixture
def veth(nics: tuple[End, End]) -> Iterator[Callable[..., Veth]]:
    """The NICs with the addresses that are asked for. How many queues they have is the model's."""
    made: list[Veth] = []

    def make(
        near: Sequence[str] = ("10.0.0.1/24",), far: Sequence[str] = ("10.0.0.2/24",), queues: int = 1, mtu: int = 1500
    ) -> Veth:
        assert not made, "there is one pair"
        pair = Veth(*(End(nic.netns, nic.name, tuple(those)) for nic, those in zip(nics, (near, far), strict=True)))
        for nic, end in zip(nics, pair.ends(), strict=True):
            end.netns.ip(
                f"link set {end.name} mtu {mtu} address {nic.mac}",
                f"address flush dev {end.name} scope global",  # without a link-local address nobody is solicited
                f"link set {end.name} up",
                *(f"address add {each} dev {end.name}{' nodad' if ':' in each else ''}" for each in end.addresses),
            )
        made.append(pair)
        for end in pair.ends():
            until(end.is_ready, CARRIER_SECONDS, f"{end.name} has no carrier")
        return pair

    yield make
    left = [end.name for pair in made for end in pair.ends() if end.has_xdp()]
    assert not left, f"XDP programs were left attached on {', '.join(left)}"
