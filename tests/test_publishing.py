"""Tables that cannot be published: the others are, the one before serves on, and the next round makes up for it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from xdpstack.device.backend import DeviceEvent
from xdpstack.native import lib
from xdpstack.netlink import Snapshot, packed
from xdpstack.publishing import Publication, Publications
from xdpstack.routing.ask import source_address
from xdpstack.testing.memory import MemoryStack, memory_stack

VIA = {"10.0.0.254": "02:00:00:00:00:fe", "10.0.0.253": "02:00:00:00:00:fd"}
FAR = ("192.0.2.7", 9)

#: Each table: the module that makes it, what it calls of C to make a new one, and the errors that this may end with.
MAKERS = {
    "devices": ("xdpstack.control", "xs_stack_set_devices", [errno.ENOMEM]),
    "routing": ("xdpstack.routing.native", "xs_fib_create", [errno.ENOMEM, errno.E2BIG]),
    "neighbours": ("xdpstack.stages.neigh", "xs_stack_set_neighbours", [errno.ENOMEM]),
}
CASES = [(table, error) for table, (_, _, errors) in MAKERS.items() for error in errors]


class Failing:
    """The C library, but for the functions of `instead`, by name."""

    def __init__(self, **instead: Callable[..., int]) -> None:
        self.instead = instead

    def __getattr__(self, name: str) -> Any:
        return self.instead.get(name) or getattr(lib, name)


@pytest.fixture
def stack() -> Iterator[MemoryStack]:
    """a0 is 10.0.0.1/24; 192.0.2.0/24 is behind the first of two gateways."""
    with memory_stack(
        "a0",
        "b0",
        addresses={"a0": ["10.0.0.1/24"]},
        routes=["192.0.2.0/24 via 10.0.0.254"],
        neighbours=[f"{address} dev a0 lladdr {mac}" for address, mac in VIA.items()],
    ) as made:
        yield made


def fail(monkeypatch: pytest.MonkeyPatch, table: str, error: int) -> Failing:
    """Until its `instead` is cleared no new `table` can be made."""
    module, function, _ = MAKERS[table]
    failing = Failing(**{function: lambda *_: -error})
    if table == "neighbours":  # else the one there is would do
        failing.instead["xs_stack_update_neighbour"] = lambda *_: -errno.ENOSPC
    monkeypatch.setattr(f"{module}.lib", failing)
    return failing


def first_hop(stack: MemoryStack) -> tuple[str, int]:
    """The MAC to which a datagram to 192.0.2.7 is sent, and its TTL."""
    with stack.udp(("10.0.0.1", 0)) as sock:
        sock.sendto(b"?", FAR)
        (frame,) = stack.sent("a0")
    return frame[:6].hex(":"), frame[14 + 8]


def change_all(stack: MemoryStack) -> None:
    """Every table has something new: the other gateway, which has another MAC, and another TTL."""
    stack.host.change(
        addresses={"b0": ["10.9.0.1/24"]},
        routes=["192.0.2.0/24 via 10.0.0.253"],
        neighbours=["10.0.0.253 dev a0 lladdr 02:00:00:00:00:33", "10.0.0.254 dev a0 lladdr 02:00:00:00:00:44"],
        sysctls={"ipv4.ip_default_ttl": 99},
    )


def is_new(stack: MemoryStack) -> dict[str, bool]:
    """Which tables say what `change_all` did, as far as a datagram shows it."""
    mac, ttl = first_hop(stack)
    new = ("02:00:00:00:00:33", "02:00:00:00:00:44")
    return {"devices": ttl == 99, "routing": mac in (new[0], VIA["10.0.0.253"]), "neighbours": mac in new}


@pytest.mark.parametrize("table, error", CASES, ids=lambda each: errno.errorcode.get(each, each))
def test_what_could_not_be_published_is_with_the_next_round(
    stack: MemoryStack, monkeypatch: pytest.MonkeyPatch, table: str, error: int
) -> None:
    assert set(is_new(stack).values()) == {False}
    failing = fail(monkeypatch, table, error)
    change_all(stack)
    stack.step()
    assert is_new(stack) == {each: each != table for each in MAKERS}
    stack.step()  # nothing has changed, and there is still no memory
    told = stack.info()["tables"]
    assert told[table]["failed"] == 2
    assert os.strerror(error) in told[table]["stale"]
    assert {each: told[each]["stale"] for each in told if each != table} == dict.fromkeys(told.keys() - {table}, "")
    assert stack.counters()[f"control.{table}_not_published"] == 2

    failing.instead.clear()
    stack.step()
    assert set(is_new(stack).values()) == {True}
    assert stack.info()["tables"][table]["stale"] == ""
    published = stack.info()["tables"][table]["published"]
    stack.step()
    assert stack.info()["tables"][table]["published"] == published  # nothing is left to do


def test_neighbours_of_which_some_were_published_are_put_right(
    stack: MemoryStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two changes is in its cell when the second fails; then the host takes both back."""
    failing = fail(monkeypatch, "neighbours", errno.ENOMEM)
    results: list[int] = []

    def first_only(*arguments: object) -> int:
        results.append(-errno.ENOSPC if results else lib.xs_stack_update_neighbour(*arguments))
        return results[-1]

    failing.instead["xs_stack_update_neighbour"] = first_only
    change_all(stack)
    stack.step()
    assert results == [0, -errno.ENOSPC]
    failing.instead.clear()
    neighbours = [f"{address} dev a0 lladdr {mac}" for address, mac in VIA.items()]
    for gateway, mac in VIA.items():
        stack.host.change(routes=[f"192.0.2.0/24 via {gateway}"], neighbours=neighbours)
        stack.step()
        assert first_hop(stack) == (mac, 99)


