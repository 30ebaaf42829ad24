"""MemoryWalk: stages on memory devices, for users' tests of their own stages."""

import pytest

from tests.csrc.compile import load
from xdpstack.hook import HookBatch
from xdpstack.native import lib
from xdpstack.testing import MemoryWalk, TestDevice, rows
from xdpstack.walk import CStage

FRAME = bytes.fromhex("020000000001 020000000002 88b5") + b"something"


def walk(*devices: str | TestDevice, **options: int) -> MemoryWalk:
    return MemoryWalk(*(devices or ("a0", "b0")), present={"napi.rx", "napi.tx"}, catch={"ip.rx"}, **options)


def test_packets_are_caught_with_their_descriptors() -> None:
    with walk() as made:
        assert made.inject("b0", FRAME) == 1
        assert made.step() == 1
        (caught,) = made.caught["ip.rx"]
        assert (caught.data, caught.device, caught.l3_proto, caught.pkt_type) == (
            FRAME,
            1,
            0x88B5,
            lib.XS_PACKET_OTHERHOST,
        )
        with pytest.raises(AttributeError, match="nosuch"):
            _ = caught.nosuch
        assert made.drops() == {}
        assert made.counters()["napi.rx.packets"] == 1


def test_the_rows_are_those_of_c() -> None:
    assert {"napi.rx", "napi.tx"} <= rows()


def test_a_hook_sees_and_sends_packets() -> None:
    def reflect(batch: HookBatch) -> None:
        for packet in batch:
            packet.data[:12] = bytes(packet.data[6:12]) + bytes(packet.data[:6])

    with walk() as made:
        made.hook("tc.rx", reflect, edges={"out": "napi.tx"})
        made.inject("a0", FRAME)
        made.step()
        assert made.sent("a0") == [FRAME[6:12] + FRAME[:6] + FRAME[12:]]


def test_a_hook_that_raises_loses_its_batch() -> None:
    def fails(batch: HookBatch) -> None:
        raise RuntimeError("no")

    with walk() as made:
        made.hook("ip.rx", fails)
        made.inject("a0", FRAME, FRAME)
        with pytest.raises(RuntimeError, match="no"):
            made.step()
        assert made.drops() == {"HOOK_EXCEPTION": 2}
        made.check()


def test_a_c_stage_is_put_on_the_path() -> None:
    import ctypes

    library = load("scripted_stage.c")
    state = ctypes.create_string_buffer(ctypes.c_uint32.in_dll(library, "scripted_bytes").value)
    address = ctypes.cast(library.scripted, ctypes.c_void_p).value
    assert address is not None
    stage = CStage("scripted", address, 0, ctypes.addressof(state), ("zero",), ("seen",), library)
    with walk() as made:
        made.hook("ip.rx", stage, edges={"zero": "ip.rx"})
        made.inject("a0", FRAME[:14] + bytes(40))
        made.step()
        assert len(made.caught["ip.rx"]) == 1
        assert made.counters()["scripted.seen"] == 1


def test_two_workers_have_a_queue_each_and_are_stepped_in_order() -> None:
    with walk(TestDevice("a0", queues=2), workers=2) as made:
        made.inject("a0", FRAME, queue=0)
        made.inject("a0", FRAME, queue=1)
        assert made.step(order=[1]) == 1
        assert [caught.queue for caught in made.caught["ip.rx"]] == [1]
        assert made.step(order=[0]) == 1


def test_leaving_the_block_checks_the_ledgers() -> None:
    made = walk()
    made.core.packets[made.core.frames - 1].owner = lib.XS_HELD
    with pytest.raises(AssertionError, match=r"packets began and have no end \(-1\)"), made:
        pass
    made.core.packets[made.core.frames - 1].owner = lib.XS_FREE
    made.close()


def test_drain_takes_everything() -> None:
    with walk() as made:
        made.inject("a0", *[FRAME] * 200)
        made.drain()
        assert len(made.caught["ip.rx"]) == 200


def test_device_flags_and_macs_are_as_given() -> None:
    with walk(TestDevice("a0", mac=b"\x02\x11\0\0\0\x01")) as made:
        assert made.mac("a0") == b"\x02\x11\0\0\0\x01"
        made.inject("a0", b"\x02\x11\0\0\0\x01" + FRAME[6:])
        made.step()
        assert made.caught["ip.rx"][0].pkt_type == lib.XS_PACKET_HOST
