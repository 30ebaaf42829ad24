"""The smallest XDP program that feeds AF_XDP sockets: every frame to the socket of the queue it came in on.

Made by hand from nine instructions and loaded by bpf(2), so that the tests of sockets and rings depend on nothing else.
"""

import ctypes
import os
import struct
from types import TracebackType

BPF_MAP_CREATE, BPF_MAP_UPDATE, BPF_PROG_LOAD, BPF_LINK_CREATE = 0, 2, 5, 28
BPF_MAP_TYPE_XSKMAP, BPF_PROG_TYPE_XDP, BPF_XDP = 17, 6, 37
BPF_F_XDP_HAS_FRAGS = 1 << 5
NATIVE, GENERIC = 1 << 2, 1 << 1
NR_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]

_libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = _libc.syscall(NR_BPF, command, buffer, 128)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf({command}): {os.strerror(number)}")
    return int(result)


def instruction(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, registers, offset, immediate)


class RedirectAll:
    """Loaded and attached to `ifindex` in the namespace of the calling thread; gone when closed."""

    def __init__(self, ifindex: int, mode: int = NATIVE, frags: bool = False) -> None:
        self.map = bpf(BPF_MAP_CREATE, struct.pack("<IIII", BPF_MAP_TYPE_XSKMAP, 4, 4, 64))
        code = b"".join(
            [
                instruction(0x61, 0x12, 16),  # r2 = ctx->rx_queue_index
                instruction(0x18, 0x11, 0, self.map),  # r1 = map, 16 bytes
                instruction(0x00),
                instruction(0xB7, 0x03, 0, 2),  # r3 = XDP_PASS, where the map is empty
                instruction(0x85, 0, 0, 51),  # bpf_redirect_map
                instruction(0x95),
            ]
        )
        text, name = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
        attributes = struct.pack(
            "<IIQQIIQII16s",
            BPF_PROG_TYPE_XDP,
            len(code) // 8,
            ctypes.addressof(text),
            ctypes.addressof(name),
            0,
            0,
            0,
            0,
            BPF_F_XDP_HAS_FRAGS if frags else 0,
            b"redirect_all",
        )
        self.program = bpf(BPF_PROG_LOAD, attributes)
        self.link = bpf(BPF_LINK_CREATE, struct.pack("<IIII", self.program, ifindex, BPF_XDP, mode))

    def set(self, queue: int, descriptor: int) -> None:
        """Frames of `queue` go to this socket from now on."""
        key, value = ctypes.c_uint32(queue), ctypes.c_uint32(descriptor)
        bpf(BPF_MAP_UPDATE, struct.pack("<IIQQQ", self.map, 0, ctypes.addressof(key), ctypes.addressof(value), 0))

    def close(self) -> None:
        for descriptor in (self.link, self.program, self.map):
            os.close(descriptor)

    def __enter__(self) -> "RedirectAll":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
