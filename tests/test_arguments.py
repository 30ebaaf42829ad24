"""What is asked for and cannot be, of any device: refused by name before anything is looked at, with what it can be."""

from __future__ import annotations

from typing import Any

import pytest

import xdpstack
from xdpstack import BusyPoll, EverythingBut, Prefilter, SocketClaim, Tuning
from xdpstack.arguments import power_of_two, whole
from xdpstack.device.watchdog import Watchdog
from xdpstack.errors import ConfigurationError
from xdpstack.native.core import Core
from xdpstack.testing import memory_stack


@pytest.mark.parametrize(
    "options, message",
    [
        ({"queues": 1}, 'queues is 1\nCause: It can be "all" or a list of queue numbers.\nFix: queues=[1]'),
        ({"queues": None}, "queues is None"),
        ({"queues": [True]}, "a number in queues is True"),
        ({"queues": ["0"]}, "a number in queues is '0'"),
        ({"queues": [-1]}, "a number in queues is -1"),
        ({"rx_ring": 1000}, "rx_ring is 1000, which is no power of two"),
        ({"rx_ring": "2048"}, "rx_ring is '2048'"),
        ({"tx_ring": 0}, "tx_ring is 0, which is no power of two"),
        ({"tx_ring": None}, "tx_ring is None"),
        ({"tx_ring": 1 << 30}, "tx_ring is 1073741824\nCause: It can be 1 to 4194304.\nFix: tx_ring=4194304"),
        (
            {"frames": 1000},
            "frames is 1000, which is no power of two\nCause: It can be one from 64 to 16777216.\nFix: frames=1024",
        ),
        ({"frames": -4}, "frames is -4, which is no power of two"),
        ({"frames": 32}, "frames is 32\nCause: It can be 64 to 16777216.\nFix: frames=64"),
        ({"frame_bytes": 8192}, "frame_bytes is 8192\nCause: AF_XDP has aligned frames of 2048 and 4096 bytes."),
        ({"huge_pages": "yes"}, "huge_pages is 'yes'"),
        ({"workers": 0}, "workers is 0\nCause: It can be 1 to 64."),
        ({"workers": -1}, "workers is -1"),
        ({"workers": "2"}, "workers is '2'"),
        ({"workers": 65}, "workers is 65\nCause: It can be 1 to 64.\nFix: workers=64"),
        ({"workers": 1, "cpus": [-1]}, "a number in cpus is -1"),
        ({"cpus": [0]}, "1 CPUs for no workers"),
        ({"spin_us": -1}, "spin_us is -1\nCause: It can be 0 to 100000."),
        ({"spin_us": "x"}, "spin_us is 'x'"),
    ],
)
def test_open(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        xdpstack.open("xs-nothere", **options)
    assert str(refused.value).startswith(message)
    assert refused.value.cause
    assert refused.value.fix


@pytest.mark.parametrize("seconds", [0, -1, 1e-6, 1e12, float("nan"), float("inf"), True])
def test_the_window_of_the_watchdog(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="deadman_seconds is"):
        Watchdog(Core(frames=64), seconds)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda stack: stack.hook("tc.rx", 5), "5 is no stage"),
        (lambda stack: stack.trace_start(0), "packets is 0"),
        (lambda stack: stack.trace_start(4097), "packets is 4097\nCause: It can be 1 to 4096."),
        (lambda stack: stack.frames("all"), "'all' is no claim"),
        (lambda stack: stack.redirect("all", to="a0"), "'all' is no claim"),
    ],
)
def test_calls_of_a_stack(call: Any, message: str) -> None:
    with memory_stack() as stack, pytest.raises(ConfigurationError) as refused:
        call(stack)
    assert str(refused.value).startswith(message)
    assert refused.value.fix


#: What a program without types may give.
TEXT: Any = "abc"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Prefilter("192.0.2.1"), "a pre-filter of '192.0.2.1'\nCause: It takes a list of addresses."),
        (lambda: Tuning(rss_key=TEXT), "rss_key is 'abc'"),
        (lambda: Tuning(channels=0), "channels is 0"),
        (lambda: BusyPoll(budget=0), "busy polling for"),
    ],
)
def test_values(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make()
    assert str(refused.value).startswith(message)


def test_what_can_be_is_given_back() -> None:
    assert (whole("x", 5, 5, 5), power_of_two("x", 64, 64, 128)) == (5, 64)


def test_what_users_hold_says_what_it_is() -> None:
    with memory_stack(addresses={"a0": ["10.0.0.1/24"]}) as stack:
        sock = stack.udp(("10.0.0.1", 7), vlan=5)
        assert repr(sock) == "<UdpSocket 10.0.0.1 port 7, VLAN 5>"
        assert "VLAN (100, 200)" in repr(stack.udp(("10.0.0.1", 7), vlan=(100, 200)))
        assert repr(stack.frames()) == "<Frames to send>"
        claim = SocketClaim("10.0.0.1", 9)
        assert repr(stack.frames(claim)) == f"<Frames {claim}>"
        assert repr(stack.redirect(EverythingBut(), to="a0")) == f"<Redirect {EverythingBut()}, a0 to a0>"
