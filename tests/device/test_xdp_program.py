"""The XDP program in the kernel, by BPF_PROG_TEST_RUN, held against its definition in Python. Nothing is attached."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.device.xdp_cases import CASES, HOST, Case
from tests.device.xdp_sockets import unbound_socket
from tests.device.xdp_strategies import noise, situations
from xdpstack.device.claims import SocketClaim
from xdpstack.device.deadman import NEVER
from xdpstack.device.verdict import Cause, Rules, decide
from xdpstack.device.xdp import XdpProgram

pytestmark = pytest.mark.root

XDP_PASS, XDP_REDIRECT = 2, 4


@pytest.fixture(scope="module")
def program() -> Iterator[XdpProgram]:
    """Loaded, with an AF_XDP socket in the slot of queue 0. The socket is not bound: nothing may come."""
    with XdpProgram.open("lo", 1, ssh=()) as program, unbound_socket() as xsk:
        program.set_socket(0, xsk)
        program.deadman.deadline_ns = NEVER
        yield program


def follow(program: XdpProgram, rules: Rules) -> None:
    program.claims.clear()
    program.claims.set_mac(rules.mac)
    program.claims.set_ssh(rules.ssh)
    program.claims.set_local(rules.local)
    program.claims.set_forwardable(rules.forwardable)
    program.claims.add(*rules.claims)


def verdict(program: XdpProgram, frame: bytes) -> Cause:
    """Run the program; what it counted, after checking that it did that and changed nothing."""
    before = program.counters().frames
    run = program.test_run(frame)
    after = program.counters().frames
    (cause,) = (each for each in Cause if after[each] != before[each])
    assert after[cause] == before[cause] + 1
    assert run.verdict == (XDP_REDIRECT if cause.lifted else XDP_PASS)
    assert run.frame == frame
    return cause


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(program: XdpProgram, case: Case) -> None:
    follow(program, case.rules)
    assert verdict(program, case.frame) is case.cause


@given(situation=situations())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_frame_under_any_rules(program: XdpProgram, situation: tuple[Rules, list[bytes]]) -> None:
    rules, frames = situation
    follow(program, rules)
    for frame in frames:
        assert verdict(program, frame) is decide(frame, rules)[0]


@given(frame=noise)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_not_claimed_passes(program: XdpProgram, frame: bytes) -> None:
    """Under a claim that no frame can match, a multicast one on a VLAN that ends before it, whatever the bytes are."""
    follow(program, Rules(frame[:6], (SocketClaim("239.255.255.254", 65535),), HOST))
    assert not verdict(program, frame).lifted
