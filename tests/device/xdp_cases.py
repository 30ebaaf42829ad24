"""Literal frames with what the XDP program has to do with them: every verdict and cause, held against both definitions."""

from dataclasses import dataclass
from ipaddress import ip_network

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from xdpstack.device.claims import (
    Claim,
    Endpoint,
    Essential,
    EthertypeClaim,
    EverythingBut,
    ForwardClaim,
    LocalAddress,
    PrefixClaim,
    ProtocolClaim,
    SocketClaim,
)
from xdpstack.device.verdict import Cause, Rules

MAC, OTHER, PEER = "02:00:00:00:00:07", "02:00:00:00:00:99", "02:00:00:00:00:01"
BROADCAST, MULTICAST = "ff:ff:ff:ff:ff:ff", "01:00:5e:01:02:03"
SSH = Endpoint(6, 22)

#: What the host is in every case; the claims differ.
HOST = (
    LocalAddress("10.0.0.2"),
    LocalAddress("10.0.0.255", group=True),
    LocalAddress("239.1.2.3"),
    LocalAddress("fd00::2"),
    LocalAddress("10.5.0.2", vlan=5),
    LocalAddress("10.5.0.2", vlan=(9, 5)),
    LocalAddress("fd00:5::2", vlan=(9, 5)),
)
ROUTES = {
    ip_network("0.0.0.0/0"): True,
    ip_network("172.16.0.0/12"): False,
    ip_network("172.16.5.0/24"): True,
    ip_network("fd00:1::/32"): True,
    ip_network("224.0.0.0/3"): True,
}


@dataclass(frozen=True)
class Case:
    name: str
    frame: bytes
    claims: tuple[Claim, ...]
    cause: Cause

    @property
    def rules(self) -> Rules:
        return Rules(bytes.fromhex(MAC.replace(":", "")), self.claims, HOST, ROUTES, (SSH,))


def v4(to: str = "10.0.0.2", above: Packet | None = None, mac: str = MAC, **fields: object) -> Packet:
    above = UDP(sport=9, dport=7) if above is None else above
    return Ether(dst=mac, src=PEER) / IP(src="10.0.0.1", dst=to, **fields) / above / Raw(b"payload.")


def v6(to: str = "fd00::2", above: Packet | None = None, mac: str = MAC, **fields: object) -> Packet:
    above = UDP(sport=9, dport=7) if above is None else above
    return Ether(dst=mac, src=PEER) / IPv6(src="fd00::1", dst=to, **fields) / above / Raw(b"payload.")


def tagged(packet: Packet, vlan: int = 5, tag: type[Packet] = Dot1Q) -> Packet:
    return Ether(dst=packet.dst, src=packet.src) / tag(vlan=vlan) / packet.payload


def within(packet: Packet, service: int = 9, vlan: int = 5, kind: type[Packet] = Dot1Q) -> Packet:
    """In a VLAN within a service VLAN."""
    return tagged(tagged(packet, vlan, kind), service, Dot1AD)


def cut(packet: Packet, length: int) -> bytes:
    return bytes(packet)[:length]


def changed(packet: Packet, at: int, *values: int) -> bytes:
    frame = bytearray(bytes(packet))
    frame[at : at + len(values)] = values
    return bytes(frame)


def extensions(count: int) -> Packet:
    packet: Packet = UDP(sport=9, dport=7)
    for _ in range(count):
        packet = IPv6ExtHdrDestOpt() / packet
    return packet


EXACT = (SocketClaim("10.0.0.2", 7), SocketClaim("fd00::2", 7))
ANY = (SocketClaim("0.0.0.0", 7), SocketClaim("::", 7))
TCP_SYN, TCP_SSH = TCP(sport=9, dport=80), TCP(sport=9, dport=22)
NS = ICMPv6ND_NS(tgt="fd00::2")
ARP_REQUEST = Ether(dst=BROADCAST, src=PEER) / ARP(pdst="10.0.0.2")
#: AH is not in scapy's default layers: next header UDP, length (4 - 2) words after the first two, 16 bytes in all.
AH = Raw(bytes([17, 2, 0, 0]) + bytes(12) + bytes(UDP(sport=9, dport=7, len=8)))


