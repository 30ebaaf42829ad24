"""Senders on the same host hand veth packets that no wire has seen: many datagrams in one (UDP_SEGMENT)."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.paths.world import OURS, MakeVeth, kernel_udp, opened
from xdpstack.testing.wait import PATIENCE, until

pytestmark = pytest.mark.root
UDP_SEGMENT = 103
NUMBER = 10


def send_at_once(client: Any, size: int = 1000) -> list[bytes]:
    """Ten datagrams by one call, which the kernel is to cut as late as it can."""
    parts = [bytes([i]) * size for i in range(NUMBER)]
    client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
    assert client.send(b"".join(parts)) == size * NUMBER
    return parts


def received(sock: Any, number: int) -> list[bytes]:
    return [sock.recv(65535) for _ in range(number)]


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_native_mode_has_them_cut_before(veth: MakeVeth, mtu: int) -> None:
    """A program on veth takes segmentation from its peer."""
    pair = veth(mtu=mtu)
    with opened(pair.near, mode="native") as stack, stack.udp(OURS[0]) as sock:
        sock.settimeout(PATIENCE)
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            sent = send_at_once(client)
            assert received(sock, NUMBER) == sent


def test_generic_mode_loses_them_unless_the_peer_cuts_them(veth: MakeVeth) -> None:
    """They fit no frame: the socket counts them, and `why` says what the peer is to do."""
    pair = veth()
    with opened(pair.near, mode="generic") as stack, stack.udp(OURS[0]) as sock:
        sock.settimeout(PATIENCE)
        assert "ethtool -K PEER" in stack.devices[0].why["merging"]
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            send_at_once(client)
            until(lambda: stack.counters().get("near0.0.rx_dropped", 0) == 1)
            pair.far.ethtool("-K", "tso", "off", "gso", "off", "tx-udp-segmentation", "off")
            sent = send_at_once(client)
            assert received(sock, NUMBER) == sent
        assert stack.ledger().missing == 0


@pytest.mark.parametrize("size, mtu", [(100, 1500), (1000, 9000)])
def test_generic_mode_cannot_tell_one_from_many(veth: MakeVeth, size: int, mtu: int) -> None:
    """Where they fit a frame, or a chain of frames, they come as one datagram: docs/modes.md warns, and so does `why`."""
    pair = veth(mtu=mtu)
    with opened(pair.near, mode="generic") as stack, stack.udp(OURS[0]) as sock:
        sock.settimeout(PATIENCE)
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            assert sock_gets(sock, send_at_once(client, size)) == 1
            pair.far.ethtool("-K", "tso", "off", "gso", "off", "tx-udp-segmentation", "off")
            assert sock_gets(sock, send_at_once(client, size)) == NUMBER


def sock_gets(sock: Any, sent: list[bytes]) -> int:
    """In how many datagrams all of `sent` came."""
    whole, number = b"", 0
    while len(whole) < sum(map(len, sent)):
        whole += sock.recv(65535)
        number += 1
    assert whole == b"".join(sent)
    return number
