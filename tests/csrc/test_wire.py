"""Reading headers: literal bytes in, what csrc/wire/ makes of them out, as text."""

import pytest

from xdpstack.native import ffi, lib

ETHERNET = bytes.fromhex("020000000002 020000000001")
IPV4_UDP = bytes.fromhex("4510 0020 1234 4000 40 11 0000 0a000001 0a000002  3039 0007 000c abcd 01020304")
IPV6_UDP = bytes.fromhex(
    "60a12345 000c 11 3f 20010db8000000000000000000000001 20010db8000000000000000000000002  3039 0007 000c abcd 01020304"
)
HEAD = "02:00:00:00:00:01 > 02:00:00:00:00:02"


def printed(frame: bytes, room: int = 300) -> str:
    out = ffi.new("char[]", room)
    length = lib.xs_wire_print(frame, len(frame), out, room)
    text: str = ffi.string(out).decode()
    assert text == text[: room - 1]
    assert len(text) == min(length, room - 1)
    return text


@pytest.mark.parametrize(
    "frame, text",
    [
        (
            ETHERNET + b"\x08\x00" + IPV4_UDP,
            f"{HEAD} 0800 | 10.0.0.1 > 10.0.0.2 tos 10 ttl 64 id 4660 len 32 proto 17 DF"
            " | udp 12345 > 7 len 12 csum abcd",
        ),
        (
            ETHERNET + b"\x86\xdd" + IPV6_UDP,
            f"{HEAD} 86dd | 2001:db8::1 > 2001:db8::2 class 0a label 12345 hops 63 len 12 next 17"
            " | udp 12345 > 7 len 12 csum abcd",
        ),
        (
            ETHERNET + b"\x81\x00\x20\x0a\x08\x00" + IPV4_UDP[:20],
            f"{HEAD} 8100 vlan 10 | 10.0.0.1 > 10.0.0.2 tos 10 ttl 64 id 4660 len 32 proto 17 DF",
        ),
        (ETHERNET + b"\x08\x00" + IPV4_UDP[:19], f"{HEAD} 0800"),
        (ETHERNET + b"\x08\x00" + IPV6_UDP, f"{HEAD} 0800"),
        (ETHERNET + b"\x86\xdd" + IPV6_UDP[:39], f"{HEAD} 86dd"),
        (ETHERNET + b"\x08", "13 bytes: no Ethernet header"),
        (b"", "0 bytes: no Ethernet header"),
    ],
)
def test_frames_are_printed_as_far_as_they_are_whole(frame: bytes, text: str) -> None:
    assert printed(frame) == text


def test_a_later_fragment_has_no_udp_header() -> None:
    frame = ETHERNET + b"\x08\x00" + IPV4_UDP[:6] + b"\x20\x01" + IPV4_UDP[8:]
    assert printed(frame).endswith("proto 17 MF later fragment")


@pytest.mark.parametrize("ihl", [0, 4, 15])
def test_a_bad_ihl_is_not_followed(ihl: int) -> None:
    frame = ETHERNET + b"\x08\x00" + bytes([0x40 | ihl]) + IPV4_UDP[1:]
    assert printed(frame).endswith("proto 17 DF")


@pytest.mark.parametrize("room", [1, 2, 20, 40, 100, 120])
def test_text_is_cut_to_its_room(room: int) -> None:
    frame = ETHERNET + b"\x08\x00" + IPV4_UDP
    assert printed(frame, room) == printed(frame)[: room - 1]
