"""The dead-man deadline: the program's decision, by BPF_PROG_TEST_RUN with chosen deadlines."""

import os
import time
from collections.abc import Iterator

import pytest

from tests.device.xdp_cases import EXACT, HOST, MAC, v4
from tests.device.xdp_sockets import unbound_socket
from xdpstack.device.deadman import NEVER
from xdpstack.device.verdict import Cause
from xdpstack.device.xdp import XdpProgram
from xdpstack.errors import ClosedError, ForkedError
from xdpstack.testing.wait import tick_ns

pytestmark = pytest.mark.root

CLAIMED, UNCLAIMED = bytes(v4()), bytes(v4("10.0.0.77"))
SECOND = 1_000_000_000


@pytest.fixture
def program() -> Iterator[XdpProgram]:
    with XdpProgram.open("lo", 1) as program, unbound_socket() as xsk:
        program.set_socket(0, xsk)
        program.claims.set_mac(bytes.fromhex(MAC.replace(":", "")))
        program.claims.set_local(HOST)
        program.claims.add(*EXACT)
        yield program


def next_tick() -> int:
    """Wait for it, and return its time."""
    last = tick_ns()
    while (tick := tick_ns()) == last:
        pass
    return tick


def ran(program: XdpProgram, frame: bytes = CLAIMED) -> Cause:
    before = program.counters().frames
    program.test_run(frame)
    (cause,) = (each for each, count in program.counters().frames.items() if count != before[each])
    return cause


def test_a_program_whose_deadline_was_never_set_lifts_nothing(program: XdpProgram) -> None:
    assert program.deadman.deadline_ns == 0
    assert ran(program) is Cause.PASS_DEADMAN
    assert program.deadman.lapses == 0
    assert program.deadman.first_pass_ns == 0


def test_before_the_deadline_it_lifts_and_after_it_passes(program: XdpProgram) -> None:
    program.deadman.deadline_ns = time.monotonic_ns() + 3600 * SECOND
    assert ran(program) is Cause.REDIRECT_SOCKET
    program.deadman.deadline_ns = tick_ns()
    assert ran(program) is Cause.PASS_DEADMAN
    program.deadman.deadline_ns = NEVER
    assert ran(program) is Cause.REDIRECT_SOCKET


def test_past_the_deadline_what_is_not_claimed_is_counted_so_too(program: XdpProgram) -> None:
    program.deadman.deadline_ns = 1
    assert ran(program, UNCLAIMED) is Cause.PASS_DEADMAN


def test_the_time_stamps_tell_when_the_kernel_took_over(program: XdpProgram) -> None:
    """Each stamp lies between the readings of the clock around the frame that it is of."""
    program.deadman.deadline_ns = NEVER
    start = next_tick()
    assert ran(program) is Cause.REDIRECT_SOCKET
    lifted = next_tick()
    program.deadman.deadline_ns = lifted
    assert ran(program) is Cause.PASS_DEADMAN
    first = next_tick()
    assert ran(program) is Cause.PASS_DEADMAN
    end = tick_ns()

    counters = program.counters()
    assert start <= counters.last_redirect_ns <= lifted <= program.deadman.first_pass_ns <= first
    assert first <= counters.last_pass_ns <= end
    assert program.deadman.lapses == 1


def test_each_lapse_is_counted_and_stamped_once(program: XdpProgram) -> None:
    stamps = []
    for lapse in range(1, 4):
        program.deadman.deadline_ns = next_tick()
        for _ in range(3):
            assert ran(program) is Cause.PASS_DEADMAN
        assert program.deadman.lapses == lapse
        stamps.append(program.deadman.first_pass_ns)
    assert stamps == sorted(set(stamps))


def test_a_deadline_that_comes_while_frames_run_is_kept(program: XdpProgram) -> None:
    """The clock of the deadline is the program's: nothing is lifted at or after it, by that clock."""
    program.deadman.deadline_ns = deadline = time.monotonic_ns() + SECOND // 20
    while ran(program) is Cause.REDIRECT_SOCKET:
        assert time.monotonic_ns() < deadline + 10 * SECOND
    assert program.counters().last_redirect_ns < deadline <= program.deadman.first_pass_ns


def test_a_forked_child_is_told_that_it_is_not_its_own(program: XdpProgram) -> None:
    program.deadman.deadline_ns = NEVER
    child = os.fork()
    if child == 0:
        answers = []
        for use in (lambda: program.deadman.deadline_ns, program.counters):
            try:
                use()
            except ForkedError:
                answers.append(True)
        program.close()  # which takes nothing from the parent
        os._exit(0 if answers == [True, True] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ran(program) is Cause.REDIRECT_SOCKET


def test_after_close_the_deadline_is_gone(program: XdpProgram) -> None:
    program.close()
    with pytest.raises(ClosedError):
        program.deadman.deadline_ns = NEVER
    with pytest.raises(ClosedError):
        program.counters()
    program.close()
