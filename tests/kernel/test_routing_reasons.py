"""Why routing drops: real frames to Linux, and the drop reasons of its skb:kfree_skb tracepoint against the semantics'.

RTM_GETROUTE tells errnos alone, and nothing of what ip_forward and ip6_forward refuse; here both come to light.
"""

import itertools

import pytest

from tests.kernel.linux_receiver import Outcome, linux_receiver
from tests.stages.packets import HOST, PEER, ethernet, ipv4, ipv6, udp
from xdpstack.netlink import Mirror, packed, text
from xdpstack.netlink.uapi import AF_INET
from xdpstack.routing.flow import Flow, Verdict
from xdpstack.routing.semantics import route_input
from xdpstack.routing.tables import compile_tables

pytestmark = pytest.mark.root

#: The kernel has no reasons of its own for these.
UNNAMED = {"ROUTE_UNREACHABLE", "ROUTE_PROHIBIT", "ROUTE_BLACKHOLE", "NOT_MEMBER"}
ROUTING = {"IP_INVALID_SOURCE", "IP_LOCAL_SOURCE", "IP_LOCALNET", "IP_RPFILTER", "IP_INVALID_DEST", "IP_INADDRERRORS",
           "IP_INNOROUTES", "IP_OUTNOROUTES"}  # fmt: skip
ADDRESSES = {"10.0.0.2/24": "10.0.0.1", "fd00::2/64": "fd00::1"}
SETUP = (
    "link add c0 type veth peer name d0",
    "link set c0 up",
    "link set d0 up",
    "address add 10.0.9.1/24 broadcast + dev c0",
    "address add fd00:9::1/64 dev c0 nodad",
    "address add 10.0.0.99/32 dev lo",
    "route add 10.7.0.0/16 via 10.0.0.1",
    "route add 10.8.0.0/16 via 10.0.9.2",
    "route add blackhole 10.20.0.0/16",
    "route add unreachable 10.21.0.0/16",
    "route add prohibit 10.22.0.0/16",
    "route add throw 10.23.0.0/16",
    "address add fd00:5::1/64 dev lo nodad",
    "route add fd00:6::/48 dev lo",
    "route add anycast fd00:a::/64 dev c0",
    "route add anycast fd00:b::/64 dev lo",
    "route add fd00:7::/48 via fd00::1",
    "route add fd00:8::/48 via fd00:9::2",
    "route add blackhole fd00:20::/48",
    "route add unreachable fd00:21::/48",
    "route add prohibit fd00:22::/48",
)
SOURCES4 = ["10.0.0.1", "10.0.0.2", "10.0.0.99", "10.0.9.1", "10.0.9.7", "10.0.0.255", "10.0.9.255", "10.7.1.1", "10.8.1.1",
            "10.20.1.1", "10.21.1.1", "192.0.2.1", "0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255",
            "240.0.0.1"]  # fmt: skip
DESTINATIONS4 = ["10.0.0.2", "10.0.0.99", "10.0.9.1", "10.0.0.1", "10.0.9.2", "10.0.0.255", "10.0.9.255", "10.7.1.1",
                 "10.8.1.1", "10.20.1.1", "10.21.1.1", "10.22.1.1", "10.23.1.1", "192.0.2.1", "0.0.0.0", "0.1.2.3",
                 "127.0.0.1", "224.0.0.1", "224.0.0.5", "239.1.1.1", "255.255.255.255", "240.0.0.1"]  # fmt: skip
SOURCES6 = ["fd00::1", "fd00::2", "fd00:9::1", "fd00:9::7", "fe80::1", "fd00:7::1", "fd00:20::1", "2001:db8::1", "::"]
DESTINATIONS6 = ["fd00::2", "fd00:5::", "fd00:5::1", "fd00:5::2", "fd00:6::1", "fd00:a::1", "fd00:b::1",
                 "fd00:9::1", "fd00::1", "fd00:9::2", "fe80::1", "fd00:7::1", "fd00:8::1", "fd00:20::1",
                 "fd00:21::1", "fd00:22::1", "2001:db8::1", "ff02::1", "ff02::99", "ff0e::1", "::"]  # fmt: skip
