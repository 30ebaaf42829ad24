"""What a sender is told: the errno of each reason for which routing.tx drops (csrc/stages/routing_tx.c).

The errnos are those that Linux's send calls have for it. TX_SLOW is none of them: such a packet is not refused, the shadow
socket sends it.
"""

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

SEND_ERRNO: Final[Mapping[str, int]] = MappingProxyType({
    # reason                   errno                 the kernel has it from
    "IP_OUTNOROUTES":        errno.ENETUNREACH,    # no route; a source that is not this host's; a rule says unreachable
    "ROUTE_UNREACHABLE":     errno.EHOSTUNREACH,   # route of type unreachable
    "ROUTE_PROHIBIT":        errno.EACCES,         # route of type prohibit, or a rule
    "ROUTE_BLACKHOLE":       errno.EINVAL,         # route of type blackhole, or a rule
    "INVALID_ARG":           errno.EINVAL,         # source multicast or broadcast; 127.0.0.0/8 leaving the host
    "NO_SOURCE_ADDRESS":     errno.EADDRNOTAVAIL,  # IPv6: no address that could be the source (ipv6_dev_get_saddr)
    # of stages that follow
    "NEIGH_FAILED":          errno.EHOSTUNREACH,   # the neighbour did not answer
    "NEIGH_QUEUEFULL":       errno.ENOBUFS,        # too many packets wait for the neighbour
    "DEVICE_GONE":           errno.ENETDOWN,       # the device is down or away
})  # fmt: skip