def _case(name: str, frame: Packet | bytes, claims: tuple[Claim, ...], cause: Cause) -> Case:
    return Case(name, bytes(frame), claims, cause)


CASES = [
    # Sockets.
    _case("no claims", v4(), (), Cause.PASS_UNCLAIMED),
    _case("asleep", v4("10.0.0.9"), (SocketClaim("10.0.0.9", 7),), Cause.PASS_UNCLAIMED),
    _case("exact, IPv4", v4(), EXACT, Cause.REDIRECT_SOCKET),
    _case("exact, IPv6", v6(), EXACT, Cause.REDIRECT_SOCKET),
    _case("exact, another port", v4(above=UDP(dport=8)), EXACT, Cause.PASS_UNCLAIMED),
    _case("exact, another address", v4("10.0.0.255"), EXACT, Cause.PASS_UNCLAIMED),
    _case("exact, TCP", v4(above=TCP(dport=7)), EXACT, Cause.PASS_UNCLAIMED),
    _case("exact, another family", v6(), EXACT[:1], Cause.PASS_UNCLAIMED),
    _case("exact, IPv4 options", v4(options=[IPOption_Router_Alert()] * 10), EXACT, Cause.REDIRECT_SOCKET),
    _case("wildcard, IPv4", v4(), ANY, Cause.REDIRECT_SOCKET),
    _case("wildcard, IPv6", v6(), ANY, Cause.REDIRECT_SOCKET),
    _case("wildcard, not the host's", v4("10.0.0.3"), ANY, Cause.PASS_NOT_LOCAL),
    _case("wildcard, not the host's, IPv6", v6("fd00::3"), ANY, Cause.PASS_NOT_LOCAL),
    _case("wildcard, broadcast not wanted", v4("10.0.0.255", mac=BROADCAST), ANY, Cause.PASS_NOT_LOCAL),
    _case(
        "wildcard, broadcast",
        v4("10.0.0.255", mac=BROADCAST),
        (SocketClaim("0.0.0.0", 7, broadcast=True),),
        Cause.REDIRECT_SOCKET,
    ),
    _case(
        "wildcard, joined group",
        v4("239.1.2.3", mac=MULTICAST),
        (SocketClaim("0.0.0.0", 7, broadcast=True),),
        Cause.REDIRECT_SOCKET,
    ),
    _case(
        "wildcard, group not joined",
        v4("239.1.2.4", mac=MULTICAST),
        (SocketClaim("0.0.0.0", 7, broadcast=True),),
        Cause.PASS_NOT_LOCAL,
    ),
    _case("wildcard beside exact", v4(), (*ANY, SocketClaim("10.0.0.255", 7)), Cause.REDIRECT_SOCKET),
    _case("group by name", v4("239.9.9.9", mac=MULTICAST), (SocketClaim("239.9.9.9", 7),), Cause.REDIRECT_SOCKET),
    _case(
        "broadcast address by name",
        v4("10.0.0.255", mac=BROADCAST),
        (SocketClaim("10.0.0.255", 7),),
        Cause.REDIRECT_SOCKET,
    ),
    _case("to another station", v4(mac=OTHER), EXACT, Cause.PASS_NOT_OUR_MAC),
    _case("unicast address, broadcast MAC", v4(mac=BROADCAST), EXACT, Cause.PASS_NOT_OUR_MAC),
    _case("unicast address, broadcast MAC, wildcard", v4(mac=BROADCAST), ANY, Cause.PASS_NOT_OUR_MAC),
    # Fragments and extension headers.
    _case("first fragment", v4(flags="MF"), EXACT, Cause.PASS_FRAGMENT),
    _case("last fragment", v4(frag=3), EXACT, Cause.PASS_FRAGMENT),
    _case("DF is no fragment", v4(flags="DF"), EXACT, Cause.REDIRECT_SOCKET),
    _case("fragment of TCP", v4(above=TCP_SYN, flags="MF"), EXACT, Cause.PASS_UNCLAIMED),
    _case("IPv6 fragment", v6(above=IPv6ExtHdrFragment(m=1) / UDP(dport=7)), EXACT, Cause.PASS_FRAGMENT),
    _case("IPv6 atomic fragment", v6(above=IPv6ExtHdrFragment() / UDP(dport=7)), EXACT, Cause.PASS_FRAGMENT),
    _case("1 extension header", v6(above=extensions(1)), EXACT, Cause.REDIRECT_SOCKET),
    _case("8 extension headers", v6(above=extensions(8)), EXACT, Cause.REDIRECT_SOCKET),
    _case("9 extension headers", v6(above=extensions(9)), EXACT, Cause.PASS_EXTHDR),
    _case(
        "hop-by-hop and routing",
        v6(above=IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(addresses=["fd00::9"]) / UDP(dport=7)),
        EXACT,
        Cause.REDIRECT_SOCKET,
    ),
    _case("authentication header", v6(above=AH, nh=51), EXACT, Cause.PASS_UNCLAIMED),
    _case("protocol: authentication", v6(above=AH, nh=51), (ProtocolClaim(51),), Cause.REDIRECT_PROTOCOL),
    # VLANs.
    _case("tagged, not claimed", tagged(v4("10.5.0.2")), EXACT, Cause.PASS_VLAN),
    _case("tagged, claimed", tagged(v4("10.5.0.2")), (SocketClaim("10.5.0.2", 7, vlan=5),), Cause.REDIRECT_SOCKET),
    _case("tagged, wildcard", tagged(v4("10.5.0.2")), (SocketClaim("0.0.0.0", 7, vlan=5),), Cause.REDIRECT_SOCKET),
    _case("tagged, address of none", tagged(v4("0.0.0.0")), (SocketClaim("0.0.0.0", 7, vlan=5),), Cause.PASS_NOT_LOCAL),
    _case("tagged, local elsewhere", tagged(v4()), (SocketClaim("0.0.0.0", 7, vlan=5),), Cause.PASS_NOT_LOCAL),
    _case("another VLAN", tagged(v4("10.5.0.2"), 6), (SocketClaim("10.5.0.2", 7, vlan=5),), Cause.PASS_VLAN),
    _case("untagged, VLAN claimed", v4("10.5.0.2"), (SocketClaim("10.5.0.2", 7, vlan=5),), Cause.PASS_UNCLAIMED),
    _case("a priority alone", tagged(v4(), 0), (SocketClaim("10.0.0.2", 7),), Cause.REDIRECT_SOCKET),
    _case(
        "a priority alone, VLAN claimed",
        tagged(v4("10.5.0.2"), 0),
        (SocketClaim("10.5.0.2", 7, vlan=5),),
        Cause.PASS_UNCLAIMED,
    ),
    _case("a tag, and a priority", tagged(tagged(v4(), 0)), (EverythingBut(vlan=5),), Cause.PASS_QINQ),
    _case("two tags", tagged(tagged(v4())), (SocketClaim("0.0.0.0", 7, vlan=5),), Cause.PASS_QINQ),
    _case("service tag", tagged(v4(), 5, Dot1AD), (EverythingBut(), EverythingBut(vlan=5)), Cause.PASS_QINQ),
    _case("service tag, VLAN of another", within(v4("10.5.0.2")), (EverythingBut(vlan=5),), Cause.PASS_QINQ),
    _case("within a service VLAN, no VLAN claimed", within(v4("10.5.0.2")), (EverythingBut(),), Cause.PASS_QINQ),
    _case(
        "within a service VLAN", within(v4("10.5.0.2")), (SocketClaim("10.5.0.2", 7, (9, 5)),), Cause.REDIRECT_SOCKET
    ),
    _case("within it, wildcard", within(v4("10.5.0.2")), (SocketClaim("0.0.0.0", 7, (9, 5)),), Cause.REDIRECT_SOCKET),
    _case("within it, IPv6", within(v6("fd00:5::2")), (SocketClaim("fd00:5::2", 7, (9, 5)),), Cause.REDIRECT_SOCKET),
    _case("within it, local elsewhere", within(v4()), (SocketClaim("0.0.0.0", 7, (9, 5)),), Cause.PASS_NOT_LOCAL),
    _case("within another service VLAN", within(v4("10.5.0.2"), 8), (EverythingBut(vlan=(9, 5)),), Cause.PASS_QINQ),
    _case("the two the other way round", within(v4(), 5, 9), (EverythingBut(vlan=(9, 5)),), Cause.PASS_QINQ),
    _case("in the VLAN alone, pair claimed", tagged(v4("10.5.0.2")), (EverythingBut(vlan=(9, 5)),), Cause.PASS_VLAN),
    _case(
        "what may be kept, everything claimed in a VLAN alone",
        v6(above=IPv6ExtHdrFragment(nh=60, offset=1)),
        (EverythingBut(vlan=5),),
        Cause.PASS_UNCLAIMED,
    ),
    _case("within it, prefix", within(v4("192.0.2.5")), (PrefixClaim("192.0.2.0/24", (9, 5)),), Cause.REDIRECT_PREFIX),
    _case(
        "within it, IPv6 prefix", within(v6("fd00:2::5")), (PrefixClaim("fd00:2::/32", (9, 5)),), Cause.REDIRECT_PREFIX
    ),
    _case("within it, protocol", within(v4()), (ProtocolClaim(17, vlan=(9, 5)),), Cause.REDIRECT_PROTOCOL),
    _case("within it, ethertype", within(v4()), (EthertypeClaim(0x800, vlan=(9, 5)),), Cause.REDIRECT_ETHERTYPE),
    _case("within it, forwarded", within(v4("8.8.8.8")), (ForwardClaim((9, 5)),), Cause.REDIRECT_FORWARD),
    _case("within it, everything", within(v4()), (EverythingBut(vlan=(9, 5)),), Cause.REDIRECT_EVERYTHING),
    _case(
        "within it, but one port",
        within(v4("10.5.0.2")),
        (EverythingBut([Endpoint(17, 7)], vlan=(9, 5)),),
        Cause.PASS_EXCEPTION,
    ),
    _case("two tags of the customer", tagged(tagged(v4()), 9), (EverythingBut(vlan=(9, 5)),), Cause.PASS_QINQ),
    _case("two service tags", within(v4(), kind=Dot1AD), (EverythingBut(vlan=(9, 5)),), Cause.PASS_QINQ),
    _case("service tag, and a priority", within(v4(), vlan=0), (EverythingBut(vlan=(9, 5)),), Cause.PASS_QINQ),
    _case(
        "service priority, and a tag",
        within(v4(), 0),
        (EverythingBut(vlan=5), EverythingBut(vlan=(9, 5))),
        Cause.PASS_QINQ,
    ),
    _case("three tags", within(tagged(v4())), (EverythingBut(vlan=(9, 5)),), Cause.PASS_QINQ),
    _case("service tag cut off", cut(within(v4()), 16), (EverythingBut(),), Cause.PASS_MALFORMED),
    _case("inner tag cut off", cut(within(v4()), 20), (EverythingBut(),), Cause.PASS_MALFORMED),
    _case("tag cut off", cut(tagged(v4()), 16), (EverythingBut(),), Cause.PASS_MALFORMED),
    # Headers that cannot be believed.
    _case("no IPv4 header", cut(v4(), 33), EXACT, Cause.PASS_MALFORMED),
    _case("IPv4 of version 5", changed(v4(), 14, 0x55), EXACT, Cause.PASS_MALFORMED),
    _case("IHL 4", changed(v4(), 14, 0x44), EXACT, Cause.PASS_MALFORMED),
    _case("IHL beyond the frame", cut(v4(ihl=15), 50), EXACT, Cause.PASS_MALFORMED),
    _case("no UDP header", cut(v4(), 41), EXACT, Cause.PASS_MALFORMED),
    _case("UDP header in the padding", v4(len=27), EXACT, Cause.PASS_MALFORMED),
    _case("no IPv6 header", cut(v6(), 53), EXACT, Cause.PASS_MALFORMED),
    _case("IPv6 of version 4", changed(v6(), 14, 0x40), EXACT, Cause.PASS_MALFORMED),
    _case("IPv6 UDP header in the padding", v6(plen=7), EXACT, Cause.PASS_MALFORMED),
    _case(
        "IPv6 UDP header in the padding, options before it",
        v6(above=extensions(1), plen=15),
        EXACT,
        Cause.PASS_MALFORMED,
    ),
    _case("extension header cut off", cut(v6(above=extensions(2)), 14 + 40 + 10), EXACT, Cause.PASS_MALFORMED),
    _case("extension header beyond the frame", changed(v6(above=extensions(1)), 55, 255), EXACT, Cause.PASS_MALFORMED),
    # Prefixes.
    _case("prefix", v4("192.0.2.5", TCP_SYN), (PrefixClaim("192.0.2.0/24"),), Cause.REDIRECT_PREFIX),
    _case("outside the prefix", v4("192.0.3.5"), (PrefixClaim("192.0.2.0/24"),), Cause.PASS_UNCLAIMED),
    _case("prefix, IPv6", v6("fd00:2::5"), (PrefixClaim("fd00:2::/32"),), Cause.REDIRECT_PREFIX),
    _case("all of IPv6 is not IPv4", v4(), (PrefixClaim("::/0"),), Cause.PASS_UNCLAIMED),
    _case("all of IPv4 is not IPv6", v6(), (PrefixClaim("0.0.0.0/0"),), Cause.PASS_UNCLAIMED),
    _case("prefix, fragment", v4("192.0.2.5", frag=9), (PrefixClaim("192.0.2.0/24"),), Cause.REDIRECT_PREFIX),
    _case("prefix in a VLAN", tagged(v4("192.0.2.5")), (PrefixClaim("192.0.2.0/24", vlan=5),), Cause.REDIRECT_PREFIX),
    _case("prefix, tagged", tagged(v4("192.0.2.5")), (PrefixClaim("192.0.2.0/24"),), Cause.PASS_VLAN),
    _case(
        "prefix, another station", v4("192.0.2.5", mac=OTHER), (PrefixClaim("192.0.2.0/24"),), Cause.PASS_NOT_OUR_MAC
    ),
    _case(
        "prefix, any station",
        v4("192.0.2.5", mac=OTHER),
        (PrefixClaim("192.0.2.0/24", any_mac=True),),
        Cause.REDIRECT_PREFIX,
    ),
    _case(
        "prefix for other stations only by another claim",
        v4("192.0.2.5", mac=OTHER),
        (PrefixClaim("192.0.2.0/24"), EthertypeClaim(0x88CC, any_mac=True)),
        Cause.PASS_NOT_OUR_MAC,
    ),
    _case("a socket before a prefix", v4(), (*EXACT, PrefixClaim("10.0.0.0/8")), Cause.REDIRECT_SOCKET),
    _case("SSH of the host", v4(above=TCP_SSH), (PrefixClaim("10.0.0.0/8"),), Cause.PASS_SSH),
    _case("SSH of others", v4("10.0.0.3", TCP_SSH), (PrefixClaim("10.0.0.0/8"),), Cause.REDIRECT_PREFIX),
    _case("SSH by name", v4(above=TCP_SSH), (PrefixClaim("10.0.0.0/8", include=Essential.SSH),), Cause.REDIRECT_PREFIX),
    _case("perhaps SSH: fragment", v4(above=TCP_SYN, frag=9), (PrefixClaim("10.0.0.0/8"),), Cause.PASS_SSH),
    _case("not SSH: fragment of UDP", v4(frag=9), (PrefixClaim("10.0.0.0/8"),), Cause.REDIRECT_PREFIX),
    _case("perhaps SSH: cut off", cut(v4(above=TCP_SYN), 40), (PrefixClaim("10.0.0.0/8"),), Cause.PASS_MALFORMED),
    _case("perhaps SSH: 9 headers", v6(above=extensions(9)), (PrefixClaim("fd00::/16"),), Cause.PASS_EXTHDR),
    _case("SSH of the host over IPv6", v6(above=TCP_SSH), (PrefixClaim("fd00::/16"),), Cause.PASS_SSH),
    _case(
        "perhaps SSH: IPv6 fragment that starts with options",
        v6(above=IPv6ExtHdrFragment(nh=60, offset=1)),
        (PrefixClaim("fd00::/16"),),
        Cause.PASS_SSH,
    ),
    _case("perhaps ND: cut off", cut(v6(above=NS), 14 + 40 + 4), (PrefixClaim("fd00::/16"),), Cause.PASS_MALFORMED),
    # Protocols and ethertypes.
    _case("protocol", v4(above=ICMP()), (ProtocolClaim(1),), Cause.REDIRECT_PROTOCOL),
    _case("another protocol", v4(), (ProtocolClaim(1),), Cause.PASS_UNCLAIMED),
    _case("protocol, only IPv6", v4(), (ProtocolClaim(17, family=6),), Cause.PASS_UNCLAIMED),
    _case("protocol over IPv6", v6(above=extensions(3)), (ProtocolClaim(17, family=6),), Cause.REDIRECT_PROTOCOL),
    _case("protocol, fragment", v4(frag=7), (ProtocolClaim(17),), Cause.REDIRECT_PROTOCOL),
    _case(
        "IPv6 protocol, fragment",
        v6(above=IPv6ExtHdrFragment(offset=9) / UDP()),
        (ProtocolClaim(17),),
        Cause.REDIRECT_PROTOCOL,
    ),
    _case("protocol, SSH", v4(above=TCP_SSH), (ProtocolClaim(6),), Cause.PASS_SSH),
    _case("neighbour discovery", v6(above=NS), (ProtocolClaim(58),), Cause.PASS_ND),
    _case(
        "listener discovery", v6(above=IPv6ExtHdrHopByHop() / ICMPv6MLReport2()), (ProtocolClaim(58),), Cause.PASS_ND
    ),
    _case(
        "neighbour discovery by name", v6(above=NS), (ProtocolClaim(58, include=Essential.ND),), Cause.REDIRECT_PROTOCOL
    ),
    _case("ping is no discovery", v6(above=ICMPv6EchoRequest()), (ProtocolClaim(58),), Cause.REDIRECT_PROTOCOL),
    _case(
        "ethertype",
        Ether(dst=MAC, src=PEER, type=0x88CC) / Raw(b"lldp"),
        (EthertypeClaim(0x88CC),),
        Cause.REDIRECT_ETHERTYPE,
    ),
    _case("another ethertype", v4(), (EthertypeClaim(0x88CC),), Cause.PASS_UNCLAIMED),
    _case("ethertype IPv4, malformed", cut(v4(), 20), (EthertypeClaim(0x0800),), Cause.REDIRECT_ETHERTYPE),
    _case(
        "length of an 802.3 frame",
        Ether(dst=MAC, src=PEER, type=0x100) / Raw(bytes(256)),
        (EthertypeClaim(0x88CC),),
        Cause.PASS_UNCLAIMED,
    ),
    _case("ARP by name", ARP_REQUEST, (EthertypeClaim(0x0806),), Cause.REDIRECT_ETHERTYPE),
    # Forwarding.
    _case("forward", v4("192.0.2.1"), (ForwardClaim(),), Cause.REDIRECT_FORWARD),
    _case("forward, IPv6", v6("fd00:1::1"), (ForwardClaim(),), Cause.REDIRECT_FORWARD),
    _case("forward, no route", v6("fd00:2::1"), (ForwardClaim(),), Cause.PASS_NO_ROUTE),
    _case("forward, route elsewhere", v4("172.16.1.1"), (ForwardClaim(),), Cause.PASS_NO_ROUTE),
    _case("forward, longer route", v4("172.16.5.1"), (ForwardClaim(),), Cause.REDIRECT_FORWARD),
    _case("forward, multicast", v4("239.0.0.1"), (ForwardClaim(),), Cause.PASS_NO_ROUTE),
    _case("forward, to the host", v4(above=TCP_SYN), (ForwardClaim(),), Cause.PASS_UNCLAIMED),
    _case("forward, another station", v4("192.0.2.1", mac=OTHER), (ForwardClaim(),), Cause.PASS_NOT_OUR_MAC),
    _case("forward, broadcast MAC", v4("192.0.2.1", mac=BROADCAST), (ForwardClaim(),), Cause.PASS_UNCLAIMED),
    _case("forward, SSH of others", v4("192.0.2.1", TCP_SSH), (ForwardClaim(),), Cause.REDIRECT_FORWARD),
    _case("forward, discovery", v6("fd00:1::1", NS), (ForwardClaim(),), Cause.PASS_ND),
    _case("forward in a VLAN", tagged(v4("192.0.2.1")), (ForwardClaim(vlan=5),), Cause.REDIRECT_FORWARD),
    # Everything but.
    _case("everything", v4(above=TCP_SYN), (EverythingBut(),), Cause.REDIRECT_EVERYTHING),
    _case(
        "everything, not IP",
        Ether(dst=MULTICAST, src=PEER, type=0x9000) / Raw(b"loop"),
        (EverythingBut(),),
        Cause.REDIRECT_EVERYTHING,
    ),
    _case(
        "everything, 802.3",
        Ether(dst=MULTICAST, src=PEER, type=0x101) / Raw(bytes(257)),
        (EverythingBut(),),
        Cause.REDIRECT_EVERYTHING,
    ),
    _case(
        "everything, an 802.3 frame whose length is no ethertype",
        Ether(dst=MULTICAST, src=PEER, type=0x100) / Raw(bytes(256)),
        (EverythingBut(), EthertypeClaim(0x88CC)),
        Cause.REDIRECT_EVERYTHING,
    ),
    _case("everything but ARP", ARP_REQUEST, (EverythingBut(),), Cause.PASS_ARP),
    _case("everything but ND", v6(above=NS), (EverythingBut(),), Cause.PASS_ND),
    _case("everything but SSH", v4(above=TCP_SSH), (EverythingBut(),), Cause.PASS_SSH),
    _case("everything and ARP", ARP_REQUEST, (EverythingBut(include=Essential.ARP),), Cause.REDIRECT_EVERYTHING),
    _case(
        "everything but a port", v4(above=TCP(dport=443)), (EverythingBut([Endpoint(6, 443)]),), Cause.PASS_EXCEPTION
    ),
    _case(
        "that port of others",
        v4("10.0.0.3", TCP(dport=443)),
        (EverythingBut([Endpoint(6, 443)]),),
        Cause.REDIRECT_EVERYTHING,
    ),
    _case(
        "everything but a prefix",
        v4("192.0.2.1"),
        (EverythingBut([PrefixClaim("192.0.2.0/24")]),),
        Cause.PASS_EXCEPTION,
    ),
    _case(
        "a prefix in an excepted one",
        v4("192.0.2.1"),
        (EverythingBut([PrefixClaim("192.0.0.0/16")]), PrefixClaim("192.0.2.0/24")),
        Cause.REDIRECT_PREFIX,
    ),
    _case(
        "an excepted prefix in a claimed one",
        v4("192.0.2.1"),
        (EverythingBut([PrefixClaim("192.0.2.0/24")]), PrefixClaim("192.0.0.0/16")),
        Cause.REDIRECT_PREFIX,
    ),
    _case(
        "an excepted prefix in one for our station",
        v4("192.0.2.1", mac=OTHER),
        (EverythingBut([PrefixClaim("192.0.0.0/16")], any_mac=True), PrefixClaim("192.0.2.0/24")),
        Cause.PASS_NOT_OUR_MAC,
    ),
    _case("everything but a protocol", v4(above=ICMP()), (EverythingBut([ProtocolClaim(1)]),), Cause.PASS_EXCEPTION),
    _case(
        "an excepted protocol that is claimed",
        v4(above=ICMP()),
        (EverythingBut([ProtocolClaim(1)]), ProtocolClaim(1, family=4)),
        Cause.REDIRECT_PROTOCOL,
    ),
    _case(
        "everything but an ethertype",
        Ether(dst=MAC, src=PEER, type=0x88CC) / Raw(b"lldp"),
        (EverythingBut([EthertypeClaim(0x88CC)]),),
        Cause.PASS_EXCEPTION,
    ),
    _case("everything in a VLAN", tagged(v4()), (EverythingBut(vlan=5),), Cause.REDIRECT_EVERYTHING),
    _case("everything, tagged", tagged(v4()), (EverythingBut(),), Cause.PASS_VLAN),
    _case("everything, any station", v4(mac=OTHER), (EverythingBut(any_mac=True),), Cause.REDIRECT_EVERYTHING),
    _case(
        "a socket and everything for other stations",
        v4(mac=OTHER),
        (*EXACT, EverythingBut(vlan=5, any_mac=True)),
        Cause.PASS_NOT_OUR_MAC,
    ),
]
