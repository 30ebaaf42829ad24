"""The numbers of drop reasons are part of the stage ABI: what was compiled by them yesterday means the same today."""

from __future__ import annotations

import re

from tests.house.tree import text
from xdpstack.native import lib
from xdpstack.walk import reason_text, reasons

#: By number, as they were first given. Only ever appended to; another change is one of XS_STAGE_ABI, which users have to
#: compile for anew.
GIVEN = [
    "NOT_SPECIFIED",
    "NO_SOCKET",
    "SOCKET_CLOSE",
    "SOCKET_FILTER",
    "SOCKET_RCVBUFF",
    "PKT_TOO_SMALL",
    "UDP_CSUM",
    "NETFILTER_DROP",
    "OTHERHOST",
    "IP_CSUM",
    "IP_INHDR",
    "IP_RPFILTER",
    "UNICAST_IN_L2_MULTICAST",
    "XFRM_POLICY",
    "IP_NOPROTO",
    "PROTO_MEM",
    "IP_OUTNOROUTES",
    "NEIGH_CREATEFAIL",
    "NEIGH_FAILED",
    "NEIGH_QUEUEFULL",
    "NEIGH_DEAD",
    "TC_EGRESS",
    "TC_INGRESS",
    "QDISC_DROP",
    "CPU_BACKLOG",
    "XDP",
    "UNHANDLED_PROTO",
    "SKB_CSUM",
    "DEV_READY",
    "NOMEM",
    "HDR_TRUNC",
    "INVALID_PROTO",
    "IP_INADDRERRORS",
    "IP_INNOROUTES",
    "IP_LOCAL_SOURCE",
    "IP_INVALID_SOURCE",
    "IP_LOCALNET",
    "IP_INVALID_DEST",
    "IPV6DISABLED",
    "IPV6_BAD_EXTHDR",
    "IPV6_NDISC_BAD_CODE",
    "IP_TUNNEL_ECN",
    "PKT_TOO_BIG",
    "DUP_FRAG",
    "FRAG_REASM_TIMEOUT",
    "FRAG_TOO_FAR",
    "TCP_MINTTL",
    "MAC_INVALID_SOURCE",
    "ICMP_CSUM",
    "INVALID_ARG",
    "LOOP",
    "HOOK",
    "HOOK_EXCEPTION",
    "BAD_EDGE",
    "FRAGMENT",
    "DEVICE_GONE",
    "TX_SLOW",
    "TX_FRAGMENT",
    "RX_TOO_MANY_FRAGS",
    "NOT_CLAIMED",
    "IP_SOURCE_ROUTE",
    "ROUTE_UNREACHABLE",
    "ROUTE_PROHIBIT",
    "ROUTE_BLACKHOLE",
    "NO_SOURCE_ADDRESS",
    "NOT_MEMBER",
    "TX_TOO_MANY_FRAGS",
]


def test_no_reason_has_another_number_than_it_was_given() -> None:
    assert list(reasons())[: len(GIVEN)] == GIVEN


def test_every_reason_is_among_those() -> None:
    """One that was added is added above too, so that from now on it stays."""
    assert list(reasons())[len(GIVEN) :] == []


def test_the_list_says_the_numbers_that_c_has() -> None:
    written = re.findall(r"^XS_REASON\((\w+), (\d+), (\w+), \"(.*)\"\)$", text("csrc/reasons.def"), re.MULTILINE)
    assert {name: int(number) for name, number, _, _ in written} == {name: i for i, name in enumerate(reasons())}
    assert {name: reason_text(name) for name, *_ in written} == {name: words for name, _, _, words in written}


def test_there_is_no_reason_behind_the_last() -> None:
    assert lib.xs_reason_error(len(reasons())) == 0
