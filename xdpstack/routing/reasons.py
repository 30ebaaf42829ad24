"""What a sender is told: the errno of each drop reason that has one, as csrc/reasons.def says it.

The errnos are those that Linux's send calls have for it. TX_SLOW and TX_FRAGMENT are none of them: such a packet is not
refused, the shadow socket sends it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from xdpstack.native import lib
from xdpstack.walk import reasons

SEND_ERRNO: Final[Mapping[str, int]] = MappingProxyType({
    name: error
    for number, name in enumerate(reasons())
    if (error := lib.xs_reason_error(number)) and name not in ("TX_SLOW", "TX_FRAGMENT")
})  # fmt: skip
