"""Veth pairs across two namespaces: the network of most tests with a real kernel.

near (the stack's side)                    far (the peer's side)
namespace .near.netns                      namespace .far.netns
device    .near.name  <----- veth ----->   device .far.name
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from xdpstack.testing.namespace import Namespace
from xdpstack.testing.wait import until

Ipv6 = Literal["off", "nodad", "on"]


@dataclass
class End:
    """One end of a pair: device `name` in `netns`, with its `addresses` as they were given ("10.0.0.1/24")."""

    netns: Namespace
    name: str
    addresses: tuple[str, ...] = ()
    _link: dict[str, Any] = field(default_factory=dict)

    def link(self) -> dict[str, Any]:
        """The device as `ip -json -details link show` has it now."""
        (link,) = self.netns.show("link", "show", "dev", self.name)
        return dict(link)

    def _constant(self, key: str) -> Any:
        if not self._link:
            self._link = self.link()
        return self._link[key]

    @property
    def mac(self) -> str:
        """The MAC address as text."""
        return str(self._constant("address"))

    @property
    def index(self) -> int:
        """The interface index in its namespace."""
        return int(self._constant("ifindex"))

    @property
    def address(self) -> str:
        """The first address, without its prefix length."""
        return self.addresses[0].partition("/")[0]

    @property
    def address6(self) -> str:
        """The first IPv6 address, without its prefix length."""
        return next(a for a in self.addresses if ":" in a).partition("/")[0]

    def has_xdp(self) -> bool:
        """Whether an XDP program is attached."""
        return "xdp" in self.link()

    def is_ready(self) -> bool:
        """Carrier is there, and duplicate address detection is over."""
        (shown,) = (entry for entry in self.netns.show("address", "show", "dev", self.name) if entry)
        return shown["operstate"] == "UP" and not any(a.get("tentative") for a in shown["addr_info"])

    def ethtool(self, *words: str) -> None:
        """`ethtool FIRST device REST`: `ethtool("-K", "tx", "off")`."""
        self.netns.run("ethtool", words[0], self.name, *words[1:])


@dataclass
class Veth:
    """A pair that is up. Made by the `veth` fixture."""

    near: End
    far: End

    def ends(self) -> tuple[End, End]:
        """Both ends."""
        return self.near, self.far


def make_veth(
    near_netns: Namespace,
    far_netns: Namespace,
    *,
    near: Sequence[str] = ("10.0.0.1/24",),
    far: Sequence[str] = ("10.0.0.2/24",),
    near_name: str = "near0",
    far_name: str = "far0",
    mtu: int = 1500,
    queues: int = 1,
    ipv6: Ipv6 | None = None,
    offloads: Iterable[str] = (),
) -> Veth:
    """Make a pair, set it up, and wait until both ends have carrier and all addresses are usable.

    `near` and `far` are the addresses. `ipv6` is "off" in both namespaces unless an address is IPv6, then "nodad": no
    duplicate address detection and no router solicitation; "on" leaves the kernel's defaults. `offloads` are switched on
    both ends with ethtool -K: `("tx off", "gro on")`.
    """
    mode = ipv6 or ("nodad" if any(":" in a for a in (*near, *far)) else "off")
    for netns in (near_netns, far_netns):
        if mode == "off":
            netns.without_ipv6()
        elif mode == "nodad":
            netns.without_dad()
    size = f"mtu {mtu} numrxqueues {queues} numtxqueues {queues}"
    near_netns.ip(
        f"link add {near_name} {size} type veth peer name {far_name} {size} netns {far_netns}",
    )
    pair = Veth(End(near_netns, near_name, tuple(near)), End(far_netns, far_name, tuple(far)))
    for end in pair.ends():
        for offload in offloads:
            end.ethtool("-K", *offload.split())
        flags = {True: " nodad" if mode == "nodad" else "", False: ""}
        commands = [f"address add {a} dev {end.name}{flags[':' in a]}" for a in end.addresses]
        end.netns.ip(f"link set {end.name} up", *commands)
    for end in pair.ends():
        until(end.is_ready, message=f"{end.name} has no carrier, or addresses that are tentative")
    return pair
