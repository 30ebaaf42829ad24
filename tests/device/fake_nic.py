"""A NIC behind SIOCETHTOOL that has what veth lacks: combined channels, rings, RSS, flow hashing, n-tuple rules, features.

Its structures are those of uapi/linux/ethtool.h, written down once more, so that what packs them is held against them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass, field

import pytest

from xdpstack.device import ethtool, ethtool_set

U8, U32, U64 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64


class Channels(ctypes.Structure):
    _fields_ = [
        (each, U32)
        for each in ["cmd", "max_rx", "max_tx", "max_other", "max_combined", "rx", "tx", "other", "combined"]
    ]


class Rings(ctypes.Structure):
    _fields_ = [
        (each, U32) for each in ["cmd", "rx_max", "mini_max", "jumbo_max", "tx_max", "rx", "mini", "jumbo", "tx"]
    ]


class FlowSpec(ctypes.Structure):
    _fields_ = [
        ("flow_type", U32),
        ("h_u", U8 * 52),
        ("h_ext", U8 * 20),
        ("m_u", U8 * 52),
        ("m_ext", U8 * 20),
        ("ring_cookie", U64),
        ("location", U32),
    ]


class Rxnfc(ctypes.Structure):
    _fields_ = [("cmd", U32), ("flow_type", U32), ("data", U64), ("fs", FlowSpec), ("rule_cnt", U32)]


class Rxfh(ctypes.Structure):
    _fields_ = [
        ("cmd", U32),
        ("context", U32),
        ("indir_size", U32),
        ("key_size", U32),
        ("hfunc", U8),
        ("transform", U8),
        ("reserved", U8 * 2),
        ("reserved32", U32),
    ]


LOCS_OFF = 188  # of rule_locs in struct ethtool_rxnfc


def refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class FakeNic:
    """Its state; `log` has the commands that change it, in order. `refuses` are commands that fail, with their errno."""

    channels: list[int] = field(default_factory=lambda: [0, 0, 4])
    most_channels: int = 8
    rings: list[int] = field(default_factory=lambda: [256, 256])
    most_ring: int = 4096
    features: dict[str, list[bool]] = field(
        default_factory=lambda: {
            "rx-gro": [True, False],
            "rx-lro": [True, False],
            "rx-gro-hw": [True, True],
            "rx-vlan-hw-parse": [True, False],
            "rx-ntuple-filter": [False, False],
        }
    )
    table: list[int] = field(default_factory=lambda: [i % 4 for i in range(16)])
    key: bytes = bytes(range(40))
    hashes: dict[int, int] = field(default_factory=lambda: {2: 0x30})
    rules: dict[int, bytes] = field(default_factory=dict)
    most_rules: int = 8
    log: list[int] = field(default_factory=list)
    refuses: dict[int, int] = field(default_factory=dict)

    def plug(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Answer for every interface."""
        monkeypatch.setattr(ethtool, "request", self.request)
        monkeypatch.setattr(ethtool_set, "request", self.request)

    def request(self, name: str, message: bytes) -> bytes:
        buffer = bytearray(message)
        command = U32.from_buffer(buffer).value
        handler = getattr(self, f"do_{command:02x}", None)
        if handler is None:
            raise refuse(errno.EOPNOTSUPP)
        if command in self.refuses:
            raise refuse(self.refuses[command])
        if command in (0x11, 0x2A, 0x31, 0x32, 0x3B, 0x3D, 0x47):
            self.log.append(command)
        handler(buffer)
        return bytes(buffer)

    def do_03(self, buffer: bytearray) -> None:
        buffer[4 : 4 + 7] = b"fakenic"
        buffer[4 + 32 * 3 : 4 + 32 * 3 + 7] = b"0:1:2.3"

    def do_3c(self, buffer: bytearray) -> None:
        values = Channels.from_buffer(buffer)
        values.max_combined, values.max_other, values.other = self.most_channels, 1, 1
        values.rx, values.tx, values.combined = self.channels

    def do_3d(self, buffer: bytearray) -> None:
        values = Channels.from_buffer(buffer)
        if values.combined > self.most_channels or values.other != 1:
            raise refuse(errno.EINVAL)
        self.channels = [values.rx, values.tx, values.combined]
        self.table = [i % values.combined for i in range(len(self.table))]

    def do_10(self, buffer: bytearray) -> None:
        values = Rings.from_buffer(buffer)
        values.rx_max = values.tx_max = self.most_ring
        values.rx, values.tx = self.rings

    def do_11(self, buffer: bytearray) -> None:
        values = Rings.from_buffer(buffer)
        self.rings = [-(-values.rx // 8) * 8, -(-values.tx // 8) * 8]  # as igb rounds

    def do_37(self, buffer: bytearray) -> None:
        buffer[16:20] = len(self.features).to_bytes(4, "little")

    def do_1b(self, buffer: bytearray) -> None:
        for i, name in enumerate(self.features):
            buffer[12 + 32 * i : 12 + 32 * i + len(name)] = name.encode()

    def do_3a(self, buffer: bytearray) -> None:
        states = list(self.features.values())
        bits = [sum(bit << i for i, bit in enumerate(each)) for each in zip(*states, strict=True)]
        active, fixed = bits
        every = (1 << len(states)) - 1
        for off, value in ((8, every & ~fixed), (12, active), (16, active), (20, fixed)):
            buffer[off : off + 4] = value.to_bytes(4, "little")

    def do_3b(self, buffer: bytearray) -> None:
        valid, requested = (int.from_bytes(buffer[off : off + 4], "little") for off in (8, 12))
        for i, state in enumerate(self.features.values()):
            if valid >> i & 1 and not state[1]:
                state[0] = bool(requested >> i & 1)

    def do_46(self, buffer: bytearray) -> None:
        values = Rxfh.from_buffer(buffer)
        if values.indir_size:
            for i, queue in enumerate(self.table):
                U32.from_buffer(buffer, 24 + 4 * i).value = queue
            for i, byte in enumerate(self.key):
                U8.from_buffer(buffer, 24 + 4 * len(self.table) + i).value = byte
        values.indir_size, values.key_size, values.hfunc, values.transform = len(self.table), len(self.key), 1, 1

    def do_47(self, buffer: bytearray) -> None:
        values = Rxfh.from_buffer(buffer)
        if values.hfunc or values.transform != 1:
            raise refuse(errno.EINVAL)
        behind = 24
        if values.indir_size == 0:
            self.table = [i % self.channels[2] for i in range(len(self.table))]
        elif values.indir_size != 0xFFFFFFFF:
            behind += 4 * values.indir_size
            self.table = [U32.from_buffer(buffer, 24 + 4 * i).value for i in range(values.indir_size)]
        if values.key_size:
            self.key = bytes(buffer[behind : behind + values.key_size])

    def do_29(self, buffer: bytearray) -> None:
        values = Rxnfc.from_buffer(buffer)
        values.data = self.hashes[values.flow_type]

    def do_2a(self, buffer: bytearray) -> None:
        values = Rxnfc.from_buffer(buffer)
        self.hashes[values.flow_type] = values.data

    def do_2e(self, buffer: bytearray) -> None:
        values = Rxnfc.from_buffer(buffer)
        values.rule_cnt, values.data = len(self.rules), self.most_rules | 1 << 31

    def do_30(self, buffer: bytearray) -> None:
        for i, location in enumerate(sorted(self.rules)):
            U32.from_buffer(buffer, LOCS_OFF + 4 * i).value = location

    def do_2f(self, buffer: bytearray) -> None:
        values = Rxnfc.from_buffer(buffer)
        if values.fs.location not in self.rules:
            raise refuse(errno.ENOENT)
        ctypes.memmove(ctypes.byref(values.fs), self.rules[values.fs.location], ctypes.sizeof(FlowSpec))

    def do_32(self, buffer: bytearray) -> None:
        values = Rxnfc.from_buffer(buffer)
        self.rules[values.fs.location] = bytes(values.fs)

    def do_31(self, buffer: bytearray) -> None:
        del self.rules[Rxnfc.from_buffer(buffer).fs.location]
