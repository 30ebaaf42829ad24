"""Which knobs to turn to what, for what was asked of a device that is as it is. No I/O; nothing has been changed yet.

What cannot be is refused here, with the reason. In two parts: before the XDP program is attached (queues and rings: drivers
take them down for it; and what native mode does not go with), and after it (what depends on the mode that was granted, and
what attaching may have reset).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdpstack.device.ethtool_set import FIELDS, udp_rule
from xdpstack.device.stripping import STRIPPING
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.tuning.facts import Facts
from xdpstack.device.tuning.knobs import Value, spread
from xdpstack.errors import TuningRefused

#: What makes super-packets of several on receive.
MERGING = ("rx-gro", "rx-lro", "rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding")
#: Of these, what most drivers refuse to have beside a program in native mode.
IN_HARDWARE = ("rx-lro", "rx-gro-hw")
#: Drivers that do not make the table of the receive hash smaller by themselves: fewer queues than it names are refused.
KEEPS_TABLE = {"virtio_net"}


@dataclass(slots=True)
class Steps:
    """Knobs with their values, in order; `why` has the reason for what is not done though it was asked for."""

    steps: list[tuple[str, Value]] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)


def plan_before(tuning: Tuning, facts: Facts) -> Steps:
    """What to do before the program is attached. Raises TuningRefused."""
    plan = Steps()
    if tuning.merging == "off":
        _switch_off(plan, facts, MERGING, "merging")
    if tuning.vlan_stripping is False:
        _switch_off(plan, facts, STRIPPING, "vlan_stripping")
        if facts.driver == "veth":
            plan.why["vlan_stripping"] = (
                "On veth the tag is beside the frame because the sender put it there: ethtool -K PEER tx-vlan-hw-insert off"
            )
    if tuning.nic_rx_ring is not None or tuning.nic_tx_ring is not None:
        plan.steps.append(("rings", _rings(tuning, facts)))
    if tuning.channels is not None:
        channels = _channels(tuning.channels, facts)
        if facts.driver in KEEPS_TABLE and facts.rss and max(facts.rss.table) >= tuning.channels:
            plan.steps.append(("rss table", list(spread(len(facts.rss.table), tuning.channels))))
        plan.steps.append(("channels", channels))
    return plan


def plan_after(tuning: Tuning, facts: Facts, mode: str, queues: int) -> Steps:
    """What to do when the program is attached in `mode`, and `queues` are active. Raises TuningRefused."""
    plan = Steps()
    if tuning.merging == "auto" and mode == "generic":
        _switch_off(plan, facts, MERGING, "merging")
    if mode == "generic" and tuning.merging != "keep" and facts.driver == "veth":
        plan.why["merging"] = (
            "What a peer's kernel sends through veth comes as it made it, super-packets too, and generic XDP sees those: "
            "ethtool -K PEER tso off gso off tx-udp-segmentation off"
        )
    _plan_rss(plan, tuning, facts, queues)
    _plan_steering(plan, tuning, facts, queues)
    if tuning.irq_cpus:
        _plan_irqs(plan, tuning, facts, queues)
    for name, value in (
        ("napi_defer_hard_irqs", tuning.napi_defer_hard_irqs),
        ("gro_flush_timeout", tuning.gro_flush_timeout_ns),
    ):
        if value is None:
            continue
        if name not in facts.files:
            raise TuningRefused(f"{facts.name} has no {name}", "It cannot be read in /sys/class/net.", "Leave it out.")
        plan.steps.append((name, value))
    return plan


def _switch_off(plan: Steps, facts: Facts, features: tuple[str, ...], asked: str) -> None:
    on = [each for each in features if each in facts.offloads and facts.offloads[each].on]
    plan.steps += [(f"feature {each}", False) for each in on if not facts.offloads[each].fixed]
    if fixed := [each for each in on if facts.offloads[each].fixed]:
        plan.why[asked] = f"The driver of {facts.name} does not let {', '.join(fixed)} be switched off."


def _channels(count: int, facts: Facts) -> Value:
    now = facts.channels
    if now is None:
        raise TuningRefused(
            f"the number of queues of {facts.name} cannot be changed",
            "Its driver has no ethtool -l.",
            "Leave channels out.",
        )
    if now.combined_max:
        most, value = now.combined_max, [now.rx, now.tx, count]
    else:
        most, value = now.rx_max, [count, min(count, now.tx_max) or now.tx, now.combined]
    if count > most:
        raise TuningRefused(
            f"{facts.name} cannot have {count} queues",
            f"It has {most} at most.",
            f"channels={most} or fewer; ethtool -l {facts.name}",
        )
    return list(value)


def _rings(tuning: Tuning, facts: Facts) -> Value:
    now = facts.rings
    if now is None:
        raise TuningRefused(
            f"the rings of {facts.name} cannot be changed",
            "Its driver has no ethtool -g.",
            "Leave nic_rx_ring and nic_tx_ring out.",
        )
    value = []
    for name, asked, is_now, most in (
        ("nic_rx_ring", tuning.nic_rx_ring, now.rx, now.rx_max),
        ("nic_tx_ring", tuning.nic_tx_ring, now.tx, now.tx_max),
    ):
        if asked is not None and asked > most:
            raise TuningRefused(
                f"{facts.name} cannot have {name}={asked}", f"It has {most} slots at most.", f"ethtool -g {facts.name}"
            )
        value.append(is_now if asked is None else asked)
    return value


def _plan_rss(plan: Steps, tuning: Tuning, facts: Facts, queues: int) -> None:
    if not (tuning.rss_weights or tuning.rss_key or tuning.rss_fields):
        return
    if (tuning.rss_weights or tuning.rss_key) and facts.rss is None:
        raise TuningRefused(
            f"{facts.name} does not spread packets by a table",
            "Its driver has no ethtool -x.",
            "Leave rss_weights and rss_key out.",
        )
    if tuning.rss_key and facts.rss:
        if len(tuning.rss_key) != len(facts.rss.key):
            raise TuningRefused(
                f"{facts.name} does not take an rss_key of {len(tuning.rss_key)} bytes", f"It has {len(facts.rss.key)}."
            )
        plan.steps.append(("rss key", tuning.rss_key.hex()))
    if tuning.rss_weights and facts.rss:
        if len(tuning.rss_weights) > queues:
            raise TuningRefused(
                f"{facts.name} has no queues for {len(tuning.rss_weights)} rss_weights", f"It has {queues} active."
            )
        plan.steps.append(("rss table", weighted(len(facts.rss.table), tuning.rss_weights)))
    for flow, letters in tuning.rss_fields.items():
        plan.steps.append((f"hash {flow}", sum(FIELDS[letter] for letter in set(letters))))


def weighted(size: int, weights: Sequence[int]) -> list[int]:
    """A table of `size` entries in which each queue has its share, in runs, as `ethtool -X weight` makes it."""
    table: list[int] = []
    queue, partial = -1, 0
    for i in range(size):
        while i >= size * partial // sum(weights):
            queue += 1
            partial += weights[queue]
        table.append(queue)
    return table


def _plan_steering(plan: Steps, tuning: Tuning, facts: Facts, queues: int) -> None:
    if not tuning.steer:
        return
    feature = facts.offloads.get("rx-ntuple-filter")
    if facts.rules is None or feature is None or (feature.fixed and not feature.on):
        raise TuningRefused(
            f"{facts.name} cannot be told where packets go", "Its driver has no n-tuple rules.", "Leave steer out."
        )
    if not feature.on:
        plan.steps.append(("feature rx-ntuple-filter", True))
    used, size = facts.rules
    most = size or 1 << 16
    free = (location for location in range(most) if location not in used)
    for claim, queue in tuning.steer.items():
        if queue >= queues:
            raise TuningRefused(
                f"{claim} cannot be steered to queue {queue} of {facts.name}", f"It has {queues} active."
            )
        location = next(free, None)
        if location is None:
            raise TuningRefused(f"{facts.name} has no room for a rule for {claim}", f"It holds {most}.")
        plan.steps.append((f"steer {location}", udp_rule(claim.address, claim.port, queue, location).hex()))


def _plan_irqs(plan: Steps, tuning: Tuning, facts: Facts, queues: int) -> None:
    if unknown := sorted(set(tuning.irq_cpus) - facts.cpus):
        raise TuningRefused(
            f"there is no CPU {', '.join(map(str, unknown))}", f"Online are {', '.join(map(str, sorted(facts.cpus)))}."
        )
    numbers = [number for queue, number in sorted(facts.irqs.items()) if queue < queues]
    if not numbers:
        raise TuningRefused(
            f"no interrupt of {facts.name} is known",
            f"{facts.driver or 'Its driver'} has none for its queues.",
            "Leave irq_cpus out.",
        )
    done: set[int] = set()
    for i, number in enumerate(numbers):
        if number not in done:  # several queues may share one
            done.add(number)
            plan.steps.append((f"irq {number}", str(tuning.irq_cpus[i % len(tuning.irq_cpus)])))
