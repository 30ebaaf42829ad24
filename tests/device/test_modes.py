"""How sockets are driven, on real veth pairs: need_wakeup, packets per system call, busy polling; asked and granted."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from typing import Any

import pytest

import xdpstack
from tests.device.harness import Harness, frame
from tests.paths.world import OURS, MakePeer, MakeVeth, exchange, kernel_udp, opened
from xdpstack import BusyPoll
from xdpstack.device.kernel import kernel_version
from xdpstack.device.modes import SocketModes, granted, interrupts_go_on
from xdpstack.device.xsk import NAPI_AT_BIND_KERNEL, XDP_COPY, XDP_USE_NEED_WAKEUP, Rings, Xsk, XskModes
from xdpstack.errors import ConfigurationError
from xdpstack.native import lib
from xdpstack.testing.wait import PATIENCE, until

RINGS = Rings(rx=256, tx=256, fill=512, completion=256, fill_target=512)


class FakeXsk(Xsk):
    """One whose kernel refuses."""

    def __init__(self, **values: Any) -> None:
        none = XskModes(always_kick=False, busy_poll=False, busy_poll_error=0, tx_budget=32, tx_budget_error=0)
        self._modes = replace(none, **values)

    def modes(self) -> XskModes:
        return self._modes


# ---- without a kernel ----


@pytest.mark.parametrize("values", [{"microseconds": 0}, {"budget": 0}, {"budget": 65536}, {"microseconds": 1 << 31}])
def test_busy_polling_that_cannot_be(values: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="1 to 65535 packets"):
        BusyPoll(**values)


@pytest.mark.parametrize(
    "asked, ring, budget",
    [(None, 2048, 2048), (None, 64, 64), (None, 32, 0), (None, 8, 0), (32, 8, 32), (100, 128, 100)],
)
def test_the_budget_that_is_asked_for(asked: int | None, ring: int, budget: int) -> None:
    assert SocketModes(tx_budget=asked).budget(ring) == budget


@pytest.mark.parametrize("asked, ring", [(31, 64), (0, 64), (65, 64), (33, 32)])
def test_a_budget_that_cannot_be(asked: int, ring: int) -> None:
    with pytest.raises(ConfigurationError, match="32 or more, up to the slots"):
        SocketModes(tx_budget=asked).budget(ring)


def test_what_a_kernel_refuses_has_its_reason() -> None:
    asked = SocketModes(busy_poll=BusyPoll())
    found = granted(asked, [FakeXsk(tx_budget_error=errno.ENOPROTOOPT, busy_poll_error=errno.EPERM)])
    assert (found.need_wakeup, found.busy_poll, found.tx_budget) == (True, None, 32)
    assert "Linux 6.17" in found.why["tx_budget"]
    assert "CAP_NET_ADMIN" in found.why["busy_poll"]
    busy = FakeXsk(busy_poll=True, always_kick=True, tx_budget=64)
    found = granted(asked, [busy, FakeXsk(busy_poll_error=errno.ENOPROTOOPT)])
    assert (found.busy_poll, found.tx_budget) == (None, 32)
    assert "CONFIG_NET_RX_BUSY_POLL" in found.why["busy_poll"]
    assert "NAPI" in granted(asked, [FakeXsk(busy_poll_error=errno.ENODEV)]).why["busy_poll"]


# ---- on veth ----


@pytest.mark.root
def test_one_system_call_sends_a_whole_ring(veth: MakeVeth, peer: MakePeer) -> None:
    """XDP_MAX_TX_SKB_BUDGET (Linux 6.17): without, one call sends 32 packets."""
    pair = veth()
    raw = peer(pair.far)
    for budget, kicks in ((None, 1), (32, 2), (40, 2), (64, 1)):
        with Harness() as harness:
            [xsk] = harness.attach(pair.near, rings=RINGS, modes=SocketModes(tx_budget=budget))
            if xsk.modes().tx_budget_error == errno.ENOPROTOOPT:
                pytest.skip("this kernel has no XDP_MAX_TX_SKB_BUDGET")
            assert xsk.modes().tx_budget == (budget or RINGS.tx)
            for i in range(64):
                raw.send(frame(pair.far, pair.near, bytes([i]) * 60))
            until(lambda: lib.xs_worker_wait(harness.worker, 0))
            harness.handle(64, harness.send_back)
            until(lambda: harness.poll() == 0 and harness.core.frame_counts()["transmitting"] == 0)
            assert xsk.state().kicks == kicks
            assert [each[14] for each in raw.waiting()] == list(range(64))


@pytest.mark.root
@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("options", [{"need_wakeup": False}, {"busy_poll": True}, {"tx_budget": 64}], ids=str)
def test_a_server_in_every_mode(veth: MakeVeth, mode: str, options: dict[str, object]) -> None:
    """It answers, it says what it was granted and why not, and its info is plain values."""
    pair = veth()
    with opened(pair.near, mode=mode, **options) as stack, stack.udp(("10.0.0.1", 7777)) as sock:
        sock.settimeout(PATIENCE)
        [device] = stack.devices
        assert device.need_wakeup == options.get("need_wakeup", True)
        assert device.tx_budget == options.get("tx_budget", 256)
        assert not {"need_wakeup", "tx_budget"} & set(device.why)
        asked = json.loads(json.dumps(stack.info()))["asked"]
        assert asked["need_wakeup"] == options.get("need_wakeup", True)
        assert asked["tx_budget"] == options.get("tx_budget")
        assert (asked["busy_poll"] is None) == ("busy_poll" not in options)
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            for size in (1, 100, 1472):
                exchange(sock, client, bytes(size))
        counters = stack.counters()
        assert counters["near0.0.kicks"] == 3
        assert "near0.0.kicks_spared" not in counters


@pytest.mark.root
@pytest.mark.parametrize("prefer", [True, False])
def test_veth_cannot_be_busy_polled_and_says_so(veth: MakeVeth, prefer: bool) -> None:
    """In copy mode the kernel does not say which NAPI there would be to poll; nothing is done in vain then."""
    if kernel_version() < NAPI_AT_BIND_KERNEL:
        pytest.skip("on this kernel a socket learns its NAPI from its packets")
    with opened(veth().near, busy_poll=BusyPoll(50, 128, prefer)) as stack:
        [device] = stack.devices
        assert (device.busy_poll, device.need_wakeup) == (None, True)
        assert "NAPI" in device.why["busy_poll"]
        stack.poll()
        assert "near0.0.busy_polls" not in stack.counters()


@pytest.mark.root
def test_what_it_takes_to_hold_interrupts_back(veth: MakeVeth) -> None:
    """Both settings, which a stack can make and undo: Tuning. Until then interrupts go on."""
    pair = veth()
    with opened(pair.near):
        said = pair.near.netns.call(lambda: interrupts_go_on("near0"))
        assert "napi_defer_hard_irqs and gro_flush_timeout of near0 is 0" in said
    with opened(pair.near, tune=xdpstack.Tuning(napi_defer_hard_irqs=2, gro_flush_timeout_ns=200_000)):
        assert pair.near.netns.call(lambda: interrupts_go_on("near0")) == ""
    assert pair.near.netns.call(lambda: interrupts_go_on("near0")) != ""


@pytest.mark.root
def test_without_need_wakeup_every_batch_is_told(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        [asking] = harness.attach(pair.near, flags=XDP_COPY | XDP_USE_NEED_WAKEUP)
        assert not asking.modes().always_kick
        harness.detach()
        [xsk] = harness.attach(pair.near, flags=XDP_COPY)
        assert xsk.modes().always_kick
        for i in range(5):
            raw.send(frame(pair.far, pair.near, bytes([i]) * 60))
            harness.handle(1, harness.send_back)
            assert raw.receive()[14:] == bytes([i]) * 60
        assert (xsk.state().kicks, xsk.state().kicks_spared) == (5, 0)
