"""Interfaces opened as a stack opens them: what is asked, what is granted, what is refused and why."""

import socket
import subprocess

import pytest

from tests.device.harness import Harness
from tests.device.veth import frame, ip, namespace, until, veth
from xdpstack.device.claims import EthertypeClaim
from xdpstack.device.device import KernelBackend, local_addresses
from xdpstack.device.interface import Options
from xdpstack.errors import (
    ConfigurationError,
    InterfaceDown,
    ModeRefused,
    NoSuchInterface,
    PrivilegeError,
    ProgramAttached,
    QueueTaken,
)
from xdpstack.native.core import Core
from xdpstack.netlink.namespace import run_in

pytestmark = pytest.mark.root
CLAIM = EthertypeClaim(0x88B5)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_lifts_only_what_is_claimed(mode: str) -> None:
    with veth(queues=2) as pair, Harness() as harness:
        backend = harness.open(pair.near, options=Options(netns=pair.netns, mode=mode, rx_ring=64, tx_ring=64))
        raw, near, far = pair.raw(), pair.mac(), pair.mac(far=True)
        backend.claim(CLAIM)
        claimed, other = frame(far, near, b"a" * 100), frame(far, near, b"b" * 100, 0x88B6)
        for _ in range(10):
            raw.send(other)
            raw.send(claimed)
        assert harness.receive(10) == [claimed] * 10
        assert backend.stats()["xdp.rx.redirect_ethertype"] == 10
        assert backend.stats()["xdp.rx.pass_unclaimed"] >= 10
        backend.unclaim(CLAIM)
        raw.send(claimed)
        until(lambda: backend.stats()["xdp.rx.pass_unclaimed"] >= 11)
        assert harness.poll() == 0
        harness.assert_exact()


def test_says_what_was_granted() -> None:
    with veth(queues=2) as pair, Harness() as harness:
        backend = KernelBackend(pair.near, options=Options(netns=pair.netns))
        harness.backend = backend
        [device], harness.mirror = backend.open(harness.core)
        assert (device.name, device.ifindex, device.mac) == (pair.near, pair.ifindex, pair.mac())
        assert (device.asked, device.mode, device.zero_copy, device.driver) == ("auto", "native", False, "veth")
        assert device.queues == (0, 1)
        assert device.partial_checksums
        assert device.why == {"zero_copy": "The driver of near0 has no zero-copy."}
        assert backend.info()["registrations"] == 1


def test_one_queue_of_two() -> None:
    with veth(queues=2) as pair, Harness() as harness:
        harness.open(pair.near, options=Options(netns=pair.netns, queues=[1]))
        assert [xsk.queue for xsk in harness.backend.interfaces[0].sockets] == [1]


def refused(pair_options: Options, *names: str) -> Exception:
    core = Core(frames=256)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each test looks at what it is
        KernelBackend(*names, options=pair_options).open(core)
    assert core.frame_counts()["free"] == 256
    return raised.value


def test_no_such_interface() -> None:
    with veth() as pair:
        error = refused(Options(netns=pair.netns), "nothere")
        assert isinstance(error, NoSuchInterface)
        assert "It has: lo, near0." in str(error)


def test_interface_down() -> None:
    with veth() as pair:
        ip("-n", pair.netns, "link", "set", pair.near, "down")
        error = refused(Options(netns=pair.netns), pair.near)
        assert isinstance(error, InterfaceDown)
        assert "ip link set near0 up" in str(error)


def test_zero_copy_demanded() -> None:
    with veth() as pair:
        error = refused(Options(netns=pair.netns, zero_copy=True), pair.near)
        assert isinstance(error, ModeRefused)
        assert "no zero-copy" in str(error)


def test_no_such_queue() -> None:
    with veth(queues=2) as pair:
        error = refused(Options(netns=pair.netns, queues=[0, 5]), pair.near)
        assert isinstance(error, ConfigurationError)
        assert "no queue 5" in str(error)
        assert "0, 1" in str(error)


def test_another_program() -> None:
    with veth() as first, Harness() as harness:
        harness.open(first.near, options=Options(netns=first.netns))
        error = refused(Options(netns=first.netns), first.near)
        assert isinstance(error, ProgramAttached)
        assert "xs_xdp" in str(error)


def test_queue_taken_names_its_holder(holder: subprocess.Popen[str], taken: "object") -> None:
    error = refused(Options(netns=taken.netns), taken.near)
    assert isinstance(error, QueueTaken)
    assert f"(pid {holder.pid})" in str(error)


HOLDER = """
import sys
from xdpstack.device.umem import Umem
from xdpstack.device.xsk import Rings
from xdpstack.native.core import Core
from xdpstack.netlink.namespace import run_in
import socket
def bind():
    return Umem(Core(frames=256)).open(socket.if_nametoindex(sys.argv[2]), 0, Rings(64, 64, 64, 64, 64), 0)
run_in(sys.argv[1], bind)
print("bound", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def taken():
    with veth() as pair:
        yield pair


@pytest.fixture
def holder(taken):
    import sys

    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, taken.netns, taken.near],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "bound\n"
    yield process
    process.communicate()


def test_no_privilege() -> None:
    import json
    import sys

    program = """
import json, sys
from xdpstack.device.device import KernelBackend
from xdpstack.native.core import Core
try:
    KernelBackend("lo").open(Core(frames=256))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    words = ["setpriv", "--bounding-set=-net_raw,-bpf,-sys_admin", "--inh-caps=-net_raw,-bpf,-sys_admin"]
    done = subprocess.run([*words, sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kind, words = json.loads(done.stdout)
    assert kind == PrivilegeError.__name__
    assert "CAP_BPF and CAP_NET_RAW missing" in words
    assert "setcap" in words


def test_local_addresses() -> None:
    with veth() as pair, Harness() as harness:
        ip("-n", pair.netns, "addr", "add", "10.9.0.1/24", "dev", pair.near)
        harness.open(pair.near, options=Options(netns=pair.netns))
        found = local_addresses(harness.mirror.snapshot, pair.ifindex)
        plain = {str(each.address): each.group for each in found}
        assert plain["10.9.0.1"] is False
        assert plain["10.9.0.255"] is True
        assert plain["224.0.0.1"] is True
        assert "127.0.0.0" not in plain


def test_sockets_of_the_kernel_are_in_the_namespace() -> None:
    with veth() as pair, Harness() as harness:
        backend = harness.open(pair.near, options=Options(netns=pair.netns))
        ip("-n", pair.netns, "addr", "add", "10.9.0.1/24", "dev", pair.near)
        made = backend.kernel_socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert made is not None
        with made:
            made.bind(("10.9.0.1", 0))


def test_names_are_checked() -> None:
    with pytest.raises(ConfigurationError):
        KernelBackend()
    with pytest.raises(ConfigurationError):
        KernelBackend("a", "a")


def test_every_interface_of_a_failed_open_is_given_back() -> None:
    with namespace() as netns, veth(netns=netns, number=0) as first, veth(netns=netns, number=1) as second:
        error = refused(Options(netns=netns, queues=[0]), first.near, second.near, "nothere")
        assert isinstance(error, NoSuchInterface)
        error = run_in(netns, lambda: refused(Options(queues=[0, 1]), first.near, second.near))
        assert isinstance(error, ConfigurationError)
        for pair in (first, second):
            assert "xdp" not in pair.link()
