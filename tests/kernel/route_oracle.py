"""Asking Linux for routes: RTM_GETROUTE, many lookups at a time; and connect(2)."""

import errno
import socket
import struct
from dataclasses import dataclass

from xdpstack.netlink import decode as nl
from xdpstack.netlink import run_in, text
from xdpstack.netlink.channel import message, open_socket
from xdpstack.netlink.uapi import AF_INET6, NLM_F_REQUEST, NLMSG_ERROR, RTM_F_LOOKUP_TABLE, RTM_GETROUTE
from xdpstack.routing.flow import Flow

RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_TABLE, RTA_MARK, RTA_VIA = (
    1,
    2,
    3,
    4,
    5,
    7,
    15,
    16,
    18,
)
RTA_UID, RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 25, 27, 28, 29
BATCH = 64


@dataclass(frozen=True)
class Answer:
    """One side's answer; the fields that one family or direction does not tell are None on both sides."""

    error: int = 0
    type: int | None = None
    oif: int = 0
    gateway: bytes = b""
    source: bytes | None = None
    table: int | None = None

    def __str__(self) -> str:
        if self.error:
            return errno.errorcode[self.error]
        source = text(self.source) if self.source else self.source
        return f"type {self.type} dev {self.oif} via {text(self.gateway)} src {source} table {self.table}"


class Oracle:
    """Asks the kernel of a namespace, many lookups at a time."""

    def __init__(self, namespace: str) -> None:
        self.socket = run_in(namespace, open_socket)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        self.socket.settimeout(10)

    def close(self) -> None:
        self.socket.close()

    def ask(self, flows: list[Flow]) -> list[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(flows), BATCH):
            part = flows[start : start + BATCH]
            self.socket.send(b"".join(request(flow, number) for number, flow in enumerate(part, 1)))
            got: dict[int, Answer] = {}
            while len(got) < len(part):
                for kind, _, sequence, each in nl.split(self.socket.recv(1 << 16)):
                    got[sequence] = decode(kind, each, part[sequence - 1])
            answers += [got[number] for number in range(1, len(part) + 1)]
        return answers


def request(flow: Flow, sequence: int) -> bytes:
    def attribute(kind: int, payload: bytes) -> bytes:
        return struct.pack("=HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)

    width = len(flow.destination) * 8
    body = nl.ROUTE.pack(flow.family, width, width if flow.source else 0, flow.tos, 0, 0, 0, 0, RTM_F_LOOKUP_TABLE)
    body += attribute(RTA_DST, flow.destination)
    if flow.source:
        body += attribute(RTA_SRC, flow.source)
    for kind, value in ((RTA_IIF, flow.iif), (RTA_OIF, flow.oif), (RTA_MARK, flow.mark)):
        if value:
            body += attribute(kind, struct.pack("=I", value))
    body += attribute(RTA_UID, struct.pack("=I", flow.user))
    if flow.protocol:
        body += attribute(RTA_IP_PROTO, struct.pack("=B", flow.protocol))
        for kind, value in ((RTA_SPORT, flow.source_port), (RTA_DPORT, flow.destination_port)):
            if value:
                body += attribute(kind, struct.pack(">H", value))
    return message(RTM_GETROUTE, NLM_F_REQUEST, sequence, body)


def decode(kind: int, each: bytes, flow: Flow) -> Answer:
    if kind == NLMSG_ERROR:
        return Answer(-struct.unpack_from("=i", each, nl.HEADER.size)[0])
    head = nl.ROUTE.unpack_from(each, nl.HEADER.size)
    found = nl.attributes(each, nl.HEADER.size + nl.ROUTE.size)
    source = found.get(RTA_PREFSRC, flow.source or None)
    if flow.iif or (flow.family == AF_INET6 and flow.source):
        source = None  # not chosen
    return Answer(0, head[7], nl.u32(found[RTA_OIF]), nl.gateway(found), source, nl.u32(found.get(RTA_TABLE)))