SETTINGS = {
    "plain": {},
    "forwarding": {"net__ipv4__ip_forward": 1, "net__ipv6__conf__all__forwarding": 1},
    "strict": {"net__ipv4__ip_forward": 1, "net__ipv4__conf__all__rp_filter": 1},
    "loose": {"net__ipv4__conf__all__rp_filter": 2},
    "accept_local": {"net__ipv4__conf__all__accept_local": 1, "net__ipv4__conf__all__rp_filter": 1},
    "route_localnet": {"net__ipv4__conf__all__route_localnet": 1, "net__ipv4__ip_forward": 1},
    "bc_forwarding": {"net__ipv4__conf__all__bc_forwarding": 1, "net__ipv4__ip_forward": 1},
}
#: What comes up under all of these settings, and under some of them besides.
ALWAYS = {
    "IP_INVALID_SOURCE",
    "IP_INVALID_DEST",
    "NOT_MEMBER",
    "IP_INADDRERRORS",
    "IP_INNOROUTES",
    "local",
    "broadcast",
}
ALSO = {
    "plain": {"IP_LOCAL_SOURCE", "IP_LOCALNET"},
    "forwarding": {"IP_LOCALNET", "ROUTE_BLACKHOLE", "ROUTE_UNREACHABLE", "ROUTE_PROHIBIT", "forward"},
    "strict": {"IP_RPFILTER", "forward"},
    "loose": {"IP_RPFILTER"},
    "accept_local": {"IP_RPFILTER"},
    "route_localnet": {"forward"},
    "bc_forwarding": {"forward"},
}


@pytest.fixture(scope="module")
def linux():
    with linux_receiver(HOST, PEER, ADDRESSES) as receiver:
        receiver.netns.without_dad()
        receiver.netns.ip(*SETUP)
        yield receiver


@pytest.mark.parametrize("settings", [*SETTINGS, "rules"])
def test_drop_reasons(linux, settings: str) -> None:
    wanted = SETTINGS.get(settings, {})
    every = {name: 0 for values in SETTINGS.values() for name in values}
    linux.netns.sysctl(**{**every, **wanted})
    if settings == "rules":
        linux.netns.ip("rule add to 10.8.0.0/16 prohibit", "rule add from 192.0.2.0/24 blackhole")
    with Mirror(linux.netns.name) as mirror:
        tables = compile_tables(mirror.snapshot)
    iif = tables.indices[linux.device]
    flows = [
        Flow(packed(to), packed(source), iif=iif, protocol=17, source_port=1000, destination_port=7)
        for pool in ((SOURCES4, DESTINATIONS4), (SOURCES6, DESTINATIONS6))
        for source, to in itertools.product(*pool)
    ]
    verdicts = [route_input(tables, flow) for flow in flows]
    wrong = [
        f"{text(flow.source)} > {text(flow.destination)}: Linux {outcome}, we {verdict}"
        for flow, outcome, verdict in zip(flows, linux.send(map(frame, flows)), verdicts, strict=True)
        if not agree(outcome, verdict)
    ]
    seen = {verdict.reason or verdict.action for verdict in verdicts}
    assert ALWAYS | ALSO.get(settings, set()) <= seen, "the frames do not reach what they are to test"
    assert not wrong, f"{len(wrong)} of {len(flows)}:\n" + "\n".join(wrong)


def frame(flow: Flow) -> bytes:
    payload = udp(b"routing", 1000, 7, sum_with=flow.source + flow.destination)
    if flow.family == AF_INET:
        return ethernet(ipv4(payload, src=flow.source, dst=flow.destination))
    return ethernet(ipv6(payload, src=flow.source, dst=flow.destination))


def agree(outcome: Outcome, verdict: Verdict) -> bool:
    if verdict.action == "drop":
        reason = "NOT_SPECIFIED" if verdict.reason in UNNAMED else verdict.reason
        return not outcome.at_udp and outcome.fate.reason == reason
    if verdict.action == "forward":
        return not outcome.at_udp and outcome.fate.reason not in ROUTING
    return outcome.at_udp
