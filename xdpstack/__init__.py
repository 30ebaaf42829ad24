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
    from xdpstack.batch import Batch
    from xdpstack.c_stage import get_include, load_stage
    from xdpstack.device.backend import Device, DeviceEvent
    from xdpstack.device.claims import (
        Essential,
        EthertypeClaim,
        EverythingBut,
        PrefixClaim,
        ProtocolClaim,
        SocketClaim,
    )
    from xdpstack.device.modes import BusyPoll
    from xdpstack.device.prefilter import Prefilter
    from xdpstack.device.tuning.asked import Tuning
    from xdpstack.dropping import drop_privileges
    from xdpstack.errors import (
        AddressInUse,
        AddressNotAvailable,
        BrokerError,
        ClaimTaken,
        ClosedError,
        ConfigurationError,
        ForkedError,
        InterfaceDown,
        ModeRefused,
        MtuTooLarge,
        NamespaceError,
        NetlinkError,
        NoSuchInterface,
        OutOfMemory,
        PinError,
        PrivilegeError,
        ProgramAttached,
        QueueTaken,
        SendBatchError,
        TableFull,
        TooManyOpenFiles,
        TuningRefused,
        VerifierError,
        XdpstackError,
        XdpstackOSError,
    )
    from xdpstack.frames import FrameBatch, Frames
    from xdpstack.hook import HookBatch, Packet
    from xdpstack.redirect import Redirect
    from xdpstack.stack import Stack, open  # noqa: A004  # the word that users expect, as in tarfile.open
    from xdpstack.udp.socket import UdpSocket

__all__ = [
    "AddressInUse",
    "AddressNotAvailable",
    "Batch",
    "BrokerError",
    "BusyPoll",
    "ClaimTaken",
    "ClosedError",
    "ConfigurationError",
    "Device",
    "DeviceEvent",
    "Essential",
    "EthertypeClaim",
    "EverythingBut",
    "ForkedError",
    "FrameBatch",
    "Frames",
    "HookBatch",
    "InterfaceDown",
    "ModeRefused",
    "MtuTooLarge",
    "NamespaceError",
    "NetlinkError",
    "NoSuchInterface",
    "OutOfMemory",
    "Packet",
    "PinError",
    "Prefilter",
    "PrefixClaim",
    "PrivilegeError",
    "ProgramAttached",
    "ProtocolClaim",
    "QueueTaken",
    "Redirect",
    "SendBatchError",
    "SocketClaim",
    "Stack",
    "TableFull",
    "TooManyOpenFiles",
    "Tuning",
    "TuningRefused",
    "UdpSocket",
    "VerifierError",
    "XdpstackError",
    "XdpstackOSError",
    "drop_privileges",
    "get_include",
    "load_stage",
    "open",
]

#: Where each name is; the others are exceptions, of xdpstack.errors. They are imported when they are first asked for: a test
#: run that only loads the pytest plugin, or a command that only asks a running stack, does without the extension.
_HOMES = {
    "Batch": "xdpstack.batch",
    "BusyPoll": "xdpstack.device.modes",
    "Device": "xdpstack.device.backend",
    "DeviceEvent": "xdpstack.device.backend",
    "Essential": "xdpstack.device.claims",
    "EthertypeClaim": "xdpstack.device.claims",
    "EverythingBut": "xdpstack.device.claims",
    "FrameBatch": "xdpstack.frames",
    "Frames": "xdpstack.frames",
    "HookBatch": "xdpstack.hook",
    "Packet": "xdpstack.hook",
    "Prefilter": "xdpstack.device.prefilter",
    "PrefixClaim": "xdpstack.device.claims",
    "ProtocolClaim": "xdpstack.device.claims",
    "Redirect": "xdpstack.redirect",
    "SocketClaim": "xdpstack.device.claims",
    "Stack": "xdpstack.stack",
    "Tuning": "xdpstack.device.tuning.asked",
    "UdpSocket": "xdpstack.udp.socket",
    "drop_privileges": "xdpstack.dropping",
    "get_include": "xdpstack.c_stage",
    "load_stage": "xdpstack.c_stage",
    "open": "xdpstack.stack",
}


def __getattr__(name: str) -> typing.Any:
    if name not in __all__:
        raise AttributeError(f"module 'xdpstack' has no attribute {name!r}")
    home = importlib.import_module(_HOMES.get(name, "xdpstack.errors"))
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
