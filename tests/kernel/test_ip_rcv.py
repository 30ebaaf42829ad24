"""ip.rx and ip.local against Linux: the same frames to both, and the same verdicts, reasons and payloads from both.

Linux' verdict is what its UDP sockets receive; its reasons are those of the skb:kfree_skb tracepoint. What may differ is
listed in `allowed()`, each with the words of the stage's contract (xdpstack/stages/ip.py).
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from tests.kernel import effort, ip_corpus, ip_mixed
from tests.kernel.linux_receiver import MTU, LinuxReceiver, Outcome, linux_receiver
from tests.kernel.ours import OurReceiver, Verdict
from tests.stages.packets import DST4, DST6, HOST, PEER, UDP, chain, ethernet, ipv4, ipv6, options_header
from xdpstack.control import fill_device
from xdpstack.device.backend import Device
from xdpstack.native import ffi, lib
from xdpstack.netlink import Mirror

pytestmark = pytest.mark.root

SEED = 20_000
#: Kernel functions and reasons by which routing refuses or leads away what IP has let pass.
ROUTING_REASONS = {
    "IP_INVALID_SOURCE", "IP_LOCAL_SOURCE", "IP_LOCALNET", "IP_RPFILTER", "IP_INVALID_DEST", "IP_INADDRERRORS",
    "IP_INNOROUTES",
}  # fmt: skip
ROUTING_FUNCTIONS = (
    "ip6_forward",
    "ip_forward",
    "ip_error",
    "ip6_pkt_",
    "ip6_mc_input",
    "ip6_route",
    "ip_route",
    "ip_mr",
)
#: Functions of transport protocols that we do not have.
OTHER_PROTOCOLS = ("tcp", "icmp", "igmp", "mld", "ndisc", "dst_discard", "raw", "tunnel", "ipip", "ip6ip6", "pim")
UDPLITE = 136
#: Our reasons where Linux says NOT_SPECIFIED.
UNSPECIFIED = {"IP_SOURCE_ROUTE", "IPV6_BAD_EXTHDR"}

#: Reasons of ip.local.
BEHIND_ROUTING = {"UNICAST_IN_L2_MULTICAST", "FRAGMENT", "IP_NOPROTO"}

LOCAL = {DST4, DST6}
GROUP_SWITCHES = lib.XS_DEV_DROP_UNICAST_IN_MULTICAST | lib.XS_DEV_DROP_UNICAST_IN_MULTICAST6
GROUPS = {bytes([224, 0, 0, 1]), bytes.fromhex("ff02" + "0" * 27 + "1"), bytes.fromhex("ff02" + "0" * 19 + "1ff000002")}


@pytest.fixture(scope="module")
def linux() -> Iterator[LinuxReceiver]:
    try:
        with linux_receiver(HOST, PEER, {"10.0.0.2/24": "10.0.0.1", "fd00::2/64": "fd00::1"}) as receiver:
            receiver.netns.sysctl(**{f"net__ipv4__conf__{name}__rp_filter": 0 for name in ("all", receiver.device)})
            yield receiver
    except OSError as error:
        pytest.skip(f"Linux cannot be watched here: {error}")


@pytest.fixture(scope="module")
def ours() -> Iterator[OurReceiver]:
    receiver = OurReceiver(HOST, MTU, LOCAL, GROUPS, {bytes([10, 0, 0, 255])})
    yield receiver
    receiver.close()


# ---- comparing ----


def kind_of(frame: bytes, linux: Outcome) -> str:
    """What Linux decided: "input", "routed", "other protocol", "held", or the reason of its drop."""
    fate = linux.fate
    if linux.at_udp:
        return "input"
    if fate.function.startswith("llc"):  # 802.3 frames have a handler in some kernels
        return "UNHANDLED_PROTO"
    if fate.consumed or fate.function.startswith(OTHER_PROTOCOLS) or fate.reason == "IP_NOPROTO":
        return "other protocol"
    if fate.reason in ROUTING_REASONS or fate.function.startswith(ROUTING_FUNCTIONS):
        return "routed"
    if fate.reason == "NOT_SPECIFIED" and fate.function == "ip_rcv_finish_core" and not_joined(frame[30:34]):
        return "routed"
    return fate.reason or "held"


def not_joined(address: bytes) -> bool:
    return address[0] >> 4 == 0xE and address not in GROUPS


def agrees(frame: bytes, linux: Outcome, ours: Verdict) -> bool:
    kind = kind_of(frame, linux)
    if ours.where == "input":
        return kind == "input" and (linux.datagram is None or linux.datagram == ours.datagram)
    if ours.where == "routed":
        return kind == "routed"
    if ours.reason == "FRAGMENT":  # kept for reassembly (and given up in the end), or refused by it
        return kind == "held" or linux.fate.consumed or "frag" in linux.fate.function
    if ours.reason == "IP_NOPROTO":
        return kind == "other protocol"
    return kind == ours.reason or (kind == "NOT_SPECIFIED" and ours.reason in UNSPECIFIED)


def allowed(frame: bytes, linux: Outcome, ours: Verdict) -> bool:
    """What the contract lists under "Differs from Linux"; nobody may deliver what the other refuses."""
    kind = kind_of(frame, linux)
    frame = frame.ljust(60, b"\0")
    four = frame[12:14] == b"\x08\x00"
    if kind == "routed" and ours.where == "dropped":
        options_first = four and frame[14] & 15 > 5 and ours.reason in ("IP_INHDR", "IP_SOURCE_ROUTE")
        mapped = frame[38:50] == b"\0" * 10 + b"\xff\xff" and ours.reason == "IP_INADDRERRORS"
        return options_first or (not four and mapped) or ours.reason in BEHIND_ROUTING
    if kind == "UNICAST_IN_L2_MULTICAST" and ours.where == "routed":
        return True  # for ip.local, not for packets to be forwarded
    if kind == "input" and ours.reason == "IP_NOPROTO":
        return UDPLITE in frame[20:] and linux.datagram is None  # UDP-Lite shares UDP's functions
    # A source that routing refuses: our stand-in for routing looks at destinations only.
    return kind == "routed" and ours.where == "input"


def compare(linux: LinuxReceiver, ours: OurReceiver, frames: Iterable[bytes]) -> Counter[str]:
    """Fails on the first frames that are judged differently. Returns how many frames met which verdict."""
    frames = list(frames)
    verdicts: Counter[str] = Counter()
    wrong = []
    for frame, outcome in zip(frames, linux.send(frames), strict=True):
        verdict = ours.receive(frame)
        if agrees(frame, outcome, verdict):
            verdicts[verdict.reason or verdict.where] += 1
        elif allowed(frame, outcome, verdict):
            verdicts["allowed"] += 1
        else:
            wrong.append(f"{frame.hex()}\n    Linux {kind_of(frame, outcome)} {outcome}\n    ours  {verdict}")
    assert not wrong, f"{len(wrong)} of {len(frames)} differ, the first:\n" + "\n".join(wrong[:5])
    return verdicts


# ---- the tests ----


def test_ipv4_headers(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.headers4())
    assert set(verdicts) >= {
        "input",
        "IP_INHDR",
        "IP_CSUM",
        "PKT_TOO_SMALL",
        "FRAGMENT",
        "IP_NOPROTO",
        "UNHANDLED_PROTO",
    }


def test_ipv4_addresses(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.addresses4())
    assert set(verdicts) >= {"input", "routed", "OTHERHOST"}


def test_ipv4_options(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.options4(random.Random(SEED), 3000))
    assert set(verdicts) >= {"input", "IP_INHDR", "IP_SOURCE_ROUTE"}


def test_ipv6_headers(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.headers6())
    assert set(verdicts) >= {"input", "IP_INHDR", "PKT_TOO_SMALL", "UNHANDLED_PROTO", "IPV6_BAD_EXTHDR", "IP_NOPROTO"}


def test_ipv6_addresses(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.addresses6())
    assert set(verdicts) >= {"input", "routed", "IP_INHDR", "OTHERHOST", "allowed"}


def test_ipv6_options(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.options6(random.Random(SEED), 3000))
    assert set(verdicts) >= {"input", "IP_INHDR", "UNHANDLED_PROTO", "IPV6_BAD_EXTHDR"}


def test_ipv6_extension_headers(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.chains6(random.Random(SEED), 4000))
    assert set(verdicts) >= {"input", "IPV6_BAD_EXTHDR", "IP_NOPROTO", "FRAGMENT", "PKT_TOO_SMALL"}


def test_large_packets(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.large(random.Random(SEED), 500))
    assert set(verdicts) >= {"input", "PKT_TOO_SMALL"}


def test_mutated_packets(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_corpus.mutated(random.Random(SEED), 10_000))
    assert verdicts["input"] > 1000


def test_all_at_once(linux: LinuxReceiver, ours: OurReceiver) -> None:
    verdicts = compare(linux, ours, ip_mixed.mixed(effort.rng("mixed"), effort.cases(5000)))
    assert verdicts["input"] > 500
    assert set(verdicts) >= {"IP_INHDR", "IP_CSUM", "IP_SOURCE_ROUTE", "IPV6_BAD_EXTHDR", "PKT_TOO_SMALL", "FRAGMENT"}


# ---- other settings ----


def test_accepted_source_routes(linux: LinuxReceiver, ours: OurReceiver) -> None:
    names = [f"net__ipv4__conf__{name}__accept_source_route" for name in ("all", linux.device)]
    linux.netns.sysctl(**dict.fromkeys(names, 1))
    ours.flags(lib.XS_DEV_SOURCE_ROUTE)
    try:
        at_end = [bytes([kind, 3 + 4 * n, 4 + 4 * n]) + b"\x0a\0\0\x09" * n for kind in (131, 137) for n in range(4)]
        to = (DST4, bytes([10, 0, 0, 255]), b"\xff" * 4, bytes([224, 0, 0, 1]))
        macs = (HOST, b"\xff" * 6, b"\x01\0\x5e\0\0\x01")
        frames = [ethernet(ipv4(options=o, dst=dst), dst=mac) for o in at_end for dst in to for mac in macs]
        frames += [ethernet(ipv4(options=o + b"\x94\4\0\0\1", dst=dst)) for o in at_end for dst in to]
        assert set(compare(linux, ours, frames)) == {"input", "IP_SOURCE_ROUTE"}
    finally:
        linux.netns.sysctl(**dict.fromkeys(names, 0))
        ours.flags(0)


@pytest.mark.parametrize(
    "where, at_least",
    [
        (["ipv4 DEVICE", "ipv6 DEVICE"], 200),
        (["ipv4 DEVICE"], 10),
        (["ipv4 all"], 10),  # IN_DEV_ORCONF
        (["ipv6 DEVICE"], 100),
        (["ipv6 all"], 0),  # `all` means nothing there
    ],
)
def test_unicast_in_frames_to_a_group(linux: LinuxReceiver, ours: OurReceiver, where: list[str], at_least: int) -> None:
    """The flags of our device come from the switches as the mirror reads them."""
    parts = [each.replace("DEVICE", linux.device).split() for each in where]
    names = [f"net__{family}__conf__{name}__drop_unicast_in_l2_multicast" for family, name in parts]
    linux.netns.sysctl(**dict.fromkeys(names, 1))
    try:
        ours.flags(flags_of(linux) & GROUP_SWITCHES)
        verdicts = compare(linux, ours, [*ip_corpus.addresses4(), *ip_corpus.addresses6()])
        assert (verdicts["UNICAST_IN_L2_MULTICAST"] > at_least) == bool(at_least)
    finally:
        linux.netns.sysctl(**dict.fromkeys(names, 0))
        ours.flags(0)


def flags_of(linux: LinuxReceiver) -> int:
    """The XS_DEV_* that a stack would publish for the device that Linux receives by."""
    with Mirror(linux.netns.name) as mirror:
        link = mirror.snapshot.link(linux.device)
        assert link is not None
        value = ffi.new("struct xs_device_values *")
        fill_device(value, Device(link.name, 0, link.index, link.address, (0,)), mirror.snapshot)
    return int(value.flags)


def test_counters_of_linux_stand_for_the_reasons(linux: LinuxReceiver, ours: OurReceiver) -> None:
    """What operators see in /proc/net/snmp and snmp6 for each of our reasons."""
    unknown = ethernet(chain(options_header(UDP, b"\x44\0"), first=0))
    cases = [
        (ethernet(ipv4(ihl=4)), "IP_INHDR", "Ip.InHdrErrors"),
        (ethernet(ipv4(checksum=0)), "IP_CSUM", "Ip.InHdrErrors"),
        (ethernet(ipv4(options=b"\x07\x07\x03\0\0\0\0\0")), "IP_INHDR", "Ip.InHdrErrors"),
        (ethernet(ipv4(proto=200)), "IP_NOPROTO", "Ip.InUnknownProtos"),
        (ethernet(ipv4()), "", "Udp.InDatagrams"),
        (ethernet(ipv6(version=5), kind=0x86DD), "UNHANDLED_PROTO", "Ip6.InHdrErrors"),
        (ethernet(ipv6()[:50]), "PKT_TOO_SMALL", "Ip6.InTruncatedPkts"),
        (unknown, "UNHANDLED_PROTO", "Ip6.InHdrErrors"),
        (ethernet(ipv6(next_header=200)), "IP_NOPROTO", "Ip6.InUnknownProtos"),
    ]
    for frame, reason, counter in cases:
        before = linux.counters()[counter]
        linux.send([frame])
        assert linux.counters()[counter] == before + 1, counter
        assert ours.receive(frame).reason == reason


def test_ipv6_disabled(linux: LinuxReceiver, ours: OurReceiver) -> None:
    """The last test: the device loses its IPv6 addresses."""
    linux.netns.sysctl(**{f"net__ipv6__conf__{linux.device}__disable_ipv6": 1})
    ours.flags(lib.XS_DEV_IPV6_DISABLED)
    frames = [
        ethernet(ipv6()),
        ethernet(ipv6()[:3], kind=0x86DD),
        ethernet(ipv6(), dst=b"\x02\0\0\0\0\x42"),
        ethernet(ipv4()),
    ]
    assert compare(linux, ours, frames) == {"IPV6DISABLED": 2, "OTHERHOST": 1, "input": 1}
