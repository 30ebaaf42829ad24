"""Rules that lifted packets pass by: as nft itself lists them."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from xdpstack.device.firewall import Rule, dropping, legacy_tables, ruleset
from xdpstack.testing.namespace import Namespace, run

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("nft"), reason="nft is not there")]
MakeNetns = Callable[..., Namespace]

RULES = """
table inet filter {
    set allowed { type inet_service; elements = { 53, 123 }; }
    chain input {
        type filter hook input priority 0; policy accept;
        ct state established accept
        iifname "eth7" udp dport 5000 drop
        iifname != "eth7" udp dport 5001 drop
        udp dport { 6000-6010, 6020 } reject
        tcp dport 22 drop
        meta l4proto icmp drop
        ip protocol udp ip saddr 10.0.0.0/8 drop
        udp dport != 7000 jump others
        udp dport @allowed drop
    }
    chain others { th dport 8000 drop; }
    chain unused { drop; }
    chain output { type filter hook output priority 0; policy drop; }
}
table ip strict {
    chain pre { type filter hook prerouting priority -300; policy drop; }
}
"""


def rules(netns: Namespace, text: str, device: str, port: int | None) -> list[Rule]:
    run("ip", "netns", "exec", netns.name, "nft", "-f", "-", text=text.replace("; }", ";\n}"))
    objects = netns.call(ruleset)
    assert objects is not None
    return dropping(objects, device, port)


ALWAYS = {"ip protocol udp ip saddr 10.0.0.0/8 drop", "policy drop", "udp dport @allowed drop"}


@pytest.mark.parametrize(
    "device, port, more",
    [
        ("eth7", 5000, {"iifname eth7 udp dport 5000 drop"}),
        ("eth8", 5000, set()),
        ("eth7", 5001, set()),
        ("eth8", 5001, {"iifname != eth7 udp dport 5001 drop"}),
        ("eth8", 6005, {"udp dport { 6000-6010, 6020 } reject"}),
        ("eth8", 6011, set()),
        ("eth8", 6020, {"udp dport { 6000-6010, 6020 } reject"}),
        ("eth8", 8000, {"th dport 8000 drop"}),
        (
            "eth7",
            None,
            {"iifname eth7 udp dport 5000 drop", "udp dport { 6000-6010, 6020 } reject", "th dport 8000 drop"},
        ),
    ],
)
def test_rules_that_would_have_dropped(netns: MakeNetns, device: str, port: int | None, more: set[str]) -> None:
    found = rules(netns(), RULES, device, port)
    assert {rule.what for rule in found} == ALWAYS | more
    [policy] = [rule for rule in found if rule.what == "policy drop"]
    assert str(policy) == "ip strict pre: policy drop"
    assert all(rule.handle for rule in found if rule is not policy)


def test_a_chain_that_is_not_reached_drops_nothing(netns: MakeNetns) -> None:
    """udp dport != 7000 does not hold for port 7000, so that the jump is not taken."""
    text = """table inet filter {
        chain input { type filter hook input priority 0; udp dport != 7000 goto others; }
        chain others { drop; }
    }"""
    assert rules(netns(), text, "eth0", 7000) == []


def test_verdict_maps_are_followed(netns: MakeNetns) -> None:
    text = """table inet filter {
        chain input { type filter hook input priority 0; udp dport vmap { 5000 : jump others, 6000 : accept }; }
        chain others { drop; }
    }"""
    assert [rule.chain for rule in rules(netns(), text, "eth0", 5000)] == ["others"]


def test_no_rules(netns: MakeNetns) -> None:
    made = netns()
    assert dropping(made.call(ruleset) or [], "eth0") == []
    assert made.call(legacy_tables) == []
