"""Attaching the XDP program: modes, what else is attached, what is left behind. On veth pairs in own namespaces."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.device.test_xdp_libbpf import compiled
from tests.device.xdp_cases import MAC, v4
from tests.device.xdp_sockets import unbound_socket
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
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
XDP_REDIRECT = 4


MakeVeth = Callable[..., Veth]
OUR_MAC = bytes.fromhex(MAC.replace(":", ""))


@pytest.fixture
def near(veth: MakeVeth) -> End:
    """One end of a pair with two queues; programs are attached here."""
    return veth(queues=2).near


def opened(end: End, mode: Mode = "auto", frags: bool | None = None) -> XdpProgram:
    return end.netns.call(lambda: XdpProgram.open(end.name, 2, mode=mode, frags=frags))


def ids(end: End) -> dict[str, int]:
    return end.netns.call(lambda: program_ids(end.name))


def claim_port_7(program: XdpProgram, mac: bytes = OUR_MAC) -> None:
    program.deadman.deadline_ns = NEVER
    program.claims.set_mac(mac)
    program.claims.set_local([LocalAddress("10.0.0.2")])
    program.claims.add(SocketClaim("10.0.0.2", 7))


# ---- modes ----


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_the_mode_that_is_asked_for_is_what_the_kernel_says_it_is(near: End, mode: Mode) -> None:
    with opened(near, mode) as program:
        granted = near.netns.call(program.attach)
        assert (granted.asked, granted.mode, granted.frags, granted.refused) == (mode, mode, True, ())
        assert program.attached
        assert ids(near) == {mode: granted.program_id}
    assert ids(near) == {}


def test_auto_takes_native_where_there_is_native(near: End) -> None:
    with opened(near) as program:
        granted = near.netns.call(program.attach)
        assert (granted.asked, granted.mode, granted.refused) == ("auto", "native", ())


def test_auto_takes_generic_where_native_is_refused_and_says_why(near: End) -> None:
    """The loopback has no native mode."""
    with near.netns.call(lambda: XdpProgram.open("lo", 1)) as program:
        granted = near.netns.call(program.attach)
        assert (granted.asked, granted.mode) == ("auto", "generic")
        assert [each.split(":")[0] for each in granted.refused] == [
            "native mode, frames of several buffers",
            "native mode, single-buffer frames",
        ]


def test_native_is_refused_where_there_is_none(near: End) -> None:
    with near.netns.call(lambda: XdpProgram.open("lo", 1, mode="native")) as program:
        with pytest.raises(ModeRefused, match="lo does not take an XDP program in native mode") as raised:
            near.netns.call(program.attach)
        assert raised.value.errno == errno.EOPNOTSUPP
        assert not program.attached


def test_offloaded_is_refused_where_the_nic_runs_no_programs(near: End) -> None:
    with pytest.raises(ModeRefused, match="offloaded"):
        opened(near, "offloaded")


def test_a_program_without_frags_is_refused_where_frames_do_not_fit(veth: MakeVeth) -> None:
    near = veth(queues=2, mtu=9000).near
    with opened(near, "native", frags=False) as program, pytest.raises(MtuTooLarge, match="MTU"):
        near.netns.call(program.attach)
    with opened(near, "native", frags=True) as program:
        assert near.netns.call(program.attach).frags


def test_the_twin_without_frags_decides_the_same(near: End) -> None:
    with opened(near, frags=False) as program, unbound_socket() as xsk:
        granted = near.netns.call(program.attach)
        assert not granted.frags
        program.set_socket(0, xsk)
        claim_port_7(program)
        assert program.test_run(bytes(v4())).verdict == XDP_REDIRECT


def test_attaching_twice(near: End) -> None:
    with opened(near) as program:
        near.netns.call(program.attach)
        with pytest.raises(ConfigurationError, match="attached to near0 already"):
            near.netns.call(program.attach)


# ---- what is not there, and what is not allowed ----


def test_an_interface_that_is_not_there(near: End) -> None:
    with pytest.raises(NoSuchInterface, match="no interface 'near9'") as raised:
        near.netns.call(lambda: XdpProgram.open("near9", 1))
    assert "near0" in raised.value.cause


def test_an_interface_that_went_away_before_attaching(near: End) -> None:
    with opened(near) as program:
        near.netns.ip(f"link delete {near.name}")
        with pytest.raises(NoSuchInterface):
            near.netns.call(program.attach)


def test_an_interface_that_goes_away_while_attached(near: End) -> None:
    with opened(near) as program:
        near.netns.call(program.attach)
        program.claims.set_local([])
        program.claims.add(EverythingBut())
        near.netns.ip(f"link delete {near.name}")
        until(lambda: not program.attached)


def test_without_privilege_the_missing_capabilities_are_named() -> None:
    script = "from xdpstack.device.xdp import XdpProgram; XdpProgram.open('lo', 1)"
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    run = subprocess.run(
        [*command, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert PrivilegeError.__name__ in run.stderr
    assert "CAP_BPF and CAP_NET_ADMIN missing" in run.stderr


def test_a_full_table_takes_no_half_of_a_change(near: End) -> None:
    sizes = TableSizes(sockets=8)
    with near.netns.call(lambda: XdpProgram.open(near.name, 1, sizes=sizes)) as program:
        program.claims.set_local([LocalAddress("10.0.0.2")])
        with pytest.raises(TableFull, match="xs_sockets has room for 8 entries"):
            program.claims.add(*(SocketClaim("10.0.0.2", port) for port in range(1, 30)))
        assert len(program.claims) == 0
        program.claims.add(*(SocketClaim("10.0.0.2", port) for port in range(100, 108)))


# ---- other programs ----


def test_another_program_is_named_with_id_mode_and_holder_and_stays(near: End) -> None:
    with opened(near, "generic") as first, opened(near, "native") as second:
        other = near.netns.call(first.attach)
        with pytest.raises(ProgramAttached) as raised:
            near.netns.call(second.attach)
        message = str(raised.value)
        assert f"program xs_xdp_frags (id {other.program_id}), generic mode" in message
        assert f"attached by link {other.link_id}" in message
        assert f"(pid {os.getpid()})" in message
        assert ids(near) == {"generic": other.program_id}


def test_a_program_attached_through_netlink_is_named_and_stays(near: End, tmp_path: Path) -> None:
    program_file = tmp_path / "other.o"
    source = '#include <linux/bpf.h>\n__attribute__((section("xdp"), used)) int other(struct xdp_md *c) { return 2; }\n'
    program_file.write_bytes(compiled(source, tmp_path))
    near.netns.ip(f"link set {near.name} xdpgeneric obj {program_file} sec xdp")
    (other,) = near.netns.call(lambda: attached_programs(near.name))
    assert (other.name, other.mode, other.link_id) == ("other", "generic", None)
    modes: tuple[Mode, ...] = ("native", "generic", "auto")
    for mode in modes:
        with opened(near, mode) as program:
            with pytest.raises(ProgramAttached, match=rf"program other \(id {other.program_id}\)") as raised:
                near.netns.call(program.attach)
            assert raised.value.fix == "ip link set dev near0 xdpgeneric off"
    assert ids(near) == {"generic": other.program_id}
    near.netns.ip(f"link set {near.name} xdpgeneric off")


# ---- what the program sees ----


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_frames_of_the_wire_are_decided(veth: MakeVeth, peer: Callable[[End], Peer], mode: Mode) -> None:
    """No socket is in the slot here, so the kernel has the claimed one too."""
    pair = veth(queues=2)
    with opened(pair.near, mode) as program:
        pair.near.netns.call(program.attach)
        mac = pair.near.netns.call(lambda: hardware_address(pair.near.name))
        assert mac == bytes.fromhex(pair.near.mac.replace(":", ""))
        claim_port_7(program, mac)
        far = peer(pair.far)
        far.send(v4(mac=pair.near.mac), Ether(dst=pair.near.mac, type=0x88B5) / Raw(bytes(46)))
        until(lambda: program.counters().frames[Cause.PASS_NO_SOCKET] == 1)
        until(lambda: program.counters().frames[Cause.PASS_UNCLAIMED] >= 1)


def test_each_queue_has_its_own_socket(near: End) -> None:
    with opened(near, "native") as program, unbound_socket() as xsk:
        near.netns.call(program.attach)
        claim_port_7(program)
        program.set_socket(1, xsk)
        assert near.netns.call(lambda: program.test_run(bytes(v4()), queue=1)).verdict == XDP_REDIRECT
        assert program.counters().frames[Cause.PASS_NO_SOCKET] == 0
        program.clear_socket(1)
        near.netns.call(lambda: program.test_run(bytes(v4()), queue=1))
        assert program.counters().frames[Cause.PASS_NO_SOCKET] == 1


@pytest.mark.parametrize("frags", [True, False])
def test_metadata_names_the_claim(near: End, frags: bool) -> None:
    made = near.netns.call(lambda: XdpProgram.open(near.name, 1, metadata=True, frags=frags))
    with made as program, unbound_socket() as xsk:
        program.deadman.deadline_ns = NEVER
        program.claims.set_mac(bytes.fromhex(MAC.replace(":", "")))
        program.claims.set_local([LocalAddress("10.0.0.2")])
        first, second = program.claims.add(SocketClaim("10.0.0.2", 7), EverythingBut())
        program.set_socket(0, xsk)
        for port, claim_id in ((7, first), (8, second)):
            sent = bytearray(bytes(v4()))
            sent[37] = port
            run = program.test_run(bytes(sent))
            assert (run.verdict, run.claim_id, run.frame) == (XDP_REDIRECT, claim_id, bytes(sent))


# ---- nothing is left behind ----


def test_claims_are_out_before_the_program_is_detached(near: End, monkeypatch: pytest.MonkeyPatch) -> None:
    program = opened(near)
    near.netns.call(program.attach)
    program.claims.add(SocketClaim("10.0.0.2", 7))
    order = []
    clear, detach = program.claims.clear, program._detach
    monkeypatch.setattr(program.claims, "clear", lambda: (order.append("claims"), clear()))
    monkeypatch.setattr(program, "_detach", lambda: (order.append("detach"), detach()))
    program.close()
    assert order == ["claims", "detach"]
    assert not program.attached
    program.close()


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_a_killed_process_leaves_nothing(near: End, mode: Mode) -> None:
    script = (
        "import sys, time\n"
        "from xdpstack.device.xdp import XdpProgram\n"
        "from xdpstack.device.claims import EverythingBut\n"
        f"program = XdpProgram.open({near.name!r}, 2, mode={mode!r})\n"
        "program.attach(); program.claims.set_local([]); program.claims.add(EverythingBut())\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    command = ["ip", "netns", "exec", near.netns.name, sys.executable, "-c", script]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert list(ids(near)) == [mode]
        child.send_signal(signal.SIGKILL)
    until(lambda: ids(near) == {})
    with opened(near, mode) as again:
        assert near.netns.call(again.attach).mode == mode


def test_open_and_close_leave_no_descriptors_and_no_time(near: End) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, start = descriptors(), time.monotonic()
    for _ in range(5):
        with opened(near) as program:
            near.netns.call(program.attach)
    assert descriptors() == before
    assert time.monotonic() - start < 5
