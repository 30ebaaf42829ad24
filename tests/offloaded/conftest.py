"""Two netdevsim devices, linked, as the ends of a pair: a driver that takes XDP programs for the NIC. In the lab's guest.

What its NIC would run it keeps, and does not run: what a pre-filter drops is shown in tests/device/test_prefilter.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

collect_ignore_glob = [] if os.environ.get("XDPSTACK_NIC_MODEL") == "netdevsim" else ["test_*.py"]

BUS, DEBUG = Path("/sys/bus/netdevsim"), Path("/sys/kernel/debug")


class Knobs:
    """What a device is told to accept, and what it has, in its folder of debugfs."""

    def __init__(self, number: int) -> None:
        self._folder = DEBUG / f"netdevsim/netdevsim{number}"

    def set(self, name: str, accept: bool) -> None:
        [path] = [path for path in (self._folder / name, self._folder / "ports/0" / name) if path.exists()]
        path.write_text("Y" if accept else "N")

    @property
    def offloaded(self) -> int:
        """The number of the program that the NIC would run; 0: none."""
        return int((self._folder / "ports/0/bpf_offloaded_id").read_text())

    @property
    def loaded(self) -> list[int]:
        """Numbers of the programs that were loaded into it."""
        return [int((each / "id").read_text()) for each in (self._folder / "bpf_bound_progs").iterdir()]


def has_carrier(end: End) -> bool:
    """As its flags say: it has no operstate."""
    return "LOWER_UP" in end.link()["flags"]


@pytest.fixture
def knobs() -> Knobs:
    """Those of the near end."""
    return Knobs(1)


@pytest.fixture
def veth(_without_orphans: None) -> Iterator[Callable[..., Veth]]:
    """The pair with the addresses that are asked for. Neither end has a program afterwards."""
    if not (DEBUG / "netdevsim").exists():
        subprocess.run(["mount", "-t", "debugfs", "debugfs", str(DEBUG)], check=True)
    namespaces = [Namespace("near"), Namespace("far")]
    made: list[Veth] = []

    def make(near: tuple[str, ...] = ("10.0.0.1/24",), far: tuple[str, ...] = ("10.0.0.2/24",)) -> Veth:
        ends = []
        for number, netns, name, addresses in zip((1, 2), namespaces, ("near0", "far0"), (near, far), strict=True):
            (BUS / "new_device").write_text(f"{number} 1")
            [device] = (BUS / f"devices/netdevsim{number}/net").iterdir()
            netns.without_dad()
            subprocess.run(["ip", "link", "set", device.name, "name", name, "netns", str(netns)], check=True)
            ends.append(End(netns, name, addresses))
        descriptors = [os.open(f"/run/netns/{end.netns}", os.O_RDONLY) for end in ends]
        words = [f"{descriptor}:{end.index}" for descriptor, end in zip(descriptors, ends, strict=True)]
        (BUS / "link_device").write_text(" ".join(words))
        for descriptor in descriptors:
            os.close(descriptor)
        for end in ends:
            wanted = [f"address add {each} dev {end.name}{' nodad' if ':' in each else ''}" for each in end.addresses]
            end.netns.ip(f"link set {end.name} up", *wanted)
        pair = Veth(*ends)
        made.append(pair)
        for end in ends:
            until(partial(has_carrier, end), 10, f"{end.name} has no carrier")
        return pair

    yield make
    left = [end.name for pair in made for end in pair.ends() if end.has_xdp()]
    for netns in namespaces:
        netns.delete()  # its device goes back to the first namespace
    for number in range(1, 1 + 2 * len(made)):
        (BUS / "del_device").write_text(str(number))
    assert not left, f"XDP programs were left attached on {', '.join(left)}"
