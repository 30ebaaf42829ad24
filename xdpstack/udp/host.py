"""What sockets ask of the stack they belong to."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Protocol

from xdpstack.device.backend import Device
from xdpstack.native.core import Core


class Host(Protocol):
    """The stack, as its UDP layer sees it. `xdpstack.Stack` is one."""

    @property
    def core(self) -> Core:
        """The C stack."""
        ...

    @property
    def devices(self) -> Sequence[Device]:
        """In stack index order."""
        ...

    @property
    def driven(self) -> bool:
        """Whether threads of the stack poll. If not, whoever waits for a datagram does it himself."""
        ...

    def check(self) -> None:
        """Raise ClosedError or ForkedError when nothing may be called any more."""
        ...

    def run_all_parked(self) -> None:
        """Run the Python hooks that have packets parked, on all workers."""
        ...

    def claim(self, claim: Any) -> Any:
        """Lift what `claim` names; when this returns the program has it."""
        ...

    def unclaim(self, claim: Any) -> None:
        """Lift it no more."""
        ...

    def kernel_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket | None:
        """A kernel socket in the devices' network namespace; None where there is no kernel."""
        ...

    def local_addresses(self) -> Sequence[bytes]:
        """The addresses of the stack's devices, packed (4 or 16 bytes)."""
        ...

    def is_broadcast(self, address: bytes) -> bool:
        """Whether a packed address is one to which datagrams are broadcast."""
        ...

    def follow_groups(self) -> None:
        """A socket has joined or left a multicast group: when this returns, what comes to it is for the host, or no more."""
        ...

    def source_address(self, destination: bytes, device: int | None) -> bytes | None:
        """The source address that routing takes for a destination, both packed; None: not through a device of ours."""
        ...

    def sysctl(self, name: str) -> int:
        """A kernel switch by its name without `net.`: "core.rmem_max"."""
        ...