def test_addresses_that_no_program_takes_are_given_again(stack: MemoryStack, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Snapshot] = []

    def set_local(snapshot: Snapshot) -> None:
        given.append(snapshot)
        if len(given) < 3:
            raise OSError(errno.E2BIG, "the map is full")

    (addresses,) = (each for each in stack._control.tables._tables if each.name == "addresses")
    monkeypatch.setattr(addresses, "_publish", set_local)
    change_all(stack)
    stack.step(5)
    assert given == [stack.snapshot] * 3
    assert set(is_new(stack).values()) == {True}
    assert source_address(stack._core.pointer, packed("10.9.0.7"), None) == packed("10.9.0.1")


def test_a_failure_keeps_neither_events_nor_questions(stack: MemoryStack, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, "routing", errno.ENOMEM)
    asked: list[bool] = []
    stack._control.listen(-1, lambda: asked.append(True))
    stack.host.set_link("b0", up=False)
    stack.step()
    assert [(event.device.name, event.what) for event in stack.events()] == [("b0", "down")]
    assert asked == [True]


def test_events_can_be_asked_for_while_a_table_is_made(stack: MemoryStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may take seconds, where there are very many routes."""
    module, function, _ = MAKERS["routing"]
    asking, told = threading.Event(), threading.Event()

    def slowly(*arguments: object) -> int:
        asking.set()
        assert told.wait(10)
        return int(getattr(lib, function)(*arguments))

    monkeypatch.setattr(f"{module}.lib", Failing(**{function: slowly}))
    stack.host.set_link("b0", up=False)
    control = threading.Thread(target=stack._control.step)
    control.start()
    assert asking.wait(10)
    assert stack.events() == []
    told.set()
    control.join(10)
    assert [event.what for event in stack.events()] == ["down"]


def test_a_mirror_that_fails_keeps_nothing_else(stack: MemoryStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump that the kernel refuses: what is known is published, what happened is told, and then it is raised."""
    event = DeviceEvent(stack.devices[0], "queues")
    asked: list[bool] = []

    def process() -> None:
        raise OSError(errno.EBUSY, "dump")

    monkeypatch.setattr(stack.host, "process", process)
    monkeypatch.setattr(stack.backend, "events", lambda: [event])
    stack._control.listen(-1, lambda: asked.append(True))
    with pytest.raises(OSError, match="dump"):
        stack.step()
    assert stack.events() == [event]
    assert asked == [True]


def test_it_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    error: list[Exception] = [OSError(errno.ENOMEM, "no memory")]

    def publish(_: Snapshot) -> None:
        if error:
            raise error[0]

    tables = Publications([Publication("routing", publish), Publication("others", lambda _: None)])
    snapshot = Snapshot(rules=())
    for _ in range(3):
        assert tables.bring_to(snapshot) == error
    error.clear()
    assert tables.bring_to(snapshot) == []
    assert tables.bring_to(snapshot) is None
    told = {name: (of["published"], of["failed"], of["stale"]) for name, of in tables.info().items()}
    assert told == {"routing": (1, 3, ""), "others": (1, 0, "")}
    assert [record.getMessage() for record in caplog.records] == [
        "routing not published, the table before serves on: OSError: [Errno 12] no memory",
        "routing published again",
    ]


# ---- resting ----


class Clock:
    """Stands in for the time module of publishing.py."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("xdpstack.publishing.time", made)
    return made


def table(clock: Clock, name: str, seconds: float, failing: bool = False) -> tuple[Publication, list[Snapshot]]:
    """One that takes so long to make, and what it was made of."""
    made: list[Snapshot] = []

    def publish(snapshot: Snapshot) -> None:
        clock.now += seconds
        made.append(snapshot)
        if failing:
            raise OSError(errno.ENOMEM, "no memory")

    return Publication(name, publish), made


@pytest.mark.parametrize(
    "takes, changes, apart, most",
    [
        (0.001, 1000, 0.001, 250),  # a change a millisecond: a fifth of the time
        (0.2, 1000, 0.01, 13),  # 10,000 routes
        (3.0, 100, 0.1, 5),  # 100,000: it rests for two seconds
    ],
)
def test_changes_one_after_the_other_are_published_together(
    clock: Clock, takes: float, changes: int, apart: float, most: int
) -> None:
    slow, made = table(clock, "routing", takes)
    quick, others = table(clock, "neighbours", 0.0)
    tables = Publications([slow, quick])
    begun = clock.now
    snapshot = Snapshot(rules=())
    for n in range(changes):
        snapshot = Snapshot(rules=(), generation=n)
        tables.bring_to(snapshot, at_once=False)
        clock.now += apart
    assert made[0].generation == 0  # the first at once
    assert len(made) <= most
    assert len(others) == changes  # that one rests is nothing to another
    if takes < 0.5:
        assert takes * len(made) <= (clock.now - begun) / 5 + takes
    wait = tables.wait(snapshot)
    if wait is not None:  # and the last is not forgotten
        assert wait <= 2
        clock.now += wait
        assert tables.bring_to(snapshot, at_once=False) == []
    assert made[-1] is snapshot
    assert tables.wait(snapshot) is None


def test_what_could_not_be_made_is_not_tried_all_the_time(clock: Clock) -> None:
    failing, made = table(clock, "routing", 0.0, failing=True)
    tables = Publications([failing])
    snapshot = Snapshot(rules=())
    for _ in range(50):
        tables.bring_to(snapshot, at_once=False)
        assert tables.wait(snapshot)
        clock.now += 0.1
    assert len(made) == 5


def test_who_asks_for_it_has_it_at_once(clock: Clock) -> None:
    slow, made = table(clock, "routing", 1.0)
    tables = Publications([slow])
    for n in range(3):
        tables.bring_to(Snapshot(rules=(), generation=n))
    assert len(made) == 3


class Watched:
    """A mirror that takes so long for what is called `process()`, and what was called."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.called = clock, seconds, ""

    def process(self) -> None:
        self.clock.now += self.seconds
        self.called += "p"

    def collect(self) -> None:
        self.called += "c"


@pytest.mark.parametrize(
    "seconds, called",
    [
        (0.001, "pppppppppp"),  # as ever
        (0.02, "pcccpcccpc"),  # some thousand routes: a fifth of the time
        (1.0, "pccccccccc"),  # but for a quarter of a second at most
    ],
)
def test_a_mirror_of_very_many_routes_rests_too(
    stack: MemoryStack, monkeypatch: pytest.MonkeyPatch, seconds: float, called: str
) -> None:
    """It goes on taking events from the kernel, which would drop them otherwise."""
    clock, control = Clock(), stack._control
    mirror = Watched(clock, seconds)
    monkeypatch.setattr("xdpstack.control.time", clock)
    monkeypatch.setattr(stack.host, "process", mirror.process)
    monkeypatch.setattr(stack.host, "collect", mirror.collect)
    control.step()
    control.step()
    assert mirror.called == "pp"  # whoever calls it himself has all of it
    over = threading.Thread(target=lambda: None)
    over.start()
    monkeypatch.setattr(control, "_thread", over)
    monkeypatch.setattr(control, "_mirror_rested", 0.0)
    mirror.called = ""
    for _ in range(10):
        control.step()
        assert 0 < control._wait() <= 1
        clock.now += 0.02
    assert mirror.called == called
