"""The mirror follows a real namespace: whatever is done to it, in the end the mirror's tables are the kernel's."""

import os
import random
import selectors
import struct
import subprocess
from pathlib import Path

import pytest

from xdpstack.errors import ClosedError, ConfigurationError, NamespaceError
from xdpstack.netlink import Change, Mirror, Prefix, Route, Snapshot, channel, decode, packed, run_in
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    NUD_PERMANENT,
    NUD_REACHABLE,
    RTM_NEWROUTE,
    RTN_BLACKHOLE,
    RTN_UNICAST,
    XDP_ATTACHED_NONE,
)

pytestmark = pytest.mark.root
PAIR = ("link add a0 type veth peer name b0", "link set a0 up", "link set b0 up", "address add 10.0.0.1/24 dev a0")


def fresh(namespace) -> Snapshot:
    """What a mirror that starts now sees."""
    with Mirror(namespace.name) as mirror:
        return mirror.snapshot


def same(ours: Snapshot, theirs: Snapshot) -> bool:
    """Equal, but for neighbours (they age by themselves) and the order in which tables list different prefixes."""
    return (
        ours.links == theirs.links
        and ours.addresses == theirs.addresses
        and ours.rules == theirs.rules
        and ours.nexthops == theirs.nexthops
        and ours.groups == theirs.groups
        and ours.sysctls == theirs.sysctls
        and by_prefix(ours) == by_prefix(theirs)
    )


def by_prefix(snapshot: Snapshot) -> dict[tuple[int, Prefix], list[object]]:
    tables: dict[tuple[int, Prefix], list[object]] = {}
    for route in sorted(snapshot.routes, key=lambda route: route.priority):
        tables.setdefault((route.table, route.destination), []).append(route)
    return tables


def ipv4_routes(snapshot: Snapshot) -> list[Route]:
    """Those that nobody but a test changes: IPv6 has more once its addresses are known to be unique."""
    return [route for route in snapshot.routes if len(route.destination.address) == 4]


def test_follows_each_kind_of_thing(namespace, wait) -> None:
    namespace.ip(*PAIR)
    with Mirror(namespace.name) as mirror:
        assert mirror.snapshot.generation == 1
        a0 = mirror.snapshot.link("a0")
        assert a0
        assert (a0.kind, a0.mtu, a0.xdp_mode) == ("veth", 1500, XDP_ATTACHED_NONE)
        seen: list[tuple[Snapshot, Snapshot, tuple[Change, ...]]] = []
        mirror.listeners.append(lambda old, new, changes: seen.append((old, new, changes)))

        namespace.ip("route add 192.0.2.0/24 via 10.0.0.9 mtu 1400")
        changes = mirror.process()
        assert [(c.kind, c.action) for c in changes] == [("route", "added")]
        route = changes[0].new
        assert route in mirror.snapshot.routes
        assert str(route) == f"192.0.2.0/24 via 10.0.0.9 dev #{a0.index} table 254"
        assert seen[-1][1] is mirror.snapshot
        assert seen[-1][2] == changes
        assert seen[-1][1].generation == seen[-1][0].generation + 1

        namespace.ip("rule add fwmark 1 lookup 100 priority 9", "nexthop add id 5 via 10.0.0.8 dev a0",
                     "neighbour add 10.0.0.9 lladdr 02:00:00:00:00:09 dev a0", "address add 10.0.0.2/24 dev a0",
                     "link set a0 mtu 1400")  # fmt: skip
        mirror.process()
        state = mirror.snapshot
        assert any(rule.priority == 9 and rule.mark == 1 for rule in state.rules)
        assert state.nexthops[5].hop.gateway == packed("10.0.0.8")
        assert state.neighbours[a0.index, packed("10.0.0.9")].state == NUD_PERMANENT
        assert [a.is_secondary for a in state.addresses_of(a0.index, AF_INET)] == [False, True]
        assert state.links[a0.index].mtu == 1400

        namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv4.conf.a0.rp_filter=2")
        wait(mirror, lambda: mirror.snapshot.sysctls["ipv4.ip_forward"] == 1)
        assert mirror.snapshot.sysctls.conf_max(AF_INET, "a0", "rp_filter") == 2
        namespace.sysctl("net.ipv4.conf.a0.accept_local=1")  # the kernel tells nobody
        changes = mirror.resync()
        assert "sysctl" in [c.kind for c in changes]
        assert mirror.snapshot.sysctls.conf_or(AF_INET, "a0", "accept_local")


