"""Busy polling: the kernel of the lab knows which NAPI feeds a queue, and then it is our calls that poll the driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.nic.expected import EXPECTED
from tests.paths.world import FAR, NEAR, OURS, PORT, echo_once, kernel_udp, opened
from xdpstack import BusyPoll
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import PATIENCE, until

pytestmark = pytest.mark.root
HERE = EXPECTED[os.environ["XDPSTACK_NIC_MODEL"]]
DATAGRAMS = 20
# PCI configuration space: where the capabilities begin, MSI-X, its control word, and the bit there that masks all vectors.
CAPABILITIES, MSI_X, MESSAGE_CONTROL, FUNCTION_MASK = 0x34, 0x11, 2, 1 << 14


def busy_polled(netns: Namespace) -> int:
    """Packets that busy polling took from the drivers of a namespace: TcpExt's BusyPollRxPackets."""

    def read() -> int:
        names, values = [line.split() for line in Path("/proc/thread-self/net/netstat").read_text().splitlines()[:2]]
        return int(values[names.index("BusyPollRxPackets")])

    return netns.call(read)


def pci_config(end: End) -> Path:
    """The configuration space of the NIC behind an interface, which may be a device (virtio) of a PCI function."""
    device = Path(end.netns.run("readlink", "-f", f"/sys/class/net/{end.name}/device").strip())
    return next(folder / "config" for folder in (device, *device.parents) if (folder / "config").exists())


@contextmanager
def interrupts_held(end: End) -> Iterator[None]:
    """No interrupt of the NIC reaches the kernel meanwhile; afterwards, those that were due.

    By the MSI-X mask: with napi_defer_hard_irqs the NIC masks an interrupt when it raises it, which QEMU's igb does
    not, so that softirq and our calls would race for each packet.
    """
    file = os.open(pci_config(end), os.O_RDWR)

    def at(offset: int, size: int) -> int:
        return int.from_bytes(os.pread(file, size, offset), "little")

    try:
        capability = at(CAPABILITIES, 1)
        while at(capability, 1) != MSI_X:
            capability = at(capability + 1, 1)
            assert capability, "the NIC has no MSI-X"
        control = at(capability + MESSAGE_CONTROL, 2)
        os.pwrite(file, (control | FUNCTION_MASK).to_bytes(2, "little"), capability + MESSAGE_CONTROL)
        try:
            yield
        finally:
            os.pwrite(file, control.to_bytes(2, "little"), capability + MESSAGE_CONTROL)
    finally:
        os.close(file)


def test_our_calls_poll_the_driver(veth: Callable[..., Veth]) -> None:
    """With the NIC's interrupts held back, what comes is fetched by system calls of ours; the kernel counts that."""
    pair = veth(near=NEAR, far=FAR)
    with opened(pair.near, busy_poll=True, frame_bytes=HERE.frame_bytes) as stack, stack.udp(("::", PORT)) as sock:
        [device] = stack.devices
        if not HERE.busy_poll:
            assert (device.busy_poll, device.need_wakeup) == (None, True)
            assert device.why["busy_poll"]
            return
        assert (device.busy_poll, device.need_wakeup) == (BusyPoll(), False)
        assert "busy_poll" not in device.why
        sock.settimeout(PATIENCE)
        before = busy_polled(pair.near.netns)
        with kernel_udp(pair.far.netns, to=OURS[0]) as client:
            for size in range(1, DATAGRAMS + 1):
                with interrupts_held(pair.near):
                    client.send(bytes(size))
                    until(stack.poll)
                assert echo_once(sock)[0] == client.recv(100) == bytes(size)
        assert busy_polled(pair.near.netns) - before >= DATAGRAMS
        assert sum(n for name, n in stack.counters().items() if name.endswith(".busy_polls")) >= DATAGRAMS
        assert stack.ledger().missing == 0
