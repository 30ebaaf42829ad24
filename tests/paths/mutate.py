"""Frames that are nearly right: the seeds of the fuzz target, mutated many at a time."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CORPUS = Path(__file__).resolve().parents[2] / "csrc/fuzz/corpus/walk"
ROOM = 128

Bytes = NDArray[np.uint8]


def seeds() -> list[bytes]:
    """The frames of csrc/fuzz/corpus/walk: records of a byte of flags, two of length, and the frame."""
    frames = []
    for path in sorted(CORPUS.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            _, length = struct.unpack_from("!BH", data, at)
            frames.append(data[at + 3 : at + 3 + length])
            at += 3 + length
    return frames


class Mutator:
    """Makes frames out of seeds: some bytes changed, some cut short, some grown; IPv4 header checksums right or not."""

    def __init__(self) -> None:
        frames = [frame[:ROOM] for frame in seeds()]
        self.lengths = np.array([len(frame) for frame in frames])
        self.frames = np.zeros((len(frames), ROOM), np.uint8)
        for row, frame in zip(self.frames, frames, strict=True):
            row[: len(frame)] = np.frombuffer(frame, np.uint8)

    def make(self, seed: int, n: int, changes: int, cut: float, checksums: float) -> list[bytes]:
        """`n` frames, each with up to `changes` bytes changed; shares of them cut short, and with checksums made right."""
        random = np.random.default_rng(seed)
        chosen = random.integers(0, len(self.frames), n)
        out, lengths = self.frames[chosen], self.lengths[chosen].copy()
        for _ in range(changes):
            where = (random.random(n) * lengths).astype(np.int64)
            kinds = random.integers(0, 4, n)
            old = out[np.arange(n), where]
            value = np.choose(
                kinds,
                [
                    random.integers(0, 256, n),
                    old ^ (1 << random.integers(0, 8, n)),
                    old + 1,
                    random.choice([0, 0xFF], n),
                ],
            )
            out[np.arange(n), where] = value.astype(np.uint8)
        right = random.random(n) < checksums
        fix_ipv4(out, right)
        shorter = random.random(n) < cut
        lengths[shorter] = (random.random(int(shorter.sum())) * lengths[shorter]).astype(np.int64) + 1
        longer = random.random(n) < cut / 4
        lengths[longer] = random.integers(1, ROOM + 1, int(longer.sum()))
        return [row[:length].tobytes() for row, length in zip(out, lengths, strict=True)]


def fix_ipv4(frames: Bytes, which: NDArray[np.bool_]) -> None:
    """Make the header checksum of IPv4 frames without options right, in place (RFC 1071)."""
    rows = which & (frames[:, 12] == 8) & (frames[:, 13] == 0) & (frames[:, 14] == 0x45)
    header = frames[rows, 14:34]
    header[:, 10:12] = 0
    words = header.reshape(len(header), 10, 2).astype(np.uint32)
    total = (words[:, :, 0] << 8 | words[:, :, 1]).sum(axis=1, dtype=np.uint32)
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    checksum = ~total & 0xFFFF
    header[:, 10], header[:, 11] = checksum >> 8, checksum & 0xFF
    frames[rows, 14:34] = header
