"""What devices say of frames: asked for, granted, refused with the reason, and taken into descriptors and columns."""

from __future__ import annotations

import struct

import pytest
from scapy.all import IP, UDP, Dot1Q, Ether

from tests.device.tag_on_egress import tagging
from tests.paths.world import FAR, NEAR, PORT, MakeVeth, kernel_udp, opened
from xdpstack.device.claims import EthertypeClaim, EverythingBut
from xdpstack.device.hints import checked, grant
from xdpstack.device.netdev import NetdevFeatures, RxMetadata, XdpFeature
from xdpstack.device.xdp import Hint, Mode, XdpProgram
from xdpstack.errors import ConfigurationError
from xdpstack.hook import HookBatch
from xdpstack.testing import memory_stack
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.wait import PATIENCE

ALL: tuple[Hint, ...] = ("hash", "timestamp", "vlan")
OURS, PEER = "02:00:00:00:00:01", "02:00:00:00:00:99"
XDP_RSS_L4_UDP = 0x28  # XDP_RSS_L4 | XDP_RSS_L4_UDP


def datagram(payload: bytes = b"x" * 18, *tags: object) -> bytes:
    ether = Ether(dst=OURS, src=PEER)
    for tag in tags:
        ether = ether / tag
    return bytes(ether / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=9, dport=7) / payload)


# ---- asking ----


def test_what_is_asked_is_checked() -> None:
    assert checked(("vlan", "hash", "hash")) == ("hash", "vlan")
    assert checked(()) == ()
    for wrong in ("hash", ("hash", "rss")):
        with pytest.raises(ConfigurationError):
            checked(wrong)


@pytest.mark.parametrize(
    "mode, features, granted, why",
    [
        ("auto", RxMetadata.HASH | RxMetadata.TIMESTAMP | RxMetadata.VLAN_TAG, ALL, ""),
        ("auto", RxMetadata.HASH, ("hash",), "timestamp, vlan"),
        ("native", RxMetadata(0), (), "hash, timestamp, vlan"),
        ("native", None, ALL, ""),
        ("generic", RxMetadata.HASH, (), "generic mode"),
    ],
)
def test_what_the_driver_gives_is_granted(
    mode: Mode, features: RxMetadata | None, granted: tuple[str, ...], why: str
) -> None:
    said = NetdevFeatures(XdpFeature.BASIC, 1, features)
    assert grant(ALL, mode, said)[0] == granted
    assert why in grant(ALL, mode, said)[1]
    assert grant((), mode, said) == ((), "")
    assert grant(ALL, "auto", None) == (ALL, "")


# ---- what comes of it, on memory devices ----


def test_a_datagram_has_what_the_device_said() -> None:
    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}, metadata=True) as stack:
        sock = stack.udp(("10.0.0.1", 7))
        stack.backend.say("a0", hash=(0xDEADBEEF, XDP_RSS_L4_UDP), timestamp_ns=1_700_000_000_000_000_001)
        stack.inject("a0", datagram())
        stack.backend.say("a0", hash=(0, 0))  # a hash of 0 is one
        stack.inject("a0", datagram())
        stack.backend.say("a0")
        stack.inject("a0", datagram())
        stack.step()
        with sock.recv_batch() as batch:
            assert list(batch.hashes) == [0xDEADBEEF, 0, 0]
            assert list(batch.hash_types) == [XDP_RSS_L4_UDP, 0, 0]
            assert list(batch.device_stamps_ns) == [1_700_000_000_000_000_001, 0, 0]
            assert list(batch.vlan_tcis) == [-1, -1, -1]


def test_who_did_not_ask_is_told_nothing() -> None:
    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}) as stack:
        sock = stack.udp(("10.0.0.1", 7))
        stack.backend.say("a0", hash=(5, 1), timestamp_ns=7)
        stack.inject("a0", datagram())
        stack.step()
        with sock.recv_batch() as batch:
            assert list(batch.hashes) == list(batch.hash_types) == list(batch.device_stamps_ns) == [0]


def test_a_hook_sees_it() -> None:
    seen: list[object] = []

    def look(batch: HookBatch) -> None:
        seen.extend((packet.device_hash, packet.device_stamp_ns, packet.vlan_tci, packet.hash) for packet in batch)

    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}, metadata=True) as stack:
        stack.hook("tc.rx", look)
        stack.backend.say("a0", hash=(77, 4), timestamp_ns=99)
        stack.inject("a0", datagram())
        stack.backend.say("a0", vlan=(0x8100, 0x6005))
        stack.inject("a0", datagram())
        stack.step(3)
    assert seen == [((77, 4), 99, None, 77), (None, None, 0x6005, 0)]


