"""Publishes the routing tables of the C stages (csrc/tables/fib.h).

    snapshot --compile_tables--> Tables (values) --NativeRouting.publish--> struct xs_fib, which all workers see at once

The tables are replaced whole: no packet is routed by half of a change. What changes no decision is not published: most
snapshots differ in the state of a neighbour that no route goes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xdpstack.native import check, ffi, lib
from xdpstack.netlink import Snapshot
from xdpstack.netlink.uapi import AF_INET
from xdpstack.routing.native_tables import Draft, silence
from xdpstack.routing.nexthops import NextHopIds
from xdpstack.routing.tables import Device, Tables, compile_tables


def device_flags(device: Device) -> int:
    """The XS_DEV_* that routing heeds, as the device's switches are (struct xs_device_values.flags)."""
    switches = {
        lib.XS_DEV_UP: device.link.is_up,
        lib.XS_DEV_LOOPBACK: device.link.is_loopback,
        lib.XS_DEV_FORWARDING: device.forwarding,
        lib.XS_DEV_FORWARDING6: device.forwarding6,
        lib.XS_DEV_ACCEPT_LOCAL: device.accept_local,
        lib.XS_DEV_ROUTE_LOCALNET: device.route_localnet,
        lib.XS_DEV_SEND_REDIRECTS: device.send_redirects,
        lib.XS_DEV_SRC_VALID_MARK: device.src_valid_mark,
        lib.XS_DEV_BC_FORWARDING: device.bc_forwarding,
        lib.XS_DEV_NO_IPV4: not device.addresses[AF_INET],
    }
    return sum(int(flag) for flag, on in switches.items() if on)


class NativeRouting:
    """The C stages' tables of one stack. Only the control thread calls it.

    `stack` is the struct xs_stack (Core.pointer). OSError: the table could not be made (ENOMEM; E2BIG: more than 65,535
    routes to one prefix); the old one serves on.
    """

    def __init__(self, stack: Any) -> None:
        self.stack = stack
        self.ids = NextHopIds()
        self.publications = 0
        self._snapshot: Snapshot | None = None
        self._devices: Mapping[int, int] = {}
        self._gateways: dict[tuple[int, bytes], int] = {}

    def publish(self, snapshot: Snapshot, devices: Mapping[int, int], tables: Tables | None = None) -> bool:
        """Make `snapshot` what the workers route by, and wait until they do. False: nothing of it matters to routing.

        `devices` has the stack's index of each of its devices, by interface index. `tables` are those of the snapshot,
        if they have been compiled already (RoutingLayer.apply).
        """
        if not self._concerns(snapshot, devices):
            return False
        tables = tables or compile_tables(snapshot)
        draft = Draft(tables, snapshot, devices, self.ids)
        out = ffi.new("struct xs_fib **")
        check(lib.xs_fib_create(draft.values(), out), "make the routing tables")
        lib.xs_stack_set_fib(self.stack, out[0])
        self._snapshot, self._devices = snapshot, dict(devices)
        self._gateways = {gateway: silence(tables, gateway) for gateway in draft.gateways}
        self.publications += 1
        return True

    def _concerns(self, new: Snapshot, devices: Mapping[int, int]) -> bool:
        """Something changed that a decision depends on."""
        old = self._snapshot
        if old is None or devices != self._devices:
            return True
        parts = ("links", "addresses", "routes", "rules", "nexthops", "sysctls", "groups", "past")
        if any(getattr(old, part) != getattr(new, part) for part in parts):
            return True
        return any(silence(new, gateway) != before for gateway, before in self._gateways.items())
