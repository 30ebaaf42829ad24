"""A socket as its layer has it: what is bound, the C socket, the kernel socket behind it. Users have xdpstack.udp.socket."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from xdpstack.native import ffi, lib, views
from xdpstack.udp.host import Host
from xdpstack.udp.precedence import Place
from xdpstack.udp.semantics import Bound


@dataclass(slots=True, eq=False)
class Endpoint:
    """Made and changed by UdpLayer, under its lock.

    `bound` is what the lookup knows of it. `pointer` is the C socket, which lasts as long as anything looks at it; `view`
    what sends and receives by it (xdpstack.native.views.Socket). `shadow` is the kernel socket, None without one.
    `ifindex` is that of the device it is bound to, or 0. `joined` counts its memberships of IPv6 groups.
    `place` is what it comes before, and after, in the lookup.
    """

    host: Host
    bound: Bound
    pointer: Any
    view: Any
    shadow: socket.socket | None
    ifindex: int
    joined: Counter[bytes] = field(default_factory=Counter)
    place: Place = field(default_factory=Place)

    def resize(self, rcvbuf: int) -> None:
        """A receive queue for `rcvbuf` bytes."""
        self.view.set_rcvbuf(rcvbuf)

    def stats(self) -> dict[str, int]:
        """What the C socket counts: see UdpSocket.stats()."""
        out = ffi.new("struct xs_socket_stats *")
        lib.xs_socket_stats(self.pointer, out)
        drops = ("drops", "drops_rcvbuf", "drops_memory", "drops_filter", "drops_kernel")
        names = ("datagrams", *drops, "rmem", "rcvbuf", "queued", "errors_lost")
        return {name: int(getattr(out, name)) for name in names}

    def end(self) -> int:
        """Nothing feeds it any more: empty the queue, and have every later call raise.

        Returns how many datagrams nobody had read.
        """
        unread = self.view.drain()
        self.view.close()
        return int(unread)


def view_of(host: Host, pointer: Any) -> views.Socket:
    """By which a C socket sends and receives. It keeps the memory of the stack, and the socket, as long as it lives."""
    core = host.core
    return views.Socket(
        int(ffi.cast("uintptr_t", pointer)), int(ffi.cast("uintptr_t", core.pointer)), (core.umem, pointer)
    )
