"""The definition of the XDP program's verdicts, on literal frames."""

import pytest

from tests.device.xdp_cases import CASES, EXACT, Case, v4
from xdpstack.device.verdict import Cause, decide


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(case: Case) -> None:
    cause, claim = decide(case.frame, case.rules)
    assert cause is case.cause
    assert (claim in case.claims) == cause.lifted


def test_every_cause_that_a_frame_can_have_has_a_case() -> None:
    of_the_kernel = {Cause.PASS_DEADMAN, Cause.PASS_NO_SOCKET, Cause.PASS_NO_METADATA}
    assert {case.cause for case in CASES} == set(Cause) - of_the_kernel


def test_the_claim_that_lifts_is_named() -> None:
    case = next(case for case in CASES if case.name == "a socket before a prefix")
    assert decide(bytes(v4()), case.rules) == (Cause.REDIRECT_SOCKET, EXACT[0])