def test_switches_that_nobody_announces_are_read_again(namespace) -> None:
    now = [100.0]
    with Mirror(namespace.name, clock=lambda: now[0]) as mirror:
        mirror.resync()
        for value in (2, 0):
            generation = mirror.snapshot.generation
            namespace.sysctl(f"net.ipv4.conf.lo.arp_announce={value}")
            now[0] += 0.9
            assert mirror.process() == ()
            now[0] += 0.2
            assert [change.kind for change in mirror.process()] == ["sysctl"]
            assert mirror.snapshot.sysctls.conf(AF_INET, "lo", "arp_announce") == value
            assert mirror.snapshot.generation == generation + 1
        now[0] += 2
        assert mirror.process() == ()
        assert mirror.snapshot.generation == generation + 1  # nothing new: nothing published
        assert mirror.counters.rereads == 3


def test_switches_stay_when_the_right_to_read_them_is_gone(namespace, monkeypatch) -> None:
    """setns(2) wants CAP_SYS_ADMIN, which may have been dropped."""
    now = [100.0]

    def refused(function: object) -> None:
        raise NamespaceError("network namespace 'x' cannot be entered")

    with Mirror(namespace.name, clock=lambda: now[0]) as mirror:
        known = mirror.snapshot.sysctls
        monkeypatch.setattr(mirror.place, "run", refused)
        for _ in range(3):
            now[0] += 5
            assert mirror.process() == ()
        assert mirror.snapshot.sysctls == known
        assert mirror.counters.rereads == 1


def test_device_down_takes_its_silent_routes_along(namespace, wait) -> None:
    """Linux drops IPv4 routes over a device that goes down without telling; the mirror sees it all the same."""
    namespace.ip(*PAIR, "route add 192.0.2.0/24 via 10.0.0.9")
    with Mirror(namespace.name) as mirror:
        namespace.ip("link set a0 down")
        mirror.process()
        assert not any(r.destination == Prefix.parse("192.0.2.0/24") for r in mirror.snapshot.routes)
        assert mirror.counters.resyncs == 1
        namespace.ip("link set a0 up")
        wait(mirror, lambda: same(mirror.snapshot, fresh(namespace)))
        namespace.ip("link del a0")
        wait(mirror, lambda: same(mirror.snapshot, fresh(namespace)))
        assert mirror.snapshot.link("a0") is None


def test_routes_under_one_key_keep_the_kernels_order(namespace) -> None:
    namespace.ip(*PAIR)
    with Mirror(namespace.name) as mirror:
        namespace.ip("route add 192.0.2.0/24 via 10.0.0.9", "route append 192.0.2.0/24 via 10.0.0.8",
                     "route prepend 192.0.2.0/24 via 10.0.0.7",
                     "route add blackhole 192.0.2.0/24 metric 5")  # fmt: skip
        mirror.process()
        found = [r for r in mirror.snapshot.routes if r.destination == Prefix.parse("192.0.2.0/24")]
        assert [(r.type, r.hops[0].gateway[-1] if r.hops else 0) for r in found] == [
            (RTN_UNICAST, 7), (RTN_UNICAST, 9), (RTN_UNICAST, 8), (RTN_BLACKHOLE, 0)
        ]  # fmt: skip
        namespace.ip("route replace 192.0.2.0/24 via 10.0.0.6", "route del 192.0.2.0/24 via 10.0.0.8")
        mirror.process()
        assert by_prefix(mirror.snapshot) == by_prefix(fresh(namespace))


