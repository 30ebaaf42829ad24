"""xdpstack: the Linux packet path in user space, at AF_XDP speed, programmed from Python.

    import xdpstack

    with xdpstack.open("eth1") as stack:
        sock = stack.udp(("10.0.0.2", 7))
        while True:
            payload, peer = sock.recvfrom(65535)
            sock.sendto(payload, peer)

What can be imported from here is the public interface; the rest of the package may change without notice, except for
`xdpstack.testing`, which is for tests of programs that use this.
"""

from xdpstack.device.claims import EthertypeClaim, EverythingBut, ForwardClaim, PrefixClaim, ProtocolClaim, SocketClaim
from xdpstack.errors import XdpstackError
from xdpstack.hook import HookBatch, Packet, get_include, load_stage
from xdpstack.stack import Stack, open  # noqa: A004  # as socket.open would be: the word that users expect

__all__ = [
    "EthertypeClaim",
    "EverythingBut",
    "ForwardClaim",
    "HookBatch",
    "Packet",
    "PrefixClaim",
    "ProtocolClaim",
    "SocketClaim",
    "Stack",
    "XdpstackError",
    "get_include",
    "load_stage",
    "open",
]
