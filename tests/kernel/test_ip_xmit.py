"""ip.tx against Linux: the IP header of the same datagram, from a Linux socket and from us, byte by byte.

Ids and flow labels are random in both; what both must have in common is compared, the rest is in test_ip_tx.py.
"""

import socket
import struct
from collections.abc import Callable

import pytest

from tests.stages.packets import UDP
from tests.stages.test_ip_tx import MAPPED, Sender
from xdpstack.native import lib
from xdpstack.testing.veth import Veth

pytestmark = pytest.mark.root

SIX = lib.XS_PKT_IPV6
ADDRESSES = {socket.AF_INET: ("10.0.0.1", "10.0.0.2"), socket.AF_INET6: ("fd00::1", "fd00::2")}
PMTUDISC_DO = 2


@pytest.fixture
def pair(veth: Callable[..., Veth]) -> Veth:
    made = veth(near=["10.0.0.1/24", "fd00::1/64"], far=["10.0.0.2/24", "fd00::2/64"])
    for address in ("10.0.0.2", "fd00::2"):
        made.near.netns.ip(f"neighbour add {address} lladdr {made.far.mac} dev {made.near.name}")
    return made


def from_linux(pair: Veth, family: int, payloads: list[bytes], options: list[tuple[int, int, int]]) -> list[bytes]:
    """The IP packets that an unconnected socket of Linux makes of `payloads`."""
    source, target = ADDRESSES[socket.AddressFamily(family)]
    kind = 0x86DD if family == socket.AF_INET6 else 0x0800
    tap = pair.far.netns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)))
    sender = pair.near.netns.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
    with tap, sender:
        tap.bind((pair.far.name, kind))
        tap.settimeout(5)
        sender.bind((source, 1000))
        for level, name, value in options:
            sender.setsockopt(level, name, value)
        packets = []
        for payload in payloads:
            sender.sendto(payload, (target, 7))
            while True:
                packet = tap.recv(1 << 16)[14:]
                if packet[9 if kind == 0x0800 else 6] == UDP:
                    break
            packets.append(packet)
    return packets


def datagram(packet: bytes) -> bytes:
    return packet[20:] if packet[0] >> 4 == 4 else packet[40:]


@pytest.mark.parametrize("tos", [0, 0x10, 0xB8])
@pytest.mark.parametrize("ttl", [0, 1, 255])
@pytest.mark.parametrize("discover", [None, PMTUDISC_DO])
def test_ipv4_headers(pair: Veth, tos: int, ttl: int, discover: int | None) -> None:
    options = [(socket.IPPROTO_IP, socket.IP_TOS, tos)]
    options += [(socket.IPPROTO_IP, socket.IP_TTL, ttl)] if ttl else []
    options += [(socket.IPPROTO_IP, 10, discover)] if discover is not None else []  # IP_MTU_DISCOVER
    payloads = [b"", b"x", b"y" * 1472]
    ours = Sender()
    zero = []  # by chance an identification is 0 too, but not three in a row
    for theirs in from_linux(pair, socket.AF_INET, payloads, options):
        fields = {"src": MAPPED + theirs[12:16], "dst": MAPPED + theirs[16:20], "tos": tos, "ttl": ttl}
        made = ours.sent(datagram(theirs), flags=lib.XS_PKT_DF if discover else 0, **fields)
        assert made[:4] + made[6:10] + made[12:] == theirs[:4] + theirs[6:10] + theirs[12:]
        zero.append((made[4:6] == b"\0\0", theirs[4:6] == b"\0\0"))
    assert [all(each) for each in zip(*zero, strict=True)] == [discover == PMTUDISC_DO] * 2
    ours.walk.close()


@pytest.mark.parametrize("tclass", [0, 0x10, 0xB8])
@pytest.mark.parametrize("hops", [0, 1, 255])
def test_ipv6_headers(pair: Veth, tclass: int, hops: int) -> None:
    options = [(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tclass)]
    options += [(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)] if hops else []
    payloads = [b"", b"x", b"y" * 1452]
    ours = Sender()
    for theirs in from_linux(pair, socket.AF_INET6, payloads, options):
        made = ours.sent(datagram(theirs), flags=SIX, src=theirs[8:24], dst=theirs[24:40], tos=tclass, ttl=hops)
        assert made[4:] == theirs[4:]
        (our_word,), (their_word,) = struct.unpack(">I", made[:4]), struct.unpack(">I", theirs[:4])
        assert our_word >> 20 == their_word >> 20
        assert our_word & 0xFFFFF  # a label, as Linux has one
        assert their_word & 0xFFFFF
    ours.walk.close()


def test_what_is_too_large_for_the_device(pair: Veth) -> None:
    """Linux fragments it, or says EMSGSIZE; we leave both to it."""
    ours = Sender()
    (first,) = from_linux(pair, socket.AF_INET, [b"z" * 1473], [])
    assert int.from_bytes(first[6:8], "big") & 0x2000
    assert ours.send(b"\0" * 1481) is None
    with pytest.raises(OSError, match="Message too long"):
        from_linux(pair, socket.AF_INET, [b"z" * 1473], [(socket.IPPROTO_IP, 10, PMTUDISC_DO)])
    ours.walk.close()
