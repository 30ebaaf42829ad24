"""Interfaces that go down or away under traffic: an event, no hang, every frame home; and what still works goes on."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.device.harness import EXPERIMENTAL, MODES, SMALL, Harness, frame
from xdpstack.device import device, overdue
from xdpstack.device.backend import DeviceEvent
from xdpstack.device.claims import EthertypeClaim
from xdpstack.device.device import KernelBackend
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.tuning.knobs import knob
from xdpstack.device.xsk import XDP_COPY, XDP_USE_NEED_WAKEUP, XDP_USE_SG, Rings
from xdpstack.native import lib
from xdpstack.netlink import HeldNamespace
from xdpstack.testing.namespace import Namespace, run
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root
MakeNetns, MakeVeth, MakePeer = Callable[..., Namespace], Callable[..., Veth], Callable[..., Peer]
CLAIM = EthertypeClaim(EXPERIMENTAL)
Claimed = tuple[Veth, Peer, Harness, KernelBackend]
MakeClaimed = Callable[..., AbstractContextManager[Claimed]]


@pytest.fixture
def claimed(veth: MakeVeth, peer: MakePeer) -> MakeClaimed:
    """A pair, what speaks on its far end, and a harness with the near one open and CLAIM claimed."""

    @contextmanager
    def make(queues: int = 1, **options: Any) -> Iterator[Claimed]:
        pair = veth(queues=queues)
        raw = peer(pair.far)
        with Harness() as harness:
            backend = harness.open(pair.near, **options)
            backend.claim(CLAIM)
            yield pair, raw, harness, backend

    return make


class Traffic:
    """A thread that sends to the near end without pause until the end of its `with` block; failures are the test's aim."""

    def __init__(self, raw: Peer, pair: Veth) -> None:
        self.sent = 0
        self._frame = frame(pair.far, pair.near, b"t" * 60)
        self._raw = raw
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._raw.send(self._frame)
                self.sent += 1
            except OSError:  # the device is down or gone
                time.sleep(0.001)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ending.set()
        self._thread.join()


