"""The pre-filter on a driver with XDP offload: taken beside the program on the host, told, undone, refused with reasons."""

from __future__ import annotations

import errno
from typing import Any, Literal

import pytest

from tests.offloaded.conftest import Knobs
from tests.paths.left import nothing_left
from tests.paths.world import FAR, NEAR, OURS, MakeVeth, exchange, kernel_udp, opened
from xdpstack import ModeRefused, Prefilter, XdpstackError
from xdpstack.device.doctor import examine
from xdpstack.testing.veth import End
from xdpstack.testing.wait import PATIENCE

pytestmark = pytest.mark.root
DENIED = "192.0.2.1", "2001:db8::1"


def attached(end: End) -> dict[str, int]:
    """The programs that the kernel says are attached: numbers, by where they run."""
    found: Any = end.link().get("xdp", {})
    modes = {1: "native", 2: "generic", 3: "offloaded"}  # XDP_ATTACHED_DRV and those that follow
    each = found.get("attached") or ([found] if found else [])
    return {modes[entry["mode"]]: entry["prog"]["id"] for entry in each}


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_it_is_taken_beside_the_program_on_the_host(
    mode: Literal["native", "generic"], veth: MakeVeth, knobs: Knobs
) -> None:
    pair = veth(near=NEAR, far=FAR)
    opened(pair.near, mode=mode).close()
    with nothing_left(pair.near):
        with opened(pair.near, mode=mode, prefilter=Prefilter(DENIED)) as stack:
            print("granted:", stack.devices[0].mode, stack.devices[0].why, attached(pair.near))
            assert set(attached(pair.near)) == {mode, "offloaded"}
            assert attached(pair.near)["offloaded"] == knobs.offloaded
            assert knobs.loaded == [knobs.offloaded]
            assert stack.devices[0].mode == mode
            assert stack.info()["asked"]["prefilter"] == DENIED
            if mode == "native":  # else its frames come without the checksum that they were to get there
                sock = stack.udp(OURS[0])
                sock.settimeout(PATIENCE)
                with kernel_udp(pair.far.netns, to=OURS[0]) as client:
                    exchange(sock, client, b"past the filter, to the program")
        assert (attached(pair.near), knobs.offloaded, knobs.loaded) == ({}, 0, [])


@pytest.mark.parametrize(
    "knob",
    ["bpf_bind_accept", "bpf_bind_verifier_accept", "bpf_map_accept", "bpf_xdpoffload_accept"],
)
def test_a_nic_that_does_not_take_it(knob: str, veth: MakeVeth, knobs: Knobs) -> None:
    """Loading the program, checking it, making its tables, attaching it: whichever is refused, nothing is left."""
    pair = veth()
    opened(pair.near).close()
    knobs.set(knob, False)
    try:
        with nothing_left(pair.near), pytest.raises(ModeRefused, match="near0 takes no pre-filter") as refused:
            opened(pair.near, prefilter=Prefilter(DENIED))
        print(refused.value)
    finally:
        knobs.set(knob, True)
    assert refused.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)
    assert (attached(pair.near), knobs.offloaded, knobs.loaded) == ({}, 0, [])
    with opened(pair.near, prefilter=Prefilter(DENIED)):
        assert knobs.offloaded


def test_more_addresses_than_the_nic_holds(veth: MakeVeth, knobs: Knobs) -> None:
    """netdevsim has room for two keys."""
    pair = veth()
    opened(pair.near).close()
    with nothing_left(pair.near), pytest.raises(XdpstackError) as refused:
        opened(pair.near, prefilter=Prefilter([*DENIED, "192.0.2.2"]))
    print(refused.value)
    assert (attached(pair.near), knobs.loaded) == ({}, [])


def test_the_doctor_knows_that_it_can_be_had(veth: MakeVeth) -> None:
    pair = veth()
    findings = examine("near0", netns=pair.near.netns.name).findings
    assert [each.what for each in findings if "pre-filter" in each.what]
