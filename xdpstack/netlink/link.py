"""A network device, as the kernel describes it (RTM_NEWLINK)."""

from dataclasses import dataclass

from xdpstack.netlink.ip import mac_text
from xdpstack.netlink.uapi import (
    ARPHRD_ETHER,
    IF_OPER_UP,
    IFF_BROADCAST,
    IFF_LOOPBACK,
    IFF_LOWER_UP,
    IFF_MULTICAST,
    IFF_RUNNING,
    IFF_UP,
    OPER_STATES,
)


@dataclass(frozen=True, slots=True)
class Link:
    """One device. The defaults are those of an Ethernet device that is up, so that links given by hand stay short."""

    index: int
    """The interface index (ifindex), from 1."""
    name: str
    address: bytes = bytes(6)
    """The link-layer address (MAC), 6 bytes for Ethernet."""
    mtu: int = 1500
    """Bytes of IP packet that one frame carries."""
    flags: int = IFF_UP | IFF_BROADCAST | IFF_RUNNING | IFF_MULTICAST | IFF_LOWER_UP
    """IFF_* bits."""
    kind: str = ""
    """The driver family the kernel names (`veth`, `bridge`, `vlan`), empty for a physical device and loopback."""
    master: int = 0
    """The index of the device this one is enslaved to (bridge, bond, VRF), or 0."""
    lower: int = 0
    """IFLA_LINK: the index of the device below (vlan, macvlan) or of the peer (veth), or 0. For a peer in another
    network namespace it is an index of that namespace."""
    type: int = ARPHRD_ETHER
    """ARPHRD_*."""
    oper_state: int = IF_OPER_UP
    """IF_OPER_* (RFC 2863)."""
    broadcast: bytes = b"\xff" * 6
    """The link-layer broadcast address."""
    rx_queues: int = 1
    """Receive queues the driver allocated: the most that can be, not how many are active."""
    tx_queues: int = 1
    """Transmit queues allocated."""
    group: int = 0
    """The device group (`ip link set … group`), for rules with suppress_ifgroup."""
    xdp_mode: int = 0
    """XDP_ATTACHED_*: how an XDP program is attached, or 0."""
    xdp_program: int = 0
    """The id of the attached XDP program, or 0 (also with several: XDP_ATTACHED_MULTI)."""
    other_names: tuple[str, ...] = ()
    """Alternative names (ip link property add altname), which rules may name it by."""

    @property
    def is_up(self) -> bool:
        """Administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def has_carrier(self) -> bool:
        """The layer below says that frames can flow."""
        return bool(self.flags & IFF_LOWER_UP)

    @property
    def is_loopback(self) -> bool:
        """A loopback device."""
        return bool(self.flags & IFF_LOOPBACK)

    def __str__(self) -> str:
        state = OPER_STATES[self.oper_state] if self.oper_state < len(OPER_STATES) else str(self.oper_state)
        kind = f" {self.kind}" if self.kind else ""
        return (
            f"{self.index}: {self.name}{kind} {mac_text(self.address)} mtu {self.mtu} "
            f"{'up' if self.is_up else 'down'} state {state}"
        )
