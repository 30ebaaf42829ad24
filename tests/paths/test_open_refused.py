"""What `xdpstack.open()` refuses: an exception for each cause, which says what mends it; nothing is left of the attempt."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

import xdpstack
from tests.paths.left import check_left, held, nothing_left
from tests.paths.world import FAR, NEAR, PORT, MakeNetns, MakeVeth, devices_of, opened
from xdpstack.device import interface
from xdpstack.device.holders import Holders
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root
TREE = Path(__file__).parents[2]
NOWHERE = "nothere"


@pytest.fixture
def pair(veth: MakeVeth) -> Veth:
    """Opened once, so that what Python and the libraries set up at the first time does not count as left behind."""
    made = veth(near=NEAR, far=FAR)
    opened(made.near).close()
    return made


def refused(kind: type[Exception], *ends: End, **options: Any) -> str:
    """What is said by the exception of an open that fails. It is of `kind` itself, and has a cause and a fix."""
    with nothing_left(*(end for end in ends if end.name != NOWHERE)):
        error = failure(*ends, **options)
    assert type(error) is kind, error
    assert error.cause
    assert error.fix
    assert isinstance(error, OSError | ValueError)
    assert not isinstance(error, OSError) or error.errno
    return str(error)


def failure(*ends: End, **options: Any) -> xdpstack.XdpstackError:
    """The exception of an open that fails, without its traceback, which would keep alive what the call had made."""
    try:
        opened(*ends, **options).close()
    except xdpstack.XdpstackError as error:
        return error.with_traceback(None)
    raise AssertionError("it opened")


@contextmanager
def another_process(end: End, *, transmit_only: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that has a stack over the interface: its program and queues, or queues alone."""
    code = (
        f"import sys, xdpstack\n"
        f"with xdpstack.open({end.name!r}, netns={end.netns.name!r}, frames=512, transmit_only={transmit_only}):\n"
        f"    print('open', flush=True)\n"
        f"    sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.communicate(timeout=60)
        assert process.returncode == 0


# ---- the interface ----


def test_no_such_interface(pair: Veth) -> None:
    said = refused(xdpstack.NoSuchInterface, End(pair.near.netns, NOWHERE))
    assert "no interface 'nothere'" in said
    assert "It has: lo, near0." in said


def test_one_of_two_interfaces_is_not_there(pair: Veth) -> None:
    """The first was attached and bound already, or might have been."""
    refused(xdpstack.NoSuchInterface, pair.near, End(pair.near.netns, NOWHERE))
    opened(pair.near).close()


def test_no_such_namespace(pair: Veth) -> None:
    with nothing_left(pair.near), pytest.raises(xdpstack.NamespaceError, match="ip netns list"):
        xdpstack.open("near0", netns="xs-nothere")


def test_an_interface_that_is_down(pair: Veth) -> None:
    pair.near.netns.ip("link set near0 down")
    assert "ip link set near0 up" in refused(xdpstack.InterfaceDown, pair.near)


def test_a_queue_that_is_not_there(pair: Veth) -> None:
    said = refused(xdpstack.ConfigurationError, pair.near, queues=[0, 3])
    assert "near0 has no queue 3" in said
    assert "ethtool -L near0" in said


def test_more_queues_than_the_workers_have_room_for(netns: MakeNetns, veth: MakeVeth) -> None:
    here = netns("here")
    many, few = veth(netns_near=here, queues=65), veth(netns_near=here, queues=2)
    opened(many.near, queues=list(range(64))).close()
    said = refused(xdpstack.ConfigurationError, many.near)
    assert "near0 has 65 queues" in said
    assert "or workers=2" in said
    opened(many.near, workers=2).close()
    said = refused(xdpstack.ConfigurationError, few.near, many.near)
    assert "near1 has 2 queues and near0 has 65 queues" in said


def test_an_mtu_whose_frames_do_not_fit(pair: Veth, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of before 6.6 has no packets over several frames; a newer one takes the MTU (test_device.py)."""
    pair.near.netns.ip("link set near0 mtu 4000")
    monkeypatch.setattr("xdpstack.device.interface.kernel_version", lambda: (6, 5))
    said = refused(xdpstack.MtuTooLarge, pair.near)
    assert "the MTU of near0 is 4000" in said
    assert "ip link set near0 mtu 1774, or frame_bytes=4096 (MTU 3822)" in said


def test_zero_copy_that_the_driver_has_not(pair: Veth) -> None:
    assert "The driver of near0 has no zero-copy." in refused(xdpstack.ModeRefused, pair.near, zero_copy=True)


# ---- somebody is there already ----


def test_another_stack_has_its_program_there(pair: Veth) -> None:
    with another_process(pair.near, transmit_only=False) as process:
        said = refused(xdpstack.ProgramAttached, pair.near)
        assert "near0 has another XDP program: program xs_xdp_frags" in said
        assert f"(pid {process.pid})" in said
        assert "End the process that holds its link" in said
    until(lambda: not pair.near.has_xdp())
    opened(pair.near).close()


def test_another_process_has_the_queue(pair: Veth) -> None:
    with another_process(pair.near, transmit_only=True) as process:
        said = refused(xdpstack.QueueTaken, pair.near)
        assert "queue 0 of near0 has another AF_XDP socket" in said
        assert f"(pid {process.pid})" in said
        assert "queues=[...]" in said
    opened(pair.near).close()


def test_this_process_has_the_queue(pair: Veth) -> None:
    with opened(pair.near, transmit_only=True) as stack, stack._control.lock:  # else it opens files now and then
        assert f"this process (pid {Path('/proc/self').readlink()})" in refused(xdpstack.QueueTaken, pair.near)


def test_this_process_has_the_program(pair: Veth) -> None:
    with opened(pair.near) as stack, stack._control.lock:  # else it visits the namespace now and then, in a thread
        said = refused(xdpstack.ProgramAttached, pair.near)
        assert f"held by this process (pid {os.getpid()})" in said
        assert "Fix: Close the stack that this process has on near0" in said


def test_offloaded_mode_says_why_in_a_line(pair: Veth) -> None:
    said = refused(xdpstack.ModeRefused, pair.near, mode="offloaded")
    assert "Loading it into the NIC failed: Invalid argument. Few NICs" in said
    assert "prefilter=Prefilter([...])" in said
    assert "libbpf" not in said


def test_a_queue_that_no_process_has_is_waited_for(pair: Veth, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is in no process any more, but the kernel has it for a while: here, on its way between two."""
    ends = socket.socketpair()
    with opened(pair.near, transmit_only=True) as stack:
        [xsk] = devices_of(stack).interfaces[0].sockets
        socket.send_fds(ends[0], [b"x"], [xsk.fileno()])

    def nobody(*_: object) -> Holders:
        for end in ends:
            end.close()
        return Holders((), exact=False, nobody=True)

    monkeypatch.setattr(interface, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(
        interface, "holders", lambda *_: Holders((), exact=False)
    )  # there may be one that is not to be seen
    with pytest.raises(xdpstack.QueueTaken):
        opened(pair.near)
    assert ends[0].fileno() != -1
    monkeypatch.setattr(interface, "holders", nobody)
    opened(pair.near).close()
    assert ends[0].fileno() == -1


def test_the_second_of_two_interfaces_is_taken(netns: MakeNetns, veth: MakeVeth) -> None:
    here = netns("here")
    one, two = veth(netns_near=here), veth(netns_near=here)
    opened(one.near, two.near).close()
    with another_process(two.near, transmit_only=False):
        refused(xdpstack.ProgramAttached, one.near, two.near)
        opened(one.near).close()


# ---- not allowed, not there: each in a process of its own ----

CHILD = """
import json, resource, sys
import xdpstack
from tests.paths.left import held
options, memory = json.loads(sys.argv[1]), int(sys.argv[2])
def attempt():
    try:
        xdpstack.open("near0", **options).close()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", "it opened"
attempt()
before = held()
if memory:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, resource.RLIM_INFINITY))
name, said = attempt()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
after = held()
print(json.dumps([name, said, "" if before == after else f"{before} -> {after}"]))
"""


def refused_in_a_process(pair: Veth, *before: str, memory: int = 0, **options: Any) -> tuple[str, str]:
    """Name and text of the exception, of a process that `before` (setpriv, ...) starts. Nothing is left in it.

    `memory` is how many bytes of address space it may have more than it has.
    """
    options = {"netns": pair.near.netns.name, "frames": 2048, **options}
    words = [*before, sys.executable, "-c", CHILD, json.dumps(options), str(memory)]
    done = subprocess.run(words, cwd=TREE, capture_output=True, text=True, check=True, timeout=60)
    name, said, left = json.loads(done.stdout)
    assert not left
    assert not pair.near.has_xdp()
    return name, said


@pytest.mark.parametrize(
    "taken, missing",
    [
        ("net_raw", "CAP_NET_RAW"),
        ("net_admin", "CAP_NET_ADMIN"),
        ("net_raw,bpf,sys_admin", "CAP_BPF and CAP_NET_RAW"),
    ],
)
def test_a_capability_is_missing(pair: Veth, taken: str, missing: str) -> None:
    less = ",".join(f"-{each}" for each in taken.split(","))
    name, said = refused_in_a_process(pair, "setpriv", f"--bounding-set={less}", f"--inh-caps={less}")
    assert name == "PrivilegeError"
    assert f"not permitted to open near0: {missing} missing" in said
    assert f"setcap {missing.lower().replace(' and ', ',')}+ep" in said


def test_an_ordinary_user(pair: Veth) -> None:
    name, said = refused_in_a_process(pair, "setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert name == "PrivilegeError"
    assert "CAP_BPF and CAP_NET_ADMIN and CAP_NET_RAW missing" in said


def test_more_frames_than_there_is_memory_for(pair: Veth) -> None:
    """2 GiB, of an address space that may grow by 1 GiB."""
    name, said = refused_in_a_process(pair, memory=1 << 30, frames=1 << 20)
    assert name == "OutOfMemory"
    assert "no 2147483648 bytes for 1048576 frames" in said
    assert "fewer frames" in said


def test_huge_pages_that_are_not_there(pair: Veth) -> None:
    """Of the 2 GiB that are asked for, the machine has less."""
    free = next(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "HugePages_Free" in line
    )
    assert free < 1024
    said = refused(xdpstack.OutOfMemory, pair.near, frames=1 << 20, huge_pages=True)
    assert "1024 huge pages of 2 MiB" in said
    assert "sysctl vm.nr_hugepages=" in said


def starved(attempt: Callable[[], Closes], *without_program: End) -> None:
    """With one file descriptor more each time, until it opens: what fails leaves nothing, and all say the same."""
    before = held()
    for limit in [number for number in range(3, 4096) if number not in before.descriptors][:60]:
        with limited(resource.RLIMIT_NOFILE, limit):
            try:
                attempt().close()
                return
            except xdpstack.TooManyOpenFiles as error:
                said = str(error)
        check_left(before)
        assert not any(end.has_xdp() for end in without_program)
        assert f"lets this process have {limit} file descriptors" in said
    raise AssertionError("60 more descriptors are not enough")


def test_too_few_file_descriptors(pair: Veth) -> None:
    starved(lambda: opened(pair.near), pair.near)


@pytest.mark.parametrize("address", ["::", "10.0.0.1"])
def test_too_few_file_descriptors_for_a_socket(pair: Veth, address: str) -> None:
    with opened(pair.near) as stack, stack._control.lock:  # else it opens files now and then
        stack.udp((address, PORT)).close()
        starved(lambda: stack.udp((address, PORT)))
        starved(lambda: stack.frames(xdpstack.EthertypeClaim(0x88B5)))
        assert stack._sockets.sockets == ()


class Closes(Protocol):
    """A stack, a socket."""

    def close(self) -> None: ...


@contextmanager
def limited(what: int, limit: int) -> Iterator[None]:
    """The soft limit of this process, for the length of the block."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))