def random_commands(rng: random.Random) -> list[str]:
    """Words for ip(8) that may or may not succeed."""
    verb = rng.choice(["add", "add", "append", "prepend", "replace", "del"])
    metric = rng.choice(["", "metric 10", "metric 20"])
    four = f"10.{rng.randrange(50, 53)}.0.0/16"
    six = f"2001:db8:{rng.randrange(50, 53)}::/48"
    gateways = [f"via 10.0.0.{rng.randrange(5, 9)}", f"via 10.1.0.{rng.randrange(5, 9)}"]
    many = " ".join(f"nexthop {g} weight {rng.randrange(1, 4)}" for g in gateways)
    device = rng.choice(["a0", "b0"])
    return [
        rng.choice(
            [
                f"route {verb} {four} {rng.choice(gateways)} {metric}",
                f"route {verb} {four} {many} {metric}",
                f"route {verb} {rng.choice(['blackhole', 'unreachable', 'throw'])} {four} {metric}",
                f"route {verb} {six} via fe80::{rng.randrange(5, 9)} dev {device} {metric}",
                f"route {verb} {six} nexthop via fe80::5 dev a0 nexthop via fe80::6 dev b0",
                f"address {rng.choice(['add', 'del'])} 10.{rng.randrange(3)}.0.{rng.randrange(1, 5)}/24 dev {device}",
                f"address {rng.choice(['add', 'del'])} 2001:db8:{rng.randrange(3)}::1/64 dev {device} nodad",
                f"rule {rng.choice(['add', 'del'])} from 10.0.{rng.randrange(3)}.0/24 lookup 100 priority 77",
                f"nexthop {rng.choice(['add', 'replace', 'del'])} id {rng.randrange(1, 4)} via 10.0.0.5 dev a0",
                f"route {verb} {four} nhid {rng.randrange(1, 4)} {metric}",
                f"link set {device} {rng.choice(['up', 'up', 'up', 'down'])}",
                f"link set {device} mtu {rng.choice([1000, 1400, 1500])}",
                f"neighbour {rng.choice(['replace', 'del'])} 10.0.0.5 lladdr 02:00:00:00:00:05 dev a0",
            ]
        )
        for _ in range(rng.randrange(1, 12))
    ]


@pytest.mark.parametrize("seed", range(6))
def test_any_history_ends_in_the_kernels_tables(namespace, wait, seed: int) -> None:
    rng = random.Random(seed)
    namespace.ip(*PAIR, "address add 10.1.0.1/24 dev b0", "address add 2001:db8::1/64 dev a0 nodad")
    with Mirror(namespace.name) as mirror:
        for _ in range(25):
            namespace.ip(*random_commands(rng), options=("-force",), check=False)
            mirror.process()
        wait(mirror, lambda: same(mirror.snapshot, fresh(namespace)))
        assert mirror.counters.doubts == mirror.counters.overruns == 0


def test_overrun_is_survived(namespace, wait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "EVENT_BUFFER_BYTES", 4096)
    namespace.ip(*PAIR)
    with Mirror(namespace.name) as mirror:
        namespace.ip(*(f"route add 172.16.{i // 250}.{i % 250} via 10.0.0.9" for i in range(1000)))
        before = mirror.snapshot
        mirror.process()
        assert mirror.counters.overruns >= 1
        assert mirror.snapshot.generation == before.generation + 1
        assert len(ipv4_routes(mirror.snapshot)) == len(ipv4_routes(before)) + 1000
        namespace.ip(*(f"route del 172.16.{i // 250}.{i % 250}" for i in range(1000)))
        wait(mirror, lambda: same(mirror.snapshot, fresh(namespace)))
        assert len(ipv4_routes(mirror.snapshot)) == len(ipv4_routes(before))


