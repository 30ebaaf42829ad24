"""What each driver lets be tuned, turned and put back; and that what it refuses leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.nic.expected import EXPECTED
from tests.paths.world import FAR, NEAR, OURS, exchange, kernel_udp, opened
from xdpstack import SocketClaim, Tuning
from xdpstack.device.tuning.facts import Facts, read_facts
from xdpstack.device.tuning.journal import journals
from xdpstack.device.tuning.knobs import knob
from xdpstack.errors import TuningRefused
from xdpstack.testing.veth import End, Veth

pytestmark = pytest.mark.root
HERE = EXPECTED[os.environ["XDPSTACK_NIC_MODEL"]]
MakeVeth = Callable[..., Veth]


def facts_of(end: End) -> Facts:
    return end.netns.call(lambda: read_facts(end.name, end.index))


def asked_of(facts: Facts) -> dict[str, Any]:
    """One of everything that the device has."""
    asked: dict[str, Any] = {"napi_defer_hard_irqs": 2, "gro_flush_timeout_ns": 200_000, "merging": "off"}
    if facts.channels is not None and facts.channels.combined > 1 and HERE.channels:
        asked["channels"] = facts.channels.combined - 1
    if facts.rings is not None and facts.rings.rx_max > facts.rings.rx:
        asked["nic_rx_ring"] = facts.rings.rx * 2
    if facts.irqs:
        asked["irq_cpus"] = [1]
    if facts.rss is not None:
        asked["rss_weights"] = [1]
        asked |= {"rss_key": bytes(reversed(facts.rss.key))} if facts.rss.key else {}
    return asked


def values(end: End, names: list[str]) -> dict[str, Any]:
    return end.netns.call(lambda: {name: knob(end.name, name).read() for name in names})


def test_all_that_it_has(veth: MakeVeth) -> None:
    pair = veth(near=NEAR, far=FAR)
    end = pair.near
    before = facts_of(end)
    interrupts = [f"irq {number}" for number in before.irqs.values()]
    cpus = values(end, interrupts)
    asked = asked_of(before)
    print("tuned:", asked)
    with opened(end, tune=Tuning(**asked)) as stack:
        [device] = stack.devices
        names = list(device.tuned)
        print("granted:", device.tuned, device.why)
        for name, each in device.tuned.items():
            assert each["granted"] == each["asked"], (name, each, device.why)
        assert values(end, names) == {name: each["granted"] for name, each in device.tuned.items()}
        assert {"napi_defer_hard_irqs", "gro_flush_timeout"} <= set(names)
        assert ("channels" in names) == ("channels" in asked)
        client = kernel_udp(pair.far.netns, to=OURS[0])
        exchange(stack.udp(OURS[0]), client, b"tuned")
        client.close()
    # These follow the number of queues.
    back = [name for name in names if name not in ("rss table", *interrupts)]
    assert values(end, back) == {name: device.tuned[name]["before"] for name in back}
    assert values(end, interrupts) == cpus
    after = facts_of(end)
    assert (after.channels, after.rings, after.rss, after.rules) == (
        before.channels,
        before.rings,
        before.rss,
        before.rules,
    )
    assert journals() == []


def test_steering(veth: MakeVeth) -> None:
    """Granted, or refused by the driver with everything put back."""
    end = veth(near=NEAR, far=FAR).near
    before = facts_of(end)
    tune = Tuning(steer={SocketClaim("10.0.0.1", 7): 0}, napi_defer_hard_irqs=1)
    try:
        with opened(end, tune=tune) as stack:
            [name] = [name for name in stack.devices[0].tuned if name.startswith("steer")]
            assert values(end, [name])[name]
    except TuningRefused as refused:
        print("steering:", refused)
    after = facts_of(end)
    assert (after.rules, after.offloads) == (before.rules, before.offloads)
    assert values(end, ["napi_defer_hard_irqs"]) == {"napi_defer_hard_irqs": 0}
    assert journals() == []
