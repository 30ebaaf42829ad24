"""The tuning of one interface while a stack has it: checked, applied in two parts, undone.

    repair()         what a process that was killed left behind is undone first
    check()          plans all of it; raises, and nothing has been changed
    before_attach()  queues and rings
    after_attach()   what depends on the mode that was granted
    undo()           in reverse; what somebody else has changed since is left alone

Each change: the old value into the journal, the new one to the device, and what the device then says is what was granted.
All in the calling thread's network namespace.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import Any

from xdpstack.device.ethtool_set import fields_text
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.tuning.facts import Facts, read_facts
from xdpstack.device.tuning.journal import Journal, boot_id, journals, myself, namespace
from xdpstack.device.tuning.knobs import Value, knob
from xdpstack.device.tuning.plan import Steps, plan_after, plan_before
from xdpstack.device.tuning.restore import Restored, restore, shown
from xdpstack.errors import TuningRefused

log = logging.getLogger("xdpstack")


class Tuner:
    """Of one interface. `why` has the reasons for what was asked for and is not granted, `tuned` what was changed."""

    def __init__(self, name: str, ifindex: int, tuning: Tuning) -> None:
        self._name = name
        self._ifindex = ifindex
        self._tuning = tuning
        self._journal: Journal | None = None
        self.tuned: dict[str, dict[str, Any]] = {}
        self.why: dict[str, str] = {}

    def repair(self) -> None:
        """Undo what was left behind, unless another has the device now, who may have changed the same."""
        found = self._journals()
        if any(not each.left for each in found):
            return
        for left in reversed(found):
            for result in restore(left, self._name):
                log.warning("%s: %s, left by process %d: %s", self._name, result.knob, left.owner.pid, result.text)

    def check(self, mode: str, active: int) -> int:
        """Whether all of it can be, as far as can be known; `mode` is the one to expect, `active` queues are there now.

        Returns how many queues there will be. Raises TuningRefused; nothing has been changed.
        """
        facts = read_facts(self._name, self._ifindex)
        queues = self._tuning.channels or active
        steps = plan_before(self._tuning, facts).steps + plan_after(self._tuning, facts, mode, queues).steps
        if steps and (others := [each for each in self._journals() if not each.left]):
            raise TuningRefused(
                f"{self._name} has been tuned by process {others[0].owner.pid}",
                "What two change, neither can undo.",
                "End that process first, or leave tuning to it.",
                errno.EBUSY,
            )
        return queues

    def before_attach(self) -> None:
        """The first part. Raises TuningRefused for what the driver refuses; then `undo` undoes what was done."""
        self._apply(plan_before(self._tuning, self._facts()))

    def after_attach(self, mode: str, queues: int) -> None:
        """The second part, for the mode that was granted and the queues that are there now."""
        self._apply(plan_after(self._tuning, self._facts(), mode, queues))

    def undo(self) -> list[Restored]:
        """All back, the last change first; what cannot be stays in the journal for `xdpstack doctor --undo`. Idempotent."""
        journal, self._journal = self._journal, None
        results = restore(journal, self._name) if journal else []
        for result in results:
            if result.outcome in ("left alone", "failed"):
                log.warning("%s: %s %s", self._name, result.knob, result.text)
        if journal and any(result.outcome == "failed" for result in results):
            self._release(journal)
        return results

    @property
    def changed(self) -> list[str]:
        """What `undo` would put back, by name."""
        return [entry.knob for entry in self._journal.entries] if self._journal is not None else []

    def forget(self) -> None:
        """The interface is gone. What was changed of a virtual one is gone too; a NIC that was moved keeps it.

        So does its journal: for who finds it, and for when it comes back.
        """
        journal, self._journal = self._journal, None
        if journal is not None and journal.owner.physical:
            before = {entry.knob: entry.old for entry in journal.entries}
            log.warning("%s is gone as it was tuned; before, it had %s (%s)", self._name, before, journal.path)
            self._release(journal)
        elif journal is not None:
            journal.remove()

    def _release(self, journal: Journal) -> None:
        with contextlib.suppress(OSError):  # then it is this process's until that ends
            journal.release()

    def _facts(self) -> Facts:
        return read_facts(self._name, self._ifindex)

    def _journals(self) -> list[Journal]:
        inode, cookie = namespace()
        mine = (boot_id(), inode, cookie, self._ifindex)
        return [
            each
            for each in journals()
            if (each.owner.boot, each.owner.netns_inode, each.owner.netns_cookie, each.owner.ifindex) == mine
            and each is not self._journal
        ]

    def _apply(self, plan: Steps) -> None:
        self.why |= plan.why
        for name, value in plan.steps:
            turned = knob(self._name, name)
            try:
                old = turned.read()
                if old == value:
                    self.tuned[name] = {"asked": value, "granted": old, "before": old}
                    continue
                if name == "channels":
                    self._note_affinities()
                entry = self._opened().begin(name, old, value)
                turned.write(value)
                granted = turned.read()
                self._opened().done(entry, granted)
            except TuningRefused:
                raise
            except OSError as error:
                raise TuningRefused(
                    f"{name} of {self._name} cannot be {_worded(name, value)}",
                    f"The driver refuses it: {error.strerror or error}.",
                    "Leave it out; what was changed before it has been put back.",
                    error.errno,
                ) from error
            self.tuned[name] = {"asked": value, "granted": granted, "before": old}
            if granted != value:
                self.why[name] = (
                    f"The driver was asked for {_worded(name, value)} and made it {_worded(name, granted)}."
                )

    def _note_affinities(self) -> None:
        """With other channels come other interrupts: which CPUs they had goes into the journal by their names.

        What becomes of them is the driver's, and not noted. Undone is it behind the channels, when those of before are back.
        """
        now = knob(self._name, "affinities").read()
        if now:
            self._opened().begin("affinities", now, now)

    def _opened(self) -> Journal:
        if self._journal is None:
            facts = self._facts()
            try:
                self._journal = Journal.create(myself(self._ifindex, self._name, facts.physical))
            except OSError as error:
                raise TuningRefused(
                    f"{self._name} is not tuned, because it could not be undone",
                    f"No journal can be written: {error}.",
                    "Make the directory writable, or name another in XDPSTACK_RUN.",
                    error.errno,
                ) from error
        return self._journal


def _worded(name: str, value: Value) -> str:
    """A value for a person; what a hash covers in ethtool's letters, as it was asked for."""
    return fields_text(value) if name.startswith("hash ") and isinstance(value, int) else shown(value)
