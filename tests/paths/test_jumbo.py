"""Datagrams and frames that lie in several frames of the UMEM, over a real veth pair with an MTU of 9,000."""

from __future__ import annotations

import os

import pytest

import xdpstack
from tests.device.harness import frame
from tests.paths.world import FAR, NEAR, OURS, PORT, MakePeer, MakeVeth, echo_once, exchange, kernel_udp, opened
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, until

pytestmark = pytest.mark.root
MODES = ("native", "generic")
JUMBO = 9000


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    return veth(near=NEAR, far=FAR, mtu=JUMBO)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("to", OURS)
def test_datagrams_of_many_sizes_come_and_go_by_af_xdp(
    pair: Veth, mode: str, to: tuple[str, int], ledger: Ledger
) -> None:
    """Around the ends of frames: 1,920 bytes of a payload fit the first frame sent, 1,792 of a packet the first received."""
    largest = JUMBO - (48 if ":" in to[0] else 28)
    sizes = (1, 1500, 1750, 1751, 1919, 1920, 1921, 3839, 3840, 3841, 8191, largest - 1, largest)
    with opened(pair.near, mode=mode) as stack, stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        assert stack.devices[0].multi_buffer
        with kernel_udp(pair.far.netns, to=to) as client:
            for size in sizes:
                exchange(sock, client, os.urandom(size))
            ledger.check()
        assert (stack.ledger().delivered, stack.ledger().dropped) == (len(sizes), 0)
        assert stack.counters()["xdp.rx.redirect_socket"] == len(sizes)
        assert sock.stats()["slow_sent"] == 0


def test_what_is_larger_than_the_mtu_is_fragmented_by_the_kernel(pair: Veth) -> None:
    with opened(pair.near) as stack, stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        for to in OURS:
            with kernel_udp(pair.far.netns, to=to) as client:
                exchange(sock, client, os.urandom(JUMBO - 27))
                exchange(sock, client, os.urandom(65000))
        assert sock.stats()["slow_sent"] == 4


@pytest.mark.parametrize("checksums", ["partial", "whole"])
def test_a_batch_gathers_payloads_and_answers_them(pair: Veth, checksums: str) -> None:
    """What a kernel sender on veth leaves unfilled is recognised in a chain too; what it fills is summed over the chain."""
    if checksums == "whole":
        pair.far.ethtool("-K", "tx", "off")
    sent = [os.urandom(size) for size in (100, 8972, 2000, 5000)]
    with opened(pair.near) as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        sock.settimeout(PATIENCE)
        with kernel_udp(pair.far.netns, to=("10.0.0.1", PORT)) as client:
            for each in sent:
                client.send(each)
            got = 0
            while got < len(sent):
                with sock.recv_batch() as batch:
                    assert batch.payloads() == sent[got : got + len(batch)]
                    assert [bytes(view) for view in batch.views()] == batch.payloads()
                    assert list(batch.lengths) == [len(each) for each in batch.payloads()]
                    assert sock.send_batch(batch.payloads(), batch) == len(batch)
                    got += len(batch)
            assert [client.recv(65535) for _ in sent] == sent
        assert stack.counters().get("udp.rx.partial", 0) == (len(sent) if checksums == "partial" else 0)
        assert sock.stats()["slow_sent"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_whole_frames_of_9014_bytes_in_and_out(veth: MakeVeth, mode: str, peer: MakePeer) -> None:
    pair = veth(mtu=JUMBO)  # without addresses nobody else says a word
    raw = peer(pair.far)
    with opened(pair.near, mode=mode) as stack, stack.frames(xdpstack.EthertypeClaim(0x88B5)) as frames:
        frames.settimeout(PATIENCE)
        for size in (JUMBO, JUMBO - 1, 1778, 1779, 60):
            payload = os.urandom(size)
            raw.send(frame(pair.far, pair.near, payload))
            with frames.recv_batch() as batch:
                assert batch.frames() == [frame(pair.far, pair.near, payload)]
                assert list(batch.lengths) == [14 + size]
            answer = frame(pair.near, pair.far, payload)
            assert frames.send([answer]) == 1
            assert raw.receive() == answer
        until(lambda: stack.poll() == 0 and stack.frames_by_owner()["transmitting"] == 0)
        assert stack.ledger().missing == 0


def test_chains_under_way_come_home_at_close(pair: Veth, ledger: Ledger) -> None:
    """Unread, lent, and not yet polled: each of several frames."""
    with opened(pair.near) as stack:
        sock = stack.udp(("10.0.0.1", PORT))
        sock.settimeout(PATIENCE)
        with kernel_udp(pair.far.netns, to=("10.0.0.1", PORT)) as client:
            client.send(bytes(8000))
            batch = sock.recv_batch()
            view = batch.views()[0]
            for _ in range(5):
                client.send(bytes(8000))
            until(lambda: stack.poll() or stack.frames_by_owner()["queued"] >= 25)
            client.send(bytes(8000))
            assert stack.frames_by_owner()["lent"] == 5
        batch.release()
    assert bytes(view) == bytes(8000)
    assert stack.ledger().missing == 0
    owners = stack.frames_by_owner()
    assert owners["free"] == sum(owners.values())


def test_a_small_device_beside_a_large_one(pair: Veth, veth: MakeVeth) -> None:
    """The way decides: what does not fit the device it leaves by is the kernel's to fragment."""
    other = veth(netns_near=pair.near.netns, near=("10.0.1.1/24",), far=("10.0.1.2/24",))
    with opened(pair.near, other.near) as stack, stack.udp(("0.0.0.0", PORT)) as sock:
        sock.settimeout(PATIENCE)
        assert [device.multi_buffer for device in stack.devices] == [True, False]
        with kernel_udp(other.far.netns, to=("10.0.1.1", PORT)) as client:
            exchange(sock, client, os.urandom(1472))
            exchange(sock, client, os.urandom(6000))
        assert sock.stats()["slow_sent"] == 1
        with kernel_udp(pair.far.netns, to=("10.0.0.1", PORT)) as client:
            client.send(b"x" * 6000)
            assert echo_once(sock)[0] == b"x" * 6000
        assert sock.stats()["slow_sent"] == 1
