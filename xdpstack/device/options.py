"""What was asked for, of every interface of a stack."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any

from xdpstack.arguments import power_of_two, whole
from xdpstack.device.modes import SocketModes
from xdpstack.device.offloads import Offload
from xdpstack.device.prefilter import Prefilter
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.xdp import Hint, Mode
from xdpstack.errors import ConfigurationError

#: Slots: 64 MiB of descriptors, and more than any NIC has.
LARGEST_RING = 1 << 22


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; of every interface of a stack the same.

    `queues`: "all" that are active, or their numbers. `zero_copy`: True demands it, False refuses it, None takes what there
    is. `rx_ring`, `tx_ring`: slots, powers of two. `transmit_only`: no program, nothing is received. `tune`: what to change
    of the device while it is open. `metadata`: what the device is to say of the frames that it receives.
    `modes`: how the sockets are driven. `prefilter`: what the NIC itself is to drop. `offloads`: what the
    devices are to do with the frames to send. `broker`: the socket of a
    broker that attaches programs and makes sockets for us. `pinned`: the directory of a program that is attached already.
    `coexist`: join other programs through libxdp's dispatcher.
    """

    netns: str | None = None
    queues: str | Sequence[int] = "all"
    mode: Mode = "auto"
    zero_copy: bool | None = None
    rx_ring: int = 2048
    tx_ring: int = 2048
    transmit_only: bool = False
    tune: Tuning = field(default_factory=Tuning)
    metadata: tuple[Hint, ...] = ()
    modes: SocketModes = field(default_factory=SocketModes)
    prefilter: Prefilter | None = None
    offloads: tuple[Offload, ...] = ()
    broker: str | None = None
    pinned: str | None = None
    coexist: bool = False

    def __post_init__(self) -> None:
        power_of_two("rx_ring", self.rx_ring, 1, LARGEST_RING)
        power_of_two("tx_ring", self.tx_ring, 1, LARGEST_RING)
        if not isinstance(self.queues, str):
            check_queues(self.queues)
        self.modes.budget(self.tx_ring)  # refuses what cannot be
        if self.broker is not None and (
            self.netns is not None or self.transmit_only or self.prefilter or self.tune != Tuning()
        ):
            raise ConfigurationError(
                "netns, transmit_only, prefilter and tune do not go with a broker",
                "It serves its own namespace, and tunes as it sees fit.",
                "Be in that namespace; leave the others out.",
            )
        if self.coexist and (self.transmit_only or self.broker or self.pinned or self.mode == "offloaded"):
            raise ConfigurationError(
                "transmit_only, broker, pinned and offloaded mode do not go with coexist",
                "The program that joins others is this process's own, on the host.",
                "Leave them out, or coexist.",
            )
        if self.pinned is not None and (
            self.netns is not None
            or self.transmit_only
            or self.prefilter
            or self.metadata
            or self.tune not in (Tuning(), Tuning(merging="keep"))
            or self.broker is not None
        ):
            raise ConfigurationError(
                "netns, transmit_only, prefilter, metadata, tune and broker do not go with a pinned program",
                "It is attached already, and who uses it may have no privilege but for AF_XDP sockets.",
                "Be in its namespace; leave the others out.",
            )

    def as_info(self) -> dict[str, Any]:
        """What stack.info() says was asked of the devices."""
        return {
            "mode": self.mode,
            "zero_copy": self.zero_copy,
            "queues": self.queues,
            **asdict(self.modes),
            "prefilter": self.prefilter.sources if self.prefilter else None,
            "tune": self.tune.asked(),
            "metadata": self.metadata,
            "offloads": self.offloads,
            "broker": self.broker,
            "pinned": self.pinned,
            "coexist": self.coexist,
        }


def check_queues(queues: object) -> None:
    """Whether they are numbers of queues; which of them there are the device says. Raises ConfigurationError."""
    if not isinstance(queues, Sequence | Set | range):
        raise ConfigurationError(
            f"queues is {queues!r}", 'It can be "all" or a list of queue numbers.', f"queues=[{queues!r}]"
        )
    for queue in queues:
        whole("a number in queues", queue, 0, 0xFFFF)
