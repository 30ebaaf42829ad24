"""Our program beside others that libxdp's dispatcher calls.

A dispatcher calls programs that replace functions of its own (BPF_PROG_TYPE_EXT). There are machines whose kernel is told to
load none: there it is tested that this is said and that nothing is left, and the rest in a guest (tests/nic/).
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xdpstack
from tests.device.broker_client import Client
from tests.device.test_xdp_libbpf import compiled
from xdpstack.device import libxdp
from xdpstack.device.attached import attached_programs
from xdpstack.device.doctor_interface import program_findings
from xdpstack.device.drivers import native_lacks
from xdpstack.device.joined import check_there
from xdpstack.device.libbpf import BpfObject
from xdpstack.errors import ConfigurationError, ModeRefused, ProgramAttached
from xdpstack.native import check, ffi, lib
from xdpstack.stack import Stack
from xdpstack.testing.namespace import run
from xdpstack.testing.veth import End, Veth

pytestmark = pytest.mark.root
MakeVeth = Callable[..., Veth]

#: Counts what it sees, and passes it on. Its priority is given before libxdp's default.
OTHER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64);
} seen SEC(".maps");
struct { __uint(priority, PRIORITY); __uint(XDP_PASS, 1); } _other SEC(".xdp_run_config");
SEC("xdp") int other(struct xdp_md *context) {
    __u32 zero = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &zero);
    if (count) __sync_fetch_and_add(count, 1);
    return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


class Other:
    """A program of somebody else, attached through libxdp."""

    def __init__(self, end: End, folder: Path, priority: int = 10, mode: str = "generic") -> None:
        self.end, self.mode, self.closed = end, mode, False
        self.object = BpfObject("other", compiled(OTHER.replace("PRIORITY", str(priority)), folder))

        def attach() -> None:
            check(lib.xs_libxdp_load(), "libxdp")
            libxdp.attach(self.object, "other", "xdp", end.name, mode)

        try:
            end.netns.call(attach)
        except BaseException:
            self.object.close()
            raise

    @property
    def seen(self) -> int:
        return int.from_bytes(self.object.maps["seen"].lookup(struct.pack("=I", 0)) or b"", "little")

    def close(self) -> None:
        """Out of the dispatcher; idempotent."""
        if self.closed:
            return
        self.closed = True
        number = program_number(self.object.program_fd("other"))
        self.end.netns.call(lambda: libxdp.remove(self.end.name, number, self.mode))
        self.object.close()


def program_number(descriptor: int) -> int:
    info = ffi.new("struct xs_bpf_program_info *")
    check(lib.xs_bpf_program_info(descriptor, info), "program")
    return int(info.id)


def joined(end: End) -> dict[int, str]:
    """The programs that the dispatcher calls, in order, by their numbers."""
    there = end.netns.call(lambda: libxdp.dispatcher(end.name))
    return {each.id: each.name for each in there.programs} if there else {}


@pytest.fixture(scope="session")
def pinning() -> Iterator[Path]:
    """Where libxdp pins: it looks for the place once in the life of a process."""
    place = Path(tempfile.mkdtemp(prefix="xdpstack-bpf-"))
    run("mount", "-t", "bpf", "bpf", str(place))
    before, os.environ["LIBXDP_BPFFS"] = os.environ.get("LIBXDP_BPFFS"), str(place)
    yield place
    if before is None:
        del os.environ["LIBXDP_BPFFS"]
    else:
        os.environ["LIBXDP_BPFFS"] = before
    run("umount", str(place))
    place.rmdir()


@pytest.fixture
def bpffs(pinning: Path) -> Iterator[Path]:
    """Where libxdp pins; nothing is left in it."""
    yield pinning
    assert [str(path) for path in (pinning / "xdp").glob("dispatch-*")] == []


def refusal(end: End) -> ModeRefused | None:
    """Why the kernel has no dispatchers; None: it has."""
    try:
        end.netns.call(lambda: check_there(end.name))
    except ModeRefused as refused:
        return refused
    return None


@pytest.fixture
def replacing(bpffs: Path, veth: MakeVeth) -> Veth:
    """A pair, on a kernel that has dispatchers."""
    pair = veth()
    if refusal(pair.near):
        pytest.skip("this kernel is told to load no program that replaces functions of others (BPF_PROG_TYPE_EXT)")
    return pair


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Callable[..., Other]]:
    """Programs of others; what a test leaves of them is taken out."""
    made: list[Other] = []

    def make(end: End, **options: Any) -> Other:
        made.append(Other(end, tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def stacks() -> Iterator[Callable[..., Stack]]:
    made: list[Stack] = []

    def make(end: End, **options: Any) -> Stack:
        chosen: dict[str, Any] = {
            "netns": end.netns.name,
            "mode": "generic",
            "coexist": True,
            "frames": 2048,
            "rx_ring": 64,
        } | options
        made.append(xdpstack.open(end.name, tx_ring=64, observable=False, **chosen))
        return made[-1]

    yield make
    for each in made:
        each.close()


def exchange(stack: Stack, pair: Veth, port: int, count: int = 5) -> int:
    """Datagrams there and back; how many in all our program has lifted."""
    with pair.far.netns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.settimeout(30.0)
        with stack.udp(("10.0.0.1", port)) as sock:
            sock.settimeout(30.0)
            for number in range(count):
                sender.sendto(b"number %d" % number, ("10.0.0.1", port))
                payload, peer = sock.recvfrom(2048)
                sock.sendto(payload, peer)
                assert sender.recv(100) == b"number %d" % number
            return stack.counters().get("xdp.rx.redirect_socket", 0)


def test_beside_another_program(
    replacing: Veth, bpffs: Path, others: Callable[..., Other], stacks: Callable[..., Stack]
) -> None:
    """It sees what the other passes, lifts what is claimed; closing takes out ours alone."""
    pair = replacing
    other = others(pair.near)
    last = others(pair.near, priority=90)
    stack = stacks(pair.near)
    ours = next(number for number, name in joined(pair.near).items() if name.startswith("xs_xdp"))
    assert [name[:6] for name in joined(pair.near).values()] == ["other", "xs_xdp", "other"]
    [device] = stack.info()["devices"]
    assert (device["mode"], stack.info()["asked"]["coexist"]) == ("generic", True)
    assert device["redirect_errors"], device["why"]
    if "claims" in device["why"]:  # since Linux 6.13, with this libxdp
        with pytest.raises(ConfigurationError, match="cannot be read or redirected by claim"):
            stack.frames(xdpstack.EthertypeClaim(0x88B5))
    before, behind = other.seen, last.seen
    assert exchange(stack, pair, 7007) >= 5
    assert other.seen >= before + 5  # it is before us: what we lift it has seen
    unclaimed = other.seen
    pair.far.netns.run("ping", "-c", "1", "-W", "10", "10.0.0.1")
    assert last.seen > behind  # what we pass is passed on
    assert other.seen > unclaimed
    assert stack.counters()["xdp.rx.pass_unclaimed"] > 0
    stack.close()
    assert ours not in joined(pair.near)
    assert list(joined(pair.near).values()) == ["other", "other"]
    seen = other.seen
    pair.far.netns.run("ping", "-c", "1", "-W", "10", "10.0.0.1")
    assert other.seen > seen
    last.close()
    other.close()
    assert not pair.near.has_xdp()


@pytest.mark.parametrize("mode", ["generic", "native"])
def test_alone_first(mode: str, replacing: Veth, others: Callable[..., Other], stacks: Callable[..., Stack]) -> None:
    """Another joins us, and leaves before us: we go on. Who wants another mode than the dispatcher's is refused."""
    pair = replacing
    stack = stacks(pair.near, mode=mode)
    [device] = stack.info()["devices"]
    assert device["mode"] == mode
    assert exchange(stack, pair, 7007) >= 5
    other = others(pair.near, mode=mode)
    lifted = exchange(stack, pair, 7008)
    assert lifted >= 10
    lacks = pair.near.netns.call(lambda: native_lacks(pair.near.name)) if mode == "generic" else ""
    if not lacks:  # else it is told that native mode is of no use there
        with pytest.raises(ModeRefused, match="no dispatcher of libxdp") as raised:
            stacks(pair.near, mode="native" if mode == "generic" else "generic")
        assert "in another mode" in raised.value.cause
    with pytest.raises(ConfigurationError, match="only root can take it out"):
        xdpstack.drop_privileges("nobody")
    assert os.geteuid() == 0
    other.close()
    assert exchange(stack, pair, 7009) >= lifted + 5
    stack.close()
    assert not pair.near.has_xdp()