def echo(harness: Harness, condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Sends back what comes until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        harness.poll()
        harness.resume([harness.send_back(harness.bytes_of(each), each) for each in harness.parked()])


@pytest.mark.parametrize("mode", MODES)
def test_deleted_under_traffic(mode: str, claimed: MakeClaimed) -> None:
    with claimed(mode=mode) as (pair, raw, harness, backend):
        assert harness.mirror is not None
        with Traffic(raw, pair):
            echo(harness, lambda: harness.core.ledger().sent > 100)
            pair.near.netns.ip("link delete near0")
            echo(harness, lambda: all(xsk.state().dead for xsk in backend.interfaces[0].sockets))
        assert select.select([harness.mirror.fileno()], [], [], 5.0)[0]
        harness.follow()
        assert backend.interfaces[0].gone
        assert harness.core.frame_counts()["free"] == harness.core.frames
        assert backend.events() == []  # that it is gone is seen in the snapshot
        harness.poll()
        assert harness.core.ledger().missing == 0
        assert backend.stats()["near0.0.kicks"] > 0  # counters outlive their sockets


def test_without_a_mirror_the_poll_finds_out(veth: MakeVeth) -> None:
    """Nothing is sent or received; the kernel's error on the socket is enough. Nobody who sleeps is woken by it."""
    pair = veth()
    with Harness() as harness:
        backend = harness.open(pair.near)
        pair.near.netns.ip("link delete near0")
        until(lambda: harness.poll() == 0 and backend.interfaces[0].sockets[0].state().dead)
        assert lib.xs_worker_wait(harness.worker, 0) == 0
        [event] = backend.events()
        assert (event.device.name, event.what) == ("near0", "queue-error")
        assert "queue 0: ENODEV" in event.detail
        assert "64 frames came home" in event.detail
        assert harness.core.frame_counts()["free"] == harness.core.frames
        assert backend.events() == []


def test_moved_to_another_namespace(netns: MakeNetns, veth: MakeVeth) -> None:
    """To the stack it is gone."""
    pair = veth()
    elsewhere = netns("elsewhere")
    with Harness() as harness:
        backend = harness.open(pair.near)
        backend.claim(CLAIM)
        pair.near.netns.ip(f"link set near0 netns {elsewhere}")
        until(lambda: harness.poll() == 0 and backend.interfaces[0].sockets[0].state().dead)
        harness.follow()
        assert backend.interfaces[0].gone
        assert harness.core.frame_counts()["free"] == harness.core.frames
        elsewhere.ip("link set near0 up")
        assert "xdp" not in elsewhere.show("link", "show", "dev", "near0")[0]


@pytest.mark.parametrize("mode", MODES)
def test_set_down_and_up_under_traffic(mode: str, claimed: MakeClaimed) -> None:
    with claimed(queues=2, mode=mode) as (pair, raw, harness, backend):
        [interface] = backend.interfaces
        with Traffic(raw, pair):
            for _ in range(3):
                before = harness.core.ledger().sent
                echo(harness, lambda before=before: harness.core.ledger().sent > before + 50)
                pair.near.netns.ip("link set near0 down")

                def followed(bound: bool) -> bool:
                    harness.follow()
                    return bool(interface.sockets) == bound

                until(lambda: followed(False))
                assert harness.core.frame_counts()["free"] == harness.core.frames
                assert harness.core.ledger().missing == 0
                pair.near.netns.ip("link set near0 up")
                until(lambda: followed(True))
        assert backend.events() == []


def test_a_device_that_is_down_keeps_what_is_to_be_sent(veth: MakeVeth, peer: MakePeer) -> None:
    """As long as nobody closes its sockets: ENETDOWN is not the end, sending goes on when it is up again."""
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near)
        raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: harness.poll() == 1)
        pair.near.netns.ip("link set near0 down")
        harness.resume([harness.send_back(harness.bytes_of(each), each) for each in harness.parked()])
        state = xsk.state()
        assert (state.error, state.dead, state.transmitting, state.kick_errors) == (100, False, 1, 1)  # ENETDOWN
        pair.near.netns.ip("link set near0 up")
        until(pair.near.is_ready)
        until(lambda: harness.poll() == 0 and xsk.state().transmitting == 0)
        assert xsk.state().error == 0
        assert raw.receive() == frame(pair.near, pair.far, b"x" * 60)


def test_other_devices_go_on(netns: MakeNetns, veth: MakeVeth, peer: MakePeer) -> None:
    here = netns("here")
    one, two = veth(netns_near=here), veth(netns_near=here)
    raw = peer(two.far)
    with Harness() as harness:
        backend = harness.open(one.near, two.near)
        backend.claim(CLAIM)
        here.ip(f"link delete {one.near.name}")
        until(lambda: harness.poll() == 0 and backend.interfaces[0].sockets[0].state().dead)

        def to_the_dead(packet: bytes, number: int) -> int:
            harness.core.packets[number].device = 0
            return 0

        raw.send(frame(two.far, two.near, b"x" * 60))
        harness.handle(1, to_the_dead)
        assert harness.drops(harness.tx) == {"DEVICE_GONE": 1}
        raw.send(frame(two.far, two.near, b"x" * 60))
        harness.handle(1, harness.send_back)
        raw.receive()
        harness.follow()
        assert [bool(interface.sockets) for interface in backend.interfaces] == [False, True]
        raw.send(frame(two.far, two.near, b"x" * 60))
        harness.handle(1, to_the_dead)
        assert harness.drops(harness.tx) == {"DEVICE_GONE": 2}
        raw.send(frame(two.far, two.near, b"x" * 60))
        harness.handle(1, harness.send_back)
        raw.receive()


def test_packets_that_wait_for_room_are_dropped_with_the_device(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    rings = Rings(rx=64, tx=4, fill=64, completion=4, fill_target=64)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near, rings=rings)
        for _ in range(40):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: lib.xs_worker_wait(harness.worker, 0))
        pair.near.netns.ip("link set near0 down")
        harness.poll()
        parked = len(harness.parked())
        harness.resume([0] * parked)
        assert xsk.state().transmitting == 4
        assert harness.core.ledger().held == parked - 4
        harness.detach()
        ledger = harness.core.ledger()
        assert (ledger.sent, ledger.dropped, ledger.held) == (4, parked - 4, 0)


