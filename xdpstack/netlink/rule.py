"""A policy rule: which table to ask for which packets (RTM_NEWRULE)."""

from dataclasses import dataclass

from xdpstack.netlink.ip import Prefix
from xdpstack.netlink.uapi import (
    AF_INET,
    AF_INET6,
    FR_ACT_GOTO,
    FR_ACT_TO_TBL,
    RT_TABLE_DEFAULT,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTPROT_KERNEL,
    RULE_ACTIONS,
)


@dataclass(frozen=True, slots=True)
class Range:
    """Ports (or user ids) from `start` to `end`, both included; with a `mask` (6.15) the port is masked first."""

    start: int
    end: int
    mask: int = 0
    """0 for none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A selector left empty matches everything; rules are asked in the order of their priority."""

    family: int
    priority: int = 0
    action: int = FR_ACT_TO_TBL
    """FR_ACT_*."""
    table: int = 0
    """For FR_ACT_TO_TBL: the table to ask."""
    goto: int = 0
    """For FR_ACT_GOTO: the priority to go on at."""
    invert: bool = False
    """`not`: the rule applies to what its selectors do not match."""
    source: Prefix | None = None
    destination: Prefix | None = None
    iif: str = ""
    """Name of the device the packet came in by (`lo` for packets of this host), or empty."""
    oif: str = ""
    """Name of the device the sender is bound to, or empty."""
    mark: int = 0
    """The packet's mark, under `mark_mask`, must be this."""
    mark_mask: int = 0
    tos: int = 0
    """The legacy TOS selector (its DSCP bits), 0 for none."""
    dscp: int | None = None
    """The DSCP selector (6.13), 0 to 63."""
    dscp_mask: int = 0x3F
    """Bits of `dscp` that count (6.16)."""
    ip_protocol: int = 0
    """The transport protocol, 0 for any."""
    source_ports: Range | None = None
    destination_ports: Range | None = None
    users: Range | None = None
    """User ids of the sending socket."""
    flow_label: int = 0
    """IPv6 flow label (6.14), under `flow_label_mask`."""
    flow_label_mask: int = 0
    tunnel: int = 0
    """The id of the tunnel the packet came through, 0 for any."""
    l3_master: bool = False
    """Ask the table of the VRF that the packet belongs to."""
    suppress_prefix_length: int = -1
    """Reject what the table found if its prefix is this short or shorter; -1 for never."""
    suppress_group: int = -1
    """Reject what the table found if its device is of this group; -1 for never."""
    protocol: int = 0
    """RTPROT_*: who installed it."""
    realms: int = 0
    """IPv4: the realms that accounting gives packets which it applies to; 0 for none."""

    def __str__(self) -> str:
        words = [f"{self.priority}:", "not"] if self.invert else [f"{self.priority}:"]
        words.append(f"from {self.source or 'all'}")
        for name, value in (("to", self.destination), ("iif", self.iif), ("oif", self.oif)):
            if value:
                words.append(f"{name} {value}")
        if self.mark_mask:
            words.append(f"fwmark {self.mark:#x}/{self.mark_mask:#x}")
        if self.action == FR_ACT_TO_TBL:
            words.append("lookup [l3mdev-table]" if self.l3_master else f"lookup {self.table}")
        elif self.action == FR_ACT_GOTO:
            words.append(f"goto {self.goto}")
        else:
            words.append(RULE_ACTIONS.get(self.action, str(self.action)))
        return " ".join(words)


DEFAULT_RULES = (
    Rule(AF_INET, 0, table=RT_TABLE_LOCAL, protocol=RTPROT_KERNEL),
    Rule(AF_INET, 32766, table=RT_TABLE_MAIN, protocol=RTPROT_KERNEL),
    Rule(AF_INET, 32767, table=RT_TABLE_DEFAULT, protocol=RTPROT_KERNEL),
    Rule(AF_INET6, 0, table=RT_TABLE_LOCAL, protocol=RTPROT_KERNEL),
    Rule(AF_INET6, 32766, table=RT_TABLE_MAIN, protocol=RTPROT_KERNEL),
)
"""The rules of a fresh network namespace (fib_default_rules_init, fib6_rules_net_init)."""
