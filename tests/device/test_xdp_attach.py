"""Attaching the XDP program: modes, what else is attached, what is left behind. On veth pairs in own namespaces."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.device.veth import Veth, frame, ip, until, veth

from tests.device.test_xdp_libbpf import compiled
from tests.device.xdp_cases import MAC, v4
from xdpstack.device.attached import attached_programs, program_ids
from xdpstack.device.claims import EverythingBut, LocalAddress, SocketClaim
from xdpstack.device.deadman import NEVER
from xdpstack.device.verdict import Cause
from xdpstack.device.xdp import Mode, TableSizes, XdpProgram, hardware_address
from xdpstack.errors import (
    ConfigurationError,
    ModeRefused,
    MtuTooLarge,
    NoSuchInterface,
    PrivilegeError,
    ProgramAttached,
    TableFull,
)
from xdpstack.netlink.namespace import run_in

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
XDP_REDIRECT = 4


@pytest.fixture
def pair() -> Iterator[Veth]:
    with veth(queues=2) as made:
        yield made


def opened(pair: Veth, mode: Mode = "auto", frags: bool | None = None) -> XdpProgram:
    return run_in(pair.netns, lambda: XdpProgram.open(pair.near, 2, mode=mode, frags=frags))


def inside(pair: Veth, function: Callable[..., object], *arguments: object) -> object:
    return run_in(pair.netns, lambda: function(*arguments))


# ---- modes ----


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_the_mode_that_is_asked_for_is_what_the_kernel_says_it_is(pair: Veth, mode: Mode) -> None:
    with opened(pair, mode) as program:
        granted = run_in(pair.netns, program.attach)
        assert (granted.asked, granted.mode, granted.frags, granted.refused) == (mode, mode, True, ())
        assert program.attached
        assert inside(pair, program_ids, pair.near) == {mode: granted.program_id}
    assert inside(pair, program_ids, pair.near) == {}


def test_auto_takes_native_where_there_is_native(pair: Veth) -> None:
    with opened(pair) as program:
        granted = run_in(pair.netns, program.attach)
        assert (granted.asked, granted.mode, granted.refused) == ("auto", "native", ())


def test_auto_takes_generic_where_native_is_refused_and_says_why(pair: Veth) -> None:
    """The loopback has no native mode."""
    with run_in(pair.netns, lambda: XdpProgram.open("lo", 1)) as program:
        granted = run_in(pair.netns, program.attach)
        assert (granted.asked, granted.mode) == ("auto", "generic")
        assert [each.split(":")[0] for each in granted.refused] == [
            "native mode, frames of several buffers",
            "native mode, single-buffer frames",
        ]


def test_native_is_refused_where_there_is_none(pair: Veth) -> None:
    with run_in(pair.netns, lambda: XdpProgram.open("lo", 1, mode="native")) as program:
        with pytest.raises(ModeRefused, match="lo does not take an XDP program in native mode") as raised:
            run_in(pair.netns, program.attach)
        assert raised.value.errno == errno.EOPNOTSUPP
        assert not program.attached


def test_offloaded_is_refused_where_the_nic_runs_no_programs(pair: Veth) -> None:
    with pytest.raises(ModeRefused, match="offloaded"):
        opened(pair, "offloaded")


def test_a_program_without_frags_is_refused_where_frames_do_not_fit() -> None:
    with veth(mtu=9000) as pair:
        with opened(pair, "native", frags=False) as program, pytest.raises(MtuTooLarge, match="MTU"):
            run_in(pair.netns, program.attach)
        with opened(pair, "native", frags=True) as program:
            assert run_in(pair.netns, program.attach).frags


def test_the_twin_without_frags_decides_the_same(pair: Veth) -> None:
    with opened(pair, frags=False) as program, socket.socket(44, socket.SOCK_RAW) as xsk:
        granted = run_in(pair.netns, program.attach)
        assert not granted.frags
        program.set_socket(0, xsk.fileno())
        program.deadman.deadline_ns = NEVER
        program.claims.set_mac(bytes.fromhex(MAC.replace(":", "")))
        program.claims.set_local([LocalAddress("10.0.0.2")])
        program.claims.add(SocketClaim("10.0.0.2", 7))
        assert program.test_run(bytes(v4())).verdict == XDP_REDIRECT


def test_attaching_twice() -> None:
    with veth() as pair, opened(pair) as program:
        run_in(pair.netns, program.attach)
        with pytest.raises(ConfigurationError, match="attached to near0 already"):
            run_in(pair.netns, program.attach)


# ---- what is not there, and what is not allowed ----


def test_an_interface_that_is_not_there(pair: Veth) -> None:
    with pytest.raises(NoSuchInterface, match="no interface 'near9'") as raised:
        run_in(pair.netns, lambda: XdpProgram.open("near9", 1))
    assert "near0" in raised.value.cause


def test_an_interface_that_went_away_before_attaching(pair: Veth) -> None:
    with opened(pair) as program:
        ip("-n", pair.netns, "link", "delete", pair.near)
        with pytest.raises(NoSuchInterface):
            run_in(pair.netns, program.attach)


def test_an_interface_that_goes_away_while_attached(pair: Veth) -> None:
    with opened(pair) as program:
        run_in(pair.netns, program.attach)
        program.claims.set_local([])
        program.claims.add(EverythingBut())
        ip("-n", pair.netns, "link", "delete", pair.near)
        until(lambda: not program.attached)


def test_without_privilege_the_missing_capabilities_are_named() -> None:
    script = "from xdpstack.device.xdp import XdpProgram; XdpProgram.open('lo', 1)"
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]
    run = subprocess.run(
        [*command, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert PrivilegeError.__name__ in run.stderr
    assert "CAP_BPF and CAP_NET_ADMIN missing" in run.stderr


def test_a_full_table_takes_no_half_of_a_change(pair: Veth) -> None:
    sizes = TableSizes(sockets=8)
    with run_in(pair.netns, lambda: XdpProgram.open(pair.near, 1, sizes=sizes)) as program:
        program.claims.set_local([LocalAddress("10.0.0.2")])
        with pytest.raises(TableFull, match="xs_sockets has room for 8 entries"):
            program.claims.add(*(SocketClaim("10.0.0.2", port) for port in range(1, 30)))
        assert len(program.claims) == 0
        program.claims.add(*(SocketClaim("10.0.0.2", port) for port in range(100, 108)))


# ---- other programs ----


def test_another_program_is_named_with_id_mode_and_holder_and_stays(pair: Veth) -> None:
    with opened(pair, "generic") as first, opened(pair, "native") as second:
        other = run_in(pair.netns, first.attach)
        with pytest.raises(ProgramAttached) as raised:
            run_in(pair.netns, second.attach)
        message = str(raised.value)
        assert f"program xs_xdp_frags (id {other.program_id}), generic mode" in message
        assert f"attached by link {other.link_id}" in message
        assert f"(pid {os.getpid()})" in message
        assert inside(pair, program_ids, pair.near) == {"generic": other.program_id}


def test_a_program_attached_through_netlink_is_named_and_stays(pair: Veth, tmp_path: Path) -> None:
    program_file = tmp_path / "other.o"
    source = '#include <linux/bpf.h>\n__attribute__((section("xdp"), used)) int other(struct xdp_md *c) { return 2; }\n'
    program_file.write_bytes(compiled(source, tmp_path))
    ip("-n", pair.netns, "link", "set", pair.near, "xdpgeneric", "obj", str(program_file), "sec", "xdp")
    (other,) = run_in(pair.netns, lambda: attached_programs(pair.near))
    assert (other.name, other.mode, other.link_id) == ("other", "generic", None)
    for mode in ("native", "generic", "auto"):
        with opened(pair, mode) as program:  # type: ignore[arg-type]
            with pytest.raises(ProgramAttached, match=rf"program other \(id {other.program_id}\)") as raised:
                run_in(pair.netns, program.attach)
            assert raised.value.fix == "ip link set dev near0 xdpgeneric off"
    assert inside(pair, program_ids, pair.near) == {"generic": other.program_id}


# ---- what the program sees ----


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_frames_of_the_wire_are_decided(pair: Veth, mode: Mode) -> None:
    """Whole journeys to the socket are tested with the socket; here no socket is in the slot, and the kernel has it."""
    with opened(pair, mode) as program:
        run_in(pair.netns, program.attach)
        program.deadman.deadline_ns = NEVER
        program.claims.set_local([LocalAddress("10.0.0.2")])
        program.claims.add(SocketClaim("10.0.0.2", 7))
        assert run_in(pair.netns, lambda: hardware_address(pair.near)) == pair.mac()
        far = pair.raw()
        to_us = bytearray(bytes(v4()))
        to_us[:6] = pair.mac()
        far.send(bytes(to_us))
        far.send(frame(pair.mac(far=True), pair.mac(), b"unclaimed"))
        until(lambda: program.counters().frames[Cause.PASS_NO_SOCKET] == 1)
        until(lambda: program.counters().frames[Cause.PASS_UNCLAIMED] >= 1)


def test_each_queue_has_its_own_socket(pair: Veth) -> None:
    with opened(pair, "native") as program, socket.socket(44, socket.SOCK_RAW) as xsk:
        run_in(pair.netns, program.attach)
        program.deadman.deadline_ns = NEVER
        program.claims.set_mac(bytes.fromhex(MAC.replace(":", "")))
        program.claims.set_local([LocalAddress("10.0.0.2")])
        program.claims.add(SocketClaim("10.0.0.2", 7))
        program.set_socket(1, xsk.fileno())
        assert run_in(pair.netns, lambda: program.test_run(bytes(v4()), queue=1)).verdict == XDP_REDIRECT
        assert program.counters().frames[Cause.PASS_NO_SOCKET] == 0
        program.clear_socket(1)
        run_in(pair.netns, lambda: program.test_run(bytes(v4()), queue=1))
        assert program.counters().frames[Cause.PASS_NO_SOCKET] == 1


@pytest.mark.parametrize("frags", [True, False])
def test_metadata_names_the_claim(pair: Veth, frags: bool) -> None:
    made = run_in(pair.netns, lambda: XdpProgram.open(pair.near, 1, metadata=True, frags=frags))
    with made as program, socket.socket(44, socket.SOCK_RAW) as xsk:
        program.deadman.deadline_ns = NEVER
        program.claims.set_mac(bytes.fromhex(MAC.replace(":", "")))
        program.claims.set_local([LocalAddress("10.0.0.2")])
        first, second = program.claims.add(SocketClaim("10.0.0.2", 7), EverythingBut())
        program.set_socket(0, xsk.fileno())
        for port, claim_id in ((7, first), (8, second)):
            sent = bytearray(bytes(v4()))
            sent[37] = port
            run = program.test_run(bytes(sent))
            assert (run.verdict, run.claim_id, run.frame) == (XDP_REDIRECT, claim_id, bytes(sent))


# ---- nothing is left behind ----


def test_claims_are_out_before_the_program_is_detached(pair: Veth) -> None:
    program = opened(pair)
    run_in(pair.netns, program.attach)
    program.claims.add(SocketClaim("10.0.0.2", 7))
    order = []
    clear, detach = program.claims.clear, program._detach
    program.claims.clear = lambda: (order.append("claims"), clear())  # type: ignore[method-assign]
    program._detach = lambda: (order.append("detach"), detach())  # type: ignore[method-assign]
    program.close()
    assert order == ["claims", "detach"]
    assert not program.attached
    program.close()


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_a_killed_process_leaves_nothing(pair: Veth, mode: str) -> None:
    script = (
        "import sys, time\n"
        "from xdpstack.device.xdp import XdpProgram\n"
        "from xdpstack.device.claims import EverythingBut\n"
        f"program = XdpProgram.open({pair.near!r}, 2, mode={mode!r})\n"
        "program.attach(); program.claims.set_local([]); program.claims.add(EverythingBut())\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    command = ["ip", "netns", "exec", pair.netns, sys.executable, "-c", script]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert list(inside(pair, program_ids, pair.near)) == [mode]  # type: ignore[call-overload]
        child.send_signal(signal.SIGKILL)
    until(lambda: inside(pair, program_ids, pair.near) == {})
    with opened(pair, mode) as again:  # type: ignore[arg-type]
        assert run_in(pair.netns, again.attach).mode == mode


def test_open_and_close_leave_no_descriptors_and_no_time(pair: Veth) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, start = descriptors(), time.monotonic()
    for _ in range(5):
        with opened(pair) as program:
            run_in(pair.netns, program.attach)
    assert descriptors() == before
    assert time.monotonic() - start < 5
