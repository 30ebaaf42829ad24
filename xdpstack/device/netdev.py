"""What the kernel says of a device's XDP: features, segments, active queues (generic netlink, family `netdev`, from 6.3).

Older kernels do not have it, and answer None; who asks then has to try. All of it in the calling thread's network namespace.
Source: Documentation/netlink/specs/netdev.yaml, uapi/linux/netdev.h.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
from dataclasses import dataclass
from typing import TypeVar

from xdpstack.netlink import decode
from xdpstack.netlink.channel import message

NETLINK_GENERIC, NETLINK_SOCK_DIAG = 16, 4
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 1, 0x300, 2, 3
GENERIC = struct.Struct("=BBH")  # cmd, version, reserved
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
NETDEV_CMD_DEV_GET, NETDEV_CMD_QUEUE_GET, NETDEV_CMD_NAPI_GET = 1, 10, 11
NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_FEATURES, NETDEV_A_DEV_XDP_ZC_MAX_SEGS = 1, 3, 4
NETDEV_A_DEV_XDP_RX_METADATA_FEATURES, NETDEV_A_DEV_XSK_FEATURES = 5, 6
NETDEV_A_QUEUE_ID, NETDEV_A_QUEUE_IFINDEX, NETDEV_A_QUEUE_TYPE, NETDEV_A_QUEUE_XSK = 1, 2, 3, 7
NETDEV_A_QUEUE_NAPI_ID, NETDEV_A_NAPI_IFINDEX, NETDEV_A_NAPI_ID, NETDEV_A_NAPI_IRQ = 4, 1, 2, 3
NETDEV_QUEUE_TYPE_RX = 0
TIMEOUT_SECONDS = 5.0


F = TypeVar("F", bound=enum.Flag)


class XdpFeature(enum.Flag):
    """enum netdev_xdp_act: what a driver does with XDP."""

    BASIC = 1
    REDIRECT = 2
    NDO_XMIT = 4
    XSK_ZEROCOPY = 8
    HW_OFFLOAD = 16
    RX_SG = 32
    NDO_XMIT_SG = 64


class RxMetadata(enum.Flag):
    """enum netdev_xdp_rx_metadata: what an XDP program may ask a device of a frame (from Linux 6.7 on)."""

    TIMESTAMP = 1
    HASH = 2
    VLAN_TAG = 4


class XskFeature(enum.Flag):
    """enum netdev_xsk_flags: what a driver does, in zero-copy mode, with a frame to send (from Linux 6.8 on)."""

    TX_TIMESTAMP = 1
    TX_CHECKSUM = 2
    TX_LAUNCH_TIME_FIFO = 4


@dataclass(frozen=True, slots=True)
class NetdevFeatures:
    """What the driver declares now.

    `xdp`; `zc_max_segs` frames of one packet in zero-copy mode (0: not said); `rx_metadata` and `xsk`, None from a kernel
    that does not say.
    """

    xdp: XdpFeature
    zc_max_segs: int
    rx_metadata: RxMetadata | None = None
    xsk: XskFeature | None = None


@dataclass(frozen=True, slots=True)
class RxQueue:
    """An active receive queue. `xsk`: an AF_XDP socket is bound to it (told from Linux 6.13 on, before that never)."""

    number: int
    xsk: bool


def ask(protocol: int, kind: int, flags: int, body: bytes) -> list[bytes]:
    """Send one netlink request; returns the messages of the answer, headers included. OSError with the kernel's errno."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as kernel:
        kernel.settimeout(TIMEOUT_SECONDS)
        kernel.bind((0, 0))
        kernel.send(message(kind, NLM_F_REQUEST | flags, 1, body))
        answer: list[bytes] = []
        while True:
            for got, _, _, each in decode.split(kernel.recv(1 << 16)):
                if got in (NLMSG_ERROR, NLMSG_DONE):
                    code = -struct.unpack_from("=i", each, decode.HEADER.size)[0] if len(each) >= 20 else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                    return answer
                answer.append(each)
                if not flags & NLM_F_DUMP:
                    return answer