def test_a_process_that_is_killed(
    replacing: Veth, bpffs: Path, others: Callable[..., Other], stacks: Callable[..., Stack]
) -> None:
    """Leaves a program that passes everything, until somebody joins."""
    pair = replacing
    other = others(pair.near)
    with Client(pair.near, user=0) as client:
        client.ask("open", interfaces=["near0"], mode="generic", coexist=True)
        client.ask("udp", address=["10.0.0.1", 7007])
        client.kill()
    [dead] = [number for number, name in joined(pair.near).items() if name.startswith("xs_xdp")]
    pair.far.netns.run("ping", "-c", "1", "-W", "10", "10.0.0.1")
    stack = stacks(pair.near)
    assert dead not in joined(pair.near)
    assert exchange(stack, pair, 7007) >= 5
    stack.close()
    assert list(joined(pair.near).values()) == ["other"]
    other.close()


def test_without_the_word_nothing_is_joined(replacing: Veth, bpffs: Path, others: Callable[..., Other]) -> None:
    pair = replacing
    other = others(pair.near)
    with pytest.raises(ProgramAttached, match="xdp_dispatcher") as raised:
        xdpstack.open("near0", netns=pair.near.netns.name, frames=1024)
    assert "coexist=True joins them" in raised.value.fix
    [found] = pair.near.netns.call(lambda: list(program_findings("near0")))
    assert (found.level, "xdp_dispatcher" in found.what) == ("warning", True)
    assert "coexist=True" in found.fix
    assert list(joined(pair.near).values()) == ["other"]
    other.close()


