"""A host for a UDP layer without a stack: the walk is udp.rx alone, or udp.tx and then a hook that keeps what is sent.

Claims are noted in `claims`. Kernel sockets are what `kernel` makes: none by default.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from tests.udp.by_hand import UdpRx
from xdpstack.device.backend import Device
from xdpstack.errors import ClosedError
from xdpstack.native import check, lib
from xdpstack.native.core import Core
from xdpstack.udp.layer import UdpLayer
from xdpstack.udp.semantics import Datagram

KernelSocket = Callable[[socket.AddressFamily, socket.SocketKind], "socket.socket | None"]
SYSCTLS = {
    "core.rmem_default": 212992,
    "core.rmem_max": 4194304,
    "core.wmem_default": 212992,
    "core.wmem_max": 4194304,
    "ipv4.ip_default_ttl": 64,
    "ipv4.ip_no_pmtu_disc": 0,
    "ipv4.ip_early_demux": 1,
    "ipv4.udp_early_demux": 1,
}


class ByHandHost:
    """Implements xdpstack.udp.host.Host. `rx` is where datagrams are put in."""

    def __init__(self, addresses: Sequence[bytes] = (), kernel: KernelSocket | None = None, frames: int = 512) -> None:
        self.rx = UdpRx(frames=frames)
        self.devices = [Device("d0", 0, 2, bytes(6), (0,)), Device("d1", 1, 3, bytes(6), (0,))]
        self.driven = False
        self.closed = False
        self.claims: list[Any] = []
        self.claimed: list[Any] = []
        self._addresses = list(addresses)
        self._kernel = kernel
        worker = self.rx.worker
        tx = check(lib.xs_worker_add_stage(worker, b"udp.tx"), "add udp.tx")
        self.sent = check(lib.xs_worker_add_hook(worker, self.null, self.null, self.null, 1), "add a hook")
        check(lib.xs_worker_wire(worker, tx, 0, self.sent), "wire")
        check(lib.xs_worker_set_entry(worker, 1, tx), "enter")
        self.udp = UdpLayer(self)

    @property
    def null(self) -> Any:
        from xdpstack.native import ffi

        return ffi.NULL

    @property
    def core(self) -> Core:
        return self.rx.core

    def check(self) -> None:
        if self.closed:
            raise ClosedError("the stack is closed")

    def run_all_parked(self) -> None:
        """Nothing: what is parked is what was sent, see `take_sent()`."""

    def claim(self, claim: Any) -> None:
        assert claim not in self.claims
        self.claims.append(claim)
        self.claimed.append(claim)

    def unclaim(self, claim: Any) -> None:
        self.claims.remove(claim)

    def kernel_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket | None:
        return self._kernel(family, kind) if self._kernel else None

    def local_addresses(self) -> Sequence[bytes]:
        return self._addresses

    def is_broadcast(self, address: bytes) -> bool:
        return address[-1] == 255 and len(address) == 4

    def follow_groups(self) -> None:
        """Whatever is put in has come to a group of the host."""

    def source_address(self, destination: bytes, device: int | None) -> bytes | None:
        found = [one for one in self._addresses if len(one) == len(destination)]
        return found[0] if found else None

    def sysctl(self, name: str) -> int:
        return SYSCTLS[name]

    # ---- for tests ----

    def arrive(self, *datagrams: Datagram) -> None:
        """Datagrams come in, in one batch."""
        self.rx.walk([self.rx.put(one) for one in datagrams])

    def take_sent(self) -> list[tuple[bytes, Any, Any]]:
        """What was sent since: (UDP header and payload, hot descriptor, cold descriptor) of each; the frames go home."""
        from xdpstack.native import ffi

        core, frames = self.core, ffi.new("uint32_t[]", 256)
        n = lib.xs_worker_parked_frames(self.rx.worker, self.sent, frames, 256)
        out = []
        for frame in frames[0:n]:
            pkt = ffi.new("struct xs_pkt *", core.packets[frame])
            start = frame * core.frame_bytes + pkt.data_off
            out.append((bytes(core.umem[start : start + pkt.len]), pkt, ffi.new("struct xs_meta *", core.metas[frame])))
        if n:
            drop = [lib.XS_DROP] * n
            check(lib.xs_worker_resume(self.rx.worker, self.sent, drop, [0] * n, n), "resume")
        return out
