"""Memory devices as the backend of a stack."""

import socket

import pytest

from xdpstack.device.memory import MemoryBackend, MemoryDevice
from xdpstack.device.memory_mirror import Given
from xdpstack.errors import ConfigurationError
from xdpstack.native.core import Core
from xdpstack.testing.ledger import check_closed, check_open


@pytest.fixture
def core() -> Core:
    return Core(workers=2, frames=4096, manual_clock=True)


def backend(core: Core, *devices: str | MemoryDevice) -> MemoryBackend:
    return MemoryBackend(core, devices, Given({devices[0] if isinstance(devices[0], str) else "x": ["10.0.0.1/24"]}))


def test_devices_are_granted_as_they_were_given(core: Core) -> None:
    made = backend(core, "a0", MemoryDevice("b0", mac=b"\x02\x0b\0\0\0\1", mtu=9000, queues=2, partial_checksums=True))
    (a0, b0), host = made.open(core)
    assert (a0.name, a0.index, a0.ifindex, a0.mac.hex(":"), a0.queues) == ("a0", 0, 2, "02:00:00:00:00:01", (0,))
    assert (b0.mac.hex(":"), b0.queues, b0.partial_checksums, b0.mode) == ("02:0b:00:00:00:01", (0, 1), True, "memory")
    assert host.snapshot.link("b0") is not None
    assert host.snapshot.links[b0.ifindex].mtu == 9000
    made.close()
    made.close()
    check_closed(core)


def test_other_links_of_the_host_are_known_and_not_ours(core: Core) -> None:
    made = MemoryBackend(core, ["a0"], Given({"eth9": ["192.0.2.1/24"]}), links=["eth9"])
    devices, host = made.open(core)
    assert [device.name for device in devices] == ["a0"]
    assert host.snapshot.link("eth9") is not None
    with pytest.raises(ConfigurationError, match="no memory device 'eth9'"):
        made.inject("eth9", b"frame")
    made.close()


def test_frames_arrive_and_wait_on_their_queue(core: Core) -> None:
    made = backend(core, MemoryDevice("x", queues=2))
    made.open(core)
    assert made.inject("x", b"first frame", b"second frame") == 2
    assert made.inject("x", b"other queue", queue=1) == 1
    assert [queue.values()["received"] for queue in made.queues["x"]] == [2, 1]
    with pytest.raises(ConfigurationError, match=r"x has no queue 2\nFix: 0 to 1"):
        made.inject("x", b"frame", queue=2)
    check_open(core)
    made.close()
    check_closed(core)


def test_faults_reach_one_queue_or_all(core: Core) -> None:
    made = backend(core, MemoryDevice("x", queues=2))
    made.open(core)
    made.faults("x", rx_full=1)
    made.faults("x", queue=1, rx_full=0)
    assert (made.inject("x", b"frame"), made.inject("x", b"frame", queue=1)) == (0, 1)
    assert made.stats() == {"x.0.rx_ring_full": 1}
    made.close()


def test_a_deleted_device_is_gone_for_the_rings_and_for_the_host(core: Core) -> None:
    made = backend(core, "a0", "b0")
    _, host = made.open(core)
    made.remove("a0")
    assert made.inject("a0", b"frame") == 0
    assert host.snapshot.link("a0") is None
    made.set_link("b0", up=False)
    assert made.inject("b0", b"frame") == 0
    made.set_link("b0", up=True)
    assert made.inject("b0", b"frame") == 1
    made.close()
    check_closed(core)


def test_claims_are_kept(core: Core) -> None:
    made = backend(core, "a0")
    made.open(core)
    made.claim("udp 10.0.0.1:53")
    assert made.info() == {"mode": "memory", "claims": ["udp 10.0.0.1:53"]}
    made.withdraw()
    assert made.claims == {}
    assert made.kernel_socket(socket.AF_INET, socket.SOCK_DGRAM) is None
    made.close()


def test_names_are_unique(core: Core) -> None:
    with pytest.raises(ConfigurationError, match="two memory devices of one name"):
        backend(core, "a0", "a0")