def test_a_packet_that_had_not_come_in_full_is_no_packet(veth: MakeVeth, peer: MakePeer) -> None:
    """The poll's budget ends in the middle of a jumbo frame; then the device goes."""
    pair = veth(mtu=9000)
    raw = peer(pair.far)
    with Harness() as harness:
        harness.attach(pair.near, flags=XDP_USE_NEED_WAKEUP | XDP_USE_SG, frags=True)
        raw.send(frame(pair.far, pair.near, bytes(8000)))
        until(lambda: lib.xs_worker_wait(harness.worker, 0))
        assert harness.poll(budget=3) == 3
        assert harness.core.ledger().received == 0
        assert harness.core.frame_counts()["held"] == 0
        harness.check()
        harness.detach()
        assert harness.core.frame_counts()["free"] == harness.core.frames
        assert harness.core.ledger().missing == 0


def test_a_packet_may_come_over_two_polls(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth(mtu=9000)
    raw = peer(pair.far)
    with Harness() as harness:
        harness.attach(pair.near, flags=XDP_USE_NEED_WAKEUP | XDP_USE_SG | XDP_COPY, frags=True)
        raw.send(frame(pair.far, pair.near, bytes(8000)))
        until(lambda: lib.xs_worker_wait(harness.worker, 0))
        assert harness.poll(budget=3) == 3
        assert harness.parked() == []
        assert harness.poll() == 2
        [number] = harness.parked()
        assert len(harness.frames_of(number)) == 5
        assert harness.bytes_of(number) == frame(pair.far, pair.near, bytes(8000))
        harness.resume([lib.XS_DROP])


def test_an_mtu_that_grows_is_followed(claimed: MakeClaimed) -> None:
    """The sockets were bound for packets of one frame; they are bound anew for several, and back again."""
    with claimed() as (pair, raw, harness, backend):
        [interface] = backend.interfaces

        def set_mtu(mtu: int) -> None:
            pair.far.netns.ip(f"link set far0 mtu {mtu}")
            pair.near.netns.ip(f"link set near0 mtu {mtu}")

            def followed() -> bool:
                harness.follow()
                return interface.link.mtu == mtu

            until(followed)

        set_mtu(3000)
        assert [xsk.multi_buffer for xsk in interface.sockets] == [True]
        assert [device.multi_buffer for device in backend.devices] == [True]
        raw.send(frame(pair.far, pair.near, bytes(2900)))
        assert harness.receive(1) == [frame(pair.far, pair.near, bytes(2900))]
        before = interface.sockets[0]
        set_mtu(2500)  # several frames still
        assert interface.sockets[0] is before
        set_mtu(1500)
        assert [xsk.multi_buffer for xsk in interface.sockets] == [False]
        assert [device.multi_buffer for device in backend.devices] == [False]
        raw.send(frame(pair.far, pair.near, bytes(100)))
        assert len(harness.receive(1)) == 1
        assert backend.events() == []


def test_frames_longer_than_they_were_bound_for_are_in_the_statistics(claimed: MakeClaimed) -> None:
    """Until the change is followed."""
    with claimed() as (pair, raw, harness, backend):
        pair.near.netns.ip("link set near0 mtu 3000")
        pair.far.netns.ip("link set far0 mtu 3000")
        raw.send(frame(pair.far, pair.near, bytes(2900)))
        until(lambda: backend.stats().get("near0.0.rx_dropped") == 1)
        raw.send(frame(pair.far, pair.near, bytes(100)))
        assert len(harness.receive(1)) == 1


def test_a_mac_that_changes_is_followed(claimed: MakeClaimed) -> None:
    with claimed() as (pair, raw, harness, backend):
        pair.near.netns.ip("link set near0 address 02:00:00:00:00:77")
        changed = bytes.fromhex("020000000077") + frame(pair.far, pair.near, b"x" * 60)[6:]
        assert harness.mirror is not None
        until(lambda: harness.follow() or backend.interfaces[0].link.address == changed[:6])
        raw.send(changed)
        assert harness.receive(1) == [changed]


def test_what_cannot_be_bound_again_is_an_event(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness, Harness() as other:
        backend = harness.open(pair.near)
        [interface] = backend.interfaces

        def followed(bound: bool) -> bool:
            harness.follow()
            return bool(interface.sockets) == bound

        pair.near.netns.ip("link set near0 down")
        until(lambda: followed(False))
        xsk = pair.near.netns.call(lambda: other.umem.open(pair.near.index, 0, SMALL, 0))
        pair.near.netns.ip("link set near0 up")
        found: list[DeviceEvent] = []
        until(lambda: harness.follow() or found.extend(backend.events()) or found)
        assert found[0].what == "queue-error"
        assert "cannot be bound again: queue 0 of near0 has another AF_XDP socket" in found[0].detail
        other.umem.release(xsk)
        pair.near.netns.ip("link set near0 mtu 1400")  # anything that makes a snapshot
        until(lambda: followed(True))


def test_the_name_of_the_namespace_goes(veth: MakeVeth, peer: MakePeer, caplog: pytest.LogCaptureFixture) -> None:
    """`ip netns delete` under a running stack: what it has of the namespace it keeps, and what was tuned is put back."""
    pair = veth(queues=2)
    raw = peer(pair.far)
    netns = pair.near.netns
    packet = frame(pair.far, pair.near, b"x" * 60)

    def interrupts_deferred() -> object:
        return knob("near0", "napi_defer_hard_irqs").read()

    with HeldNamespace(netns.name) as place, Harness() as harness:
        backend = harness.open(pair.near, tune=Tuning(napi_defer_hard_irqs=3))
        backend.claim(CLAIM)
        [interface] = backend.interfaces
        netns.delete()
        assert not netns.exists
        raw.send(packet)
        harness.handle(1, harness.send_back)
        raw.receive()
        place.run(lambda: set_mtu(1300))
        until(lambda: harness.follow() or interface.link.mtu == 1300)
        assert place.run(interrupts_deferred) == 3
        harness.close()
        assert place.run(interrupts_deferred) == 0
    assert caplog.text == ""


def set_mtu(mtu: int) -> None:
    run("ip", "link", "set", "near0", "mtu", str(mtu))


def test_other_queues_under_traffic(veth: MakeVeth, peer: MakePeer) -> None:
    """More become active, then fewer while it is down: all that are there are bound, and no frame is lost."""
    pair = veth(queues=4)
    pair.far.ethtool("-L", "rx", "4", "tx", "2")
    pair.near.ethtool("-L", "rx", "2", "tx", "2")
    raw = peer(pair.far)
    found: list[DeviceEvent] = []
    with Harness() as harness:
        backend = harness.open(pair.near)
        backend.claim(CLAIM)
        [interface] = backend.interfaces
        assert interface.queues == (0, 1)

        def more() -> None:
            before = harness.core.ledger().sent
            echo(harness, lambda: harness.core.ledger().sent > before + 50)

        def followed(queues: tuple[int, ...]) -> bool:
            harness.follow()
            found.extend(backend.events())
            return interface.queues == queues and len(interface.sockets) == len(queues)

        with Traffic(raw, pair):
            more()
            pair.near.ethtool("-L", "rx", "4", "tx", "4")
            echo(harness, lambda: followed((0, 1, 2, 3)))
            assert [device.queues for device in backend.devices] == [(0, 1, 2, 3)]
            more()
            pair.near.netns.ip("link set near0 down")
            until(lambda: harness.follow() or not interface.sockets)
            until(lambda: can(pair.near.ethtool, "-L", "rx", "3", "tx", "3"))  # their sockets go some time later
            pair.near.netns.ip("link set near0 up")
            echo(harness, lambda: followed((0, 1, 2)))
            more()
        harness.poll()
        harness.resume([lib.XS_DROP] * len(harness.parked()))
        assert harness.core.ledger().missing == 0
    assert [(event.what, event.detail.partition(";")[0]) for event in found] == [("queues", "2 queues have become 4")]


def can(function: Callable[..., object], *words: str) -> bool:
    try:
        function(*words)
    except RuntimeError:
        return False
    return True


def held_back(pair: Veth) -> End:
    """A device whose packets are held by a queueing discipline below it, for as long as that is there."""
    netns = pair.near.netns
    netns.ip("link add link near0 name upper0 type macvlan", "link set upper0 up")
    netns.run("tc", "qdisc", "add", "dev", "near0", "root", "tbf", "rate", "8bit", "burst", "200", "limit", "1000000")
    return End(netns, "upper0")


def send_back_all(harness: Harness, raw: Peer, pair: Veth, upper: End) -> None:
    """Sixteen packets, of which the kernel keeps most."""
    for _ in range(16):
        raw.send(frame(pair.far, upper, b"x" * 100))
    harness.handle(16, harness.send_back)
    harness.poll()
    assert harness.core.frame_counts()["transmitting"] > 8


def test_completions_that_stop(veth: MakeVeth, peer: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, once, after a deadline; receiving goes on, and sending when the frames come back."""
    monkeypatch.setattr(overdue, "DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(device, "LOOK_SECONDS", 0.05)
    pair = veth()
    raw, upper = peer(pair.far), held_back(pair)
    with Harness() as harness:
        backend = harness.open(upper, mode="generic")
        backend.claim(CLAIM)
        send_back_all(harness, raw, pair, upper)
        assert backend.events() == []
        found: list[DeviceEvent] = []
        until(lambda: harness.poll() or found.extend(backend.events()) or found)
        [event] = found
        assert event.what == "queue-error"
        assert "frames to be sent did not come back for 0.3 s" in event.detail
        raw.send(frame(pair.far, upper, b"z" * 100))
        harness.receive(1)  # that goes on
        pair.near.netns.run("tc", "qdisc", "delete", "dev", "near0", "root")
        until(lambda: harness.poll() or not harness.core.frame_counts()["transmitting"])
        raw.send(frame(pair.far, upper, b"y" * 100))
        harness.handle(1, harness.send_back)
        assert raw.expect(lambda got: bytes(got)[14:].startswith(b"y")) is not None
        assert backend.events() == []


def test_completions_that_stop_in_zero_copy(veth: MakeVeth, peer: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames are home, and the queue is bound anew as soon as it can be."""
    monkeypatch.setattr(overdue, "DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(device, "LOOK_SECONDS", 0.05)
    pair = veth()
    raw, upper = peer(pair.far), held_back(pair)
    with Harness() as harness:
        backend = harness.open(upper, mode="generic")
        backend.claim(CLAIM)
        send_back_all(harness, raw, pair, upper)
        [interface] = backend.interfaces
        interface.sockets[0].zero_copy = True  # as far as the backend is concerned
        found: list[DeviceEvent] = []
        until(lambda: harness.poll() or found.extend(backend.events()) or len(found) > 1)
        assert [event.what for event in found] == ["queue-error", "queue-error"]
        assert "frames came home" in found[0].detail
        assert (
            "cannot be bound again" in found[1].detail
        )  # the kernel has the queue for as long as its packets are held
        assert harness.core.frame_counts()["free"] == harness.core.frames
        pair.near.netns.run("tc", "qdisc", "delete", "dev", "near0", "root")
        until(lambda: found.extend(backend.events()) or len(found) > 2)
        assert (found[2].what, found[2].detail) == ("bound", "queues 0")
        raw.send(frame(pair.far, upper, b"y" * 100))
        harness.handle(1, harness.send_back)
        assert raw.expect(lambda got: bytes(got)[14:].startswith(b"y")) is not None


def test_closing_does_not_wait_for_completions(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw, upper = peer(pair.far), held_back(pair)
    with Harness() as harness:
        backend = harness.open(upper, mode="generic")
        backend.claim(CLAIM)
        send_back_all(harness, raw, pair, upper)
        began = time.monotonic()
        harness.close()
        assert time.monotonic() - began < 5.0
        assert harness.core.frame_counts()["free"] == harness.core.frames
    pair.near.netns.run("tc", "qdisc", "delete", "dev", "near0", "root")
