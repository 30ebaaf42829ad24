"""The doctor's look at what is tuned, what a process that was killed left behind, and what could be tuned."""

from __future__ import annotations

from collections.abc import Iterator

from xdpstack.device.finding import Finding, note, warning
from xdpstack.device.tuning.facts import Facts, read_facts
from xdpstack.device.tuning.journal import Journal, journals, namespace
from xdpstack.device.tuning.restore import shown
from xdpstack.netlink import Link


def tuning_findings(link: Link) -> Iterator[Finding]:
    """Journals of the interface, in the calling thread's network namespace, and what its driver lets be changed."""
    here = (*namespace(), link.index)
    for journal in journals():
        owner = journal.owner
        if (owner.netns_inode, owner.netns_cookie, owner.ifindex) != here:
            continue
        if not journal.left:
            yield note("tuning", f"process {owner.pid} has tuned {link.name}, until it ends: {changes(journal)}")
        else:
            yield warning(
                "tuning",
                f"process {owner.pid} has tuned {link.name}, and {how_left(journal)}: {changes(journal)}",
                "It could not undo it.",
                "Undo it; opening a stack on it does so too.",
                f"xdpstack doctor --undo {link.name}",
            )
    yield note("tuning", f"can be tuned: {', '.join(possible(read_facts(link.name, link.index)))}")


def how_left(journal: Journal) -> str:
    """Of a journal that was left behind, why."""
    return "failed to put all of it back" if journal.released else "was killed"


def changes(journal: Journal) -> str:
    """What was changed, each with what it was and what was granted."""
    return "; ".join(
        f"{entry.knob}: {shown(entry.old)} -> {shown(entry.granted if entry.done else entry.asked)}"
        for entry in journal.entries
    )


def possible(facts: Facts) -> list[str]:
    """What can be tuned, in words; docs/tuning.md has how."""
    found = []
    if facts.channels is not None:
        now, most = facts.channels, facts.channels.combined_max or facts.channels.rx_max
        found.append(f"channels ({now.receiving} of {most})")
    if facts.rings is not None:
        found.append(
            f"nic_rx_ring ({facts.rings.rx} of {facts.rings.rx_max}), nic_tx_ring ({facts.rings.tx} of {facts.rings.tx_max})"
        )
    if facts.rss is not None:
        found.append(f"rss_weights ({len(facts.rss.table)} entries), rss_key ({len(facts.rss.key)} bytes)")
    ntuple = facts.offloads.get("rx-ntuple-filter")
    if facts.rules is not None and ntuple is not None and (ntuple.on or not ntuple.fixed):
        found.append("steer")
    if facts.irqs:
        found.append(f"irq_cpus ({len(set(facts.irqs.values()))} interrupts)")
    return [
        *found,
        *("gro_flush_timeout_ns" if each == "gro_flush_timeout" else each for each in sorted(facts.files)),
    ] or ["nothing"]
