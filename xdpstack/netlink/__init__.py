"""The mirror of what Linux knows: links, addresses, routes, rules, neighbours.

`Mirror` follows a network namespace over netlink; what it publishes is a `Snapshot`, an immutable value made of the
frozen dataclasses here. A `Snapshot` can as well be built by hand (`Snapshot.build`). Addresses are packed bytes in
network order, whose length names the family; `ip.text` and `ip.packed` convert. See docs/netlink.md.
"""

from xdpstack.netlink.address import Address
from xdpstack.netlink.changes import Change
from xdpstack.netlink.ip import Prefix, packed, text
from xdpstack.netlink.link import Link
from xdpstack.netlink.mirror import Counters, Mirror
from xdpstack.netlink.namespace import HeldNamespace, run_in
from xdpstack.netlink.neighbour import Neighbour
from xdpstack.netlink.nexthop import Hop, NextHop
from xdpstack.netlink.past import Past
from xdpstack.netlink.route import Route
from xdpstack.netlink.rule import DEFAULT_RULES, Range, Rule
from xdpstack.netlink.snapshot import Snapshot
from xdpstack.netlink.sysctl import Sysctls

__all__ = [
    "DEFAULT_RULES",
    "Address",
    "Change",
    "Counters",
    "HeldNamespace",
    "Hop",
    "Link",
    "Mirror",
    "Neighbour",
    "NextHop",
    "Past",
    "Prefix",
    "Range",
    "Route",
    "Rule",
    "Snapshot",
    "Sysctls",
    "packed",
    "run_in",
    "text",
]
