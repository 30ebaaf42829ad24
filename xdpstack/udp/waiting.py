"""How sockets wait: for a datagram, for room to send; and the descriptor that event loops wait on."""

from __future__ import annotations

import select
import socket
from typing import Any

from xdpstack.native import check, lib
from xdpstack.native.core import BUDGET
from xdpstack.udp.host import Host

#: The one flag that calls take, as a plain number: operators of socket.MsgFlag cost as much as receiving some packets.
DONTWAIT = int(socket.MSG_DONTWAIT)
#: How long a waiting socket believes that somebody else drives, in ms.
DRIVEN_MS = 100


class Waiting:
    """Waiting, with the GIL released. Unless threads of the stack poll, whoever waits polls."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def for_datagram(self, pointer: Any, timeout_ms: int, budget: int = BUDGET) -> None:
        """Until a socket has something, packets are parked for a Python hook (which then runs), or the time is over.

        It may return earlier: look whether there is something, and come again. A poll takes at most `budget` packets
        of a queue.
        """
        host = self.host
        driven = host.driven
        if driven and not 0 <= timeout_ms < DRIVEN_MS:
            timeout_ms = DRIVEN_MS  # whoever drives may stop: then the caller, who comes again, does it himself
        result = lib.xs_socket_wait(host.core.pointer, pointer, not driven, budget, timeout_ms)
        if check(result, "wait for a datagram") == 2:
            host.run_all_parked()

    def for_room(self, timeout_ms: int) -> None:
        """Until there may be room to send, at most `timeout_ms`."""
        host = self.host
        result = lib.xs_socket_wait_room(host.core.pointer, not host.driven, BUDGET, timeout_ms)
        if check(result, "wait for room") == 2:
            host.run_all_parked()

    def take_in(self) -> None:
        """What has come to the devices by now goes to the sockets, unless threads poll, who do that."""
        if not self.host.driven:
            for worker in self.host.core.workers:
                lib.xs_worker_poll(worker, BUDGET)

    def export(self, pointer: Any) -> select.epoll:
        """An epoll instance over the socket's eventfd and, unless threads poll, over what wakes the workers."""
        epoll = select.epoll()
        epoll.register(check(lib.xs_socket_export(pointer), "make a descriptor"), select.EPOLLIN)
        if not self.host.driven:
            for worker in self.host.core.workers:
                epoll.register(lib.xs_worker_epoll_fd(worker), select.EPOLLIN)
        return epoll
