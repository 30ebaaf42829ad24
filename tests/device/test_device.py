"""Interfaces opened as a stack opens them: what is asked, what is granted, what is refused and why."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

import xdpstack
from tests.device.harness import EXPERIMENTAL, Harness, frame
from xdpstack.device import ethtool, netdev, queues
from xdpstack.device.claims import EthertypeClaim
from xdpstack.device.device import KernelBackend
from xdpstack.device.local import local_addresses
from xdpstack.device.options import Options
from xdpstack.device.prefilter import Prefilter, PrefilterProgram
from xdpstack.device.stripping import STRIPPING, tags_taken_off
from xdpstack.device.tuning.asked import Tuning
from xdpstack.errors import (
    ClaimTaken,
    ConfigurationError,
    InterfaceDown,
    ModeRefused,
    NoSuchInterface,
    OutOfMemory,
    ProgramAttached,
    QueueTaken,
)
from xdpstack.native.core import Core
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.peer import Peer
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import until

pytestmark = pytest.mark.root
MakeNetns, MakeVeth, MakePeer = Callable[..., Namespace], Callable[..., Veth], Callable[..., Peer]
CLAIM = EthertypeClaim(EXPERIMENTAL)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_lifts_only_what_is_claimed(mode: str, veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth(queues=2)
    raw = peer(pair.far)
    with Harness() as harness:
        backend = harness.open(pair.near, mode=mode)
        backend.claim(CLAIM)
        claimed = frame(pair.far, pair.near, b"a" * 100)
        other = frame(pair.far, pair.near, b"b" * 100, EXPERIMENTAL + 1)
        for _ in range(10):
            raw.send(other, claimed)
        assert harness.receive(10) == [claimed] * 10
        assert backend.stats()["xdp.rx.redirect_ethertype"] == 10
        before = backend.stats()["xdp.rx.pass_unclaimed"]
        assert before >= 10
        backend.unclaim(CLAIM)
        raw.send(claimed)
        until(lambda: backend.stats()["xdp.rx.pass_unclaimed"] > before)
        assert harness.poll() == 0


def test_says_what_was_granted(veth: MakeVeth) -> None:
    pair = veth(queues=2)
    with Harness() as harness:
        backend = KernelBackend("near0", options=Options(netns=pair.near.netns.name))
        harness.backend = backend
        [device], harness.mirror = backend.open(harness.core)
        assert (device.name, device.index, device.ifindex) == ("near0", 0, pair.near.index)
        assert device.mac.hex(":") == pair.near.mac
        assert (device.asked, device.mode, device.zero_copy, device.driver) == ("auto", "native", False, "veth")
        assert device.queues == (0, 1)
        assert device.partial_checksums
        assert not device.multi_buffer
        assert device.why.pop("zero_copy") == "The driver of near0 has no zero-copy."
        assert device.vlan_stripping
        assert list(device.why) == ["vlan_stripping"]
        assert backend.info()["registrations"] == 1


@pytest.mark.parametrize(
    "options, cures",
    [
        (Options(), ['metadata=("vlan",)', "ethtool -K PEER tx-vlan-hw-insert off"]),
        (Options(tune=Tuning(vlan_stripping=False)), ['metadata=("vlan",)', "ethtool -K PEER tx-vlan-hw-insert off"]),
        (Options(mode="generic"), ["counts as untagged: ethtool -K PEER tx-vlan-hw-insert off."]),
        (Options(metadata=("vlan",)), []),
        (Options(transmit_only=True), []),
    ],
)
def test_says_whether_vlan_tags_may_not_be_seen(options: Options, cures: list[str], veth: MakeVeth) -> None:
    """On veth the sender puts them beside the frame, whatever is set at the receiver."""
    pair = veth()
    with Harness() as harness:
        backend = KernelBackend("near0", options=replace(options, netns=pair.near.netns.name))
        harness.backend = backend
        [device], harness.mirror = backend.open(harness.core)
        assert device.vlan_stripping == bool(cures) == ("vlan_stripping" in device.why)
        assert all(cure in device.why["vlan_stripping"] for cure in cures)


def test_a_nic_that_takes_tags_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it does, and whoever may ask it is told so."""
    on = {name: ethtool.Offload(name in STRIPPING[:1], fixed=False) for name in STRIPPING}
    gives = netdev.NetdevFeatures(netdev.XdpFeature.BASIC, 0, netdev.RxMetadata.VLAN_TAG)
    monkeypatch.setattr(ethtool, "offloads", lambda name: on)
    monkeypatch.setattr(netdev, "features", lambda ifindex: gives)
    said = tags_taken_off("eth7", 7, "ice", "native", ())
    assert "eth7 takes off (rx-vlan-hw-parse)" in said
    assert 'metadata=("vlan",) asks for it; or Tuning(vlan_stripping=False)' in said
    assert "ethtool -K eth7 rx-vlan-hw-parse off." in said
    assert "metadata" not in tags_taken_off("eth7", 7, "ice", "generic", ())
    on[STRIPPING[0]] = ethtool.Offload(False, fixed=False)
    assert tags_taken_off("eth7", 7, "ice", "native", ()) == ""


