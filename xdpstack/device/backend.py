"""What a stack needs of its devices, real or of memory.

The order of calls: `open` (queues attached to workers, program attached, nothing claimed), then any of `claim`, `unclaim`,
`set_local`, `events`, `stats`, `info`; then `withdraw` (claims out: nothing new is lifted), and after the stack has drained
its rings `close` (program detached, sockets closed). `open` undoes what it did when it raises.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from xdpstack.device.modes import BusyPoll
from xdpstack.native.core import Core
from xdpstack.netlink import Neighbour, Snapshot


@dataclass(frozen=True, slots=True)
class Device:
    """One device as it was granted. `index` is the stack's own number, `ifindex` the kernel's.

    `metadata`: what it says of the frames that it receives, beyond their bytes; `offloads`: what it does with those to
    send. `redirect_errors`: whether frames are counted that were lifted and did not get to a socket. `mode` is "native",
    "generic", "offloaded" or "memory"; `asked` is what the user asked for. `vlan_stripping`: VLAN tags may be taken off
    before the program sees a frame, and are not known. `why` says, per thing that was asked for and not granted, the
    reason; and what helps where tags are taken off, or frames come merged. `tuned` has each setting of the NIC that was
    asked for (docs/tuning.md): `asked`, `granted`, and what it was `before`, which it will be again. How its sockets are
    driven (docs/modes.md): whether the kernel says when it has to be told (`need_wakeup`), `busy_poll`, and packets that
    one system call sends in copy mode (`tx_budget`).
    """

    name: str
    index: int
    ifindex: int
    mac: bytes
    queues: tuple[int, ...]
    asked: str = "auto"
    mode: str = "memory"
    zero_copy: bool = False
    multi_buffer: bool = False
    partial_checksums: bool = False
    vlan_stripping: bool = False
    driver: str = ""
    rx_ring: int = 0
    tx_ring: int = 0
    need_wakeup: bool = True
    busy_poll: BusyPoll | None = None
    tx_budget: int = 0
    metadata: tuple[str, ...] = ()
    offloads: tuple[str, ...] = ()
    redirect_errors: bool = False
    why: dict[str, str] = field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """Something happened to a device.

    `what` is "down", "gone", "up", "queue-error", "queues" (others are active, and bound now) or "bound" (after an error).
    """

    device: Device
    what: str
    detail: str = ""


class MirrorLike(Protocol):
    """The mirror of what Linux knows (xdpstack.netlink.Mirror), or what was given by hand."""

    @property
    def snapshot(self) -> Snapshot:
        """What is known now."""
        ...

    def fileno(self) -> int:
        """To select on; -1 when nothing ever comes by itself."""
        ...

    def process(self) -> Sequence[Any]:
        """Take in what has come, without blocking; the changes (empty: nothing changed)."""
        ...

    def collect(self) -> None:
        """Keep what has come for the next `process()`, without blocking: it waits nowhere else, where it could be lost."""
        ...

    def doubt_groups(self) -> None:
        """Have the next `process()` look which multicast groups the host has joined."""
        ...

    def probe(self, neighbour: Neighbour | tuple[int, bytes]) -> bool:
        """Ask the kernel to resolve (ifindex, address); at most once a second each."""
        ...

    def close(self) -> None:
        """Stop following. Idempotent."""
        ...


class Backend(Protocol):
    """The devices of one stack."""

    names: tuple[str, ...]

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices as they are now, in stack index order: what was granted may change when one is bound anew."""
        ...

    def open(self, core: Core) -> tuple[tuple[Device, ...], MirrorLike]:
        """Attach the queues to the workers of `core`; the devices in stack index order, and the started mirror."""
        ...

    def claim(self, claim: Any) -> tuple[int, ...]:
        """Lift what `claim` names from now on; when this returns the program has it.

        Returns the claim's id by device, in stack index order: what the program puts before the frames it lifts.
        """
        ...

    def unclaim(self, claim: Any) -> None:
        """Lift it no more."""
        ...

    def set_local(self, snapshot: Snapshot) -> None:
        """The host's own addresses (for wildcard claims) and MACs have changed."""
        ...

    def kernel_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket | None:
        """A kernel socket in the devices' network namespace; None where there is no kernel (memory devices)."""
        ...

    def events(self) -> Sequence[DeviceEvent]:
        """What happened to the devices since the last call."""
        ...

    def stats(self) -> Mapping[str, int]:
        """`<device>.<queue>.<counter>`, of XDP_STATISTICS and of redirects that failed; `xdp.rx.<verdict or cause>`."""
        ...

    def info(self) -> Mapping[str, Any]:
        """Further facts about the devices, as plain values."""
        ...

    def withdraw(self) -> None:
        """All claims out; idempotent."""
        ...

    def close(self) -> None:
        """Program detached, queues detached from workers, sockets closed; idempotent."""
        ...
