"""napi.rx: what it writes of each packet, in whatever company the packet comes.

Packets that follow each other with one Ethernet header are read in a row (csrc/stages/napi_run.h), others one by one. Both
have to come to what is said here of a frame by itself.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xdpstack
from tests.stages.packets import BROADCAST, GROUP, HOST, OTHER, PEER
from xdpstack.device.memory_queue import Rings
from xdpstack.native import lib
from xdpstack.testing import MemoryDevice, MemoryStack, memory_stack

TO_US, TO_ALL, TO_GROUP, TO_OTHERS = range(4)
TAGS = (0x8100, 0x88A8)
#: More than one frame holds: such a packet comes in several.
JUMBO = 3000
#: Small, so that they wrap around, and their indices too.
RINGS = Rings(rx=256, fill=512, first_index=2**32 - 300)


def expected(frame: bytes) -> dict[str, Any]:
    """The descriptor's fields, from the bytes alone."""
    destination = {HOST: TO_US, BROADCAST: TO_ALL}.get(frame[:6], TO_GROUP if frame[0] & 1 else TO_OTHERS)
    flags, l3_offset, l3_proto = 0, 14, int.from_bytes(frame[12:14])
    if len(frame) < 14:
        flags, l3_offset, l3_proto, destination = lib.XS_PKT_TRUNC, 0, 0, TO_US
    elif l3_proto in TAGS:
        if len(frame) < 18:
            flags = lib.XS_PKT_TRUNC
        else:
            flags, l3_offset, l3_proto = lib.XS_PKT_VLAN, 18, int.from_bytes(frame[16:18])
            if (int.from_bytes(frame[12:14]), l3_proto) == (0x88A8, 0x8100):
                outer, inner = (int.from_bytes(frame[at : at + 2]) & 0xFFF for at in (14, 18))
                if len(frame) < 22:
                    flags |= lib.XS_PKT_TRUNC
                elif outer and inner:
                    l3_offset, l3_proto = 22, int.from_bytes(frame[20:22])
    if len(frame) >= JUMBO:
        flags |= lib.XS_PKT_MULTI
    return {
        "bytes": frame,
        "pkt_len": len(frame),
        "l3_offset": l3_offset,
        "l3_proto": l3_proto,
        "pkt_type": destination,
        "flags": flags,
        "device": 0,
        "queue": 0,
        **dict.fromkeys(("mark", "hash", "l4_proto", "l4_off", "payload_off", "csum"), 0),
        "seg": lib.XS_NO_FRAME,
    }


def read(packet: xdpstack.hook.Packet) -> dict[str, Any]:
    frame = packet.tobytes()
    return {name: frame if name == "bytes" else getattr(packet, name) for name in expected(frame)}


class Watched:
    """A stack whose packets are looked at behind napi.rx, and dropped."""

    def __init__(self, stack: MemoryStack) -> None:
        self.stack = stack
        self.seen: list[dict[str, Any]] = []
        stack.hook("gro.rx", self._look)

    def _look(self, batch: xdpstack.HookBatch) -> None:
        for packet in batch:
            self.seen.append(read(packet))
            packet.drop()

    def receives(self, frames: list[bytes]) -> list[dict[str, Any]]:
        self.seen = []
        assert self.stack.inject("a0", *frames) == len(frames)
        while self.stack.poll():  # packets for a Python hook end a round: what is behind them comes by the next
            pass
        return self.seen


@pytest.fixture
def watched() -> Iterator[Watched]:
    device = MemoryDevice("a0", mtu=9000, rings=RINGS)
    with memory_stack(device, addresses={"a0": ["10.0.0.1/24"]}) as stack:
        yield Watched(stack)


def frames() -> st.SearchStrategy[bytes]:
    def frame(to: bytes, sender: bytes, proto: int, rest: int) -> bytes:
        return to + sender + proto.to_bytes(2) + bytes(range(256))[:rest] + bytes(max(0, rest - 256))

    whole = st.builds(
        frame,
        st.sampled_from([HOST, HOST, HOST, OTHER, BROADCAST, GROUP]),
        st.sampled_from([PEER, PEER, OTHER]),
        st.sampled_from([0x0800, 0x0800, 0x86DD, 0x0806, 0x0040, *TAGS]),
        st.sampled_from([46, 46, 46, 0, 1, 3, 4, 1000, JUMBO]),
    )
    return st.one_of(whole, whole, whole, st.binary(min_size=1, max_size=13))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batch=st.lists(frames(), min_size=1, max_size=20), repeat=st.integers(1, 3))
def test_each_packet_of_any_batch_is_as_it_would_be_alone(watched: Watched, batch: list[bytes], repeat: int) -> None:
    batch = [frame for frame in batch for _ in range(repeat)]
    before = watched.stack.counters()
    assert watched.receives(batch) == [expected(frame) for frame in batch]
    moved = {name: n - before.get(name, 0) for name, n in watched.stack.counters().items()}
    short = sum(expected(frame)["flags"] & lib.XS_PKT_TRUNC != 0 for frame in batch)
    assert moved.get("napi.rx.truncated", 0) == short
    assert moved["napi.rx.bytes"] == sum(map(len, batch))
    assert moved["napi.rx.packets"] == len(batch)
    assert watched.stack.ledger().missing == 0


def test_a_run_goes_on_where_the_ring_wraps_around(watched: Watched) -> None:
    run = [HOST + PEER + b"\x08\x00" + i.to_bytes(2) + bytes(44) for i in range(60)]
    for _ in range(20):
        assert [each["bytes"] for each in watched.receives(run)] == run
