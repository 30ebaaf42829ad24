"""An AF_XDP socket to fill a slot of the XSKMAP with."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

AF_XDP, SOL_XDP, XDP_RX_RING = 44, 283, 2


@contextmanager
def unbound_socket() -> Iterator[int]:
    """The descriptor of a socket with an RX ring, which newer kernels ask for. It is not bound, so nothing can come."""
    with socket.socket(AF_XDP, socket.SOCK_RAW) as made:
        made.setsockopt(SOL_XDP, XDP_RX_RING, struct.pack("=i", 64))
        yield made.fileno()
