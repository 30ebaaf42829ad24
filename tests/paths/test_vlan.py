"""Tagged datagrams over a real veth pair: to the socket of their VLAN, and back with its tag; what the kernel does."""

from __future__ import annotations

import pytest
from scapy.all import ARP, IP, UDP, Dot1AD, Dot1Q, Ether

from tests.device.tag_on_egress import tagging
from tests.paths.world import FAR, NEAR, PORT, MakePeer, MakeVeth, echo_once, exchange, kernel_udp, opened
from xdpstack import Essential, EverythingBut
from xdpstack.testing.ledger import Ledger
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import PATIENCE, until

pytestmark = pytest.mark.root


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    """The near end knows the far one for good: the kernel would ask without a tag."""
    made = veth(near=NEAR, far=FAR)
    made.near.netns.ip(f"neigh replace 10.0.0.2 lladdr {made.far.mac} dev {made.near.name} nud permanent")
    return made


def request(pair: Veth, *tags: object, payload: bytes = b"ping") -> Ether:
    ether = Ether(dst=pair.near.mac, src=pair.far.mac)
    for tag in tags:
        ether = ether / tag
    return ether / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=9999, dport=PORT) / payload


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0"])
def test_a_tagged_echo(pair: Veth, peer: MakePeer, mode: str, host: str, ledger: Ledger) -> None:
    """Beside it the same port untagged, for an unmodified client, and for a datagram that has a priority alone."""
    wire = peer(pair.far)
    with (
        opened(pair.near, mode=mode) as stack,
        stack.udp((host, PORT), vlan=5) as tagged,
        stack.udp((host, PORT)) as untagged,
    ):
        for sock in (tagged, untagged):
            sock.settimeout(PATIENCE)
        wire.send(request(pair, Dot1Q(vlan=5, prio=6)))
        assert echo_once(tagged) == (b"ping", ("10.0.0.2", 9999))
        answer = wire.expect(lambda frame: UDP in frame and frame[UDP].dport == 9999)
        assert (answer[Dot1Q].vlan, answer[UDP].payload.load) == (5, b"ping")
        wire.send(request(pair, Dot1Q(vlan=0, prio=6)))
        assert echo_once(untagged)[0] == b"ping"
        assert Dot1Q not in wire.expect(lambda frame: UDP in frame and frame[UDP].dport == 9999)
        with kernel_udp(pair.far.netns, to=("10.0.0.1", PORT)) as client:
            exchange(untagged, client, b"untagged")
        wire.send(request(pair, Dot1Q(vlan=6)))  # of nobody here: the kernel's, which drops it
        until(lambda: stack.counters().get("xdp.rx.pass_vlan", 0) == 1)
        for sock in (tagged, untagged):
            sock.settimeout(0)
            with pytest.raises(BlockingIOError):
                sock.recv(1)


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0"])
def test_an_echo_within_a_service_vlan(pair: Veth, peer: MakePeer, mode: str, host: str, ledger: Ledger) -> None:
    """As eth0.100.200 of Linux would: 802.1Q behind 802.1ad. Beside it the same port in either VLAN alone, and in none."""
    wire = peer(pair.far)
    with (
        opened(pair.near, mode=mode) as stack,
        stack.udp((host, PORT), vlan=(100, 200)) as within,
        stack.udp((host, PORT), vlan=100) as outer,
        stack.udp((host, PORT), vlan=200) as inner,
        stack.udp((host, PORT)) as untagged,
    ):
        within.settimeout(PATIENCE)
        wire.send(request(pair, Dot1AD(vlan=100, prio=1), Dot1Q(vlan=200, prio=6)))
        assert echo_once(within) == (b"ping", ("10.0.0.2", 9999))
        answer = wire.expect(lambda frame: UDP in frame and frame[UDP].dport == 9999)
        assert (answer.type, answer[Dot1AD].vlan, answer[Dot1AD].type, answer[Dot1Q].vlan) == (0x88A8, 100, 0x8100, 200)
        assert answer[UDP].payload.load == b"ping"
        others = [
            (Dot1AD(vlan=200), Dot1Q(vlan=100)),
            (Dot1Q(vlan=100), Dot1Q(vlan=200)),
            (Dot1AD(vlan=100),),
            (Dot1AD(vlan=100), Dot1Q(vlan=0)),
            (Dot1AD(vlan=100), Dot1Q(vlan=200), Dot1Q(vlan=5)),
        ]
        for tags in others:  # of nobody here: the kernel's, which drops them
            wire.send(request(pair, *tags))
        until(lambda: stack.counters().get("xdp.rx.pass_qinq", 0) == len(others))
        for sock in (within, outer, inner, untagged):
            sock.settimeout(0)
            with pytest.raises(BlockingIOError):
                sock.recv(1)


