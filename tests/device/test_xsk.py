"""AF_XDP sockets on real veth pairs: what is sent arrives, what arrives was sent, and every frame comes home."""

import pytest

from tests.device.harness import MODES, Harness
from tests.device.veth import frame, until, veth

pytestmark = pytest.mark.root


@pytest.mark.parametrize("frame_bytes", [2048, 4096])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_receives_what_the_peer_sends(mode: str, frame_bytes: int) -> None:
    with veth() as pair, Harness(frame_bytes=frame_bytes) as harness:
        [xsk] = harness.attach(pair, mode=MODES[mode])
        assert (xsk.zero_copy, xsk.multi_buffer) == (False, False)
        raw, near, far = pair.raw(), pair.mac(), pair.mac(far=True)
        sent = [frame(far, near, bytes([i]) * (46 + 12 * i)) for i in range(120)]
        got = []
        for each in sent:
            raw.send(each)
            got += harness.receive(1)
        assert got == sent
        assert harness.core.ledger().received == 120
        # the last one only says that the kernel looked for something to send
        assert not any(value for name, value in xsk.statistics().items() if name != "tx_ring_empty_descs")
        harness.assert_exact()


@pytest.mark.parametrize("frame_bytes", [2048, 4096])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_sends_back_what_it_received(mode: str, frame_bytes: int) -> None:
    with veth() as pair, Harness(frame_bytes=frame_bytes) as harness:
        harness.attach(pair, mode=MODES[mode])
        raw, near, far = pair.raw(), pair.mac(), pair.mac(far=True)

        def turn(packet: bytes, number: int) -> int:
            start = number * frame_bytes + harness.core.packets[number].data_off
            harness.core.umem[start : start + 12] = packet[6:12] + packet[:6]
            return 0

        for i in range(100):
            payload = bytes([i]) * (46 + 14 * i)
            raw.send(frame(far, near, payload))
            harness.handle(1, turn)
            assert raw.recv(4096) == frame(near, far, payload)
        ledger = harness.core.ledger()
        assert (ledger.received, ledger.sent, ledger.dropped) == (100, 100, 0)
        until(lambda: harness.poll() == 0 and harness.core.frame_counts()["transmitting"] == 0)
        harness.assert_exact()
