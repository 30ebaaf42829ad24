"""xdpstack: the Linux packet path in user space, at AF_XDP speed, programmed from Python.

    import xdpstack

    with xdpstack.open("eth1") as stack:
        sock = stack.udp(("10.0.0.2", 7))
        while True:
            payload, peer = sock.recvfrom(65535)
            sock.sendto(payload, peer)

What can be imported from here is the public interface; the rest of the package may change without notice, except for
`xdpstack.errors`, and `xdpstack.testing`, which is for tests of programs that use this.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from xdpstack.device.claims import (
        EthertypeClaim,
        EverythingBut,
        ForwardClaim,
        PrefixClaim,
        ProtocolClaim,
        SocketClaim,
    )
    from xdpstack.errors import XdpstackError
    from xdpstack.hook import HookBatch, Packet, get_include, load_stage
    from xdpstack.stack import Stack, open  # noqa: A004  # the word that users expect, as in tarfile.open

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

#: Where each name is. They are imported when they are first asked for: a test run that only loads the pytest plugin, or a
#: command that only asks a running stack, does without the extension.
_HOMES = {
    "xdpstack.device.claims": __all__[0:3] + __all__[5:8],
    "xdpstack.errors": ["XdpstackError"],
    "xdpstack.hook": ["HookBatch", "Packet", "get_include", "load_stage"],
    "xdpstack.stack": ["Stack", "open"],
}


def __getattr__(name: str) -> typing.Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(home), name)
            return value
    raise AttributeError(f"module 'xdpstack' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
