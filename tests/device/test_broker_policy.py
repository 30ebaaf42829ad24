"""Policies as they are written, what they allow, and what is said between broker and client."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from xdpstack import errors
from xdpstack.device.broker import wire
from xdpstack.device.broker.policy import Peer, load, parse
from xdpstack.device.claims import (
    Claim,
    Endpoint,
    Essential,
    EthertypeClaim,
    EverythingBut,
    ForwardClaim,
    PrefixClaim,
    ProtocolClaim,
    SocketClaim,
)
from xdpstack.errors import ConfigurationError, PrivilegeError

PEER, STRANGER, GROUP = Peer(1, 1000, 1000), Peer(2, 1001, 1001), Peer(3, 1002, 50)
CLAIMS: list[Claim] = [
    SocketClaim("10.0.0.1", 7, vlan=5, broadcast=True),
    SocketClaim("::", 7),
    PrefixClaim("10.0.0.0/8", any_mac=True, include=Essential.SSH | Essential.ARP),
    ProtocolClaim(47, family=6),
    EthertypeClaim(0x88B5, vlan=9),
    ProtocolClaim(17, vlan=(9, 5)),
    ForwardClaim(),
    EverythingBut([Endpoint(6, 22), PrefixClaim("fe80::/10"), ProtocolClaim(1)]),
]


def test_what_a_policy_allows() -> None:
    policy = parse(
        {
            "allow": [
                {"users": [1000], "interfaces": ["eth1"], "queues": [0, 1], "ports": [53, "8000-8099"]},
                {"groups": [50], "interfaces": ["eth1", "eth2"], "wide": True},
                {"users": [1000], "interfaces": ["eth2"], "ports": ["1-65535"], "addresses": ["10.0.0.0/24"]},
            ]
        }
    )
    policy.check_interface(PEER, "eth1")
    policy.check_queue(PEER, "eth1", 1)
    policy.check_claim(PEER, "eth1", SocketClaim("10.0.0.1", 8099))
    policy.check_claim(PEER, "eth2", SocketClaim("10.0.0.1", 1))
    policy.check_queue(GROUP, "eth2", 7)
    policy.check_claim(GROUP, "eth2", EverythingBut())
    with pytest.raises(PrivilegeError, match=r"process 2 of user 1001 have eth1\nCause: No rule"):
        policy.check_interface(STRANGER, "eth1")
    with pytest.raises(PrivilegeError):
        policy.check_interface(PEER, "eth3")
    with pytest.raises(PrivilegeError, match=r"queue 2 of eth1\nCause: Its policy allows queues 0, 1"):
        policy.check_queue(PEER, "eth1", 2)
    for claim in (SocketClaim("10.0.0.1", 54), EverythingBut(), ForwardClaim()):
        with pytest.raises(PrivilegeError, match="allows UDP ports 53, 8000-8099"):
            policy.check_claim(PEER, "eth1", claim)
    for claim in (SocketClaim("10.0.1.1", 1), SocketClaim("0.0.0.0", 1), SocketClaim("::1", 1)):
        with pytest.raises(PrivilegeError):
            policy.check_claim(PEER, "eth2", claim)


def test_tagged_frames_are_allowed_by_the_rule_that_has_their_vlan() -> None:
    each = {"users": [1000], "ports": [53]}
    policy = parse(
        {
            "allow": [
                {**each, "interfaces": ["plain"], "wide": True},
                {**each, "interfaces": ["tagged"], "vlans": [5, "100-199"], "wide": True},
                {**each, "interfaces": ["both"], "vlans": [0, 5]},
                {**each, "interfaces": ["within"], "vlans": [5, "7.20-29", "8.1"]},
            ]
        }
    )

    def allowed(interface: str, made: Claim) -> bool:
        try:
            policy.check_claim(PEER, interface, made)
        except PrivilegeError:
            return False
        return True

    for claims in (lambda vlan: SocketClaim("::1", 53, vlan=vlan), lambda vlan: EverythingBut(vlan=vlan)):
        assert [vlan for vlan in (None, 5, 100, 199, 200) if allowed("plain", claims(vlan))] == [None]
        assert [vlan for vlan in (None, 5, 100, 199, 200) if allowed("tagged", claims(vlan))] == [5, 100, 199]
    assert [vlan for vlan in (None, 4, 5) if allowed("both", SocketClaim("::1", 53, vlan=vlan))] == [None, 5]
    pairs = (None, 5, 20, (5, 5), (7, 19), (7, 20), (7, 29), (7, 30), (8, 1), (8, 20), (20, 7))
    assert [vlan for vlan in pairs if allowed("within", SocketClaim("::1", 53, vlan=vlan))] == [
        5,
        (7, 20),
        (7, 29),
        (8, 1),
    ]
    assert not any(allowed("tagged", SocketClaim("::1", 53, vlan=vlan)) for vlan in ((5, 5), (100, 5), (5, 100)))
    with pytest.raises(PrivilegeError, match=r"VLANs 5, 7.20-29, 8.1 \(0: untagged\)"):
        policy.check_claim(PEER, "within", SocketClaim("::1", 53))
    with pytest.raises(PrivilegeError, match=r"UDP ports 53; VLANs 5, 100-199 \(0: untagged\)"):
        policy.check_claim(PEER, "tagged", SocketClaim("::1", 53))


def test_a_supplementary_group_is_a_group() -> None:
    policy = parse({"allow": [{"groups": [50], "interfaces": ["eth1"]}]})
    policy.check_interface(Peer(4, 1003, 1003, frozenset({49, 50})), "eth1")
    with pytest.raises(PrivilegeError):
        policy.check_interface(Peer(4, 1003, 1003, frozenset({49, 1003})), "eth1")


def test_nothing_is_allowed_by_nothing() -> None:
    with pytest.raises(PrivilegeError):
        parse({}).check_interface(Peer(1, 0, 0), "eth1")


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"users": [1000]},
        {"interfaces": ["eth1"]},
        {"users": ["no-such-user-here"], "interfaces": ["eth1"]},
        {"users": 1000, "interfaces": ["eth1"]},
        {"users": [1000], "interfaces": ["eth1"], "ports": ["9-8"]},
        {"users": [1000], "interfaces": ["eth1"], "ports": ["http"]},
        {"users": [1000], "interfaces": ["eth1"], "ports": [0]},
        {"users": [1000], "interfaces": ["eth1"], "addresses": ["10.0.0.1/24"]},
        {"users": [1000], "interfaces": ["eth1"], "queues": "some"},
        {"users": [1000], "interfaces": ["eth1"], "port": [53]},
        {"users": [1000], "interfaces": ["eth1"], "vlans": [4095]},
        {"users": [1000], "interfaces": ["eth1"], "vlans": 5},
        {"users": [1000], "interfaces": ["eth1"], "vlans": [7.20]},  # TOML makes that 7.2
        {"users": [1000], "interfaces": ["eth1"], "vlans": ["7.0"]},
        {"users": [1000], "interfaces": ["eth1"], "vlans": ["0.7"]},
        {"users": [1000], "interfaces": ["eth1"], "vlans": ["7.8.9"]},
        {"users": [1000], "interfaces": ["eth1"], "vlans": ["7-8.9"]},
    ],
)
def test_what_is_no_rule(rule: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        parse({"allow": [rule]})


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[[allow]]\nusers = ["root"]\ninterfaces = ["eth1"]\n')
    load(file).check_interface(Peer(1, 0, 0), "eth1")
    file.write_text("[[allow]\n")
    with pytest.raises(ConfigurationError, match=r"policy\.toml"):
        load(file)
    file.write_text("[allow]\n")
    with pytest.raises(ConfigurationError, match="no list of rules"):
        load(file)


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_there_and_back(claim: Claim) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        wire.send(left, {"claim": wire.claim_as_json(claim)})
        message, descriptors = wire.receive(right)
    assert wire.claim_from_json(message["claim"]) == claim
    assert descriptors == []


@pytest.mark.parametrize(
    "said",
    [None, 7, {}, {"kind": "Mirror"}, {"kind": "SocketClaim"}, {"kind": "SocketClaim", "address": "x", "port": 1}],
)
def test_what_is_no_claim(said: object) -> None:
    with pytest.raises(ConfigurationError):
        wire.claim_from_json(said)


def test_lists_within_lists_are_no_message() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        left.send(b"[" * 60_000)
        with pytest.raises(ValueError, match="too deep"):
            wire.receive(right)


def test_errors_there_and_back() -> None:
    there = wire.error_as_json(errors.QueueTaken("queue 0", "Because.", "Do.", 16))
    back = wire.error_from_json(there)
    assert isinstance(back, errors.QueueTaken)
    assert (back.message, back.cause, back.fix, back.errno) == ("queue 0", "Because.", "Do.", 16)
    assert isinstance(wire.error_from_json(wire.error_as_json(OSError(22, "no"))), OSError)
    assert isinstance(wire.error_from_json(wire.error_as_json(ValueError("no"))), errors.BrokerError)
    assert isinstance(wire.error_from_json({"type": "SystemExit", "message": "x"}), errors.BrokerError)
    assert isinstance(wire.error_from_json(wire.error_as_json(errors.VerifierError("no", "log"))), errors.BrokerError)
