"""Having the kernel resolve a neighbour without the privilege to ask it: by giving it a packet for there.

Asking by netlink (RTM_NEWNEIGH with NTF_USE) wants CAP_NET_ADMIN. Whoever has it not sends an empty UDP datagram to the
neighbour's discard port (RFC 863), with a TTL of 1: the kernel resolves the neighbour, or confirms it, as for any packet.
The neighbour drops the datagram, or answers that there is no such port, to a socket that is closed already.
"""

import socket
from typing import Final

from xdpstack.netlink.ip import text
from xdpstack.netlink.namespace import HeldNamespace

#: asm-generic/socket.h; anybody may set it on a socket that is not bound to a device yet (Linux 5.7).
SO_BINDTOIFINDEX: Final = 62
DISCARD: Final = 9


def provoke(place: HeldNamespace, index: int, address: bytes) -> None:
    """Send it, in `place`, by the device `index`. Raises OSError where the kernel does not take it."""
    place.run(lambda: _send(index, address))


def _send(index: int, address: bytes) -> None:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sender:
        sender.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, index)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)  # a gateway may be on no route but its own
        if family == socket.AF_INET:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            sender.sendto(b"", (text(address), DISCARD))
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            sender.sendto(b"", (text(address), DISCARD, 0, index))
