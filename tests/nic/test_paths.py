"""Tests of whole paths that are written for veth pairs, on a pair of NICs: kernel clients, sockets of ours."""

import pytest

from tests.nic.conftest import CARRIER_SECONDS
from tests.paths.test_echo import (
    pair,
    stack,
    test_a_fragmented_datagram_comes_through_the_same_object,
    test_both_families_and_many_clients_at_once,
    test_closing_returns_the_port_and_the_traffic,
    test_datagrams_come_and_go_by_af_xdp,
    test_ping_and_tcp_stay_with_the_kernel,
    test_the_peers_port_unreachable_reaches_the_program,
    test_what_waits_for_a_neighbour_goes_though_nobody_drives,
)
from xdpstack.testing.veth import Veth
from xdpstack.testing.wait import until

__all__ = [
    "pair",
    "stack",
    "test_a_fragmented_datagram_comes_through_the_same_object",
    "test_both_families_and_many_clients_at_once",
    "test_closing_returns_the_port_and_the_traffic",
    "test_datagrams_come_and_go_by_af_xdp",
    "test_ping_and_tcp_stay_with_the_kernel",
    "test_the_peers_port_unreachable_reaches_the_program",
    "test_what_waits_for_a_neighbour_goes_though_nobody_drives",
]


@pytest.fixture(autouse=True)
def _both_ends_have_a_carrier(request: pytest.FixtureRequest, pair: Veth) -> None:
    """Attaching may reset a NIC: who opens waits for its own carrier, and the other end's comes when it comes."""
    if "stack" in request.fixturenames:
        request.getfixturevalue("stack")
    until(lambda: all(end.is_ready() for end in pair.ends()), CARRIER_SECONDS)
