"""What devices do with frames to send: asked for, granted, done; on real veth pairs the kernel does it, in copy mode."""

from __future__ import annotations

import time

import pytest
from scapy.all import UDP, Ether

from tests.paths.world import FAR, NEAR, PORT, MakePeer, MakeVeth, exchange, kernel_udp, opened
from xdpstack.device.netdev import NetdevFeatures, XdpFeature, XskFeature
from xdpstack.device.offloads import checked, grant
from xdpstack.errors import ConfigurationError
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.wait import PATIENCE, until

BOTH = ("checksum", "timestamp")


def test_what_is_asked_is_checked() -> None:
    assert checked(("timestamp", "checksum", "timestamp")) == BOTH
    for wrong in ("checksum", ("tso",)):
        with pytest.raises(ConfigurationError):
            checked(wrong)


@pytest.mark.parametrize(
    "zero_copy, features, kernel, granted, why",
    [
        (False, None, (6, 11), BOTH, ""),
        (False, XskFeature(0), (6, 18), BOTH, ""),
        (False, None, (6, 10), (), "6.11"),
        (True, XskFeature.TX_CHECKSUM | XskFeature.TX_TIMESTAMP, (6, 18), BOTH, ""),
        (True, XskFeature.TX_TIMESTAMP, (6, 18), ("timestamp",), "checksum"),
        (True, None, (6, 18), (), "checksum, timestamp"),
    ],
)
def test_what_can_be_had_is_granted(
    zero_copy: bool, features: XskFeature | None, kernel: tuple[int, int], granted: tuple[str, ...], why: str
) -> None:
    said = NetdevFeatures(XdpFeature.BASIC, 1, None, features)
    has, lacks = grant(checked(BOTH), zero_copy, said, kernel)
    assert has == granted
    assert why in lacks
    assert bool(lacks) == bool(why)


@pytest.mark.root
@pytest.mark.parametrize("to", ["10.0.0.1", "fd00::1"])
def test_checksums_that_the_kernel_makes_are_right(veth: MakeVeth, peer: MakePeer, to: str, ledger: Ledger) -> None:
    """An unmodified client takes the answers, and on the wire they have whole checksums, not partial ones."""
    pair = veth(near=NEAR, far=FAR)
    wire = peer(pair.far)
    with opened(pair.near, offloads=("checksum",)) as stack, stack.udp(("::", PORT)) as sock:
        assert stack.devices[0].offloads == ("checksum",)
        sock.settimeout(PATIENCE)
        with kernel_udp(pair.far.netns, to=(to, PORT)) as client:
            for size in (0, 1, 2, 17, 1400):
                exchange(sock, client, bytes(range(256))[:size] * 1 if size <= 256 else bytes(size))
                frame = wire.expect(lambda each: UDP in each and each[UDP].sport == PORT)
                had = frame[UDP].chksum
                del frame[UDP].chksum
                assert Ether(bytes(frame))[UDP].chksum == had


@pytest.mark.root
def test_when_frames_were_sent_is_told(veth: MakeVeth, peer: MakePeer, ledger: Ledger) -> None:
    """By CLOCK_TAI, in order, each once, to who asked; frames that did not ask are not in it."""
    pair = veth(near=NEAR, far=FAR)
    frame = bytes(Ether(dst=pair.far.mac, src=pair.near.mac, type=0x88B5) / bytes(50))
    with (
        opened(pair.near, offloads=("timestamp",)) as stack,
        stack.frames() as frames,
        stack.frames() as others,
    ):
        assert stack.info()["devices"][0]["offloads"] == ("timestamp",)
        before = time.clock_gettime_ns(time.CLOCK_TAI)
        frames.send([frame] * 3, stamp=True)
        frames.send([frame])
        others.send([frame], stamp=True)
        frames.send([frame] * 2, stamp=True)
        got: list[tuple[int, int]] = []
        theirs: list[tuple[int, int]] = []

        def all_there() -> bool:
            stack.poll()
            got.extend(frames.sent_stamps())
            theirs.extend(others.sent_stamps())
            return len(got) == 5 and len(theirs) == 1

        until(all_there)
        after = time.clock_gettime_ns(time.CLOCK_TAI)
        assert [number for number, _ in got] == [0, 1, 2, 3, 4]
        assert [number for number, _ in theirs] == [0]
        stamps = [stamp for _, stamp in got]
        assert before <= stamps[0] <= stamps[-1] <= after
        assert stamps == sorted(stamps)
        assert frames.sent_stamps() == []


@pytest.mark.root
def test_who_does_not_ask_has_none(veth: MakeVeth, ledger: Ledger) -> None:
    pair = veth(near=NEAR, far=FAR)
    frame = bytes(Ether(dst=pair.far.mac, src=pair.near.mac, type=0x88B5) / bytes(50))
    with opened(pair.near) as stack, stack.frames() as frames:
        frames.send([frame], stamp=True)
        until(lambda: stack.poll() == 0 and stack.frames_by_owner()["transmitting"] == 0)
        assert frames.sent_stamps() == []
        assert stack.devices[0].offloads == ()
