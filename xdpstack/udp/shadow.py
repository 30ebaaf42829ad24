"""The kernel socket behind a socket of ours: its port, its slow way in and out, its errors.

It reserves address and port in the devices' network namespace, receives what is not lifted (fragments, which the kernel
joins; clients on the same host; other devices; the time while the dead-man switch is open), sends what is not ours to
send, and has the ICMP errors on its error queue. The worker reads it (csrc/stages/udp_shadow.c); here it is made,
configured and closed.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from xdpstack.errors import AddressInUse, AddressNotAvailable, PrivilegeError
from xdpstack.native import check, ffi, lib
from xdpstack.udp.address import Address
from xdpstack.udp.bpf import Instruction
from xdpstack.udp.host import Host
from xdpstack.udp.semantics import Family

IP_PKTINFO, IP_RECVERR = 8, 11
IPV6_RECVERR, IPV6_RECVPKTINFO = 25, 49
SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_RXQ_OVFL, SO_BINDTOIFINDEX = 26, 27, 40, 62


def create(
    host: Host,
    family: Family,
    address: Address,
    *,
    device: str | None = None,
    v6only: bool = False,
    reuse_address: bool = False,
    broadcast: bool = False,
) -> socket.socket | None:
    """A bound shadow socket; None where there is no kernel.

    Raises AddressInUse, AddressNotAvailable (with the addresses that there are), or the OSError of another failure.
    """
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    shadow = host.kernel_socket(kind, socket.SOCK_DGRAM)
    if shadow is None:
        return None
    try:
        shadow.setblocking(False)
        if family == 6:
            shadow.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
            shadow.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            shadow.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        # an IPv6 socket that carries IPv4 has these too
        shadow.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        shadow.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, family == 4)
        shadow.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        if device is not None:
            shadow.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if reuse_address:
            shadow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if broadcast:
            shadow.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        _bind(host, shadow, address)
    except BaseException:
        shadow.close()
        raise
    return shadow


def _bind(host: Host, shadow: socket.socket, address: Address) -> None:
    try:
        shadow.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"{address[0]} port {address[1]} is in use",
                cause="Another socket of this host, or of this stack, is bound to it.",
                fix=f"`ss -ulpn sport = :{address[1]}` shows whose it is; or take another port.",
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise not_available(host, address) from None
        if error.errno == errno.EACCES:
            raise PrivilegeError(
                f"port {address[1]} is not for ordinary users",
                "A kernel socket reserves it; below net.ipv4.ip_unprivileged_port_start that wants CAP_NET_BIND_SERVICE.",
                "Open the socket before privileges are dropped, or reserve=False, or lower that switch.",
                error.errno,
            ) from None
        raise


def not_available(host: Host, address: Address) -> AddressNotAvailable:
    """The exception for an address that this host does not have; it lists those that it has."""
    known = []
    for one in host.local_addresses():
        known.append(socket.inet_ntop(socket.AF_INET if len(one) == 4 else socket.AF_INET6, one))
    return AddressNotAvailable(
        f"this host does not have the address {address[0]}",
        cause=f"The devices of the stack have: {', '.join(known) or 'none'}.",
        fix="Bind to one of these, or to the wildcard address.",
    )


def attach_filter(shadow: socket.socket, program: Sequence[Instruction]) -> None:
    """Have the kernel run the same filter; empty detaches. Raises OSError(EINVAL) for a program that it refuses."""
    if not program:
        with suppress(FileNotFoundError):  # there was none
            shadow.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        return
    codes = ffi.new("struct xs_filter_code[]", [tuple(one) for one in program])
    address = int(ffi.cast("uintptr_t", codes))
    shadow.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), address))


def peer(shadow: socket.socket) -> Address | None:
    """Where it is connected to; None: it is not."""
    try:
        address: Address = shadow.getpeername()
    except OSError:
        return None
    return address


def source(shadow: socket.socket, asked: socket.socket, peer: Address) -> Address:
    """Our address towards `peer` where getsockname() tells a group: that of `asked`, a new socket, connected alike."""
    asked.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    asked.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, shadow.getsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX))
    if shadow.family == socket.AF_INET:
        named = shadow.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4)
        asked.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, named)
    asked.connect(peer)
    address: Address = asked.getsockname()
    return address


def connect_again(shadow: socket.socket, peer: Address | None) -> None:
    """Connect it to where it was connected to before; None: nowhere. It keeps its port."""
    before = shadow.getsockname()
    check(lib.xs_shadow_disconnect(shadow.fileno()), "disconnect the kernel socket")
    now = shadow.getsockname()
    if not now[1]:  # a port that the kernel chose goes with the connection
        shadow.bind((now[0], before[1], *now[2:]))
    if peer is not None:
        shadow.connect(peer)


def close(shadow: socket.socket) -> int:
    """Close a shadow that no worker reads any more; returns how many datagrams it had that nobody will read."""
    unread = 0
    with suppress(BlockingIOError):
        while True:
            try:
                shadow.recv(1)
            except BlockingIOError:
                raise
            except OSError:
                continue  # a pending ICMP error
            unread += 1
    shadow.close()
    return unread
