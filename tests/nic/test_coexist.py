"""Beside other programs, by libxdp's dispatcher: the guest's kernel is one that has it."""

from tests.device.test_coexist import (
    bpffs,
    others,
    pinning,
    replacing,
    stacks,
    test_a_process_that_is_killed,
    test_a_program_that_is_no_dispatcher,
    test_alone_first,
    test_beside_another_program,
    test_without_the_word_nothing_is_joined,
)

__all__ = [
    "bpffs",
    "others",
    "pinning",
    "replacing",
    "stacks",
    "test_a_process_that_is_killed",
    "test_a_program_that_is_no_dispatcher",
    "test_alone_first",
    "test_beside_another_program",
    "test_without_the_word_nothing_is_joined",
]
