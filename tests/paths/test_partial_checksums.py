"""Kernel senders on veth leave UDP and TCP checksums to hardware: what others get of their packets when we pass them on."""

from __future__ import annotations

import socket

import pytest
from scapy.all import UDP

import xdpstack
from tests.paths.test_redirect import running
from tests.paths.world import FAR, NEAR, PORT, MakePeer, MakeVeth, kernel_udp, opened
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.wait import PATIENCE

pytestmark = pytest.mark.root
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_CSUMNOTREADY = 263, 8, 1 << 3


def test_a_redirected_datagram_of_a_kernel_has_its_checksum(
    veth: MakeVeth, peer: MakePeer, netns: object, ledger: Ledger
) -> None:
    left = veth(near=NEAR, far=FAR)
    right = veth(netns_near=left.near.netns, near=(), far=())
    with opened(left.near, right.near) as stack:
        wire = peer(right.far)
        with (
            stack.redirect(xdpstack.PrefixClaim("10.0.0.1/32"), to=right.near.name),
            running(stack),
            kernel_udp(left.far.netns, to=("10.0.0.1", PORT)) as client,
        ):
            client.send(b"finish me")
            frame = wire.expect(lambda each: UDP in each and each[UDP].dport == PORT)
        had = frame[UDP].chksum
        del frame[UDP].chksum
        assert type(frame)(bytes(frame))[UDP].chksum == had
        assert stack.counters()["napi.tx.csum_completed"] == 1


def test_readers_of_frames_are_told_what_an_af_packet_socket_is_told(veth: MakeVeth, ledger: Ledger) -> None:
    """Once to AF_PACKET, and then to us."""
    pair = veth(near=NEAR, far=FAR)
    tap = pair.near.netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)))
    with tap, kernel_udp(pair.far.netns, to=("10.0.0.1", PORT)) as client:
        tap.bind((pair.near.name, 0x0800))
        tap.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        tap.settimeout(PATIENCE)
        client.send(b"partial")
        theirs, [(_, _, auxdata)], _, _ = tap.recvmsg(2048, 256)
        status = int.from_bytes(auxdata[:4], "little")
    with (
        opened(pair.near) as stack,
        stack.frames(xdpstack.PrefixClaim("10.0.0.1/32")) as frames,
        kernel_udp(pair.far.netns, to=("10.0.0.1", PORT)) as client,
    ):
        frames.settimeout(PATIENCE)
        client.send(b"partial")
        with frames.recv_batch() as batch:
            assert list(batch.partial_checksums) == [bool(status & TP_STATUS_CSUMNOTREADY)] == [True]
            [ours] = batch.frames()
    assert (ours[-7:], len(ours)) == (theirs[-7:], len(theirs))
