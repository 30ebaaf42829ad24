"""How to bind: flags and refusals from what was asked, what the driver declares, and the MTU."""

import pytest

from xdpstack.device.netdev import NetdevFeatures, XdpFeature
from xdpstack.device.plan import choose_queues, largest_mtu, next_power_of_two, plan
from xdpstack.device.xsk import XDP_COPY, XDP_USE_NEED_WAKEUP, XDP_USE_SG, XDP_ZEROCOPY
from xdpstack.errors import ConfigurationError, ModeRefused, MtuTooLarge

NEW, OLD = (6, 18), (6, 1)
BASIC = XdpFeature.BASIC | XdpFeature.REDIRECT
COPY = NetdevFeatures(BASIC, 0)
ZERO_COPY = NetdevFeatures(BASIC | XdpFeature.XSK_ZEROCOPY, 1)
ZERO_COPY_TWO = NetdevFeatures(BASIC | XdpFeature.XSK_ZEROCOPY | XdpFeature.RX_SG, 2)
ZERO_COPY_SEGMENTS = NetdevFeatures(BASIC | XdpFeature.XSK_ZEROCOPY | XdpFeature.RX_SG, 8)
WAKE = XDP_USE_NEED_WAKEUP


@pytest.mark.parametrize(
    "mode, zero_copy, features, mtu, flags, why",
    [
        ("native", None, ZERO_COPY, 1500, WAKE, ""),
        ("native", None, None, 1500, WAKE, ""),  # an old kernel: try
        ("native", None, COPY, 1500, WAKE | XDP_COPY, "has no zero-copy"),
        ("generic", None, ZERO_COPY, 1500, WAKE | XDP_COPY, "Generic mode"),
        ("native", None, ZERO_COPY, 9000, WAKE | XDP_USE_SG | XDP_COPY, "in one frame only, and the MTU 9000"),
        ("native", None, ZERO_COPY_SEGMENTS, 9000, WAKE | XDP_USE_SG, ""),
        ("native", None, ZERO_COPY_TWO, 3566, WAKE | XDP_USE_SG, ""),
        ("native", None, ZERO_COPY_TWO, 3567, WAKE | XDP_USE_SG | XDP_COPY, "in 2 frames at most, and the MTU 3567"),
        ("native", False, ZERO_COPY, 1500, WAKE | XDP_COPY, ""),
        ("native", True, ZERO_COPY, 1500, WAKE | XDP_ZEROCOPY, ""),
        ("native", True, None, 1500, WAKE | XDP_ZEROCOPY, ""),
        ("native", True, ZERO_COPY_SEGMENTS, 9000, WAKE | XDP_USE_SG | XDP_ZEROCOPY, ""),
    ],
)
def test_flags(
    mode: str, zero_copy: bool | None, features: NetdevFeatures | None, mtu: int, flags: int, why: str
) -> None:
    made = plan("eth7", mode, zero_copy, features, mtu, 2048, NEW)
    assert made.flags == flags
    assert why in made.why.get("zero_copy", "")
    assert bool(made.why) == bool(why)
    assert made.zc_max_segs == (features.zc_max_segs if features and not flags & XDP_COPY else 0)


@pytest.mark.parametrize(
    "mode, features, mtu, words",
    [
        ("generic", ZERO_COPY, 1500, "Generic mode"),
        ("native", COPY, 1500, "The driver of eth7 has no zero-copy"),
        ("native", ZERO_COPY, 1775, "the largest is 1774"),
    ],
)
def test_zero_copy_that_cannot_be(mode: str, features: NetdevFeatures, mtu: int, words: str) -> None:
    with pytest.raises(ModeRefused, match="zero-copy is refused on eth7") as raised:
        plan("eth7", mode, True, features, mtu, 2048, NEW)
    assert words in str(raised.value)


@pytest.mark.parametrize("mtu, flags", [(1500, XDP_COPY), (9000, XDP_COPY | XDP_USE_SG)])
def test_without_need_wakeup(mtu: int, flags: int) -> None:
    assert plan("eth7", "native", False, ZERO_COPY, mtu, 2048, NEW, need_wakeup=False).flags == flags


def test_queues_that_go_with_the_program_have_no_zero_copy() -> None:
    made = plan("eth7", "native", None, ZERO_COPY, 1500, 2048, NEW, "virtio_net", added=[2, 3])
    assert made.flags == WAKE | XDP_COPY
    assert made.why["zero_copy"].startswith("Queues 2, 3 are there only while a program is attached")
    with pytest.raises(ModeRefused, match="Queues 2, 3"):
        plan("eth7", "native", True, ZERO_COPY, 1500, 2048, NEW, "virtio_net", added=[2, 3])


@pytest.mark.parametrize(
    "mtu, frame_bytes, why", [(1500, 2048, "1024"), (1006, 2048, ""), (3054, 4096, ""), (3055, 4096, "3072")]
)
def test_igb_cuts_packets_that_are_longer_than_whole_kibibytes(mtu: int, frame_bytes: int, why: str) -> None:
    made = plan("eth7", "native", None, ZERO_COPY, mtu, frame_bytes, NEW, "igb")
    assert made.flags == WAKE | (XDP_COPY if why else 0)
    assert f"of a frame of {frame_bytes} bytes {why}" in made.why["zero_copy"] if why else made.why == {}


def test_an_mtu_that_is_too_large_for_an_old_kernel() -> None:
    with pytest.raises(MtuTooLarge) as raised:
        plan("eth7", "native", None, COPY, 9000, 2048, OLD)
    assert "the largest that works here is 1774" in str(raised.value)
    assert "frame_bytes=4096 (MTU 3822)" in str(raised.value)
    assert plan("eth7", "native", None, COPY, 1774, 2048, OLD).flags == WAKE | XDP_COPY
    assert plan("eth7", "native", None, COPY, 3822, 4096, OLD).flags == WAKE | XDP_COPY


def test_the_largest_mtu() -> None:
    assert (largest_mtu(2048), largest_mtu(4096)) == (1774, 3822)


def test_queues() -> None:
    assert choose_queues("eth7", "all", [0, 1, 2]) == (0, 1, 2)
    assert choose_queues("eth7", [2, 0, 2], [0, 1, 2]) == (2, 0)
    for asked, words in (([3], "no queue 3"), ([], "no queue at all"), ("some", "queues is 'some'")):
        with pytest.raises(ConfigurationError, match=words):
            choose_queues("eth7", asked, [0, 1, 2])


def test_powers_of_two() -> None:
    assert [next_power_of_two(n) for n in (0, 1, 2, 3, 64, 65, 4096)] == [1, 1, 2, 4, 64, 128, 4096]
