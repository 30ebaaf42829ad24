"""Tests of interfaces that are written for veth pairs, on a pair of NICs: packets, taken queues, NICs that go down."""

from tests.device.test_device import (
    test_interface_down,
    test_lifts_only_what_is_claimed,
    test_the_holder_of_a_queue_is_named,
    test_transmit_only_needs_no_program,
)
from tests.device.test_faults_interface import (
    claimed,
    test_a_mac_that_changes_is_followed,
    test_set_down_and_up_under_traffic,
)

__all__ = [
    "claimed",
    "test_a_mac_that_changes_is_followed",
    "test_interface_down",
    "test_lifts_only_what_is_claimed",
    "test_set_down_and_up_under_traffic",
    "test_the_holder_of_a_queue_is_named",
    "test_transmit_only_needs_no_program",
]
