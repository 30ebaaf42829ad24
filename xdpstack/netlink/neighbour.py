"""An entry of the ARP or ND table, as the kernel describes it (RTM_NEWNEIGH)."""

from dataclasses import dataclass

from xdpstack.netlink.ip import family_of, mac_text, text
from xdpstack.netlink.uapi import NEIGHBOUR_STATES, NTF_ROUTER, NUD_CONNECTED, NUD_PERMANENT, NUD_VALID


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who answers for one IP address on one device."""

    index: int
    """The device's interface index."""
    address: bytes
    """The neighbour's IP address, packed."""
    lladdr: bytes = b""
    """Its link-layer address, or empty while unresolved."""
    state: int = NUD_PERMANENT
    """One NUD_* bit."""
    flags: int = 0
    """NTF_* bits."""

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return family_of(self.address)

    @property
    def is_valid(self) -> bool:
        """Frames may be sent to `lladdr` (NUD_VALID), if only until a probe says otherwise."""
        return bool(self.state & NUD_VALID)

    @property
    def is_connected(self) -> bool:
        """`lladdr` needs no probe (NUD_CONNECTED)."""
        return bool(self.state & NUD_CONNECTED)

    @property
    def is_router(self) -> bool:
        """IPv6: it said it is a router."""
        return bool(self.flags & NTF_ROUTER)

    def __str__(self) -> str:
        state = NEIGHBOUR_STATES.get(self.state, hex(self.state))
        where = f" lladdr {mac_text(self.lladdr)}" if self.lladdr else ""
        return f"{text(self.address)} dev #{self.index}{where} {state}"
