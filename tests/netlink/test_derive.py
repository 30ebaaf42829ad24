"""The addresses, routes and groups that a snapshot built by hand derives are those a real namespace has."""

import random
from collections import Counter

import pytest

from xdpstack.netlink import Address, Link, Mirror, Snapshot
from xdpstack.netlink.address import scope_of
from xdpstack.netlink.uapi import AF_INET, AF_INET6, IFA_F_NODAD, IFA_F_NOPREFIXROUTE, IFA_F_PERMANENT, RT_SCOPE_LINK

pytestmark = pytest.mark.root


def random_address(rng: random.Random, index: int) -> tuple[Address, str]:
    """An address and the ip(8) words that add it."""
    if rng.random() < 0.6:
        text = f"10.{rng.randrange(3)}.{rng.randrange(2)}.{rng.randrange(256)}"
        length = rng.choice([8, 16, 23, 24, 24, 30, 31, 32])
        peer = f"10.{rng.randrange(3, 6)}.0.{rng.randrange(256)}" if rng.random() < 0.2 else ""
        broadcast = rng.choice(["", "", "+", "10.255.255.255"]) if not peer else ""
        metric = rng.choice([0, 0, 50])
        scope = rng.choice([0, 0, RT_SCOPE_LINK]) if length == 32 else 0
        words = f"scope {scope}"
    else:
        text = f"2001:db8:{rng.randrange(3)}::{rng.randrange(1, 40):x}"
        length = rng.choice([48, 64, 64, 126, 127, 128])
        peer = f"2001:db8:{rng.randrange(4, 6)}::{rng.randrange(1, 40):x}" if rng.random() < 0.2 else ""
        broadcast, metric, scope = "", rng.choice([0, 50, 300]), scope_of(b"\x20" + bytes(15))
        words = "nodad"
    flags = IFA_F_PERMANENT | (IFA_F_NOPREFIXROUTE if rng.random() < 0.15 else 0)
    flags |= IFA_F_NODAD if ":" in text else 0
    words += " noprefixroute" if flags & IFA_F_NOPREFIXROUTE else ""
    words += f" broadcast {broadcast}" if broadcast else ""
    words += f" metric {metric}" if metric else ""
    where = f"{text} peer {peer}/{length}" if peer else f"{text}/{length}"
    address = Address.parse(
        f"{text}/{length}", index, peer=peer, broadcast=broadcast, scope=scope, flags=flags, metric=metric
    )
    return address, f"{where} {words}"


@pytest.mark.parametrize("seed", range(12))
def test_derived_state_is_the_kernels(namespace, wait, seed: int) -> None:
    rng = random.Random(seed)
    forwarding = seed % 3 == 0
    if forwarding:
        namespace.sysctl("net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1")
    namespace.ip(
        "link add a0 type veth peer name b0", "link set a0 up", "link set b0 up", f"link set b0 mtu {1000 + seed * 100}"
    )
    with Mirror(namespace.name) as mirror:
        links = {link.name: link for link in mirror.snapshot.links.values()}
        given: list[Address] = []
        for _ in range(rng.randrange(1, 14)):
            name = rng.choice(["a0", "a0", "b0", "lo"])
            address, words = random_address(rng, links[name].index)
            try:
                namespace.ip(f"address add {words} dev {name}")
            except Exception:
                continue
            given.append(address)
        wait(mirror, lambda: not any(a.flags & 0x40 for a in mirror.snapshot.addresses))  # DAD of fe80:: is over
        kernel = mirror.snapshot

    built = Snapshot.build(
        sorted((link for link in kernel.links.values() if not link.is_loopback), key=lambda link: link.index),
        given,
        sysctls={"net.ipv6.conf.all.forwarding": int(forwarding), "net.ipv4.ip_forward": int(forwarding)},
    )
    assert {a.index: a for a in built.links.values()} == dict(kernel.links)
    for family in (AF_INET, AF_INET6):
        for index in kernel.links:
            ours, theirs = built.addresses_of(index, family), kernel.addresses_of(index, family)
            assert [str(a) for a in ours] == [str(a) for a in theirs]
            assert [(a.scope, a.is_secondary) for a in ours] == [(a.scope, a.is_secondary) for a in theirs]
    ours, theirs = Counter(built.routes), Counter(kernel.routes)
    assert [str(route) for route in ours - theirs] == [], "the kernel lacks these"
    assert [str(route) for route in theirs - ours] == [], "we lack these"
    assert built.groups == kernel.groups
    assert built.rules == kernel.rules
    for device in built.links.values():
        for switch in ("forwarding", "rp_filter", "accept_local", "accept_source_route"):
            assert built.sysctls.conf(AF_INET, device.name, switch) == kernel.sysctls.conf(AF_INET, device.name, switch)
        if device.mtu < 1280:
            continue  # no IPv6, hence no switches of it
        for switch in ("forwarding", "disable_ipv6", "hop_limit", "accept_source_route"):
            assert built.sysctls.conf(AF_INET6, device.name, switch) == kernel.sysctls.conf(
                AF_INET6, device.name, switch
            )


def test_a_fresh_namespace_has_the_default_switches(namespace) -> None:
    with Mirror(namespace.name) as mirror:
        kernel = mirror.snapshot.sysctls
    built = Snapshot.build([Link(2, "a0")]).sysctls
    for name in ("ipv4.ip_default_ttl", "ipv4.udp_rmem_min", "ipv4.ip_forward", "ipv6.bindv6only", "ipv4.icmp_ratemask",
                 "ipv4.fib_multipath_hash_policy", "ipv6.fib_multipath_hash_fields", "core.rmem_default"):  # fmt: skip
        assert kernel[name] == built[name], name
    assert dict(kernel.ipv4["lo"]) == dict(built.ipv4["lo"])
    assert dict(kernel.ipv4["default"]) == dict(built.ipv4["default"])
    assert dict(kernel.ipv6["default"]) | {"mtu": 0} == dict(built.ipv6["default"]) | {"mtu": 0}
