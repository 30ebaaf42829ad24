"""What a layer is given that does the work of its rows in Python: a batch whose packets it has to decide, each of them.

    stack = xdpstack.open("eth1", engines={"udp": "python"})        the layer's own definition
    stack = xdpstack.open("eth1", engines={"udp": EvenPorts()})     an object with `process(batch)`

The packets are parked as for a hook (hook.py). `batch.row` says which of the layer's rows they have come to, and
`batch.layer.process(batch)` decides what is not decided yet as the layer itself does. See docs/engines.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from xdpstack.errors import ConfigurationError
from xdpstack.hook import HookBatch, Packet
from xdpstack.native import lib
from xdpstack.native.core import Core
from xdpstack.path import BY_NAME
from xdpstack.walk import Hook

#: No edge, and none of the values of next[] that are none.
UNDECIDED = 253


class Layer(Protocol):
    """What does the work of a layer's rows."""

    def process(self, batch: Any) -> None:
        """Decide every packet of a LayerBatch. An exception drops the batch (HOOK_EXCEPTION); whoever polls gets it."""
        ...


class LayerPacket(Packet):
    """A packet that a layer has to decide: `drop(reason)`, `go(edge)`, or what the layer's packets have for that."""

    __slots__ = ()

    @property
    def decided(self) -> bool:
        """Whether somebody has said where it goes."""
        return self._batch._next[self._index] != UNDECIDED

    def start(self) -> int:
        """Where its first frame begins in the memory of all frames."""
        return self._batch.frames[self._index] * self._batch.core.frame_bytes

    def bytes_at(self, offset: int, size: int) -> bytes:
        """A copy of bytes of its first frame, by their offset in it (l3_off and the like)."""
        self._batch.check()
        start = self.start() + offset
        return bytes(self._batch.core.umem[start : start + size])


class LayerBatch(HookBatch):
    """The packets that have come to `row`. `layer` is the stack's own: it can decide what is undecided."""

    packet: type[LayerPacket] = LayerPacket

    def __init__(self, hook: Hook, worker: Any, core: Core, layer: Layer) -> None:
        super().__init__(hook, worker, core, lib.XS_WEIGHT)  # so that copies for several sockets have room
        self.row = hook.row
        self.layer = layer
        self._next = bytearray([UNDECIDED]) * len(self.frames)

    def __getitem__(self, index: int) -> Any:
        self.check()
        if not 0 <= index < len(self.frames):
            raise IndexError(index)
        return self.packet(self, index)

    def undecided(self) -> Iterator[Any]:
        """The packets of which nobody has said yet where they go."""
        return (packet for packet in self if not packet.decided)


def stand_in(row: str, engine: Layer, name: str, batch: Any) -> Hook:
    """The hook that has `engine` do the work of `row`; `name` is what info() calls it, `batch` makes its batches."""

    def run(given: LayerBatch) -> None:
        engine.process(given)
        left = sum(1 for _ in given.undecided())
        if left:
            raise ConfigurationError(
                f"{name} left {left} of {len(given)} packets of {row} undecided",
                fix="Say of each where it goes; batch.layer.process(batch) decides the others as the layer itself does.",
            )

    edges: Mapping[str, str] = BY_NAME[row].edges
    return Hook(row=row, name=row, stage=run, edges=dict(edges), priority=2**31, batch=batch, engine=name)
