"""Socket options: a kernel socket and ours are told, and asked, the same; and both say the same, errors included."""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.kernel import effort
from tests.kernel.twins import Twins, Wanted, attempt, kernel_socket
from xdpstack.stack import Stack
from xdpstack.udp import options

pytestmark = pytest.mark.root

SOL, IP, IP6 = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6
INT = 2**31 - 1
VALUES = [-INT - 1, -2, -1, *range(9), 16, 64, 100, 0xB8, 255, 256, 1000, 2304, 5000, 65535, 1 << 20, 1 << 24, INT]


@pytest.fixture(scope="module")
def twins() -> Iterator[Twins]:
    made = Twins()
    try:
        yield made
    finally:
        made.close()


def both(twins: Twins, stack: Stack, family: int, reserve: bool, undo: ExitStack) -> list[Any]:
    wanted = Wanted(family, ("0.0.0.0", 0) if family == 4 else ("::", 0, 0, 0))
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    ours = undo.enter_context(stack.udp(wanted.address, family=kind, broadcast=True, reserve=reserve))
    return [undo.enter_context(kernel_socket(twins.linux.netns, wanted)), ours]


def value(rng: random.Random) -> Any:
    """Numbers at edges, and bytes: a C int, too few for one, more than one."""
    number = rng.choice(VALUES)
    return rng.choice((number, number, number, struct.pack("=i", number), rng.randbytes(rng.choice((1, 2, 3, 5, 8)))))


@pytest.mark.parametrize("reserve", [True, False])
def test_what_is_set_and_what_it_is_then(twins: Twins, reserve: bool) -> None:
    rng = effort.rng(f"options {reserve}")
    with twins.opened() as stack:
        for _ in range(effort.cases(12)):
            with ExitStack() as undo:
                pair = both(twins, stack, rng.choice((4, 6)), reserve, undo)
                history = []
                for _ in range(100):
                    one = rng.choice(list(options.OPTIONS))
                    call, arguments = rng.choice((("setsockopt", (*one, value(rng))), ("getsockopt", one)))
                    told = [attempt(getattr(sock, call), *arguments) for sock in pair]
                    history.append(f"{call} {options.OPTIONS[one].name} {arguments[2:]}: {told[0]}")
                    assert told[0] == told[1], "\n".join([*history, f"ours: {told[1]}"])


def test_a_priority_follows_the_type_of_service(twins: Twins) -> None:
    """__ip_sock_set_tos() sets it when the type of service changes, and SO_PRIORITY sets it again."""
    with twins.opened() as stack, ExitStack() as undo:
        pair = both(twins, stack, 4, True, undo)
        for level, name, number in ((SOL, socket.SO_PRIORITY, 5), *((IP, socket.IP_TOS, tos) for tos in range(256))):
            for sock in pair:
                sock.setsockopt(level, name, number)
            assert len({sock.getsockopt(SOL, socket.SO_PRIORITY) for sock in pair}) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_an_error_that_the_call_has_told_is_not_told_again(twins: Twins, family: int) -> None:
    """A datagram too large for the path is on the error queue (ip_local_error), and no error of the next call."""
    level, discover, recverr = (IP, 10, 11) if family == 4 else (IP6, 23, 25)
    to = ("10.0.0.1", 9) if family == 4 else ("fd00::1", 9, 0, 0)
    with twins.opened() as stack, ExitStack() as undo:
        for sock in both(twins, stack, family, True, undo):
            sock.setsockopt(level, discover, 2)
            sock.setsockopt(level, recverr, 1)
            sock.setblocking(False)
            assert attempt(sock.sendto, bytes(3000), to) == errno.errorcode[errno.EMSGSIZE]
            for _ in range(3):
                assert attempt(sock.recv, 1) == errno.errorcode[errno.EAGAIN]
