"""Partial checksums: frames of a sender that leaves the transport checksum to its NIC (CHECKSUM_PARTIAL)."""

from __future__ import annotations

from xdpstack.errors import ConfigurationError
from xdpstack.native import ffi, lib


def make_partial(frame: bytes) -> bytes:
    """The frame with only the folded sum of the pseudo-header in its UDP or TCP checksum field.

    That is what veth and virtio hand over of a local sender's packet. Raises ConfigurationError for a frame that has no
    such checksum, or is a fragment.
    """
    checksum_field(frame)
    room = bytearray(frame)
    lib.xs_fake_make_partial(ffi.from_buffer("uint8_t[]", room), len(room))
    return bytes(room)


def checksum_field(frame: bytes) -> tuple[int, int]:
    """(offset of the transport header in the frame, offset of the checksum in that header)."""
    out = ffi.new("uint32_t[2]")
    if lib.xs_fake_checksum_field(bytes(frame), len(frame), out) < 0:
        raise ConfigurationError("a frame with neither UDP nor TCP has no checksum that could be partial")
    return out[0], out[1]
