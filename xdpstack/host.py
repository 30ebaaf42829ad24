"""The stack as its sockets, its frames and its Python layers see it: what they ask of it, beside what it is for users."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, get_args

from xdpstack.device.backend import Device
from xdpstack.device.claims import Claim, ForwardClaim
from xdpstack.errors import ConfigurationError
from xdpstack.native.core import Core
from xdpstack.netlink import Snapshot
from xdpstack.netlink.uapi import RTN_BROADCAST
from xdpstack.routing.ask import source_address
from xdpstack.walk import Walk

if TYPE_CHECKING:
    from xdpstack.device.backend import Backend
    from xdpstack.stack import Stack


class StackHost:
    """Implements xdpstack.udp.host.Host."""

    def __init__(self, stack: Stack, core: Core, backend: Backend, walk: Walk) -> None:
        self._stack = stack
        self._core = core
        self._backend = backend
        self.walk = walk

    @property
    def devices(self) -> tuple[Device, ...]:
        """In stack index order."""
        return self._stack.devices

    @property
    def snapshot(self) -> Snapshot:
        """What the mirror knows."""
        return self._stack.snapshot

    @property
    def driven(self) -> bool:
        """Whether somebody is in `run()`: then a socket that waits does not have to poll."""
        return self._stack.driven

    def check(self) -> None:
        """Raise ClosedError or ForkedError when nothing may be called any more."""
        self._stack._check()

    @property
    def core(self) -> Core:
        """The C stack."""
        return self._core

    @property
    def hooked(self) -> bool:
        """Whether there are Python hooks, so that packets may be parked after a poll or a send."""
        return any(hook.parks for hook in self.walk.hooks)

    def run_all_parked(self) -> None:
        """Run the Python hooks that have packets parked, on all workers; with threads, what others run is left to them."""
        self._stack._driving.run_parked()

    def claim(self, claim: Claim) -> tuple[int, ...]:
        """Lift what `claim` names; when this returns the program has it. Its ids, by device.

        ConfigurationError for a ForwardClaim: nothing forwards yet, and what it lifts would be lost.
        """
        if isinstance(claim, ForwardClaim):
            raise ConfigurationError(
                "packets of other hosts cannot be claimed to be forwarded: a stack does not route between its devices yet",
                fix="Frames go from device to device, as they are, by stack.redirect().",
            )
        return self._backend.claim(claim)

    def claim_frames(self, claim: Claim) -> tuple[int, ...]:
        """As `claim`, for frames that are told from others by it. Raises ConfigurationError where they cannot be."""
        if not isinstance(claim, get_args(Claim)):
            raise ConfigurationError(
                f"{claim!r} is no claim",
                "A claim says which frames are lifted.",
                f"One of xdpstack.{', '.join(kind.__name__ for kind in get_args(Claim))}.",
            )
        for device in self.devices:
            if "claims" in device.why:
                raise ConfigurationError(
                    f"frames of {device.name} cannot be read or redirected by claim",
                    device.why["claims"],
                    "UDP sockets can be opened; for frames, open without coexist, or with a later libxdp.",
                )
        return self.claim(claim)

    def unclaim(self, claim: Claim) -> None:
        """Lift it no more."""
        self._backend.unclaim(claim)

    def kernel_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket | None:
        """A kernel socket in the devices' network namespace; None over memory devices."""
        return self._backend.kernel_socket(family, kind)

    def local_addresses(self) -> list[bytes]:
        """The addresses of the stack's devices, packed."""
        indexes = {device.ifindex for device in self.devices}
        return [address.local for address in self.snapshot.addresses if address.index in indexes]

    def is_broadcast(self, address: bytes) -> bool:
        """Whether it is 255.255.255.255, or a route says that what is sent there is broadcast. Packed."""
        told = (route for route in self.snapshot.routes if route.type == RTN_BROADCAST)
        return address == b"\xff" * 4 or any(
            route.destination.address == address and route.destination.length == 8 * len(address) for route in told
        )

    def follow_groups(self) -> None:
        """When this returns, what comes to the multicast groups that the host has joined by now is for it."""
        self._stack._control.follow_groups()

    def source_address(self, destination: bytes, device: int | None) -> bytes | None:
        """The source that routing takes for a destination, both packed; None: it does not leave through a device of ours."""
        return source_address(self._core.pointer, destination, None if device is None else self.devices[device].ifindex)

    def sysctl(self, name: str) -> int:
        """A kernel switch by its name without `net.`: "core.rmem_max"."""
        return self.snapshot.sysctls[name]
