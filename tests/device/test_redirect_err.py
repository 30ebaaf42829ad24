"""Redirects that fail, on real veth pairs: each is counted once, by its error; which of them XDP_STATISTICS has too."""

from __future__ import annotations

import errno
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.device.harness import EXPERIMENTAL, MODES, SMALL, Harness, frame
from tests.paths.soak import bpf_objects, exists
from tests.paths.world import MakePeer, MakeVeth, opened
from xdpstack.device import privileges
from xdpstack.device.claims import EthertypeClaim
from xdpstack.device.device import KernelBackend
from xdpstack.device.libbpf import PinnedMap
from xdpstack.device.redirect_err import RedirectErrors, Watched, because, by_name, lacking
from xdpstack.device.xsk import Xsk
from xdpstack.errors import TableFull
from xdpstack.native import check, lib
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.wait import until

AF_XDP, SOL_XDP, XDP_RX_RING = 44, 283, 2
WITHOUT = privileges.effective() - {"CAP_PERFMON"}
MakeWatched = Callable[..., Watched]


# ---- without a kernel ----


def test_names_of_counters() -> None:
    counts = {0: {"enobufs": 3, "enomem": 1}, 2: {"other": 7}}
    assert by_name("eth1", counts) == {
        "eth1.0.redirect_err_enobufs": 3,
        "eth1.0.redirect_err_enomem": 1,
        "eth1.2.redirect_err_other": 7,
    }


def test_what_is_refused_has_its_reason() -> None:
    assert "Before Linux 5.13" in because(OSError(errno.EINVAL, ""))
    assert "no tracepoints" in because(OSError(errno.ENOENT, ""))
    assert because(OSError(errno.EMFILE, "")).endswith("Too many open files.")
    assert because(TableFull("it is full")).endswith("is refused: it is full")


def test_without_the_capability_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "effective", lambda: frozenset({"CAP_BPF", "CAP_NET_ADMIN"}))
    assert lacking() == "The kernel wants CAP_PERFMON of who listens at its tracepoints."
    redirects = RedirectErrors(1)
    not_looked_at: Any = None
    watched = redirects.watch(not_looked_at)
    assert (watched.why, watched.counts()) == (lacking(), {})
    redirects.close()


# ---- on veth ----


@pytest.fixture
def watched() -> Iterator[MakeWatched]:
    """watched(harness, device): what is counted of the program that the harness has attached to the device."""
    redirects = RedirectErrors(128)

    def make(harness: Harness, device: int = 0) -> Watched:
        made = redirects.watch(PinnedMap("xsks", harness.programs[device].map))
        assert made.why == ""
        return made

    yield make
    redirects.close()


def lost(xsk: Xsk) -> int:
    """Frames for the socket that the kernel has lost, by its own statistics."""
    said = xsk.statistics()
    return said["rx_dropped"] + said["rx_ring_full"]


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_a_full_receive_ring(veth: MakeVeth, peer: MakePeer, watched: MakeWatched, mode: str) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near, mode=MODES[mode])
        seen = watched(harness)
        for _ in range(SMALL.rx):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: lib.xs_worker_wait(harness.worker, 0))
        assert seen.counts() == {}
        for _ in range(10):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: lost(xsk) == 10)
        assert seen.counts() == {0: {"enobufs": 10}}
        assert xsk.statistics()["rx_ring_full"] == 10
        harness.receive(SMALL.rx)


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_an_empty_fill_ring(veth: MakeVeth, peer: MakePeer, watched: MakeWatched, mode: str) -> None:
    """A frame is in two of the statistics: rx_fill_ring_empty_descs says why rx_dropped was counted."""
    pair = veth()
    raw = peer(pair.far)
    with Harness(frames=64) as harness:
        [xsk] = harness.attach(pair.near, mode=MODES[mode])
        seen = watched(harness)
        for _ in range(80):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: lost(xsk) == 16)
        assert seen.counts() == {0: {"enomem": 16}}
        said = xsk.statistics()
        assert (said["rx_dropped"], said["rx_fill_ring_empty_descs"]) == (16, 16)
        harness.receive(64)


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_a_frame_too_long(veth: MakeVeth, peer: MakePeer, watched: MakeWatched, mode: str) -> None:
    pair = veth(mtu=3000)
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near, mode=MODES[mode])
        seen = watched(harness)
        raw.send(frame(pair.far, pair.near, bytes(1792 - 14)), frame(pair.far, pair.near, bytes(1792 - 13)))
        harness.receive(1)
        until(lambda: lost(xsk) == 1)
        assert seen.counts() == {0: {"enospc": 1}}
        assert xsk.statistics()["rx_dropped"] == 1


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_what_the_statistics_do_not_have(veth: MakeVeth, peer: MakePeer, watched: MakeWatched, mode: str) -> None:
    """A socket that is not bound, or is another queue's."""
    pair = veth(queues=2)
    raw = peer(pair.far)
    with Harness() as harness, socket.socket(AF_XDP, socket.SOCK_RAW) as unbound:
        xsks = harness.attach(pair.near, queues=2, mode=MODES[mode])
        seen = watched(harness)
        program = harness.programs[0]
        unbound.setsockopt(SOL_XDP, XDP_RX_RING, struct.pack("=I", 64))
        for queue in range(2):
            program.set(queue, unbound.fileno())
        for _ in range(5):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: sum_of(seen) == 5)
        for queue in range(2):
            program.set(queue, xsks[1 - queue].fileno())
        for _ in range(3):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: sum_of(seen) == 8)
        [errors] = seen.counts().values()  # one flow, one queue
        assert errors == {"enxio": 5, "einval": 3}
        assert [lost(xsk) for xsk in xsks] == [0, 0]


