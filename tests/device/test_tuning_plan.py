"""What of a tuning can be, and what is refused, with the reason, before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xdpstack.device.claims import SocketClaim
from xdpstack.device.ethtool import Channels, Offload, RingSizes
from xdpstack.device.ethtool_set import FIELDS, Rss
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.tuning.facts import Facts, online_cpus
from xdpstack.device.tuning.irqs import interrupts, named_irqs
from xdpstack.device.tuning.plan import plan_after, plan_before, weighted
from xdpstack.errors import ConfigurationError, TuningRefused

FACTS = Facts(
    "eth7",
    "fakenic",
    True,
    Channels(0, 0, 4, 0, 0, 8),
    RingSizes(256, 256, 4096, 4096),
    {
        "rx-gro": Offload(True, False),
        "rx-lro": Offload(False, False),
        "rx-gro-hw": Offload(True, True),
        "rx-vlan-hw-parse": Offload(True, False),
        "rx-ntuple-filter": Offload(False, False),
    },
    Rss(tuple(i % 4 for i in range(16)), bytes(40)),
    ((0, 2), 4),
    {0: 40, 1: 41, 2: 42, 3: 42},
    frozenset({"napi_defer_hard_irqs", "gro_flush_timeout"}),
    frozenset({0, 1, 2}),
)
BARE = Facts("near0", "veth", False)


def test_nothing_asked_is_nothing_done_in_native_mode() -> None:
    assert plan_before(Tuning(), FACTS).steps == []
    assert plan_after(Tuning(), FACTS, "native", 4).steps == []


def test_generic_mode_has_merging_switched_off() -> None:
    plan = plan_after(Tuning(), FACTS, "generic", 4)
    assert plan.steps == [("feature rx-gro", False)]
    assert plan.why == {"merging": "The driver of eth7 does not let rx-gro-hw be switched off."}
    assert plan_after(Tuning(merging="keep"), FACTS, "generic", 4).steps == []
    assert plan_before(Tuning(merging="off"), FACTS).steps == [("feature rx-gro", False)]


def test_what_a_veth_peer_needs_is_said() -> None:
    assert "PEER tso off gso off" in plan_after(Tuning(), BARE, "generic", 1).why["merging"]
    assert "PEER tx-vlan-hw-insert off" in plan_before(Tuning(vlan_stripping=False), BARE).why["vlan_stripping"]


def test_queues_and_rings() -> None:
    plan = plan_before(Tuning(channels=2, nic_rx_ring=1024, vlan_stripping=False), FACTS)
    assert plan.steps == [("feature rx-vlan-hw-parse", False), ("rings", [1024, 256]), ("channels", [0, 0, 2])]
    separate = replace(FACTS, channels=Channels(4, 4, 0, 4, 2, 0))
    assert plan_before(Tuning(channels=3), separate).steps == [("channels", [3, 2, 0])]


def test_everything_behind_the_program() -> None:
    asked = Tuning(
        rss_weights=[0, 1, 1],
        rss_key=bytes(range(40)),
        rss_fields={"udp4": "sdfn"},
        steer={SocketClaim("10.0.0.2", 53): 3, SocketClaim("::", 53): 0},
        irq_cpus=[2, 1],
        napi_defer_hard_irqs=2,
        gro_flush_timeout_ns=200_000,
    )
    steps = dict(plan_after(asked, FACTS, "native", 4).steps)
    assert steps["rss key"] == bytes(range(40)).hex()
    assert steps["rss table"] == [1] * 8 + [2] * 8
    assert steps["hash udp4"] == FIELDS["s"] | FIELDS["d"] | FIELDS["f"] | FIELDS["n"]
    assert steps["feature rx-ntuple-filter"] is True
    assert {name for name in steps if name.startswith("steer")} == {"steer 1", "steer 3"}  # 0 and 2 are taken
    assert (steps["irq 40"], steps["irq 41"], steps["irq 42"]) == ("2", "1", "2")  # 42 is that of two queues
    assert (steps["napi_defer_hard_irqs"], steps["gro_flush_timeout"]) == (2, 200_000)


@pytest.mark.parametrize(
    "asked, facts, message",
    [
        ({"channels": 9}, FACTS, "eth7 cannot have 9 queues\nCause: It has 8 at most."),
        ({"channels": 2}, BARE, "cannot be changed\nCause: Its driver has no ethtool -l"),
        ({"nic_rx_ring": 8192}, FACTS, "nic_rx_ring=8192\nCause: It has 4096 slots at most."),
        ({"nic_tx_ring": 64}, BARE, "no ethtool -g"),
        ({"rss_weights": [1] * 5}, FACTS, "no queues for 5 rss_weights\nCause: It has 4 active."),
        ({"rss_weights": [1]}, BARE, "no ethtool -x"),
        ({"rss_key": b"short"}, FACTS, "rss_key of 5 bytes\nCause: It has 40."),
        ({"steer": {SocketClaim("10.0.0.2", 53): 4}}, FACTS, "queue 4 of eth7\nCause: It has 4 active."),
        ({"steer": {SocketClaim("10.0.0.2", port): 0 for port in (1, 2, 3)}}, FACTS, "no room .*\nCause: It holds 4."),
        ({"steer": {SocketClaim("10.0.0.2", 53): 0}}, BARE, "no n-tuple rules"),
        ({"irq_cpus": [0, 7]}, FACTS, "no CPU 7\nCause: Online are 0, 1, 2."),
        ({"irq_cpus": [0]}, replace(FACTS, irqs={}), "no interrupt of eth7 is known"),
        ({"napi_defer_hard_irqs": 1}, BARE, "no napi_defer_hard_irqs"),
    ],
)
def test_what_a_device_cannot(asked: dict[str, Any], facts: Facts, message: str) -> None:
    tuning = Tuning(**asked)
    with pytest.raises(TuningRefused, match=message):
        plan_before(tuning, facts), plan_after(tuning, facts, "native", 4)


@pytest.mark.parametrize(
    "asked",
    [
        {"channels": 0},
        {"channels": True},
        {"nic_rx_ring": -1},
        {"rss_weights": [0, 0]},
        {"rss_weights": [-1]},
        {"rss_fields": {"udp5": "s"}},
        {"rss_fields": {"udp4": "sx"}},
        {"steer": {SocketClaim("10.0.0.2", 53, vlan=5): 0}},
        {"steer": {("10.0.0.2", 53): 0}},
        {"merging": "on"},
        {"vlan_stripping": True},
        {"napi_defer_hard_irqs": 1 << 31},
    ],
)
def test_what_no_device_could(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Tuning(**asked)


def test_what_was_asked_can_be_shown() -> None:
    asked = Tuning(channels=2, rss_key=b"\x01", steer={SocketClaim("10.0.0.2", 53): 1}, gro_flush_timeout_ns=0).asked()
    assert asked["channels"] == 2
    assert asked["rss_key"] == "01"
    assert list(asked["steer"].values()) == [1]
    assert asked["gro_flush_timeout_ns"] == 0
    assert "nic_rx_ring" not in asked


@pytest.mark.parametrize("weights", [[1], [1, 1], [3, 1], [0, 1, 2], [5, 0, 0, 1]])
def test_weights_are_shares(weights: list[int]) -> None:
    table = weighted(128, weights)
    assert len(table) == 128
    for queue, weight in enumerate(weights):
        assert abs(table.count(queue) - 128 * weight / sum(weights)) < 1
    assert table == sorted(table)


def test_interrupts_by_their_names(tmp_path: Path) -> None:
    table = tmp_path / "interrupts"
    table.write_text(
        """           CPU0       CPU1
 38:   0   33205 PCI-MSIX-0000:00:03.0   1-edge      eth7
 39:   0   33205 PCI-MSIX-0000:00:03.0   1-edge      eth7-TxRx-0
 40:   0       0 PCI-MSIX-0000:00:03.0   2-edge      eth7-TxRx-1
 41:   0       0 PCI-MSIX-0000:00:03.0   2-edge      eth77-TxRx-2
 42:   0       0 PCI-MSIX-0000:00:03.0   2-edge      eth7-tx-3
NMI:   0       0   Non-maskable interrupts
"""
    )
    assert named_irqs("eth7", table) == {0: 39, 1: 40}
    assert interrupts("eth7", table) == {"": 38, "-TxRx-0": 39, "-TxRx-1": 40, "-tx-3": 42}


def test_online_cpus(tmp_path: Path) -> None:
    file = tmp_path / "online"
    file.write_text("0-2,5\n")
    assert online_cpus(file) == {0, 1, 2, 5}