def features(ifindex: int) -> NetdevFeatures | None:
    """The XDP features of a device; None if this kernel does not say, or the device is gone."""
    try:
        [answer] = _netdev(NETDEV_CMD_DEV_GET, 0, _u32(NETDEV_A_DEV_IFINDEX, ifindex))
    except (OSError, ValueError):
        return None
    metadata, xsk = answer.get(NETDEV_A_DEV_XDP_RX_METADATA_FEATURES), answer.get(NETDEV_A_DEV_XSK_FEATURES)
    return NetdevFeatures(
        _flags(XdpFeature, answer.get(NETDEV_A_DEV_XDP_FEATURES)),
        decode.u32(answer.get(NETDEV_A_DEV_XDP_ZC_MAX_SEGS)),
        None if metadata is None else _flags(RxMetadata, metadata),
        None if xsk is None else _flags(XskFeature, xsk),
    )


def _flags(kind: type[F], attribute: bytes | None) -> F:
    """A u64 of flags, of which only those that are known by name are kept."""
    return kind(decode.u32(attribute) & sum(each.value for each in kind))


def rx_queues(ifindex: int) -> list[RxQueue] | None:
    """The active receive queues, by number; None if this kernel does not say (before 6.8), or the device is down or gone."""
    try:
        queues = _netdev(NETDEV_CMD_QUEUE_GET, NLM_F_DUMP, _u32(NETDEV_A_QUEUE_IFINDEX, ifindex))
    except (OSError, ValueError):
        return None
    found = [
        RxQueue(decode.u32(queue.get(NETDEV_A_QUEUE_ID)), NETDEV_A_QUEUE_XSK in queue)
        for queue in queues
        if decode.u32(queue.get(NETDEV_A_QUEUE_TYPE)) == NETDEV_QUEUE_TYPE_RX
    ]
    return sorted(found, key=lambda queue: queue.number) or None


def queue_irqs(ifindex: int) -> dict[int, int]:
    """The interrupt of each active receive queue, by number; empty if kernel (before 6.8) or driver do not say."""
    try:
        napis = _netdev(NETDEV_CMD_NAPI_GET, NLM_F_DUMP, _u32(NETDEV_A_NAPI_IFINDEX, ifindex))
        queues = _netdev(NETDEV_CMD_QUEUE_GET, NLM_F_DUMP, _u32(NETDEV_A_QUEUE_IFINDEX, ifindex))
    except (OSError, ValueError):
        return {}
    irqs = {
        decode.u32(napi.get(NETDEV_A_NAPI_ID)): decode.u32(napi.get(NETDEV_A_NAPI_IRQ))
        for napi in napis
        if NETDEV_A_NAPI_IRQ in napi
    }
    return {
        decode.u32(queue.get(NETDEV_A_QUEUE_ID)): irqs[decode.u32(queue[NETDEV_A_QUEUE_NAPI_ID])]
        for queue in queues
        if decode.u32(queue.get(NETDEV_A_QUEUE_TYPE)) == NETDEV_QUEUE_TYPE_RX
        and decode.u32(queue.get(NETDEV_A_QUEUE_NAPI_ID)) in irqs
    }


def _netdev(command: int, flags: int, attributes: bytes) -> list[dict[int, bytes]]:
    body = GENERIC.pack(command, 1, 0) + attributes
    answers = ask(NETLINK_GENERIC, _family(b"netdev"), flags, body)
    return [decode.attributes(each, decode.HEADER.size + GENERIC.size) for each in answers]


def _family(name: bytes) -> int:
    body = GENERIC.pack(CTRL_CMD_GETFAMILY, 1, 0) + _attribute(CTRL_ATTR_FAMILY_NAME, name + b"\0")
    [answer] = ask(NETLINK_GENERIC, GENL_ID_CTRL, 0, body)
    return decode.u32(decode.attributes(answer, decode.HEADER.size + GENERIC.size)[CTRL_ATTR_FAMILY_ID])


def _attribute(kind: int, payload: bytes) -> bytes:
    return decode.ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))
