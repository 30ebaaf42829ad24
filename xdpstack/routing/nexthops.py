"""Next hop ids: numbers for where packets go next, which stay true while packets are on their way.

A packet carries the id of its next hop (`pkt.nexthop`). It may be held for a neighbour, or be parked for a hook, while new
tables are published; so an id outlives the routes that lead to it. An id is a slot of the next hop array and, in its upper
bits, the slot's generation (csrc/tables/fib.h).
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from xdpstack.native import lib

#: Retired next hops that are kept at least: what was routed by them still leaves.
RETIRED_KEPT = 1024
GENERATIONS = 1 << (32 - lib.XS_NEXTHOP_SLOT_BITS)


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where a packet goes next. Two routes that agree in all of this share an id."""

    ifindex: int
    """The kernel's index of the device."""
    gateway: bytes = b""
    """Packed, of either family; empty: the destination itself is on the link."""
    mtu: int = 0
    """Bytes of the IP packet."""
    mtu_locked: bool = False
    hop_limit: int = 0
    """The route's own TTL or hop limit, 0 for the default."""
    encap: int = 0
    """LWTUNNEL_ENCAP_*: the kernel would put the packet in a tunnel, so it is the kernel's."""


class NextHopIds:
    """Gives out ids. A next hop keeps its id as long as it is asked for, and for a good while after."""

    def __init__(self) -> None:
        self.slots: list[NextHop | None] = [None]  # slot 0 is "none"
        self.ids: list[int] = [0]
        self._slot_of: dict[NextHop, int] = {}
        self._retired: OrderedDict[int, None] = OrderedDict()  # slots, the longest retired first

    def assign(self, wanted: Iterable[NextHop]) -> dict[NextHop, int]:
        """The id of each of `wanted`; all others are retired. OverflowError when the slots are used up (2**20)."""
        wanted = dict.fromkeys(wanted)
        for hop, slot in self._slot_of.items():
            if hop not in wanted:
                self._retired.setdefault(slot)
        for hop in wanted:
            if hop in self._slot_of:
                self._retired.pop(self._slot_of[hop], None)
        for hop in wanted:
            if hop not in self._slot_of:
                self._slot_of[hop] = self._take(hop)
        return {hop: self.ids[self._slot_of[hop]] for hop in wanted}

    def find(self, hop: NextHop) -> int | None:
        """The id of a next hop, also of one that was retired not long ago; None: it has none."""
        slot = self._slot_of.get(hop)
        return None if slot is None else self.ids[slot]

    def _take(self, hop: NextHop) -> int:
        """A slot for `hop`: the one that has been retired longest if enough others are, else a new one."""
        if len(self._retired) > RETIRED_KEPT:
            slot, _ = self._retired.popitem(last=False)
            gone = self.slots[slot]
            assert gone is not None
            del self._slot_of[gone]
            generation = (self.ids[slot] >> lib.XS_NEXTHOP_SLOT_BITS) + 1
            self.slots[slot] = hop
            self.ids[slot] = generation % GENERATIONS << lib.XS_NEXTHOP_SLOT_BITS | slot
            return slot
        slot = len(self.slots)
        if slot >= lib.XS_NEXTHOP_SLOT_MASK:
            raise OverflowError(f"more than {lib.XS_NEXTHOP_SLOT_MASK} next hops")
        self.slots.append(hop)
        self.ids.append(slot)
        return slot