def test_a_large_mtu_takes_several_frames(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth(mtu=9000)
    raw = peer(pair.far)
    with Harness() as harness:
        backend = harness.open(pair.near)
        backend.claim(CLAIM)
        assert all(xsk.multi_buffer for xsk in backend.interfaces[0].sockets)
        jumbo = frame(pair.far, pair.near, bytes(8000))
        raw.send(jumbo)
        assert harness.receive(1) == [jumbo]


def test_queues_can_be_chosen(veth: MakeVeth) -> None:
    pair = veth(queues=3)
    with Harness() as harness:
        backend = harness.open(pair.near, queues=[2, 0])
        assert [xsk.queue for xsk in backend.interfaces[0].sockets] == [2, 0]
        assert backend.devices[0].why["queues"].startswith("What comes by queue 1 is the kernel's, claimed or not")


def test_two_interfaces(netns: MakeNetns, veth: MakeVeth, peer: MakePeer) -> None:
    here = netns("here")
    one, two = veth(netns_near=here), veth(netns_near=here)
    left, right = peer(one.far), peer(two.far)
    with Harness() as harness:
        backend = harness.open(one.near, two.near)
        backend.claim(CLAIM)
        assert backend.info()["registrations"] == 1
        left.send(frame(one.far, one.near, b"l" * 60))
        right.send(frame(two.far, two.near, b"r" * 60))
        assert sorted(each[14:15] for each in harness.receive(2)) == [b"l", b"r"]


def test_half_of_the_frames_are_left_for_sending_and_for_sockets(netns: MakeNetns, veth: MakeVeth) -> None:
    """However many queues and devices wait for packets: rings of two devices could take all of them."""
    here = netns("here")
    names = [veth(netns_near=here, queues=2).near.name for _ in range(2)]
    with xdpstack.open(*names, netns=here.name, frames=4096, rx_ring=2048) as stack:
        sockets = [xsk for interface in stack._backend.interfaces for xsk in interface.sockets]  # type: ignore[attr-defined]
        assert [xsk.state().filled for xsk in sockets] == [512] * 4


def test_transmit_only_needs_no_program(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    with Harness() as harness:
        backend = harness.open(pair.near, transmit_only=True)
        assert not pair.near.has_xdp()
        with pytest.raises(ConfigurationError, match="nothing can be claimed"):
            backend.claim(CLAIM)


def test_a_claim_is_taken_by_all_interfaces_or_none(netns: MakeNetns, veth: MakeVeth) -> None:
    here = netns("here")
    one, two = veth(netns_near=here), veth(netns_near=here)
    with Harness() as harness:
        backend = harness.open(one.near, two.near)
        first, second = (interface.program for interface in backend.interfaces)
        assert first is not None
        assert second is not None
        second.claims.add(CLAIM)
        with pytest.raises(ClaimTaken):
            backend.claim(CLAIM)
        assert len(first.claims) == 0


def test_local_addresses(veth: MakeVeth) -> None:
    pair = veth(near=("10.9.0.1/24",))
    with Harness() as harness:
        harness.open(pair.near)
        assert harness.mirror is not None
        found = local_addresses(harness.mirror.snapshot, pair.near.index)
        plain = {str(each.address): each.group for each in found}
        assert (plain["10.9.0.1"], plain["10.9.0.255"], plain["224.0.0.1"]) == (False, True, True)
        assert "127.0.0.0" not in plain


def test_kernel_sockets_are_in_the_namespace(veth: MakeVeth) -> None:
    pair = veth(near=("10.9.0.1/24",))
    with Harness() as harness:
        made = harness.open(pair.near).kernel_socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert made is not None
        with made:
            made.bind(("10.9.0.1", 0))


# ---- refused ----


def refused(*ends: End | str, netns: Namespace, frame_bytes: int = 2048, **options: object) -> Exception:
    """The exception of an open that fails. Nothing is left of it."""
    core = Core(frames=256, frame_bytes=frame_bytes)
    names = [end if isinstance(end, str) else end.name for end in ends]
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each test looks at what it is
        KernelBackend(*names, options=Options(netns=netns.name, **options)).open(core)
    assert core.frame_counts()["free"] == 256
    return raised.value


def test_no_such_interface(veth: MakeVeth) -> None:
    pair = veth()
    error = refused("nothere", netns=pair.near.netns)
    assert isinstance(error, NoSuchInterface)
    assert "It has: lo, near0." in str(error)


def test_interface_down(veth: MakeVeth) -> None:
    pair = veth()
    pair.near.netns.ip("link set near0 down")
    error = refused(pair.near, netns=pair.near.netns)
    assert isinstance(error, InterfaceDown)
    assert "ip link set near0 up" in str(error)


def test_zero_copy_that_the_driver_has_not(veth: MakeVeth) -> None:
    pair = veth()
    error = refused(pair.near, netns=pair.near.netns, zero_copy=True)
    assert isinstance(error, ModeRefused)
    assert "no zero-copy" in str(error)


def test_no_such_queue(veth: MakeVeth) -> None:
    pair = veth(queues=2)
    error = refused(pair.near, netns=pair.near.netns, queues=[0, 5])
    assert isinstance(error, ConfigurationError)
    assert "no queue 5" in str(error)
    assert "0, 1" in str(error)


def test_another_program_is_named(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        harness.attach(pair.near)
        error = refused(pair.near, netns=pair.near.netns)
        assert isinstance(error, ProgramAttached)
        assert "redirect_all" in str(error)


def test_what_was_asked_is_told(veth: MakeVeth) -> None:
    pair = veth()
    with Harness() as harness:
        backend = harness.open(pair.near, metadata=("hash",), offloads=("checksum",))
        asked = backend.info()["asked"]
        assert (asked["metadata"], asked["offloads"], asked["broker"]) == (("hash",), ("checksum",), None)


def test_no_counters_are_read_of_a_closed_prefilter(veth: MakeVeth, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = veth()
    with Harness() as harness:
        backend = harness.open(pair.near)
        prefilter = PrefilterProgram.load("near0", Prefilter(["192.0.2.1"]), offload=False)
        backend._prefilters.append(prefilter)
        assert "near0.prefilter.passed" not in backend.stats()  # zero is left out
        backend.close()
        monkeypatch.setattr(prefilter, "counts", lambda: pytest.fail("its maps are freed"))
        backend.stats()


@pytest.mark.parametrize("closing", [False, True])
def test_frames_of_a_nic_come_home_when_the_kernel_has_let_go_of_its_queues(
    closing: bool, veth: MakeVeth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In zero-copy the NIC writes to them until then. At the end nobody uses them again, and nobody waits."""
    pair = veth(queues=2)
    with Harness() as harness:
        backend = harness.open(pair.near)
        [interface] = backend.interfaces
        filled = harness.core.frame_counts()["filled"]
        seen: list[tuple[int, bool]] = []

        def look(ifindex: int) -> list[netdev.RxQueue] | None:
            found = read(ifindex)
            seen.append((harness.core.frame_counts()["filled"], any(queue.xsk for queue in found or ())))
            return found

        read = netdev.rx_queues
        interface._granted_zero_copy = True
        monkeypatch.setattr(netdev, "rx_queues", look)
        assert interface.unbind(await_release=not closing) == filled > 0
        assert harness.core.frame_counts()["filled"] == 0
        assert {count for count, _ in seen} == (set() if closing else {filled})
        assert closing or not seen[-1][1]


def test_a_queue_that_is_not_let_go_of_is_not_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "RELEASE_SECONDS", 0.01)
    monkeypatch.setattr(
        netdev, "rx_queues", lambda ifindex: [netdev.RxQueue(0, xsk=True), netdev.RxQueue(1, xsk=False)]
    )
    assert not queues.queues_released(7, [0, 1])
    assert queues.queues_released(7, [1])
    monkeypatch.setattr(netdev, "rx_queues", lambda ifindex: None)
    assert queues.queues_released(7, [0])


def test_all_interfaces_of_a_failed_open_are_given_back(netns: MakeNetns, veth: MakeVeth) -> None:
    here = netns("here")
    one, two = veth(netns_near=here), veth(netns_near=here, queues=2)
    assert isinstance(refused(one.near, two.near, netns=here, queues=[0, 1]), ConfigurationError)
    assert not one.near.has_xdp()
    assert not two.near.has_xdp()


def test_names_are_checked() -> None:
    with pytest.raises(ConfigurationError):
        KernelBackend()
    with pytest.raises(ConfigurationError):
        KernelBackend("a", "a")
    with pytest.raises(ConfigurationError, match="1 to 16 interfaces"):
        KernelBackend(*map(str, range(17)))


HOLDER = """
import socket, sys
from xdpstack.device.umem import Umem
from xdpstack.device.xsk import Rings
from xdpstack.native.core import Core
from xdpstack.netlink import run_in
umem = Umem(Core(frames=256))
xsk = run_in(sys.argv[1], lambda: umem.open(socket.if_nametoindex(sys.argv[2]), 0, Rings(64, 64, 64, 64, 64), 0))
print("bound", flush=True)
sys.stdin.read()
umem.release(xsk)
"""


@contextmanager
def holder(end: End) -> Iterator[subprocess.Popen[str]]:
    """Another process that has queue 0."""
    words = [sys.executable, "-c", HOLDER, end.netns.name, end.name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "bound\n"
        yield process
        process.communicate(timeout=60)


def test_the_holder_of_a_queue_is_named(veth: MakeVeth) -> None:
    pair = veth()
    with holder(pair.near) as process:
        error = refused(pair.near, netns=pair.near.netns)
        assert isinstance(error, QueueTaken)
        assert f"(pid {process.pid})" in str(error)
    assert not pair.near.has_xdp()


def in_a_process(code: str, *words: str) -> list[str]:
    """Runs `code` with a Core `core`; the name and text of the exception it ends with."""
    program = f"""
import json
from xdpstack.device.device import KernelBackend
from xdpstack.device.options import Options
from xdpstack.native.core import Core
try:
    {code}
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    done = subprocess.run(
        [*words, sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return list(json.loads(done.stdout))


def test_missing_capabilities_are_named() -> None:
    caps = "-net_raw,-bpf,-sys_admin"
    kind, words = in_a_process(
        'KernelBackend("lo").open(Core(frames=256))', "setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"
    )
    assert kind == "PrivilegeError"
    assert "CAP_BPF and CAP_NET_RAW missing" in words
    assert "setcap" in words


@pytest.mark.parametrize("limits, opens", [("1048576", False), ("1048576:8388608", True)])
def test_frames_beyond_the_limit_of_locked_memory(limits: str, opens: bool, veth: MakeVeth) -> None:
    """The limit counts for who has no CAP_IPC_LOCK. A soft one is raised."""
    pair = veth()
    code = f"""
    core, backend = Core(frames=2048), KernelBackend("near0", options=Options(netns="{pair.near.netns}"))
    _, mirror = backend.open(core)
    backend.close()
    mirror.close()
    raise RuntimeError("it opened")"""
    limited = ("prlimit", f"--memlock={limits}", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock")
    kind, words = in_a_process(code, *limited)
    assert not pair.near.has_xdp()
    if opens:
        assert (kind, words) == ("RuntimeError", "it opened")
    else:
        assert kind == OutOfMemory.__name__
        assert "4194304 bytes of frames cannot be pinned for queue 0 of near0" in words
        assert "RLIMIT_MEMLOCK" in words
