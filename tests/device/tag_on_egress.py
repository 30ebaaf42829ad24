"""VLAN tags beside the frame, as a NIC with VLAN offload leaves them: a tc program of five instructions puts them on.

`bpf_skb_vlan_push()` on the way out of a veth puts the tag into the skb, not into the frame. The peer's XDP program sees the
frame untagged, and learns of the tag by bpf_xdp_metadata_rx_vlan_tag() alone.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from xdpstack.testing.veth import End

BPF_PROG_TYPE_SCHED_CLS, BPF_TCX_EGRESS, BPF_FUNC_skb_vlan_push = 3, 47, 18
MOV, CALL, EXIT = 0xB7, 0x85, 0x95
_libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)


def instruction(code: int, register: int = 0, value: int = 0) -> bytes:
    """One instruction: struct bpf_insn."""
    return struct.pack("=BBhi", code, register, 0, value)


@contextmanager
def tagging(end: End, tci: int, proto: int = 0x8100) -> Iterator[None]:
    """All that leaves `end` gets this tag, beside the frame."""
    swapped = struct.unpack("=H", struct.pack(">H", proto))[0]
    program = (
        instruction(MOV, 2, swapped)
        + instruction(MOV, 3, tci)
        + instruction(CALL, 0, BPF_FUNC_skb_vlan_push)
        + instruction(MOV, 0, 0)  # TCX_PASS
        + instruction(EXIT)
    )
    loaded = _libbpf.bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, b"tag", b"GPL", program, len(program) // 8, None)
    assert loaded >= 0, os.strerror(-loaded)
    link = end.netns.call(lambda: _libbpf.bpf_link_create(loaded, end.index, BPF_TCX_EGRESS, None))
    os.close(loaded)
    assert link >= 0, os.strerror(-link)
    try:
        yield
    finally:
        os.close(link)
