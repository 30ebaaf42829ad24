"""What the driver grants, what it refuses and that the reason is said; written down for the lab's table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.nic.expected import EXPECTED
from tests.paths.world import FAR, NEAR, OURS, PORT, devices_of, echo_once, kernel_udp, opened
from xdpstack.device import ethtool, netdev
from xdpstack.device.doctor import examine
from xdpstack.device.finding import Level
from xdpstack.device.queues import active_queues
from xdpstack.device.xsk import XDP_USE_NEED_WAKEUP
from xdpstack.errors import ModeRefused
from xdpstack.stack import Stack
from xdpstack.testing.veth import End, Veth
from xdpstack.testing.wait import PATIENCE

pytestmark = pytest.mark.root
MakeVeth = Callable[..., Veth]

MODEL = os.environ["XDPSTACK_NIC_MODEL"]
HERE = EXPECTED[MODEL]
FOLDER = Path(os.environ["XDPSTACK_NIC_FOLDER"])
FLOWS = 24


def facts_before(end: End) -> dict[str, Any]:
    """What the driver says of itself, without a program."""
    features = netdev.features(end.index)
    assert features is not None
    offloads = ethtool.offloads(end.name) or {}
    ntuple = offloads.get("rx-ntuple-filter")
    rings = ethtool.ring_sizes(end.name)
    return {
        "model": MODEL,
        "kernel": os.uname().release,
        "queues before": len(active_queues(end.name, end.index)),
        "NIC ring": f"{rings.rx}/{rings.rx_max}" if rings else "-",
        "zc-max-segs": features.zc_max_segs or "-",
        "ntuple": "on" if ntuple and ntuple.on else "off" if ntuple and not ntuple.fixed else "no",
        "redirect to it": "yes" if netdev.XdpFeature.NDO_XMIT in features.xdp else "no",
    }


def says(end: End, *words: str) -> str:
    """What ethtool prints; empty if the driver does not know the question."""
    try:
        return end.netns.run("ethtool", words[0], end.name, *words[1:])
    except RuntimeError:
        return ""


def carrier_changes(end: End) -> int:
    return int(end.netns.run("cat", f"/sys/class/net/{end.name}/carrier_changes"))


def test_what_is_granted(veth: MakeVeth) -> None:
    pair = veth(near=NEAR, far=FAR)
    end = pair.near
    facts = end.netns.call(lambda: facts_before(end))
    changes = carrier_changes(end)
    with opened(end, frame_bytes=HERE.frame_bytes) as stack:
        [device] = stack.devices
        sockets = devices_of(stack).interfaces[0].sockets
        facts |= {
            "mode": device.mode,
            "zero-copy": "yes" if device.zero_copy else "no",
            "frame_bytes": HERE.frame_bytes,
            "queues": len(device.queues),
            "need_wakeup": "yes" if all(xsk.flags & XDP_USE_NEED_WAKEUP for xsk in sockets) else "no",
            "link lost on attaching": "yes" if carrier_changes(end) > changes else "no",
            "RSS": "yes" if "indirection" in (shown := says(end, "-x")) and "hash key:" in shown else "no",
            "UDP ports hashed": "yes" if "L4 bytes 0" in says(end, "-n", "rx-flow-hash", "udp4") else "no",
            "why": device.why,
        }
    (FOLDER / "granted.json").write_text(json.dumps(facts))
    assert device.driver == HERE.driver
    assert (device.mode, device.zero_copy) == ("native" if HERE.native else "generic", HERE.zero_copy)
    assert device.queues == tuple(range(HERE.queues))
    assert ("mode" in device.why) == (not HERE.native)
    assert ("zero_copy" in device.why) == (not HERE.zero_copy)


def test_zero_copy_demanded(veth: MakeVeth) -> None:
    pair = veth(near=NEAR, far=FAR)
    if HERE.zero_copy:
        with opened(pair.near, zero_copy=True, frame_bytes=HERE.frame_bytes) as stack:
            assert stack.devices[0].zero_copy
            exchange_flows(pair, stack)
    else:
        with pytest.raises(ModeRefused) as refused:
            opened(pair.near, zero_copy=True)
        assert refused.value.cause


@pytest.mark.skipif(HERE.frame_bytes == 2048, reason="frames of 2048 bytes have it")
def test_frames_that_are_too_small_for_zero_copy(veth: MakeVeth) -> None:
    """The driver would grant it, and cut packets to pieces."""
    pair = veth(near=NEAR, far=FAR)
    with opened(pair.near) as stack:
        [device] = stack.devices
        assert not device.zero_copy
        assert "frame_bytes=4096" in device.why["zero_copy"]


def test_zero_copy_refused(veth: MakeVeth) -> None:
    pair = veth(near=NEAR, far=FAR)
    with opened(pair.near, zero_copy=False) as stack:
        assert not stack.devices[0].zero_copy
        exchange_flows(pair, stack)


def test_native_demanded(veth: MakeVeth) -> None:
    pair = veth()
    if HERE.native:
        with opened(pair.near, mode="native") as stack:
            assert stack.devices[0].mode == "native"
    else:
        with pytest.raises(ModeRefused, match="native mode"):
            opened(pair.near, mode="native")


def test_every_queue_is_served(veth: MakeVeth) -> None:
    """As many flows as come in on all queues: none is lost, whichever queue the NIC chose."""
    pair = veth(near=NEAR, far=FAR)
    with opened(pair.near) as stack:
        exchange_flows(pair, stack)


def exchange_flows(pair: Veth, stack: Stack) -> None:
    """A datagram of each of many flows is answered, the last of them as long as they come."""
    with stack.udp(("::", PORT)) as sock:
        sock.settimeout(PATIENCE)
        clients = [kernel_udp(pair.far.netns, to=OURS[i % 2]) for i in range(FLOWS)]
        for number, client in enumerate(clients):
            data = bytes([number]) * (1450 * number // FLOWS + 1)  # to the largest that the MTU takes
            client.send(data)
            echo_once(sock)
            assert client.recv(2000) == data
            client.close()


def test_the_doctor_foretells_it(veth: MakeVeth) -> None:
    pair = veth()
    report = examine("near0", netns=pair.near.netns.name, frame_bytes=HERE.frame_bytes)
    assert report.runs, [finding for finding in report.findings if finding.level is Level.ERROR]
    said = [finding.what for finding in report.findings if finding.subject == "driver"]
    assert any("native XDP" in what for what in said)
    assert ("zero-copy" in said) == HERE.zero_copy
    unfit = [what for what in said if "has no native XDP" in what or "native XDP is of no use" in what]
    assert bool(unfit) == (not HERE.native)
