"""Frames that leave again, between two veth pairs: one memory for both devices, no copy, no Python."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import xdpstack
from tests.paths.world import MakeVeth, opened
from xdpstack.stack import Stack
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import PATIENCE, until

pytestmark = pytest.mark.root
ALL = xdpstack.EverythingBut(any_mac=True, include=xdpstack.Essential.ARP | xdpstack.Essential.ND)
LEFT, RIGHT, PORT = "10.0.0.1", "10.0.0.2", 7007
TO, FROM = bytes.fromhex("020000000001"), bytes.fromhex("020000000099")


@contextmanager
def running(stack: Stack) -> Iterator[None]:
    """Somebody drives."""
    thread = threading.Thread(target=stack.run)
    thread.start()
    try:
        yield
    finally:
        stack.stop()
        thread.join()


@pytest.fixture
def pairs(veth: MakeVeth, netns: Callable[..., Namespace]) -> tuple[Veth, Veth]:
    """Two wires; their near ends are in one namespace, without addresses. Senders fill in checksums."""
    near = netns("near")
    left = veth(netns_near=near, near=(), far=(f"{LEFT}/24",), offloads=("tx off",))
    right = veth(netns_near=near, near=(), far=(f"{RIGHT}/24",), offloads=("tx off",))
    return left, right


@pytest.fixture
def stack(pairs: tuple[Veth, Veth]) -> Iterator[Stack]:
    with opened(pairs[0].near, pairs[1].near) as stack:
        yield stack


def frames(n: int, size: int = 60) -> list[bytes]:
    """Of an ethertype that no kernel answers to; all differ."""
    return [TO + FROM + b"\x88\xb5" + i.to_bytes(4) + bytes(k & 0xFF for k in range(size - 18)) for i in range(n)]


def bound(end: End, address: str) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, PORT))
        made.settimeout(PATIENCE)
        return made

    return end.netns.call(make)


def test_frames_cross_untouched_both_ways(
    pairs: tuple[Veth, Veth], stack: Stack, peer: Callable[[End], Peer], ledger: Ledger
) -> None:
    left, right = (peer(pair.far) for pair in pairs)
    near = [pair.near.name for pair in pairs]
    with running(stack), stack.redirect(ALL, to=dict(zip(near, reversed(near), strict=True))):
        for size in (60, 61, 600, 1514):
            given = frames(100, size)
            for sender, receiver in ((left, right), (right, left)):
                sender.send(*given)
                assert [receiver.receive() for _ in given] == given
        until(lambda: stack.frames_by_owner()["transmitting"] == 0)
        counters = stack.counters()
        assert counters["xdp.redirect.redirected"] == counters["napi.tx.packets"] == 800
        assert stack.reasons() == {}
        ledger.check()
    assert stack.ledger().received == stack.ledger().sent == 800


def test_two_hosts_talk_over_it(pairs: tuple[Veth, Veth], stack: Stack, ledger: Ledger) -> None:
    """ARP and UDP of unmodified kernels, in one subnet: a bridge of two ports."""
    near = [pair.near.name for pair in pairs]
    with running(stack), stack.redirect(ALL, to=dict(zip(near, reversed(near), strict=True))):
        with bound(pairs[0].far, LEFT) as client, bound(pairs[1].far, RIGHT) as server:
            for payload in (b"first", bytes(1400)):
                client.sendto(payload, (RIGHT, PORT))
                assert server.recvfrom(2000) == (payload, (LEFT, PORT))
                server.sendto(payload, (LEFT, PORT))
                assert client.recvfrom(2000) == (payload, (RIGHT, PORT))
        ledger.check()


def test_a_reflector(pairs: tuple[Veth, Veth], stack: Stack, peer: Callable[[End], Peer], ledger: Ledger) -> None:
    sender = peer(pairs[0].far)
    with running(stack), stack.redirect(ALL, to={pair.near.name: pair.near.name for pair in pairs}, swap_macs=True):
        given = frames(50)
        sender.send(*given)
        assert [sender.receive() for _ in given] == [FROM + TO + frame[12:] for frame in given]
        ledger.check()


def test_close_gives_the_traffic_back_to_the_kernel(pairs: tuple[Veth, Veth], stack: Stack, ledger: Ledger) -> None:
    near = pairs[0].near
    near.netns.ip(f"address add 10.0.0.3/24 dev {near.name}")
    until(lambda: "10.0.0.3" in stack.addresses())
    with bound(pairs[0].far, LEFT) as client, bound(near, "10.0.0.3") as kernel, running(stack):
        with stack.redirect(ALL, to=pairs[1].near.name):
            client.sendto(b"lifted", ("10.0.0.3", PORT))  # its ARP request leaves, and nobody answers
            until(lambda: stack.counters().get("xdp.redirect.redirected", 0) > 0)
        client.sendto(b"not lifted", ("10.0.0.3", PORT))
        until(lambda: kernel.recv(100) == b"not lifted")
    ledger.check()
