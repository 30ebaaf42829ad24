"""A frame in a line of words, for traces and replays."""

from __future__ import annotations

from xdpstack.native import ffi, lib

_CAP = 512


def frame_line(frame: bytes) -> str:
    """The headers of a frame (from the Ethernet header on), as csrc/wire/ prints them; what is cut off says so."""
    out = ffi.new("char[]", _CAP)
    lib.xs_wire_print(frame, len(frame), out, _CAP)
    words: str = ffi.string(out).decode()
    return words
