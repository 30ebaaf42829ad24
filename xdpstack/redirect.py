"""Redirects: frames of a claim leave again, by another device of the stack or by their own, untouched by Python.

    with xdpstack.open("eth0", "eth1") as stack:
        stack.redirect(xdpstack.EverythingBut(any_mac=True), to={"eth0": "eth1", "eth1": "eth0"})
        stack.run()

Linux's XDP_REDIRECT through a map of devices, and XDP_TX where a frame leaves as it came. All frames of a stack are one
piece of memory, so that none is copied: the frame that was received is the one that is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xdpstack.claimed import Claimed, ClaimedTable
from xdpstack.errors import ConfigurationError
from xdpstack.native import check, ffi, lib

if TYPE_CHECKING:
    from xdpstack.device.claims import Claim


class Redirect(Claimed):
    """One redirected claim. Made by `Stack.redirect()`; a context manager that closes. Any thread may use it.

    `claim` is what is lifted; `to` says, by the name of the device that a frame comes by, by which it leaves; `swap_macs`
    whether source and destination MAC change places.
    """

    def __init__(self, redirects: Redirects, claim: Claim, to: Mapping[str, str], swap_macs: bool) -> None:
        super().__init__(claim)
        self.to = to
        self.swap_macs = swap_macs
        self._redirects = redirects

    def __repr__(self) -> str:
        ways = ", ".join(f"{came} to {leaves}" for came, leaves in self.to.items())
        return f"<Redirect {self.claim}, {ways}>"

    def close(self) -> None:
        """The claim out, then its frames are nobody's. Idempotent. Raises ConfigurationError inside of a hook."""
        self._redirects.host.walk.refuse_inside_hook()
        self._redirects.forget(self)


class Redirects(ClaimedTable[Redirect]):
    """All Redirects of one stack, and the table of which claim's frames leave by which device (csrc/tables/redirects.h)."""

    ROW = "xdp.redirect"

    def open(self, claim: Claim, to: str | Mapping[str, str], swap_macs: bool) -> Redirect:
        """See Stack.redirect(). What is lifted before the workers know where to goes on along the path."""
        self.host.walk.refuse_inside_hook()
        return self.add(Redirect(self, claim, self._ways(to), swap_macs), claim)

    def _ways(self, to: str | Mapping[str, str]) -> dict[str, str]:
        """By which device leaves what comes by each."""
        names = [device.name for device in self.host.devices]
        ways = dict.fromkeys(names, to) if isinstance(to, str) else dict(to)
        if unknown := {*ways, *ways.values()} - set(names):
            raise ConfigurationError(
                f"no device of this stack: {', '.join(sorted(map(repr, unknown)))}", fix=f"One of: {', '.join(names)}."
            )
        if missing := [name for name in names if name not in ways]:
            raise ConfigurationError(
                f"frames that come by {', '.join(missing)} would be lifted, and go nowhere",
                cause="A claim holds on all devices of a stack.",
                fix="Say for each by which device they leave.",
            )
        return ways

    def _write(self) -> None:
        index = {device.name: device.index for device in self.host.devices}
        entries = [
            (number, index[came], index[leaves], each.swap_macs)
            for each in self._all
            if each.ids
            for came, leaves in each.to.items()
            if (number := each.ids[index[came]])
        ]
        table = ffi.new("struct xs_redirect[]", max(1, len(entries)))
        for row, (number, came_by, leaves_by, swap) in zip(table, entries, strict=False):
            row.claim_id, row.device, row.to, row.swap = number, came_by, leaves_by, swap
        check(lib.xs_stack_set_redirects(self.host.core.pointer, table, len(entries)), "publish the redirects")
