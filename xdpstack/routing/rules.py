"""Policy rules: which routing tables are asked, in which order (fib_rules_lookup).

One walk for both families, as in the kernel; what the families do differently is in `matches_ipv4` and `matches_ipv6`.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass

from xdpstack.netlink import Range, Rule
from xdpstack.netlink.uapi import (
    AF_INET,
    FR_ACT_BLACKHOLE,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    RT_TABLE_MAIN,
)
from xdpstack.routing.flow import Flow
from xdpstack.routing.tables import Entry, Path, Tables

DSCP_MASK = 0xFC  # INET_DSCP_MASK: the DS field without the two ECN bits
LEGACY_TOS_MASK = 0x1C  # INET_DSCP_LEGACY_TOS_MASK: what a TOS selector and a route's TOS see of it
ACTION_ERRORS = {
    FR_ACT_UNREACHABLE: errno.ENETUNREACH,
    FR_ACT_PROHIBIT: errno.EACCES,
    FR_ACT_BLACKHOLE: errno.EINVAL,
}


@dataclass(frozen=True, slots=True)
class Result:
    """What the tables answered: an entry and one of its paths, or an errno."""

    error: int = 0
    """0, or the errno: EAGAIN inside the walk (ask on), ENETUNREACH for no route."""
    entry: Entry | None = None
    path: Path | None = None


NO_ROUTE = Result(errno.ENETUNREACH)
ASK_ON = Result(errno.EAGAIN)
Ask = Callable[[int], Result]
"""Looks one table up; ASK_ON if it has no answer."""


def walk_rules(tables: Tables, flow: Flow, ask: Ask) -> Result:
    """Ask table after table as the rules say; ENETUNREACH if none knows.

    `ask(table)` looks a table up. It may answer with an errno that ends the walk (a blackhole route, say).
    """
    rules = tables.rules.get(flow.family, ())
    position = 0
    while position < len(rules):
        rule = rules[position]
        position += 1
        if not matches(tables, rule, flow):
            continue
        if rule.action == FR_ACT_NOP:
            continue
        if rule.action == FR_ACT_GOTO:
            position = next((i for i, other in enumerate(rules) if other.priority == rule.goto), position)
            continue
        if rule.action != FR_ACT_TO_TBL:
            return Result(ACTION_ERRORS.get(rule.action, errno.EINVAL))
        answer = ask(rule.table or RT_TABLE_MAIN)  # fib_get_table: a rule for VRFs has none, and may be inverted
        if answer.error == errno.EAGAIN or (not answer.error and suppressed(tables, rule, answer)):
            continue
        return answer
    return NO_ROUTE


def matches(tables: Tables, rule: Rule, flow: Flow) -> bool:
    """The rule applies to the flow (fib_rule_match)."""
    return selects(tables, rule, flow) != rule.invert


def selects(tables: Tables, rule: Rule, flow: Flow) -> bool:
    """The rule's selectors all match."""
    if rule.iif and tables.indices.get(rule.iif) != (flow.iif or tables.loopback):
        return False
    if rule.oif and tables.indices.get(rule.oif) != flow.oif:
        return False
    if (rule.mark ^ flow.mark) & rule.mark_mask:
        return False
    if rule.tunnel and rule.tunnel != flow.tunnel:
        return False
    if rule.l3_master:  # matches packets of a VRF; compile_tables() refuses namespaces that have one
        return False
    if rule.users and not rule.users.start <= flow.user <= rule.users.end:
        return False
    if rule.ip_protocol and rule.ip_protocol != flow.protocol:
        return False
    if not port_matches(rule.source_ports, flow.source_port):
        return False
    if not port_matches(rule.destination_ports, flow.destination_port):
        return False
    return matches_ipv4(rule, flow) if flow.family == AF_INET else matches_ipv6(rule, flow)


def matches_ipv4(rule: Rule, flow: Flow) -> bool:
    """The selectors of IPv4 (fib4_rule_match). A TOS selector sees three bits of the DSCP, a DSCP selector all six."""
    if rule.source and flow.source_or_any not in rule.source:
        return False
    if rule.destination and flow.destination not in rule.destination:
        return False
    if rule.dscp is not None:
        return (rule.dscp ^ flow.tos >> 2) & rule.dscp_mask == 0
    return not rule.tos or rule.tos == flow.tos & LEGACY_TOS_MASK


def matches_ipv6(rule: Rule, flow: Flow) -> bool:
    """The selectors of IPv6 (fib6_rule_match). A source selector matches nothing while no source is chosen."""
    if rule.source and (not flow.source or flow.source not in rule.source):
        return False
    if rule.destination and flow.destination not in rule.destination:
        return False
    if rule.dscp is not None and (rule.dscp ^ flow.tos >> 2) & rule.dscp_mask:
        return False
    if rule.dscp is None and rule.tos and rule.tos != flow.tos & DSCP_MASK:
        return False
    return (rule.flow_label ^ flow.flow_label) & rule.flow_label_mask == 0


def port_matches(ports: Range | None, port: int) -> bool:
    """The port is in the range, or with a mask equals its start under the mask (fib_rule_port_match)."""
    if ports is None:
        return True
    if ports.mask:
        return (ports.start ^ port) & ports.mask == 0
    return ports.start <= port <= ports.end


def suppressed(tables: Tables, rule: Rule, answer: Result) -> bool:
    """The rule rejects what its table found (fib4_rule_suppress, fib6_rule_suppress)."""
    if answer.entry is None:
        return False
    if answer.entry.route.destination.length <= rule.suppress_prefix_length:
        return True
    if rule.suppress_group == -1:
        return False
    path = answer.entry.paths[0] if answer.entry.route.family == AF_INET and answer.entry.paths else answer.path
    device = tables.devices.get(path.oif) if path else None
    return device is not None and device.link.group == rule.suppress_group
