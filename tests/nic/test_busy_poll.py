"""Busy polling: the kernel of the lab knows which NAPI feeds a queue, and then it is our calls that poll the driver."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def busy_polled(netns: Namespace) -> int:
    """Packets that busy polling took from the drivers of a namespace: TcpExt's BusyPollRxPackets."""

    def read() -> int:
        names, values = [line.split() for line in Path("/proc/thread-self/net/netstat").read_text().splitlines()[:2]]
        return int(values[names.index("BusyPollRxPackets")])

    return netns.call(read)


def defer_interrupts(end: End, polls: int, nanoseconds: int) -> None:
    folder = f"/sys/class/net/{end.name}"
    end.netns.run(
        "sh", "-c", f"echo {polls} > {folder}/napi_defer_hard_irqs; echo {nanoseconds} > {folder}/gro_flush_timeout"
    )


def test_our_calls_poll_the_driver(veth: Callable[..., Veth]) -> None:
    """With the NIC's interrupts put off, what comes is fetched by system calls of ours; the kernel counts that."""
    pair = veth(near=NEAR, far=FAR)
    defer_interrupts(pair.near, 2, 1_000_000_000)  # longer than a busy host keeps the guest from its CPU
    try:
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
                for size in range(1, 21):
                    stack.poll()  # finds nothing; from here on interrupts are held back
                    client.send(bytes(size))
                    until(stack.poll)
                    assert echo_once(sock)[0] == client.recv(100) == bytes(size)
            assert busy_polled(pair.near.netns) > before
            assert sum(n for name, n in stack.counters().items() if name.endswith(".busy_polls")) >= 20
            assert stack.ledger().missing == 0
    finally:
        defer_interrupts(pair.near, 0, 0)
