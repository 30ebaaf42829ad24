"""What a device is asked to do with frames to send: the UDP checksum, and a time stamp when they are sent (XDP TX metadata).

In copy mode the kernel itself does both, whichever device it is: the checksum in software (XDP_UMEM_TX_SW_CSUM), and
the time by CLOCK_TAI when the frame was freed. In zero-copy mode the driver does what it says that it can. No I/O.
Source: Documentation/networking/xsk-tx-metadata.rst; Linux 6.8, with XDP_UMEM_TX_METADATA_LEN 6.11.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from xdpstack.device.kernel import kernel_version
from xdpstack.device.netdev import NetdevFeatures, XskFeature
from xdpstack.device.xsk import Xsk
from xdpstack.errors import ConfigurationError
from xdpstack.native import lib

Offload = Literal["checksum", "timestamp"]
#: The first kernel that takes memory with room for metadata before frames to send.
KERNEL = (6, 11)
FLAGS: Mapping[Offload, int] = {"checksum": lib.XS_TX_CHECKSUM, "timestamp": lib.XS_TX_TIMESTAMP}
_FEATURES: Mapping[Offload, XskFeature] = {
    "checksum": XskFeature.TX_CHECKSUM,
    "timestamp": XskFeature.TX_TIMESTAMP,
}


def checked(asked: Collection[str]) -> tuple[Offload, ...]:
    """What a user asked for, each once. Raises ConfigurationError for what there is not."""
    if isinstance(asked, str) or set(asked) - set(FLAGS):
        raise ConfigurationError(f"offloads is {asked!r}", fix=f"Some of ({', '.join(map(repr, FLAGS))}), in a tuple.")
    return tuple(offload for offload in FLAGS if offload in asked)


def grant(
    asked: Collection[Offload], zero_copy: bool, features: NetdevFeatures | None, kernel: tuple[int, int]
) -> tuple[tuple[Offload, ...], str]:
    """What a socket has that was bound so, and why not the rest."""
    if not asked:
        return (), ""
    if kernel < KERNEL:
        return (
            (),
            f"Metadata before frames to send needs Linux {KERNEL[0]}.{KERNEL[1]}; this is {kernel[0]}.{kernel[1]}.",
        )
    if not zero_copy:
        return tuple(asked), ""
    has = features.xsk if features is not None and features.xsk is not None else XskFeature(0)
    granted = tuple(offload for offload in asked if _FEATURES[offload] in has)
    lacks = [offload for offload in asked if offload not in granted]
    return granted, f"The driver does not do it in zero-copy mode: {', '.join(lacks)}." if lacks else ""


class Offloads:
    """What was asked of one device; what it was `granted` when it was bound last, and `why` not the rest."""

    def __init__(self, asked: Collection[Offload]) -> None:
        self.asked = tuple(asked)
        self.granted: tuple[Offload, ...] = ()
        self.why = ""

    def ask(self, xsk: Xsk, features: NetdevFeatures | None) -> None:
        """Have a socket that was just bound ask for what its device does."""
        self.granted, self.why = grant(self.asked, xsk.zero_copy, features, kernel_version())
        lib.xs_xsk_set_tx_offloads(xsk.pointer, sum(FLAGS[offload] for offload in self.granted))
