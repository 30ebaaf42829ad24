"""What is known of drivers, and what is made of a driver that grants zero-copy to some queues only."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.device.harness import Harness
from xdpstack.device import drivers, ethtool
from xdpstack.device.umem import Umem
from xdpstack.device.xsk import XDP_COPY, BindFailed, Xsk
from xdpstack.errors import ModeRefused
from xdpstack.native import lib
from xdpstack.testing.veth import Veth

MakeVeth = Callable[..., Veth]
VIRTIO = ethtool.Driver("virtio_net", "1.0.0", "", "0000:01:00.0")


@pytest.mark.parametrize(
    "driver, features, lacks",
    [
        (VIRTIO, [True] * 33 + [False] * 31, True),
        (VIRTIO, [True] * 64, False),
        (VIRTIO, [], False),  # cannot be read: nothing is claimed
        (ethtool.Driver("igb", "", "", ""), [False] * 64, False),
        (None, [], False),
    ],
)
def test_virtio_without_dma_cannot_have_zero_copy(
    monkeypatch: pytest.MonkeyPatch, driver: ethtool.Driver | None, features: list[bool], lacks: bool
) -> None:
    monkeypatch.setattr(ethtool, "driver", lambda name: driver)
    monkeypatch.setattr(drivers, "virtio_features", lambda name: features)
    assert ("VIRTIO_F_ACCESS_PLATFORM" in drivers.zero_copy_lacks("eth7")) == lacks


@pytest.mark.parametrize(
    "driver, there, most, added",
    [
        (VIRTIO, 2, 4, []),  # one for each of three CPUs, or none
        (VIRTIO, 2, 5, [2, 3, 4]),
        (VIRTIO, 5, 5, []),
        (ethtool.Driver("igb", "", "", ""), 2, 8, []),
        (None, 2, 8, []),
    ],
)
def test_queues_that_virtio_adds(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    driver: ethtool.Driver | None,
    there: int,
    most: int,
    added: list[int],
) -> None:
    monkeypatch.setattr(ethtool, "driver", lambda name: driver)
    monkeypatch.setattr(ethtool, "channels", lambda name: ethtool.Channels(0, 0, there, 0, 0, most))
    (tmp_path / "possible").write_text("0-2\n")
    monkeypatch.setattr(drivers, "POSSIBLE_CPUS", tmp_path / "possible")
    assert list(drivers.added_queues("eth7", there)) == added


@pytest.mark.root
def test_generic_mode_where_native_mode_would_lift_nothing(monkeypatch: pytest.MonkeyPatch, veth: MakeVeth) -> None:
    pair = veth()
    monkeypatch.setattr(drivers, "NO_METADATA", {"veth"})
    with Harness() as harness:
        [device] = harness.open(pair.near).devices
        assert (device.asked, device.mode) == ("auto", "generic")
        assert "no room for metadata" in device.why["mode"]
    with Harness() as harness, pytest.raises(ModeRefused, match="no room for metadata"):
        harness.open(pair.near, mode="native")


@pytest.mark.root
def test_veth_says_neither(veth: MakeVeth) -> None:
    pair = veth()
    assert pair.near.netns.call(lambda: drivers.virtio_features("near0")) == []
    assert pair.near.netns.call(lambda: ethtool.hashes_udp_ports("near0")) is None


def grants_queue_0_only(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Umem.open() as of a driver that has zero-copy on queue 0 alone; (queue, whether copy was asked for) of each call."""
    real = Umem.open
    asked: list[tuple[int, bool]] = []

    def open_one(self: Umem, ifindex: int, queue: int, rings: Any, flags: int, *more: Any, **options: Any) -> Xsk:
        asked.append((queue, bool(flags & XDP_COPY)))
        if not flags & XDP_COPY and queue:
            raise BindFailed(lib.XS_XSK_BIND, errno.EINVAL)
        xsk = real(self, ifindex, queue, rings, XDP_COPY, *more, **options)
        xsk.zero_copy = not flags & XDP_COPY
        return xsk

    monkeypatch.setattr(Umem, "open", open_one)
    monkeypatch.setattr("xdpstack.device.plan.zero_copy_obstacle", lambda *facts: "")
    return asked


@pytest.mark.root
def test_all_queues_are_in_copy_mode_where_one_refuses_zero_copy(
    monkeypatch: pytest.MonkeyPatch, veth: MakeVeth
) -> None:
    pair = veth(queues=2)
    asked = grants_queue_0_only(monkeypatch)
    with Harness() as harness:
        backend = harness.open(pair.near)
        assert asked == [(0, False), (1, False), (0, True), (1, True)]
        [device] = backend.devices
        assert (device.zero_copy, device.queues) == (False, (0, 1))
        assert device.why["zero_copy"].startswith(
            "zero-copy is refused on queue 1 of near0, and the queues of a device"
        )
        assert "EINVAL" in device.why["zero_copy"]


@pytest.mark.root
def test_that_is_refused_where_zero_copy_was_demanded(monkeypatch: pytest.MonkeyPatch, veth: MakeVeth) -> None:
    pair = veth(queues=2)
    asked = grants_queue_0_only(monkeypatch)
    with Harness() as harness:
        with pytest.raises(ModeRefused, match="zero-copy is refused on queue 1 of near0"):
            harness.open(pair.near, zero_copy=True)
        assert asked == [(0, False), (1, False)]
    assert not pair.near.has_xdp()