def sum_of(seen: Watched) -> int:
    return sum(sum(errors.values()) for errors in seen.counts().values())


@pytest.mark.root
def test_redirects_of_others_are_not_counted(veth: MakeVeth, peer: MakePeer, watched: MakeWatched) -> None:
    """Their map is another. One program counts for two maps, each for itself."""
    pairs = [veth() for _ in range(3)]
    raws = [peer(pair.far) for pair in pairs]
    with Harness(frames=256) as one, Harness(frames=256) as two, Harness(frames=256) as other:
        xsks = [harness.attach(pair.near)[0] for harness, pair in zip((one, two, other), pairs, strict=True)]
        first, second = watched(one), watched(two)
        for count, raw, pair in zip((1, 2, 3), raws, pairs, strict=True):
            for _ in range(SMALL.rx + count):
                raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: [lost(xsk) for xsk in xsks] == [1, 2, 3])
        assert (first.counts(), second.counts()) == ({0: {"enobufs": 1}}, {0: {"enobufs": 2}})
        for harness in (one, two, other):
            harness.receive(SMALL.rx)


@pytest.mark.root
def test_closing_leaves_the_counts_and_nothing_else(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        [xsk] = harness.attach(pair.near)
        before = set(bpf_objects())
        redirects = RedirectErrors(64)
        seen = redirects.watch(PinnedMap("xsks", harness.programs[0].map))
        made = set(bpf_objects()) - before
        assert sorted(kind for kind, _ in made) >= ["link_id", "map_id", "prog_id"]
        for _ in range(SMALL.rx + 1):
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: lost(xsk) == 1)
        redirects.close()
        redirects.close()
        assert seen.counts() == {0: {"enobufs": 1}}
        until(lambda: not any(exists(*each) for each in made), message=lambda: str(made))
        harness.receive(SMALL.rx)


@pytest.mark.root
def test_more_than_was_made_room_for_is_not_counted(veth: MakeVeth) -> None:
    pair = veth()
    redirects = RedirectErrors(1)
    with Harness() as harness:
        harness.attach(pair.near)
        seen = redirects.watch(PinnedMap("xsks", harness.programs[0].map))
        assert "room for 1 entries" in seen.why
        assert seen.counts() == {}
    redirects.close()


# ---- in a stack ----


def drain(harness: Harness) -> int:
    """Packets received in one poll; they are dropped here."""
    check(harness.poll(16), "poll")
    parked = harness.parked()
    harness.resume([lib.XS_DROP] * len(parked))
    return len(parked)


def counted(backend: KernelBackend) -> dict[str, int]:
    """Redirects that have failed, by name."""
    return {name: frames for name, frames in backend.stats().items() if ".redirect_err_" in name}


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_every_frame_that_was_lifted_has_come_or_is_counted(veth: MakeVeth, peer: MakePeer, mode: str) -> None:
    """Live traffic, a slow reader: received and failed are all that the program has lifted, and what the kernel says."""
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        backend = harness.open(pair.near, mode=mode)
        assert backend.devices[0].redirect_errors
        assert "redirect_errors" not in backend.devices[0].why
        backend.claim(EthertypeClaim(EXPERIMENTAL))

        def flood() -> None:
            for _ in range(5000):
                raw.send(frame(pair.far, pair.near, b"x" * 60))

        sender = threading.Thread(target=flood)
        sender.start()
        until(lambda: counted(backend))
        received = 0
        while sender.is_alive():
            received += drain(harness)
            sender.join(0.001)

        def all_there() -> bool:
            nonlocal received
            received += drain(harness)
            return received + sum(counted(backend).values()) == backend.stats()["xdp.rx.redirect_ethertype"]

        until(all_there)
        said, failed = backend.stats(), counted(backend)
        assert failed.get("near0.0.redirect_err_enobufs", 0) == said.get("near0.0.rx_ring_full", 0)
        assert failed.get("near0.0.redirect_err_enomem", 0) == said.get("near0.0.rx_dropped", 0)
        backend.interfaces[0].unbind()
        backend.interfaces[0].rebind()
        assert counted(backend) == failed
        backend.close()
        assert counted(backend) == failed


@pytest.mark.root
def test_one_program_for_all_devices_of_a_stack(netns: Callable[..., Namespace], veth: MakeVeth) -> None:
    here = netns("redirect")
    pairs = [veth(netns_near=here, queues=2) for _ in range(2)]
    before = set(bpf_objects())
    with Harness() as harness:
        harness.open(*(pair.near for pair in pairs), queues=[0])
        made = set(bpf_objects()) - before
        assert len([kind for kind, _ in made if kind == "link_id"]) == 3  # a program each, and the one that counts


@pytest.mark.root
def test_a_stack_without_the_capability(monkeypatch: pytest.MonkeyPatch, veth: MakeVeth) -> None:
    """Is opened, and says why they are not counted."""
    monkeypatch.setattr(privileges, "effective", lambda: WITHOUT)
    pair = veth()
    with opened(pair.near) as stack:
        [device] = json.loads(json.dumps(stack.info()))["devices"]
        assert device["redirect_errors"] is False
        assert device["why"]["redirect_errors"] == lacking()
        assert not any("redirect_err" in name for name in stack.counters())


@pytest.mark.root
def test_a_stack_that_only_sends_has_none(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        [device] = harness.open(pair.near, transmit_only=True).devices
        assert not device.redirect_errors
        assert "redirect_errors" not in device.why
