"""The path of a packet, as one table.

Read it down for receive, then on for transmit. Each row is a stage in one direction; `edges` says where it can pass a
packet on; `mirrors` names the kernel functions whose work it does. The edges are the truth, the order of rows is the
map.

The C walk (csrc/walk.c) is wired from this table at open, `xdpstack show path` prints it, and the tests hold the C
stages' edges, the stages' contracts and the docs against it.

A row can be absent: not switched on, or of a later version. `passes` names the edge by which an absent row lets
packets through; the walk is then wired past it, so that what is absent costs nothing. A row without `passes` cannot be
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Direction = Literal["rx", "tx"]
Where = Literal["kernel", "stack", "asked", "hook"]


@dataclass(frozen=True, slots=True)
class Row:
    """One stage in one direction.

    `name` is `<stem>.<hook>`; both are in csrc/stages/<stem>_<hook>.c and counters, the stem in docs/stages/<stem>.md.
    `where` says who runs it: "kernel" (the XDP program: bpf/xdpstack.bpf.c), "stack" (the C walk, or a layer's Python
    engine), "asked" (the C walk as well, but off until something asks for it: then it is put in, and else costs nothing)
    or "hook" (nothing of its own yet: a place where the user's stages go).
    """

    name: str
    direction: Direction
    mirrors: str
    what: str
    edges: Mapping[str, str]
    passes: str | None = None
    where: Where = "stack"

    @property
    def stem(self) -> str:
        """The stage's stem: "ip" of "ip.rx"."""
        return self.name.partition(".")[0]


def _rx(name: str, mirrors: str, what: str, edges: dict[str, str], passes: str = "", where: Where = "stack") -> Row:
    return Row(name, "rx", mirrors, what, MappingProxyType(edges), passes or None, where)


def _tx(name: str, mirrors: str, what: str, edges: dict[str, str], passes: str = "", where: Where = "stack") -> Row:
    return Row(name, "tx", mirrors, what, MappingProxyType(edges), passes or None, where)


# fmt: off
PATH: tuple[Row, ...] = (
    # ---- receive: read down ----
    _rx("xdp.rx", "bpf_prog_run_xdp", "lift what is claimed, inside the driver's own NAPI poll",
        {"redirect": "napi.rx"}, where="kernel"),
    _rx("napi.rx", "napi_poll, eth_type_trans", "poll the RX ring, parse Ethernet and VLAN",
        {"receive": "xdp.redirect"}),
    _rx("xdp.redirect", "xdp_do_redirect, dev_map_enqueue", "out by another device, untouched, what is claimed for that",
        {"receive": "gro.rx", "xmit": "napi.tx"}, passes="receive", where="asked"),
    _rx("gro.rx", "dev_gro_receive", "coalesce runs of one flow",
        {"receive": "rps.rx"}, passes="receive", where="hook"),
    _rx("rps.rx", "get_rps_cpu, enqueue_to_backlog", "steer to another worker",
        {"receive": "taps.rx"}, passes="receive", where="asked"),
    _rx("taps.rx", "deliver_skb(ptype_all), packet_rcv", "whole frames to those who claimed them",
        {"receive": "tc.rx"}, passes="receive", where="asked"),
    _rx("tc.rx", "sch_handle_ingress", "classify, police, redirect",
        {"receive": "ip.rx"}, passes="receive", where="hook"),
    _rx("ip.rx", "ip_rcv_core, ip6_rcv_core", "validate the IP header",
        {"prerouting": "netfilter.prerouting"}),
    _rx("netfilter.prerouting", "NF_INET_PRE_ROUTING", "rules before routing",
        {"accept": "routing.rx"}, passes="accept", where="hook"),
    _rx("routing.rx", "ip_route_input_noref, ip6_route_input", "for this host, to forward, or to drop",
        {"local": "ip.local", "forward": "netfilter.forward"}),
    _rx("netfilter.forward", "NF_INET_FORWARD", "rules on what is forwarded",
        {"accept": "netfilter.postrouting"}, passes="accept", where="hook"),
    _rx("ip.local", "ip_local_deliver, ip6_input", "find the transport protocol",
        {"input": "netfilter.input"}),
    _rx("netfilter.input", "NF_INET_LOCAL_IN", "rules on what is for this host",
        {"accept": "xfrm.rx"}, passes="accept", where="hook"),
    _rx("xfrm.rx", "xfrm4_policy_check, esp_input", "IPsec policy, decryption",
        {"accept": "udp.rx"}, passes="accept", where="hook"),
    _rx("udp.rx", "udp_rcv, __udp_enqueue_schedule_skb", "checksum, socket, receive queue, wake-up",
        {}),
    # ---- transmit: read on ----
    _tx("routing.tx", "ip_route_output_flow, ip6_dst_lookup_flow", "next hop and source address, before any header",
        {"output": "udp.tx"}),
    _tx("udp.tx", "udp_send_skb, udp_v6_send_skb", "UDP header and checksum",
        {"output": "ip.tx"}),
    _tx("ip.tx", "__ip_make_skb, ip_local_out, ip6_xmit", "IP header",
        {"output": "netfilter.output"}),
    _tx("netfilter.output", "NF_INET_LOCAL_OUT", "rules on what this host sends",
        {"accept": "netfilter.postrouting"}, passes="accept", where="hook"),
    _tx("netfilter.postrouting", "NF_INET_POST_ROUTING", "rules on all that leaves",
        {"accept": "xfrm.tx"}, passes="accept", where="hook"),
    _tx("xfrm.tx", "xfrm_output", "IPsec transform",
        {"output": "neigh.tx"}, passes="output", where="hook"),
    _tx("neigh.tx", "ip_finish_output2, neigh_output", "Ethernet header of the next hop",
        {"xmit": "tc.tx"}),
    _tx("tc.tx", "sch_handle_egress, __dev_xmit_skb", "classify, queue, shape",
        {"xmit": "gro.tx"}, passes="xmit", where="hook"),
    _tx("gro.tx", "skb_gso_segment", "segment what is too large",
        {"xmit": "taps.tx"}, passes="xmit", where="hook"),
    _tx("taps.tx", "dev_queue_xmit_nit", "where captures would copy",
        {"xmit": "rps.tx"}, passes="xmit", where="hook"),
    _tx("rps.tx", "netdev_pick_tx", "choose the TX queue (XPS)",
        {"xmit": "napi.tx"}, passes="xmit", where="asked"),
    _tx("napi.tx", "pfifo_enqueue, ndo_start_xmit", "a queue where the TX ring is full, TX ring, completions",
        {}),
)
# fmt: on

#: What asks for each row of the C walk that is off until then.
ASKED_BY: Mapping[str, str] = MappingProxyType({
    "xdp.redirect": "Stack.redirect()",
    "rps.rx": "Stack.rps()",
    "taps.rx": "Stack.frames()",
    "rps.tx": "Stack.rps()",
})  # fmt: skip

BY_NAME: Mapping[str, Row] = MappingProxyType({row.name: row for row in PATH})


def resolve(target: str, present: frozenset[str] | set[str]) -> str:
    """The present row that packets sent to `target` reach: follows `passes` over absent rows.

    Raises KeyError when an absent row that cannot be passed over is in the way.
    """
    while target not in present:
        row = BY_NAME[target]
        if row.passes is None:
            raise KeyError(f"{target} is absent and nothing passes it")
        target = row.edges[row.passes]
    return target
