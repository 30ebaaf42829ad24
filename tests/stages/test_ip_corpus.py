"""The frames that tests/kernel/test_ip_rcv.py also sends to Linux, without Linux: each has one end, and no frame is lost."""

import random
from collections.abc import Callable, Iterable

import pytest

from tests.kernel import ip_corpus
from tests.kernel.ours import OurReceiver
from tests.stages.packets import DST4, DST6, HOST, ethernet

SEED = 1


def noise(rng: random.Random, count: int) -> Iterable[bytes]:
    """Nothing but the first byte is as it should be."""
    for _ in range(count):
        first, kind = rng.choice(((0x45, 0x0800), (0x46, 0x0800), (0x4F, 0x0800), (0x60, 0x86DD)))
        yield ethernet(bytes([first]) + rng.randbytes(rng.randrange(120)), kind=kind)


@pytest.mark.parametrize(
    "frames",
    [
        ip_corpus.headers4,
        ip_corpus.headers6,
        lambda: ip_corpus.options4(random.Random(SEED), 500),
        lambda: ip_corpus.options6(random.Random(SEED), 500),
        lambda: ip_corpus.chains6(random.Random(SEED), 2000),
        lambda: ip_corpus.large(random.Random(SEED), 200),
        lambda: ip_corpus.mutated(random.Random(SEED), 4000),
        lambda: noise(random.Random(SEED), 4000),
    ],
    ids=["headers4", "headers6", "options4", "options6", "chains6", "large", "mutated", "noise"],
)
def test_every_frame_has_one_end(frames: Callable[[], Iterable[bytes]]) -> None:
    ours = OurReceiver(HOST, 9000, {DST4, DST6}, set(), set())
    for frame in frames():
        ours.receive(frame)  # asserts that it was passed on, or dropped for one reason
    ours.close()  # both ledgers
