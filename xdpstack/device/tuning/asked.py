"""What a user may ask of a device's queues: `Tuning`, plain values, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from xdpstack.device.claims import SocketClaim
from xdpstack.device.ethtool_set import FIELDS, FLOWS
from xdpstack.errors import ConfigurationError

Merging = Literal["auto", "off", "keep"]

#: The largest values that the kernel takes: napi_defer_hard_irqs is an int, gro_flush_timeout an unsigned long.
LARGEST_DEFER, LARGEST_TIMEOUT_NS = (1 << 31) - 1, (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Tuning:
    """What to change of every device of a stack while it is open; None and empty leave a thing as it is.

    channels: how many queues are active (`ethtool -L`), at least 1.
    nic_rx_ring, nic_tx_ring: slots of the NIC's own rings (`ethtool -G`). The driver may round.
    rss_weights: how much of what is received each queue gets, by number (`ethtool -X weight`); 0 keeps a queue free.
    rss_key: the key of the receive hash, of the length that the device has.
    rss_fields: what the hash covers, by flow type, with ethtool's letters: `{"udp4": "sdfn"}` (addresses and ports).
    steer: the queue for the datagrams of a claim, by n-tuple rules: `{SocketClaim("10.0.0.2", 53): 1}`. A wildcard address
        stands for any.
    irq_cpus: the CPU for each queue's interrupt; over again where there are more queues.
    napi_defer_hard_irqs, gro_flush_timeout_ns: how many empty polls, and how long, the driver goes on polling without its
        interrupt: what preferred busy polling wants (Documentation/networking/napi.rst).
    merging: GRO and LRO, which make super-packets of several. "auto" switches them off in generic mode, where the program
        would see those; "off" does so in any mode; "keep" does not.
    vlan_stripping: False has VLAN tags left in the frame, where the program and the stack see them.

    Raises ConfigurationError for values that no device could have.
    """

    channels: int | None = None
    nic_rx_ring: int | None = None
    nic_tx_ring: int | None = None
    rss_weights: Sequence[int] = ()
    rss_key: bytes = b""
    rss_fields: Mapping[str, str] = field(default_factory=dict)
    steer: Mapping[SocketClaim, int] = field(default_factory=dict)
    irq_cpus: Sequence[int] = ()
    napi_defer_hard_irqs: int | None = None
    gro_flush_timeout_ns: int | None = None
    merging: Merging = "auto"
    vlan_stripping: bool | None = None

    def __post_init__(self) -> None:
        for name in ("channels", "nic_rx_ring", "nic_tx_ring"):
            _within(name, getattr(self, name), 1, (1 << 31) - 1)
        _within("napi_defer_hard_irqs", self.napi_defer_hard_irqs, 0, LARGEST_DEFER)
        _within("gro_flush_timeout_ns", self.gro_flush_timeout_ns, 0, LARGEST_TIMEOUT_NS)
        for name in ("rss_weights", "irq_cpus"):
            for each in getattr(self, name):
                _within(name, each, 0, (1 << 31) - 1)
        if self.rss_weights and not any(self.rss_weights):
            raise ConfigurationError("rss_weights are all 0", fix="Some queue has to receive.")
        if not isinstance(self.rss_key, bytes | bytearray):
            raise ConfigurationError(
                f"rss_key is {self.rss_key!r}", "It is bytes.", "bytes.fromhex() reads what ethtool -x shows."
            )
        for flow, letters in self.rss_fields.items():
            if flow not in FLOWS or not letters or set(letters) - set(FIELDS):
                raise ConfigurationError(
                    f"rss_fields has {flow!r}: {letters!r}",
                    fix=f"Flow types are {', '.join(FLOWS)}; fields are letters of {''.join(FIELDS)!r}, as in ethtool(8).",
                )
        for claim, queue in self.steer.items():
            if not isinstance(claim, SocketClaim) or claim.vlan is not None or claim.broadcast:
                raise ConfigurationError(
                    f"{claim} cannot be steered", fix="SocketClaim(address, port) can, without a VLAN."
                )
            _within("steer", queue, 0, (1 << 31) - 1)
        if self.merging not in ("auto", "off", "keep"):
            raise ConfigurationError(f"merging is {self.merging!r}", fix='It can be "auto", "off" or "keep".')
        if self.vlan_stripping:
            raise ConfigurationError("vlan_stripping is True", fix="False switches it off; None leaves it.")

    def asked(self) -> dict[str, Any]:
        """What was asked for, as plain values; without what was left out."""
        values = {name: getattr(self, name) for name in self.__slots__ if name not in ("rss_key", "steer")}
        values |= {"rss_key": self.rss_key.hex(), "steer": {str(claim): queue for claim, queue in self.steer.items()}}
        return {name: value for name, value in values.items() if value not in (None, "", (), [], {})}


def _within(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
        raise ConfigurationError(f"{name} is {value!r}; it can be {least} to {most}")
