"""What broker and client say to each other: a message of JSON each way over a Unix socket, with descriptors beside it.

    {"ask": "claim", "interface": "eth1", "claim": {...}}   ->   {"ok": ...} or {"error": {"type": "PrivilegeError", ...}}

The socket keeps messages apart (SOCK_SEQPACKET). Descriptors are passed by SCM_RIGHTS.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from xdpstack import errors
from xdpstack.device import claims
from xdpstack.device.claims import Claim, Endpoint, Essential
from xdpstack.errors import BrokerError, ConfigurationError, XdpstackError, XdpstackOSError

VERSION = 2
#: Bytes of a message at most, and descriptors with one.
LARGEST, DESCRIPTORS = 1 << 16, 4
#: What can be said of, besides claims: the exceptions of EverythingBut.
KINDS = {
    kind.__name__: kind
    for kind in (
        claims.SocketClaim,
        claims.PrefixClaim,
        claims.ProtocolClaim,
        claims.EthertypeClaim,
        claims.ForwardClaim,
        claims.EverythingBut,
        Endpoint,
    )
}


def send(connection: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one message. Raises OSError."""
    socket.send_fds(connection, [json.dumps(message).encode()], list(descriptors))


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message, and the descriptors that came with it, not below 3 and closed on exec.

    Raises EOFError when the other side is gone, OSError, and ValueError for what is no message.
    """
    data, received, flags, _ = socket.recv_fds(connection, LARGEST, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    kept = [_above_stdio(each) for each in received]
    try:
        if not data:
            raise EOFError("the other side has closed the connection")
        try:
            message = None if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) else json.loads(data)
        except RecursionError:
            raise ValueError("lists within lists, too deep for a message") from None
        if not isinstance(message, dict):
            raise ValueError("no message, or too long a one")
    except BaseException:
        for each in kept:
            os.close(each)
        raise
    return message, kept


def _above_stdio(descriptor: int) -> int:
    if descriptor > 2:
        return descriptor
    import fcntl

    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved


def claim_as_json(claim: Claim | Endpoint) -> dict[str, Any]:
    """A claim as values for JSON."""
    return {"kind": type(claim).__name__, **{each.name: _plain(getattr(claim, each.name)) for each in fields(claim)}}


def _plain(value: Any) -> Any:
    if isinstance(value, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        return str(value)
    if isinstance(value, Essential):
        return value.value
    if isinstance(value, frozenset):
        return [claim_as_json(each) for each in value]
    return value


def claim_from_json(said: Any) -> Any:
    """The claim again. Raises ConfigurationError for what is none."""
    try:
        values = dict(said)
        kind = KINDS[values.pop("kind")]
        if isinstance(values.get("vlan"), list):
            values["vlan"] = tuple(values["vlan"])
        if "include" in values:
            values["include"] = Essential(values["include"])
        if "but" in values:
            values["but"] = [claim_from_json(each) for each in values["but"]]
        return kind(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"no claim: {error}") from None


def error_as_json(error: Exception) -> dict[str, Any]:
    """What a client is told of a failure."""
    if isinstance(error, XdpstackError):
        said = {"type": type(error).__name__, "message": error.message, "cause": error.cause, "fix": error.fix}
        return said | {"errno": getattr(error, "errno", None)}
    if isinstance(error, OSError):
        return {"type": "OSError", "message": error.strerror or str(error), "errno": error.errno}
    return {"type": "BrokerError", "message": f"{type(error).__name__}: {error}", "cause": "", "fix": ""}


def error_from_json(said: dict[str, Any]) -> Exception:
    """The exception again; BrokerError for one that cannot be made here."""
    kind = getattr(errors, str(said.get("type")), None)
    message, cause, fix = (str(said.get(key, "")) for key in ("message", "cause", "fix"))
    number = said.get("errno")
    if said.get("type") == "OSError" and isinstance(number, int):
        return OSError(number, message)
    if not isinstance(kind, type) or not issubclass(kind, XdpstackError) or kind in (errors.VerifierError,):
        return BrokerError(message, cause, fix)
    if issubclass(kind, XdpstackOSError):
        return kind(message, cause, fix, number if isinstance(number, int) else None)
    return kind(message, cause, fix)
