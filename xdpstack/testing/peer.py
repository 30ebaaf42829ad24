"""A peer: raw frames out of and into a device of another namespace, from inside the test's own process.

peer = peer(pair.far)
peer.send(Ether(dst=pair.near.mac) / IP(dst="10.0.0.1") / UDP(dport=7) / b"hello")
answer = peer.expect(lambda frame: UDP in frame and frame[UDP].sport == 7)
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from xdpstack.testing.partial import checksum_field, make_partial
from xdpstack.testing.veth import End
from xdpstack.testing.wait import PATIENCE

# linux/if_packet.h, linux/if_ether.h, asm/socket.h
SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_AUXDATA = 8
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
TP_STATUS_VLAN_VALID = 0x10
TP_STATUS_VLAN_TPID_VALID = 0x40
_AUXDATA = struct.Struct("=IIIHHHH")
VIRTIO_NET_HDR_F_NEEDS_CSUM = 1
_VNET_HDR = struct.Struct("=BBHHHH")
RECEIVE_BUFFER_BYTES = 8 << 20
LARGEST_FRAME = 1 << 16


class Peer:
    """An AF_PACKET socket on `end`. Whole frames, with their VLAN tags, without FCS; not the ones it sent itself.

    Frames are bytes or scapy packets going out; `receive()` gives bytes, `expect()` scapy packets. Made by the `peer`
    fixture, which closes it.
    """

    def __init__(self, end: End) -> None:
        self.end = end
        self.skipped: list[bytes] = []
        """Frames that `expect()` passed over, oldest first."""
        self._vnet: socket.socket | None = None
        self._socket = end.netns.call(self._open)

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        made.bind((self.end.name, ETH_P_ALL))
        made.setblocking(False)
        return made

    def _open_vnet(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        made.bind((self.end.name, 0))
        return made

    # ---- sending ----

    def send(self, *frames: Any, partial: bool = False) -> None:
        """Send frames. `partial`: as a kernel that leaves UDP and TCP checksums to its NIC (CHECKSUM_PARTIAL)."""
        for frame in frames:
            if partial:
                self._send_partial(bytes(frame))
            else:
                self._socket.send(bytes(frame))

    def _send_partial(self, frame: bytes) -> None:
        if self._vnet is None:
            self._vnet = self.end.netns.call(self._open_vnet)
        start, offset = checksum_field(frame)
        header = _VNET_HDR.pack(VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, start, offset)
        self._vnet.send(header + make_partial(frame))

    # ---- receiving ----

    def receive(self, seconds: float = PATIENCE) -> bytes:
        """The next frame. AssertionError when none comes within `seconds`."""
        frame = self._next(time.monotonic() + seconds)
        assert frame is not None, f"no frame came to {self.end.name} within {seconds} s"
        return frame

    def expect(self, matches: Callable[[Any], object], seconds: float = PATIENCE) -> Any:
        """The next frame, as a scapy packet, for which `matches(frame)` is true; others go to `skipped`.

        AssertionError, with what did come, when none is there within `seconds`.
        """
        import scapy.layers.inet6  # noqa: F401  # what Ether finds inside; brings IPv4 too
        from scapy.layers.l2 import Ether

        deadline = time.monotonic() + seconds
        passed: list[str] = []
        while (data := self._next(deadline)) is not None:
            frame = Ether(data)
            if matches(frame):
                return frame
            self.skipped.append(data)
            passed.append(frame.summary())
        came = "".join(f"\n  {line}" for line in passed) or " nothing"
        raise AssertionError(f"the expected frame did not come to {self.end.name} within {seconds} s; what came:{came}")

    def expect_many(self, matches: Callable[[Any], object], n: int, seconds: float = PATIENCE) -> list[Any]:
        """The next `n` frames for which `matches(frame)` is true."""
        deadline = time.monotonic() + seconds
        return [self.expect(matches, max(0.0, deadline - time.monotonic())) for _ in range(n)]

    def waiting(self) -> list[bytes]:
        """All frames that have come and were not taken, without waiting for more."""
        frames = []
        while (frame := self._next(0.0)) is not None:
            frames.append(frame)
        return frames

    def _next(self, deadline: float) -> bytes | None:
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(LARGEST_FRAME, 256)
                return _with_tag(data, ancillary)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                    return None

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        self._socket.close()
        if self._vnet is not None:
            self._vnet.close()


def _with_tag(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The frame with the VLAN tag that the kernel took out of it (skb_vlan_untag) put back."""
    for level, kind, value in ancillary:
        if level != SOL_PACKET or kind != PACKET_AUXDATA:
            continue
        status, _, _, _, _, tci, tpid = _AUXDATA.unpack(value[: _AUXDATA.size])
        if status & TP_STATUS_VLAN_VALID:
            protocol = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
            return data[:12] + struct.pack("!HH", protocol, tci) + data[12:]
    return data
