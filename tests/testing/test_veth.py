"""Namespaces, veth pairs and raw peers, as root."""

import socket
import subprocess
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from xdpstack.testing import End, Namespace, Peer, Veth, assert_packets_equal, until
from xdpstack.testing.namespace import NAMED, PREFIX, delete_orphans

pytestmark = pytest.mark.root


def test_a_namespace_is_made_and_deleted() -> None:
    made = Namespace("label")
    assert made.exists
    assert made.name.startswith(f"{PREFIX}-")
    assert made.name.endswith("-label")
    assert made.show("link", "show", "dev", "lo")[0]["flags"][-1] == "LOWER_UP"
    made.delete()
    made.delete()
    assert not made.exists


def test_a_failing_command_says_which_line(netns: Callable[..., Namespace]) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)Cannot find device.*2: link set nosuch up"):
        netns().ip("link set lo up", "link set nosuch up")


def test_sysctls_are_those_of_the_namespace(netns: Callable[..., Namespace]) -> None:
    one, other = netns(), netns()
    one.sysctl(net__ipv4__ip_forward=1)
    assert one.run("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert other.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"


def test_processes_left_behind_are_killed_and_told(netns: Callable[..., Namespace]) -> None:
    made = Namespace()
    process = subprocess.Popen(["ip", "netns", "exec", made.name, "sleep", "1000"])
    until(made.processes)
    with pytest.raises(AssertionError, match=r"processes were left behind in .*sleep 1000"):
        made.delete()
    assert not made.exists
    assert process.wait() == -9


def test_namespaces_of_killed_runs_are_deleted() -> None:
    gone = f"{PREFIX}-4194303-0-orphan"  # above pid_max's default: nobody has it
    subprocess.run(["ip", "netns", "add", gone], check=True)
    delete_orphans()
    assert not (NAMED / gone).exists()


def test_a_pair_carries_kernel_traffic(veth: Callable[..., Veth]) -> None:
    pair = veth(near=["10.0.0.1/24", "2001:db8::1/64"], far=["10.0.0.2/24", "2001:db8::2/64"], mtu=9000, queues=2)
    pair.far.netns.run("ping", "-c", "1", "-W", "5", pair.near.address)
    pair.far.netns.run("ping", "-c", "1", "-W", "5", pair.near.address6)
    assert (pair.near.link()["mtu"], pair.near.link()["num_rx_queues"]) == (9000, 2)


def test_ipv6_is_off_unless_it_is_asked_for(veth: Callable[..., Veth], peer: Callable[[End], Peer]) -> None:
    pair = veth()
    for end in pair.ends():
        assert {a["family"] for a in end.netns.show("address", "show", "dev", end.name)[0]["addr_info"]} == {"inet"}


def test_a_second_pair_in_the_same_namespace(veth: Callable[..., Veth]) -> None:
    first = veth()
    second = veth(near=["10.1.0.1/24"], far=["10.1.0.2/24"], netns_near=first.near.netns)
    first.near.netns.sysctl(net__ipv4__ip_forward=1)
    first.far.netns.ip(f"route add default via {first.near.address}")
    second.far.netns.ip(f"route add default via {second.near.address}")
    first.far.netns.run("ping", "-c", "1", "-W", "5", second.far.address)


def test_offloads_are_switched(veth: Callable[..., Veth]) -> None:
    pair = veth(offloads=["tx off", "gro on"])
    for end in pair.ends():
        told = end.netns.run("ethtool", "-k", end.name)
        assert "tx-checksumming: off" in told
        assert "generic-receive-offload: on" in told


def test_a_peer_talks_to_the_kernel(veth: Callable[..., Veth], peer: Callable[[End], Peer]) -> None:
    pair = veth()
    raw = peer(pair.far)
    raw.send(Ether(dst="ff:ff:ff:ff:ff:ff", src=pair.far.mac) / ARP(psrc="10.0.0.2", pdst="10.0.0.1"))
    answer = raw.expect(lambda frame: ARP in frame and frame[ARP].op == 2)
    assert answer[ARP].hwsrc == pair.near.mac
    with pytest.raises(AssertionError, match=r"did not come to far0 within 0.05 s; what came: nothing"):
        raw.expect(lambda frame: UDP in frame, seconds=0.05)


def test_two_peers_see_each_others_frames_with_their_tags(
    veth: Callable[..., Veth], peer: Callable[[End], Peer]
) -> None:
    pair = veth()
    here, there = peer(pair.near), peer(pair.far)
    sent = Ether(dst=pair.far.mac, src=pair.near.mac) / Dot1Q(vlan=7, prio=3) / IP(dst="10.0.0.2") / UDP(dport=9) / b"x"
    here.send(sent)
    assert_packets_equal(there.expect(lambda frame: UDP in frame), sent)
    assert [frame for frame in here.waiting() if UDP in Ether(frame)] == [], "a peer does not see what it has sent"


def test_a_partial_checksum_reaches_a_kernel_socket(veth: Callable[..., Veth], peer: Callable[[End], Peer]) -> None:
    """The kernel trusts a packet marked CHECKSUM_PARTIAL; the same bytes without the mark are dropped."""
    pair = veth()

    def bound() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((pair.near.address, 7))
        made.settimeout(5)
        return made

    with pair.near.netns.call(bound) as receiver:
        frame = Ether(dst=pair.near.mac, src=pair.far.mac) / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=8, dport=7)
        raw = peer(pair.far)
        raw.send(frame / b"partial", partial=True)
        assert receiver.recv(100) == b"partial"
        near = peer(pair.near)
        raw.send(frame / b"partial", partial=True)
        seen = near.expect(lambda packet: UDP in packet)
        whole = Ether(bytes(frame / b"partial"))
        assert seen[UDP].chksum != whole[UDP].chksum
        assert receiver.recv(100) == b"partial"
        seen = bytes(seen)
        raw.send(seen)
        raw.send(frame / b"whole")
        assert receiver.recv(100) == b"whole"
