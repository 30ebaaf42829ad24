"""The host of memory devices: what it knows, and how a test changes it."""

import pytest

from xdpstack.device.memory_clock import ManualClock
from xdpstack.device.memory_mirror import Given, MemoryMirror
from xdpstack.errors import ConfigurationError
from xdpstack.native.core import Core
from xdpstack.netlink import Link, packed

GIVEN = Given(
    {"a0": ["10.0.0.1/24", "2001:db8::1/64"], "b0": ["10.0.1.1/24"]},
    ["default via 10.0.0.254", "10.7.0.0/16 via 10.0.1.9 dev b0"],
    ["from 10.1.0.0/16 lookup 100 pref 100"],
    ["10.0.0.2 dev a0 lladdr 02:00:00:00:00:02", "10.0.1.2 dev b0 lladdr 02:00:00:00:00:03"],
    {"ipv4.ip_forward": 1, "ipv4.conf.a0.rp_filter": 1},
)


def mirror(given: Given = GIVEN, clock: ManualClock | None = None) -> MemoryMirror:
    return MemoryMirror([Link(2, "a0", b"\x02" + bytes(5)), Link(3, "b0")], given, clock)


def routes(host: MemoryMirror) -> list[str]:
    return [str(route) for route in host.snapshot.routes]


def test_the_kernels_own_routes_are_there() -> None:
    host = mirror()
    assert "local 10.0.0.1/32 dev #2 table 255 src 10.0.0.1" in routes(host)
    assert "10.0.0.0/24 dev #2 table 254 src 10.0.0.1" in routes(host)
    assert "0.0.0.0/0 via 10.0.0.254 dev #2 table 254" in routes(host)
    assert [rule.priority for rule in host.snapshot.rules] == [0, 100, 32766, 32767, 0, 32766]
    assert host.snapshot.sysctls.conf(2, "b0", "forwarding") == 1
    assert (host.fileno(), list(host.process())) == (-1, [])


def test_a_change_is_seen_once() -> None:
    host = mirror()
    host.change(routes=["default via 10.0.1.254"])
    assert [str(change) for change in host.process()] == [
        "route removed: 0.0.0.0/0 via 10.0.0.254 dev #2 table 254",
        "route removed: 10.7.0.0/16 via 10.0.1.9 dev #3 table 254",
        "route added: 0.0.0.0/0 via 10.0.1.254 dev #3 table 254",
    ]
    assert list(host.process()) == []
    assert host.snapshot.generation == 2


def test_a_bad_change_changes_nothing() -> None:
    host = mirror()
    before = host.snapshot
    for wrong in ("default via 99.0.0.1", "default via"):
        with pytest.raises(ConfigurationError):
            host.change(routes=[wrong])
    assert host.snapshot is before
    host.change(neighbours=[])
    assert routes(host) == [str(route) for route in before.routes]


def test_neighbours_are_learned() -> None:
    host = mirror()
    host.learn("10.0.0.2 dev a0 lladdr 02:00:00:00:00:0f", "10.0.0.3 dev a0 lladdr 02:00:00:00:00:04")
    known = {str(neighbour) for neighbour in host.snapshot.neighbours.values()}
    assert known == {
        "10.0.1.2 dev #3 lladdr 02:00:00:00:00:03 permanent",
        "10.0.0.2 dev #2 lladdr 02:00:00:00:00:0f permanent",
        "10.0.0.3 dev #2 lladdr 02:00:00:00:00:04 permanent",
    }


def test_a_link_that_is_down_loses_its_routes_until_it_is_up() -> None:
    host = mirror()
    before = sorted(routes(host))
    host.set_link("a0", up=False)
    assert not [r for r in routes(host) if "dev #2" in r and not r.startswith("local 10.0.0.1")]
    host.set_link("a0", up=True)
    assert sorted(routes(host)) == before


def test_a_removed_link_takes_along_what_is_its() -> None:
    host = mirror()
    host.remove_link("a0")
    assert not [r for r in routes(host) if "dev #2" in r]
    assert "10.7.0.0/16 via 10.0.1.9 dev #3 table 254" in routes(host)
    assert {index for index, _ in host.snapshot.neighbours} == {3}
    assert {address.index for address in host.snapshot.addresses} == {1, 3}
    with pytest.raises(ConfigurationError, match="there is no device 'a0'"):
        host.change(routes=["default dev a0"])


def test_probes_are_noted_once_a_second() -> None:
    clock = ManualClock(Core(frames=64, manual_clock=True))
    host = mirror(clock=clock)
    key = (2, packed("10.0.0.9"))
    assert [host.probe(key), host.probe(key)] == [True, False]
    clock.advance(999_999_999)
    assert not host.probe(key)
    clock.advance(1)
    assert host.probe(key)
    assert host.probed == [("a0", "10.0.0.9")] * 2


def test_the_clock_goes_forward_only() -> None:
    clock = ManualClock(Core(frames=64, manual_clock=True))
    with pytest.raises(ConfigurationError, match="forward only"):
        clock.advance(-1)


@pytest.mark.parametrize(
    "given, message",
    [
        (Given({"zz": ["10.0.0.1/24"]}), "addresses for 'zz', which is no device"),
        (Given({}, ["default via 10.0.0.1"]), "gateway 10.0.0.1 is on no link"),
        (Given({}, sysctls={"ipv4.ip_froward": 1}), "ipv4.ip_froward is not a switch that is mirrored"),
    ],
)
def test_what_cannot_be_is_refused(given: Given, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        mirror(given)
