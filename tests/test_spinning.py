"""Who drives and finds nothing goes on looking for `spin_us`, and then sleeps, which the kernel counts."""

import resource
import time
from collections.abc import Callable

import pytest

import xdpstack
from tests.driving import worker_threads
from xdpstack.errors import ConfigurationError
from xdpstack.native.core import ALWAYS_US
from xdpstack.testing import MemoryStack, memory_stack, until

#: So long each of these waits; a driver without packets looks up every 10 ms.
WAIT_SECONDS = 0.06
SLEEPS = 3


def opened(spin_us: int, **options: bool) -> MemoryStack:
    return memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}, spin_us=spin_us, **options)


def sleeps() -> int:
    """Of this thread, so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def run(stack: MemoryStack) -> None:
    stack.run(WAIT_SECONDS)


def receive(stack: MemoryStack) -> None:
    with stack.udp(("10.0.0.1", 7)) as sock:
        sock.settimeout(WAIT_SECONDS)
        with pytest.raises(TimeoutError):
            sock.recv(1)


@pytest.mark.parametrize("spin_us", [0, 1000])
def test_run_sleeps_when_it_has_looked_for_long_enough(spin_us: int) -> None:
    with opened(spin_us) as stack:
        before = sleeps()
        run(stack)
        assert sleeps() - before >= SLEEPS


@pytest.mark.parametrize("spin_us", [0, 1000])
def test_receiving_sleeps_when_it_has_looked_for_long_enough(spin_us: int) -> None:
    with opened(spin_us) as stack:
        before = sleeps()
        receive(stack)
        assert sleeps() - before >= 1


@pytest.mark.parametrize("wait", [run, receive])
def test_who_never_sleeps_ends_in_time_all_the_same(wait: Callable[[MemoryStack], None]) -> None:
    with opened(ALWAYS_US) as stack:
        before, began = sleeps(), time.monotonic()
        wait(stack)
        assert time.monotonic() - began >= WAIT_SECONDS
        assert sleeps() - before < SLEEPS


def test_a_thread_of_the_stack_spins_too_and_still_ends() -> None:
    def switches() -> int:
        status = worker_threads()["xdpstack/0"].joinpath("status").read_text()
        return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    with opened(0, threads=True):
        before = switches()
        until(lambda: switches() >= before + SLEEPS)
    until(lambda: not worker_threads())  # it is listed for a moment after it was joined
    with opened(ALWAYS_US, threads=True):
        before = switches()
        time.sleep(WAIT_SECONDS)  # what is tested is that in this time nothing happens
        assert switches() - before < SLEEPS


def test_how_long_is_said_and_has_a_bound() -> None:
    with opened(50) as stack:
        assert stack.info()["spin_us"] == 50
    for wrong in (-1, ALWAYS_US + 1):
        with pytest.raises(ConfigurationError, match="spin_us is"):
            xdpstack.open("lo", spin_us=wrong)
