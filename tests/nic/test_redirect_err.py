"""Redirects that fail on real drivers, in zero-copy where it is granted: all that was lifted has come or is counted."""

from tests.device.harness import EXPERIMENTAL, Harness, frame
from tests.device.test_redirect_err import counted, drain
from tests.nic.conftest import CARRIER_SECONDS
from tests.paths.world import MakePeer, MakeVeth
from xdpstack.device.claims import EthertypeClaim
from xdpstack.testing.wait import until


def test_what_was_lifted_and_has_not_come_is_counted(veth: MakeVeth, peer: MakePeer) -> None:
    pair = veth()
    raw = peer(pair.far)
    with Harness(frames=4096, frame_bytes=4096) as harness:
        backend = harness.open(pair.near)
        [device] = backend.devices
        assert device.redirect_errors, device.why
        backend.claim(EthertypeClaim(EXPERIMENTAL))
        until(lambda: all(end.is_ready() for end in pair.ends()), CARRIER_SECONDS)
        for _ in range(600):  # the RX ring of the socket has 64 slots
            raw.send(frame(pair.far, pair.near, b"x" * 60))
        until(lambda: counted(backend), CARRIER_SECONDS)
        received = 0

        def all_there() -> bool:
            nonlocal received
            received += drain(harness)
            return received + sum(counted(backend).values()) == backend.stats()["xdp.rx.redirect_ethertype"]

        until(all_there, CARRIER_SECONDS)
        said = backend.stats()
        print("zero-copy:", device.zero_copy, received, said)
        by_kernel = sum(n for name, n in said.items() if name.endswith((".rx_dropped", ".rx_ring_full")))
        assert sum(counted(backend).values()) == by_kernel
