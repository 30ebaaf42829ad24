"""Thousands of malformed, truncated and mutated frames over a veth pair: each has its reason, or is the kernel's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import pytest

import xdpstack
from tests.paths.malformed import UNKNOWN, frames
from tests.paths.world import FAR, NEAR, OURS, PORT, MakePeer, MakeVeth, exchange, kernel_udp, opened
from xdpstack.stack import Stack
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, until
from xdpstack.udp.socket import UdpSocket

pytestmark = pytest.mark.root
N = 2000
CHUNK = 64


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    """Its neighbours are fixed: a mutated ARP frame would teach the kernel a wrong MAC, as it would any Linux host."""
    pair = veth(near=NEAR, far=FAR)
    for end, other in (pair.ends(), pair.ends()[::-1]):
        end.netns.ip(
            *(
                f"neighbour replace {address.partition('/')[0]} dev {end.name} lladdr {other.mac} nud permanent"
                for address in other.addresses
            )
        )
    return pair


def seen(stack: Stack, prefix: str = "") -> int:
    """Frames that the XDP program has decided about."""
    return sum(n for name, n in stack.counters().items() if name.startswith(f"xdp.rx.{prefix}"))


def throw(stack: Stack, raw: Peer, data: Iterable[bytes], take: Callable[[], object]) -> int:
    """Sends the frames in bursts that the rings hold; returns how many, once all that was lifted has been received."""
    sent = 0
    burst: list[bytes] = []

    def through() -> bool:
        take()
        return seen(stack) >= sent and stack.ledger().received == seen(stack, "redirect")

    for frame in data:
        burst.append(frame)
        if len(burst) == CHUNK:
            raw.send(*burst)
            sent += len(burst)
            burst = []
            until(through)
    raw.send(*burst)
    sent += len(burst)
    until(through)
    return sent


def emptied(sock: UdpSocket) -> Callable[[], None]:
    sock.setblocking(False)

    def take() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.recv_batch(256).release()

    return take


def check(stack: Stack, ledger: Ledger) -> None:
    """Every packet has its end, every drop its reason."""
    ledger.check()
    packets = stack.ledger()
    reasons = stack.reasons()
    assert sum(reasons.values()) == packets.dropped
    assert not {"NOT_SPECIFIED", "HOOK", "HOOK_EXCEPTION"} & set(reasons)
    # created: what the kernel made of those left to it, and gave to the shadow socket
    assert packets.received + packets.created == packets.delivered + packets.dropped


def is_served(pair: Veth, sock: UdpSocket) -> None:
    sock.settimeout(PATIENCE)
    for to in OURS:
        with kernel_udp(pair.far.netns, to=to) as client:
            exchange(sock, client, b"and a healthy one")


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_to_a_socket(pair: Veth, peer: MakePeer, ledger: Ledger, mode: str) -> None:
    raw = peer(pair.far)
    with opened(pair.near, mode=mode) as stack, stack.udp(("::", PORT)) as sock:
        sent = throw(stack, raw, frames(pair, N, seed=1), emptied(sock))
        assert sent >= N
        check(stack, ledger)
        assert stack.ledger().received > N / 20
        assert seen(stack, "pass") > N / 20
        assert {"UDP_CSUM", "PKT_TOO_SMALL"} <= set(stack.reasons())
        is_served(pair, sock)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_all_of_them_along_the_whole_path(pair: Veth, peer: MakePeer, ledger: Ledger, mode: str) -> None:
    """What the program would leave to the kernel comes too: the stages must do without its help."""
    raw = peer(pair.far)
    with opened(pair.near, mode=mode) as stack, stack.udp(("::", PORT)) as sock:
        everything = xdpstack.EverythingBut(any_mac=True)
        stack._host.claim(everything)
        throw(stack, raw, frames(pair, N, seed=2), emptied(sock))
        check(stack, ledger)
        assert stack.ledger().received > N * 0.7
        expected = {"UNHANDLED_PROTO", "IP_CSUM", "IP_INHDR", "PKT_TOO_SMALL", "UDP_CSUM", "NO_SOCKET", "OTHERHOST"}
        assert len(expected & set(stack.reasons())) >= 5, stack.reasons()
        stack._host.unclaim(everything)
        is_served(pair, sock)


def test_all_of_them_as_frames(pair: Veth, peer: MakePeer, ledger: Ledger) -> None:
    """Byte for byte as they were sent."""
    raw = peer(pair.far)
    given = list(frames(pair, N, seed=3))
    got: list[bytes] = []
    with opened(pair.near) as stack, stack.frames(xdpstack.EverythingBut(any_mac=True)) as tap:
        tap.settimeout(0)

        def take() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    with tap.recv_batch(256) as batch:
                        got.extend(batch.frames())

        throw(stack, raw, given, take)
        take()
        ledger.check()
        assert len(got) == stack.ledger().delivered == seen(stack, "redirect")
    wanted = iter(given)
    mine = [frame for frame in got if frame[6:12] == given[0][6:12] and frame in set(given)]
    assert all(any(frame == each for each in wanted) for frame in mine)  # in their order
    assert len(mine) > N * 0.7


def test_unknown_ethertypes(pair: Veth, peer: MakePeer, ledger: Ledger) -> None:
    raw = peer(pair.far)
    mac = bytes.fromhex((pair.near.mac + pair.far.mac).replace(":", ""))
    strange = [mac + kind.to_bytes(2, "big") + bytes(46) for kind in UNKNOWN]
    with opened(pair.near) as stack, stack.udp(("::", PORT)) as sock:
        raw.send(*strange)
        until(lambda: seen(stack, "pass") >= len(strange))
        assert stack.ledger().received == 0
        claims = [xdpstack.EthertypeClaim(kind) for kind in UNKNOWN if kind >= 0x600]
        for claim in claims:
            stack._host.claim(claim)
        raw.send(*strange)
        until(lambda: stack.poll() >= 0 and stack.ledger().received == len(claims))
        assert stack.reasons() == {"UNHANDLED_PROTO": len(claims)}
        ledger.check()
        is_served(pair, sock)