def test_a_tag_that_the_device_took_off_is_put_back() -> None:
    """Whoever reads whole frames gets the frame that was sent, also if it has a tag left, and if it is short."""
    frames_of = {None: EverythingBut()}
    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}, metadata=True) as stack:
        with stack.frames(frames_of[None]) as frames:
            stack.backend.say("a0", vlan=(0x8100, 0x2005), hash=(3, 1))
            for sent in (datagram(), datagram(b"", Dot1Q(vlan=6)), b"\xff" * 12 + b"\x08\x06"):
                stack.backend.inject("a0", sent, claim=frames_of[None])
            stack.backend.say("a0")
            stack.backend.inject("a0", datagram(), claim=frames_of[None])
            stack.step()
            with frames.recv_batch() as batch:
                got = batch.frames()
                assert list(batch.vlan_tcis) == [0x2005] * 3 + [-1]
                assert list(batch.hashes) == [3, 3, 3, 0]
        tag = struct.pack(">HH", 0x8100, 0x2005)
        for sent, came in zip(
            (datagram(), datagram(b"", Dot1Q(vlan=6)), b"\xff" * 12 + b"\x08\x06"), got, strict=False
        ):
            assert came == sent[:12] + tag + sent[12:]
        assert got[3] == datagram()


# ---- on the real kernel ----


@pytest.mark.root
def test_hash_and_tag_come_from_a_veth(veth: MakeVeth, ledger: Ledger) -> None:
    """A veth gives the hash of the skb, which differs by flow and not within one; it has no clock, and says no time."""
    pair = veth(near=NEAR, far=FAR)
    with opened(pair.near, metadata=ALL) as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        [device] = stack.devices
        assert device.metadata == ALL
        assert "metadata" not in device.why
        sock.settimeout(PATIENCE)
        hashes = []
        for _ in range(2):
            with kernel_udp(pair.far.netns, to=("10.0.0.1", PORT)) as client:
                for _ in range(2):
                    client.send(b"hello")
                    with sock.recv_batch() as batch:
                        assert not any(batch.slow)
                        assert list(batch.device_stamps_ns) == [0]
                        hashes += list(batch.hashes)
        assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
        assert 0 not in hashes


@pytest.mark.root
def test_claims_know_of_a_tag_beside_the_frame(veth: MakeVeth, ledger: Ledger) -> None:
    """Untagged claims leave it to the kernel, a claim on its VLAN lifts it, and the reader has the tag in the frame."""
    pair = veth(near=NEAR, far=FAR)
    experimental = 0x88B5
    with (
        opened(pair.near, metadata=("vlan",)) as stack,
        stack.frames(EthertypeClaim(experimental, vlan=5)) as tagged,
        stack.frames(EthertypeClaim(experimental)) as plain,
        pair.far.netns.call(lambda: __import__("socket").socket(17, 3)) as sender,
    ):
        sender.bind((pair.far.name, 0))
        frame = bytes(Ether(dst=pair.near.mac, src=pair.far.mac, type=experimental) / (b"p" * 46))
        with tagging(pair.far, 0x8005):
            sender.send(frame)
        sender.send(frame)
        for reader, expected, tci in (
            (tagged, frame[:12] + bytes.fromhex("81008005") + frame[12:], 0x8005),
            (plain, frame, -1),
        ):
            reader.settimeout(PATIENCE)
            with reader.recv_batch() as batch:
                assert batch.frames() == [expected]
                assert list(batch.vlan_tcis) == [tci]


@pytest.mark.root
def test_generic_mode_has_none_and_says_so(veth: MakeVeth, ledger: Ledger) -> None:
    pair = veth(near=NEAR, far=FAR)
    with opened(pair.near, mode="generic", metadata=ALL) as stack:
        [device] = stack.info()["devices"]
        assert device["metadata"] == ()
        assert "generic" in device["why"]["metadata"]


@pytest.mark.root
def test_where_a_bound_program_is_refused_the_plain_one_is_attached(
    veth: MakeVeth, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xdpstack.device import xdp

    attach = xdp.XdpProgram.attach

    def refuse(program: XdpProgram) -> object:
        if program.hints:
            raise OSError(22, "Invalid argument")
        return attach(program)

    monkeypatch.setattr(xdp.XdpProgram, "attach", refuse)
    pair = veth(near=NEAR, far=FAR)
    with opened(pair.near, metadata=ALL) as stack:
        [device] = stack.devices
        assert (device.metadata, device.mode) == ((), "native")
        assert "Invalid argument" in device.why["metadata"]
