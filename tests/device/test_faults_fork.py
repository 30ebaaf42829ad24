"""Fork: the child has neither rings nor frames, and does no harm to its parent's."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

import pytest

from tests.device.harness import EXPERIMENTAL, Harness, frame
from xdpstack.device.claims import EthertypeClaim
from xdpstack.device.prefilter import Prefilter, PrefilterProgram
from xdpstack.errors import ForkedError
from xdpstack.native import lib
from xdpstack.native.core import Core
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import Veth

MakeVeth, MakePeer = Callable[..., Veth], Callable[..., Peer]


def in_a_child(function: Callable[[], None]) -> int:
    """Runs it in a forked child; the child's wait status, 0 if it returned."""
    pid = os.fork()
    if not pid:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def test_a_child_knows_that_it_is_one() -> None:
    core = Core(frames=64)
    assert lib.xs_stack_forked(core.pointer) == 0

    def child() -> None:
        assert lib.xs_stack_forked(core.pointer) == 1

    assert in_a_child(child) == 0


def test_destroying_the_stack_in_a_child_does_nothing() -> None:
    core = Core(frames=64)

    def child() -> None:
        lib.xs_stack_destroy(core.pointer)

    assert in_a_child(child) == 0
    assert core.frame_counts()["free"] == 64


@pytest.mark.root
def test_the_parent_goes_on(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness() as harness:
        backend = harness.open(pair.near)
        backend._prefilters.append(PrefilterProgram.load("near0", Prefilter(["192.0.2.1"]), offload=False))
        backend.claim(EthertypeClaim(EXPERIMENTAL))
        link_fd = backend.interfaces[0].program.link_fd if backend.interfaces[0].program else -1
        socket_fd = backend.interfaces[0].sockets[0].fileno()

        def child() -> None:
            for descriptor in (link_fd, socket_fd):
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.fstat(descriptor)
            program = backend.interfaces[0].program
            assert program is not None
            with pytest.raises(ForkedError):
                _ = program.deadman.deadline_ns
            backend.close()
            assert backend._prefilters == [], "their maps are freed"
            watchdog = backend.watchdog
            assert watchdog is not None
            watchdog.stop()

        assert in_a_child(child) == 0
        assert pair.near.has_xdp()
        raw.send(frame(pair.far, pair.near, b"x" * 60))
        harness.handle(1, harness.send_back)
        assert raw.receive() == frame(pair.near, pair.far, b"x" * 60)


@pytest.mark.root
def test_a_child_may_open_its_own(veth: MakeVeth) -> None:
    one = veth()
    with Harness() as harness:
        harness.open(one.near)

        def child() -> None:
            other = Harness()
            with pytest.raises(Exception, match="another XDP program"):
                other.open(one.near)
            lo = Core(frames=64)
            assert lo.frame_counts()["free"] == 64

        assert in_a_child(child) == 0