def test_a_program_that_is_no_dispatcher(veth: MakeVeth, bpffs: Path, tmp_path: Path) -> None:
    """Is refused with its name, and stays."""
    near = veth().near
    (tmp_path / "other.o").write_bytes(compiled(OTHER.replace("PRIORITY", "50"), tmp_path))
    near.netns.ip(f"link set {near.name} xdpgeneric obj {tmp_path / 'other.o'} sec xdp")
    with pytest.raises(ProgramAttached, match="program other") as raised:
        xdpstack.open("near0", netns=near.netns.name, frames=1024, coexist=True)
    assert "libxdp's dispatcher" in raised.value.cause
    assert [each.name for each in near.netns.call(lambda: attached_programs(near.name))] == ["other"]
    near.netns.ip(f"link set {near.name} xdpgeneric off")


def test_where_nothing_can_be_pinned(veth: MakeVeth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    near = veth().near
    monkeypatch.setenv("LIBXDP_BPFFS", str(tmp_path))
    with pytest.raises(ModeRefused, match="cannot be shared") as raised:
        xdpstack.open("near0", netns=near.netns.name, frames=1024, coexist=True)
    assert raised.value.fix.startswith(f"mount -t bpf bpf {tmp_path}")
    assert not near.has_xdp()


def test_a_kernel_without_dispatchers(veth: MakeVeth, bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libxdp would attach the program alone there, which is not what was asked for: refused, and nothing is left."""
    near = veth().near
    if refusal(near) is None:  # then have it refuse
        monkeypatch.setattr(BpfObject, "set_target", refuse)
    with pytest.raises(ModeRefused, match="on this kernel") as raised:
        xdpstack.open("near0", netns=near.netns.name, frames=1024, coexist=True)
    assert "BPF_PROG_TYPE_EXT" in raised.value.cause
    assert "Operation not permitted" in raised.value.cause
    assert not near.has_xdp()


def refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("number", [2, 38, 18])
def test_libxdp_is_not_there(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or is too old, or came with another libbpf."""

    class Without:
        def __getattr__(self, name: str) -> object:
            return (lambda: -number) if name == "xs_libxdp_load" else getattr(lib, name)

    monkeypatch.setattr("xdpstack.device.joined.lib", Without())
    with pytest.raises(ModeRefused, match="cannot be shared with other XDP programs") as raised:
        check_there("lo")
    assert "libxdp.so.1" in raised.value.cause
    assert raised.value.fix.startswith("apt-get install libxdp1")


def test_what_does_not_go_with_it() -> None:
    refused: list[dict[str, Any]] = [{"transmit_only": True}, {"broker": "/x"}, {"pinned": "/x"}, {"mode": "offloaded"}]
    for options in refused:
        with pytest.raises(ConfigurationError, match="do not go with coexist"):
            xdpstack.open("lo", coexist=True, frames=1024, **options)
