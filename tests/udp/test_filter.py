"""Socket filters: C does what xdpstack/udp/bpf.py says; what is no program is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.udp.by_hand import ETHERNET, UdpRx, ip_header
from tests.udp.by_hand_host import ByHandHost
from tests.udp.datagrams import HERE, HERE6, PEER6, datagram, packed
from tests.udp.programs import programs
from xdpstack.errors import ConfigurationError
from xdpstack.udp import bpf
from xdpstack.udp.bpf import Instruction
from xdpstack.udp.semantics import ANY, Bound, Datagram, receive

#: Pass what is from port 1000: ldh [0]; jeq #1000, +0, +1; ret #-1; ret #0
FROM_1000 = [(0x28, 0, 0, 0), (0x15, 0, 1, 1000), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)]


def with_headers(one: Datagram) -> Datagram:
    """With what a filter sees before the UDP header in these tests."""
    protocol = 0x86DD if one.family == 6 else 0x0800
    facts = {
        bpf.AD_PROTOCOL: protocol,
        bpf.AD_PKTTYPE: 0,
        bpf.AD_IFINDEX: one.device + 2,
        bpf.AD_MARK: 0,
        bpf.AD_QUEUE: 0,
    }
    return replace(one, headers=bytes(ETHERNET) + ip_header(one), network=ETHERNET, facts=facts)


@settings(max_examples=400, deadline=None)
@given(programs(), st.binary(max_size=48), st.booleans(), st.lists(st.integers(8, 48), max_size=2))
def test_c_and_python_agree(program: list[Instruction], payload: bytes, ipv6: bool, split: list[int]) -> None:
    checked = tuple(bpf.checked(program))
    bound = Bound(0, 6, ANY[6], 7, filter=checked)
    rx = UdpRx()
    rx.bind([bound])
    one = datagram(payload, to=HERE6, source=PEER6) if ipv6 else datagram(payload)
    expected = receive(with_headers(one), [bound])
    got = rx.receive(one, split)
    assert (got.sockets, got.reason) == (expected.sockets, expected.reason)
    if expected.sockets:
        assert got.payload == expected.payloads[0]
    assert rx.core.ledger().missing == 0


def test_attached_and_detached() -> None:
    host = ByHandHost([packed(HERE)[12:]])
    sock = host.udp.open((HERE, 7))
    sock.setblocking(False)
    sock.attach_filter(FROM_1000)
    host.arrive(datagram(b"yes"), datagram(b"no", sport=1001))
    assert sock.recv(9) == b"yes"
    assert sock.stats()["queued"] == 0
    sock.attach_filter([(0x06, 0, 0, 10)])  # the header and two bytes
    host.arrive(datagram(b"cut short"))
    assert sock.recv(9) == b"cu"
    sock.attach_filter([])
    host.arrive(datagram(b"all", sport=1001))
    assert sock.recv(9) == b"all"
    host.udp.close()


def test_each_of_several_sockets_has_its_own() -> None:
    rx = UdpRx()
    cut = (Instruction(0x06, 0, 0, 9),)
    none = (Instruction(0x06, 0, 0, 0),)
    sockets = [Bound(n, 4, ANY[4], 7, filter=f) for n, f in enumerate([(), cut, none])]
    rx.bind(sockets)
    one = replace(datagram(b"many"), to_many=True)
    assert receive(with_headers(one), sockets).payloads == (b"many", b"m")
    rx.receive(one)
    assert [rx.queued(n) for n in range(3)] == [1, 1, 0]


@pytest.mark.parametrize(
    "program, fault",
    [
        ([], "1 to 4096"),
        ([(0x06, 0, 0, 0)] * 4097, "1 to 4096"),
        ([(0xFF, 0, 0, 0)], "no such instruction"),
        ([(0x28, 0, 0, 0)], "ends with a return"),
        ([(0x34, 0, 0, 0), (0x06, 0, 0, 0)], "division by zero"),
        ([(0x64, 0, 0, 32), (0x06, 0, 0, 0)], "shift"),
        ([(0x02, 0, 0, 16), (0x06, 0, 0, 0)], "16 words"),
        ([(0x60, 0, 0, 1), (0x06, 0, 0, 0)], "may not have been written"),
        ([(0x05, 0, 0, 1), (0x06, 0, 0, 0)], "beyond the end"),
        ([(0x15, 1, 0, 1), (0x06, 0, 0, 0)], "beyond the end"),
        ([(0x20, 0, 0, 0xFFFFF024), (0x06, 0, 0, 0)], "not there"),
    ],
)
def test_what_is_no_program(program: list[tuple[int, int, int, int]], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        bpf.checked(program)