def test_malformed_event_is_answered_with_a_dump(namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace.ip(*PAIR)
    with Mirror(namespace.name) as mirror:
        garbage = decode.HEADER.pack(20, RTM_NEWROUTE, 0, 0, 0) + struct.pack("=I", 2)
        monkeypatch.setattr(channel.Channel, "events", lambda self: iter([(RTM_NEWROUTE, 0, garbage)]))
        dumps = mirror.counters.dumps
        before = ipv4_routes(mirror.snapshot)
        mirror.process()
        assert ipv4_routes(mirror.snapshot) == before
        assert mirror.counters.doubts >= 1
        assert mirror.counters.dumps > dumps


def test_selector_wakes_for_a_change(namespace) -> None:
    namespace.ip(*PAIR)
    with Mirror(namespace.name) as mirror, selectors.DefaultSelector() as selector:
        selector.register(mirror, selectors.EVENT_READ)
        while selector.select(0):
            mirror.process()
        namespace.ip("route add 192.0.2.0/24 via 10.0.0.9")
        assert selector.select(5)
        assert mirror.process()


def test_what_is_collected_is_published_later(namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """More events than the socket has room for, but somebody takes them in: none is lost, and one snapshot has them all."""
    monkeypatch.setattr(channel, "EVENT_BUFFER_BYTES", 65536)
    namespace.ip(*PAIR)
    with Mirror(namespace.name) as mirror:
        generation, before = mirror.snapshot.generation, mirror.counters.events
        for n in range(40):
            namespace.ip(*(f"route add 10.{n}.{m}.0/24 via 10.0.0.2" for m in range(1, 26)))
            mirror.collect()
        assert mirror.snapshot.generation == generation
        assert mirror.counters.events - before >= 1000
        mirror.process()
        assert mirror.counters.overruns == 0
        assert mirror.snapshot.generation == generation + 1
        assert same(mirror.snapshot, fresh(namespace))


def test_probe_resolves_once_a_second(namespace, wait) -> None:
    """Two devices of one namespace that are each other's peer: a0 asks for an address of b0, and b0 answers."""
    now = [100.0]
    peer = f"{namespace.name}-peer"
    namespace.ip("link add a0 type veth peer name b0", "address add 10.0.0.1/24 dev a0", "link set a0 up")
    mirror = Mirror(namespace.name, clock=lambda: now[0])
    with namespace.peer(peer) as other:
        namespace.ip(f"link set b0 netns {peer}")
        other.ip("address add 10.0.0.2/24 dev b0", "link set b0 up")
        mirror.start()
        wait(mirror, lambda: mirror.snapshot.link("a0").has_carrier)
        key = (mirror.snapshot.link("a0").index, packed("10.0.0.2"))
        assert mirror.probe(key)
        assert not mirror.probe(key)
        now[0] += 1.0
        wait(mirror, lambda: key in mirror.snapshot.neighbours)
        entry = mirror.snapshot.neighbours[key]
        assert entry.state == NUD_REACHABLE
        assert len(entry.lladdr) == 6
        assert mirror.probe(entry)
        assert (mirror.counters.probes, mirror.counters.probes_spared) == (2, 1)
        now[0] += 1.0
        assert mirror.probe((9999, packed("10.0.0.2")))  # no such device
        now[0] += 1.0
        assert mirror.probe(key)
        assert mirror.counters.probe_failures == 1
    mirror.close()


def test_namespace_by_path_and_missing(namespace) -> None:
    with Mirror(f"/run/netns/{namespace.name}") as mirror:
        assert [link.name for link in mirror.snapshot.links.values()] == ["lo"]
    with pytest.raises(NamespaceError, match="no-such-namespace"):
        Mirror("no-such-namespace").start()


def test_a_name_that_goes_takes_nothing_with_it() -> None:
    """`ip netns delete` under a mirror: the namespace lives for as long as somebody holds it, and is followed."""
    now = [0.0]
    name = f"mirror-{os.getpid()}-gone"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
    with Mirror(name, clock=lambda: now[0]) as mirror:
        subprocess.run(["ip", "netns", "delete", name], check=True, timeout=30)
        mirror.place.run(lambda: Path("/proc/sys/net/ipv4/ip_default_ttl").write_text("77"))
        now[0] += 10.0
        mirror.process()
        assert mirror.snapshot.sysctls["ipv4.ip_default_ttl"] == 77
        mirror.resync()
        assert [link.name for link in mirror.snapshot.links.values()] == ["lo"]
    with pytest.raises(ClosedError):
        mirror.place.run(lambda: None)


def test_misuse_is_named(namespace) -> None:
    mirror = Mirror(namespace.name)
    assert mirror.snapshot.generation == 0
    with pytest.raises(ClosedError):
        mirror.process()
    mirror.start()
    with pytest.raises(ConfigurationError):
        mirror.start()
    mirror.close()
    mirror.close()
    with pytest.raises(ClosedError):
        mirror.fileno()
    assert mirror.snapshot.generation == 1


def test_messages_of_other_processes_are_ignored(namespace) -> None:
    with Mirror(namespace.name) as mirror:
        forged = channel.message(RTM_NEWROUTE, 0, 0, decode.ROUTE.pack(AF_INET6, 0, 0, 0, 254, 4, 0, 1, 0))
        before = mirror.snapshot.routes
        port = mirror._channel._event.getsockname()[0]
        sender = run_in(namespace.name, channel.open_socket)
        sender.sendto(forged, (port, 0))
        sender.close()
        mirror.process()
        assert mirror.snapshot.routes == before
        assert mirror.counters.doubts == 0
