"""The memory device: the devices of a stack as plain memory, with a fake kernel on the other side of their rings.

    core = Core(manual_clock=True)
    backend = MemoryBackend(core, ["a0", MemoryDevice("b0", mtu=9000)], Given(addresses={"a0": ["10.0.0.1/24"]}))
    stack = Stack(backend, core)
    backend.inject("a0", frame); stack.poll(); backend.sent("b0")

No privilege is needed and time stands still (`clock`). Every injected frame counts as lifted: there is no XDP program to
choose, claims are only kept. Tests use it through `xdpstack.testing.memory_stack()`. See docs/memory-device.md.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xdpstack.device.backend import Device, DeviceEvent, MirrorLike
from xdpstack.device.memory_clock import ManualClock
from xdpstack.device.memory_mirror import Given, MemoryMirror
from xdpstack.device.memory_queue import MemoryQueue, Rings
from xdpstack.errors import ConfigurationError
from xdpstack.native import check, lib
from xdpstack.native.core import Core
from xdpstack.netlink import Link, Snapshot

#: The interface index of the first memory device; 1 is loopback's.
FIRST_IFINDEX = 2


@dataclass(frozen=True, slots=True)
class MemoryDevice:
    """What a memory device is like. Without a `mac` the first is 02:00:00:00:00:01, and so on.

    `multi_buffer`: frames larger than a chunk arrive in several, as after a bind with XDP_USE_SG. `partial_checksums`: it
    may hand over frames whose checksum was left to hardware, as veth does. `zc_max_segs`: in zero-copy mode, of a driver
    that sends packets over so many frames; 0: in copy mode.
    """

    name: str
    mac: bytes = b""
    mtu: int = 1500
    queues: int = 1
    multi_buffer: bool = True
    partial_checksums: bool = False
    headroom: int = 0
    zc_max_segs: int = 0
    rings: Rings = field(default_factory=Rings)


class MemoryBackend:
    """The devices of one stack, in memory. The same protocol as real ones (xdpstack/device/backend.py).

    `links` are further devices of the host, which are not the stack's.
    """

    def __init__(
        self, core: Core, devices: Sequence[str | MemoryDevice], given: Given, links: Sequence[str | Link] = ()
    ) -> None:
        self.core = core
        self.specs = [named_mac(d, i) for i, d in enumerate(devices)]
        self.names = tuple(spec.name for spec in self.specs)
        self.clock = ManualClock(core, self.service)
        own = [Link(FIRST_IFINDEX + i, spec.name, spec.mac, spec.mtu) for i, spec in enumerate(self.specs)]
        after = FIRST_IFINDEX + len(own)
        others = [
            link if isinstance(link, Link) else Link(after + i, link, b"\x02\0\0\0\1" + bytes([i + 1]))
            for i, link in enumerate(links)
        ]
        self.host = MemoryMirror([*own, *others], given, self.clock)
        self.queues: dict[str, list[MemoryQueue]] = {name: [] for name in self.names}
        self.claims: dict[Any, int] = {}
        self._last_claim_id = 0
        self._attached: list[tuple[Any, int]] = []
        self._closed = False
        self.devices = tuple(self._device(index, spec) for index, spec in enumerate(self.specs))
        if len(set(self.names)) != len(self.names):
            raise ConfigurationError(f"two memory devices of one name: {', '.join(self.names)}")

    # ---- what a stack calls (Backend) ----

    def open(self, core: Core) -> tuple[tuple[Device, ...], MirrorLike]:
        """Make the queues and attach them, queue i to worker i of `core`, over again where there are more queues."""
        # half of the frames to receive into, the other half to send and to hold
        queues = sum(spec.queues for spec in self.specs)
        share = core.frames // (2 * max(len(core.workers), queues))
        try:
            for index, spec in enumerate(self.specs):
                for queue in range(spec.queues):
                    worker = core.workers[queue % len(core.workers)]
                    made = MemoryQueue(
                        core, queue, spec.rings, spec.multi_buffer, spec.headroom, share, spec.zc_max_segs
                    )
                    check(lib.xs_worker_attach(worker, made.pointer, index), f"attach {spec.name}")
                    self.queues[spec.name].append(made)
                    self._attached.append((worker, index))
        except BaseException:
            self.close()
            raise
        return self.devices, self.host

    def _device(self, index: int, spec: MemoryDevice) -> Device:
        return Device(
            name=spec.name,
            index=index,
            ifindex=FIRST_IFINDEX + index,
            mac=spec.mac,
            queues=tuple(range(spec.queues)),
            asked="memory",
            mode="memory",
            multi_buffer=spec.multi_buffer,
            partial_checksums=spec.partial_checksums,
            driver="memory",
            rx_ring=spec.rings.rx,
            tx_ring=spec.rings.tx,
        )

    def claim(self, claim: Any) -> tuple[int, ...]:
        """Keep the claim; every injected frame is lifted all the same."""
        self._last_claim_id += 1
        self.claims[claim] = self._last_claim_id
        return (self._last_claim_id,) * len(self.names)

    def unclaim(self, claim: Any) -> None:
        """Forget the claim."""
        del self.claims[claim]

    def set_local(self, snapshot: Snapshot) -> None:
        """Nothing to do: there is no program that would want to know."""

    def kernel_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket | None:
        """None: there is no kernel."""
        return None

    def events(self) -> Sequence[DeviceEvent]:
        """None of its own: that a device is down or gone is seen in the snapshot."""
        return ()

    def stats(self) -> Mapping[str, int]:
        """`<device>.<queue>.<counter>`: those of XDP_STATISTICS and of the socket, that are not zero."""
        return {
            f"{name}.{queue.queue}.{counter}": value
            for name, queues in self.queues.items()
            for queue in queues
            for counter, value in queue.statistics().items()
            if value
        }

    def info(self) -> Mapping[str, Any]:
        """What was granted."""
        return {"mode": "memory", "claims": [str(claim) for claim in self.claims]}

    def withdraw(self) -> None:
        """All claims out."""
        self.claims.clear()

    def close(self) -> None:
        """Detach the queues. What was sent can still be taken. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for worker, index in dict.fromkeys(self._attached):
            check(lib.xs_worker_detach(worker, index), f"detach {self.names[index]}")

    # ---- what a test calls ----

    def _queues(self, name: str, queue: int | None = None) -> list[MemoryQueue]:
        if name not in self.queues:
            raise ConfigurationError(f"there is no memory device {name!r}", fix=f"One of: {', '.join(self.names)}.")
        queues = self.queues[name]
        if queue is None:
            return queues
        if not 0 <= queue < len(queues):
            raise ConfigurationError(f"{name} has no queue {queue}", fix=f"0 to {len(queues) - 1}.")
        return queues[queue : queue + 1]

    def inject(self, name: str, *frames: bytes, queue: int = 0, partial: bool = False, claim: Any = None) -> int:
        """Frames arrive at a device, on one of its queues. Returns how many got onto the RX ring; `stats()` says why not.

        `claim`: the one by which they were lifted; only those whose frames are read whole (`Stack.frames()`) matter.

        A frame starts with the Ethernet header and has no FCS. `partial`: its UDP or TCP checksum is left to hardware,
        so that the field holds the sum of the pseudo-header.
        """
        chosen = self._queues(name, queue)[0]
        lib.xs_fake_set_claim(chosen.pointer, self.claims[claim] if claim is not None else 0)
        return chosen.inject(frames, partial)

    def say(
        self,
        name: str,
        *,
        hash: tuple[int, int] | None = None,  # noqa: A002  # the kernel's word
        timestamp_ns: int = 0,
        vlan: tuple[int, int] | None = None,
    ) -> None:
        """What a device says of the frames that arrive from now on.

        Flow hash and its type, time stamp, and the tag that it has taken off as (ethertype, TCI); for a stack that asks.
        """
        said = {
            "valid": (lib.XS_XDP_OPTION_HASH if hash else 0)
            | (lib.XS_XDP_OPTION_TIMESTAMP if timestamp_ns else 0)
            | (lib.XS_XDP_OPTION_VLAN if vlan else 0),
            "hash": hash[0] if hash else 0,
            "hash_type": hash[1] if hash else 0,
            "timestamp_ns": timestamp_ns,
            "vlan_proto": vlan[0] if vlan else 0,
            "vlan_tci": vlan[1] if vlan else 0,
        }
        for queue in self._queues(name):
            queue.say(lib.XS_XDP_OPTION_HINTS, **said)

    def sent(self, name: str) -> list[bytes]:
        """Takes the frames that were sent on a device since the last call, in order, queue by queue."""
        return [frame for queue in self._queues(name) for frame in queue.sent()]

    def faults(self, name: str, queue: int | None = None, **changes: int) -> dict[str, int]:
        """Change faults of a device, on one queue or all; those of the (first) queue as they are now.

        The names are the fields of struct xs_fake_faults (csrc/ffi/40_fake.cdef.h).
        """
        first, *others = self._queues(name, queue)
        for other in others:
            other.faults(**changes)
        return first.faults(**changes)

    def service(self) -> None:
        """Let the fake kernels do what a kernel does by itself: report completions that are due."""
        for queues in self.queues.values():
            for queue in queues:
                queue.service()

    def set_link(self, name: str, *, up: bool) -> None:
        """Set a device down or up: nothing arrives or leaves while it is down, and the host's routes follow."""
        self.faults(name, down=not up)
        self.host.set_link(name, up=up)

    def remove(self, name: str) -> None:
        """Delete a device under the stack's feet, as `ip link del` would."""
        self.faults(name, gone=1)
        self.host.remove_link(name)


def named_mac(device: str | MemoryDevice, index: int) -> MemoryDevice:
    """The device with a MAC of its own."""
    spec = MemoryDevice(device) if isinstance(device, str) else device
    return spec if spec.mac else replace(spec, mac=b"\x02\0\0\0\0" + bytes([index + 1]))