def test_whole_frames_of_a_vlan_within_a_service_vlan(pair: Veth, peer: MakePeer, ledger: Ledger) -> None:
    """ARP in it too, where the claim names that; each byte as it was, both ways."""
    wire = peer(pair.far)
    claim = EverythingBut(vlan=(100, 200), include=Essential.ARP)
    with opened(pair.near) as stack, stack.frames(claim) as frames:
        frames.settimeout(PATIENCE)
        tags = Ether(dst="ff:ff:ff:ff:ff:ff", src=pair.far.mac) / Dot1AD(vlan=100) / Dot1Q(vlan=200)
        asked = bytes(tags / ARP(psrc="10.0.0.2", pdst="10.0.0.1", hwsrc=pair.far.mac))
        wire.send(bytes(request(pair, Dot1Q(vlan=200))), asked)
        with frames.recv_batch() as batch:
            assert [bytes(frame) for frame in batch.frames()] == [asked]
            assert list(batch.vlan_tcis) == [100]
        back = bytes(request(pair, Dot1AD(vlan=100), Dot1Q(vlan=200), payload=bytes(100)))
        frames.send([back])
        assert bytes(wire.expect(lambda frame: Dot1AD in frame)) == back


def test_the_kernel_too_takes_a_priority_for_untagged(pair: Veth, peer: MakePeer) -> None:
    """What our definition says of VLAN 0 and of a VLAN that there is not, by an unmodified socket of the same host."""
    wire = peer(pair.far)
    with kernel_udp(pair.near.netns, ("10.0.0.1", PORT)) as server:
        wire.send(request(pair, Dot1Q(vlan=5), payload=b"five"))
        wire.send(request(pair, Dot1Q(vlan=0), Dot1Q(vlan=5), payload=b"zero, five"))
        wire.send(request(pair, Dot1Q(vlan=0, prio=7), payload=b"priority"))
        wire.send(request(pair, payload=b"untagged"))
        assert [server.recv(100), server.recv(100)] == [b"priority", b"untagged"]


def test_a_tag_beside_the_frame_reaches_the_socket_of_its_vlan(pair: Veth, peer: MakePeer, ledger: Ledger) -> None:
    """As with a NIC that takes tags off. It is asked for them; without that the datagram would count as untagged."""
    wire = peer(pair.far)
    with (
        opened(pair.near, metadata=("vlan", "hash")) as stack,
        stack.udp(("10.0.0.1", PORT), vlan=5) as tagged,
        stack.udp(("10.0.0.1", PORT)) as untagged,
    ):
        tagged.settimeout(PATIENCE)
        with tagging(pair.far, 0x6005):
            wire.send(request(pair))
        with tagged.recv_batch() as batch:
            assert batch.payloads() == [b"ping"]
            assert list(batch.vlan_tcis) == [0x6005]
            assert batch.hashes[0] != 0
            tagged.send_batch(batch.payloads(), batch)
        answer = wire.expect(lambda frame: UDP in frame and frame[UDP].dport == 9999)
        assert answer[Dot1Q].vlan == 5
        untagged.settimeout(0)
        with pytest.raises(BlockingIOError):
            untagged.recv(1)


def test_a_service_tag_beside_the_frame_is_the_outer_one(pair: Veth, peer: MakePeer, ledger: Ledger) -> None:
    """As with a NIC that takes service tags off; the VLAN's own is in the frame still."""
    wire = peer(pair.far)
    with (
        opened(pair.near, metadata=("vlan",)) as stack,
        stack.udp(("10.0.0.1", PORT), vlan=(100, 200)) as within,
        stack.udp(("10.0.0.1", PORT), vlan=200) as inner,
    ):
        within.settimeout(PATIENCE)
        with tagging(pair.far, 0x6000 | 100, proto=0x88A8):
            wire.send(request(pair, Dot1Q(vlan=200)))
        with within.recv_batch() as batch:
            assert batch.payloads() == [b"ping"]
            assert list(batch.vlan_tcis) == [0x6000 | 100]
            within.send_batch(batch.payloads(), batch)
        answer = wire.expect(lambda frame: UDP in frame and frame[UDP].dport == 9999)
        assert (answer[Dot1AD].vlan, answer[Dot1Q].vlan) == (100, 200)
        inner.settimeout(0)
        with pytest.raises(BlockingIOError):
            inner.recv(1)
