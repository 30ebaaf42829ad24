"""Tuning of a NIC that has all that can be tuned: every knob turned, read back, and put back in reverse order."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.device.fake_nic import FakeNic, FlowSpec
from xdpstack.device import netdev
from xdpstack.device.claims import SocketClaim
from xdpstack.device.tuning import facts, irqs, journal, knobs
from xdpstack.device.tuning.asked import Tuning
from xdpstack.device.tuning.journal import journals
from xdpstack.device.tuning.restore import leftovers, restore
from xdpstack.device.tuning.tuner import Tuner
from xdpstack.errors import TuningRefused

ASKED = Tuning(
    channels=2,
    nic_rx_ring=1001,
    rss_weights=[1, 3],
    rss_key=bytes(40),
    rss_fields={"udp4": "sdfn"},
    steer={SocketClaim("10.0.0.2", 53): 1},
    irq_cpus=[0],
    merging="off",
    vlan_stripping=False,
)


@pytest.fixture
def nic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeNic:
    """With two interrupts, and a directory for journals."""
    made = FakeNic()
    made.plug(monkeypatch)
    monkeypatch.setattr(netdev, "queue_irqs", lambda ifindex: {0: 40, 1: 41})
    monkeypatch.setattr(facts, "online_cpus", lambda: frozenset({0, 1}))
    monkeypatch.setattr(knobs, "PROC_IRQ", tmp_path / "irq")
    for number in (40, 41):
        (tmp_path / "irq" / str(number)).mkdir(parents=True)
        (tmp_path / "irq" / str(number) / "smp_affinity_list").write_text("1\n")
    monkeypatch.setattr(journal, "DIRECTORY", tmp_path / "run")
    return made


def state(nic: FakeNic) -> list[Any]:
    affinities = [(knobs.PROC_IRQ / str(number) / "smp_affinity_list").read_text() for number in (40, 41)]
    return [nic.channels, nic.rings, nic.features, nic.table, nic.key, nic.hashes, nic.rules, affinities]


def tuned(asked: Tuning = ASKED) -> Tuner:
    tuner = Tuner("eth7", 7, asked)
    tuner.repair()
    assert tuner.check("native", 4) == (asked.channels or 4)
    tuner.before_attach()
    tuner.after_attach("native", asked.channels or 4)
    return tuner


def test_all_of_it_and_back(nic: FakeNic) -> None:
    before = repr(state(nic))
    tuner = tuned()
    assert nic.channels == [0, 0, 2]
    assert nic.rings == [1008, 256]
    assert nic.table == [0] * 4 + [1] * 12
    assert nic.key == bytes(40)
    assert nic.hashes == {2: 0xF0}
    [rule] = nic.rules.values()
    spec = FlowSpec.from_buffer_copy(rule)
    assert (spec.flow_type, spec.ring_cookie, spec.location) == (2, 1, 0)
    assert bytes(spec.h_u)[:13] == bytes(4) + bytes([10, 0, 0, 2]) + bytes(2) + bytes([0, 53]) + bytes(1)
    assert bytes(spec.m_u)[:13] == bytes(4) + b"\xff" * 4 + bytes(2) + b"\xff" * 2 + bytes(1)
    assert {name: on for name, (on, _) in nic.features.items()} == {
        "rx-gro": False,
        "rx-lro": False,
        "rx-gro-hw": True,  # fixed
        "rx-vlan-hw-parse": False,
        "rx-ntuple-filter": True,
    }
    assert tuner.tuned["rings"] == {"asked": [1001, 256], "granted": [1008, 256], "before": [256, 256]}
    assert tuner.why["rings"] == "The driver was asked for [1001, 256] and made it [1008, 256]."
    assert "rx-gro-hw" in tuner.why["merging"]
    results = tuner.undo()
    assert {result.outcome for result in results} == {"restored"}
    assert repr(state(nic)) == before
    assert journals() == []
    assert tuner.undo() == []


class Interrupts:
    """Those of the fake NIC: other numbers after each change of channels, and the CPUs that the driver likes."""

    def __init__(self, nic: FakeNic, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._nic = nic
        self._table = folder / "interrupts"
        self._next = 100
        self.numbers: dict[str, int] = {}
        monkeypatch.setattr(irqs, "PROC_INTERRUPTS", self._table)
        monkeypatch.setattr(netdev, "queue_irqs", lambda ifindex: {})
        change = nic.do_3d

        def and_interrupts(buffer: bytearray) -> None:
            change(buffer)
            self.allocate()

        monkeypatch.setattr(nic, "do_3d", and_interrupts)
        self.allocate()

    def allocate(self) -> None:
        names = ["eth7", *(f"eth7-TxRx-{queue}" for queue in range(self._nic.channels[2]))]
        self.numbers = {name: self._next + i for i, name in enumerate(names)}
        self._next += 100
        lines = [f" {number}:  1  2  PCI-MSIX-0000:01:00.0  0-edge  {name}" for name, number in self.numbers.items()]
        self._table.write_text("\n".join(["      CPU0  CPU1", *lines, " 7: 1 2 edge eth77-TxRx-0"]) + "\n")
        for number in self.numbers.values():
            self.file(number).parent.mkdir(parents=True)
            self.file(number).write_text("2\n")

    @staticmethod
    def file(number: int) -> Path:
        return knobs.PROC_IRQ / str(number) / "smp_affinity_list"

    def cpus(self) -> dict[str, str]:
        return {name: self.file(number).read_text().strip() for name, number in self.numbers.items()}


def test_cpus_of_interrupts_come_back_with_the_channels(
    nic: FakeNic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Set by hand before, one by one; the interrupts have other numbers by then, and Tuning had its own idea of some."""
    interrupts = Interrupts(nic, monkeypatch, tmp_path)
    for name, cpus in (("eth7", "0"), ("eth7-TxRx-0", "1"), ("eth7-TxRx-3", "0")):
        interrupts.file(interrupts.numbers[name]).write_text(cpus)
    before = interrupts.cpus()
    tuner = tuned(Tuning(channels=2, irq_cpus=[0]))
    assert interrupts.cpus() == {"eth7": "2", "eth7-TxRx-0": "0", "eth7-TxRx-1": "0"}
    outcomes = {result.knob: result.outcome for result in tuner.undo()}
    assert set(outcomes.values()) == {"restored"}
    assert interrupts.cpus() == before
    assert interrupts.numbers["eth7"] == 300, "allocated twice since"
    assert journals() == []


def test_cpus_of_interrupts_come_back_after_a_kill(
    nic: FakeNic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupts = Interrupts(nic, monkeypatch, tmp_path)
    interrupts.file(interrupts.numbers["eth7-TxRx-2"]).write_text("1")
    before = interrupts.cpus()
    tuned(Tuning(channels=8))
    [left] = journals()
    assert [result.outcome for result in restore(journal.read(left.path), "eth7")] == ["restored", "restored"]
    assert interrupts.cpus() == before


def test_an_interrupt_whose_cpus_cannot_be_set_is_said_and_the_others_are(
    nic: FakeNic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kernel manages some itself, and refuses with EIO."""
    interrupts = Interrupts(nic, monkeypatch, tmp_path)
    for name in ("eth7-TxRx-0", "eth7-TxRx-1"):
        interrupts.file(interrupts.numbers[name]).write_text("1")
    tuner = tuned(Tuning(channels=2))
    write = knobs._write

    def refuse_the_first(file: Path, value: str) -> None:
        if file == interrupts.file(interrupts.numbers["eth7-TxRx-0"]):
            raise OSError(errno.EIO, "Input/output error")
        write(file, value)

    with monkeypatch.context() as patch:
        patch.setattr(knobs, "_write", refuse_the_first)
        outcomes = {result.knob: result for result in tuner.undo()}
    assert (outcomes["channels"].outcome, outcomes["affinities"].outcome) == ("restored", "failed")
    assert "Input/output error" in outcomes["affinities"].text
    assert interrupts.cpus()["eth7-TxRx-1"] == "1"
    assert len(leftovers("eth7")) == 1, "for who may be able to"


def test_what_is_so_already_is_left_alone(nic: FakeNic) -> None:
    tuner = tuned(Tuning(channels=4, nic_rx_ring=256))
    assert nic.log == []
    assert journals() == []
    assert tuner.tuned["channels"] == {"asked": [0, 0, 4], "granted": [0, 0, 4], "before": [0, 0, 4]}
    tuner.undo()
    assert nic.log == []


def test_what_the_driver_refuses_undoes_the_rest(nic: FakeNic) -> None:
    before = repr(state(nic))
    nic.refuses[0x32] = errno.ENOSPC
    tuner = Tuner("eth7", 7, ASKED)
    tuner.check("native", 4)
    tuner.before_attach()
    with pytest.raises(TuningRefused, match=r"steer 0 of eth7.*\nCause: The driver refuses it: No space") as caught:
        tuner.after_attach("native", 2)
    assert caught.value.errno == errno.ENOSPC
    tuner.undo()
    assert repr(state(nic)) == before
    assert journals() == []


def test_what_cannot_be_is_refused_before_anything_is_changed(nic: FakeNic) -> None:
    for asked in (
        Tuning(channels=9, merging="off"),
        Tuning(nic_tx_ring=8192),
        Tuning(channels=2, rss_weights=[1, 1, 1]),
    ):
        with pytest.raises(TuningRefused):
            Tuner("eth7", 7, asked).check("native", 4)
    assert nic.log == []


def test_what_somebody_else_has_changed_is_left_alone(nic: FakeNic) -> None:
    tuner = tuned(Tuning(nic_rx_ring=512, channels=2))
    nic.rings = [2048, 256]
    outcomes = {result.knob: result for result in tuner.undo()}
    assert outcomes["channels"].outcome == "restored"
    assert outcomes["rings"].outcome == "left alone"
    assert "[2048, 256]: set to [512, 256]" in outcomes["rings"].text
    assert nic.rings == [2048, 256]
    assert journals() == []


def test_what_cannot_be_put_back_stays_in_the_journal(nic: FakeNic) -> None:
    """As a leftover, though its process lives: for the doctor, and for the next stack, of the same process too."""
    tuner = tuned(Tuning(nic_rx_ring=512))
    assert leftovers() == []
    nic.refuses[0x11] = errno.EIO
    assert [result.outcome for result in tuner.undo()] == ["failed"]
    [left] = leftovers("eth7")
    assert left.owner.alive
    Tuner("eth7", 7, Tuning(channels=3)).check("native", 4)
    del nic.refuses[0x11]
    assert [result.outcome for result in restore(left, "eth7")] == ["restored"]
    assert nic.rings == [256, 256]
    assert journals() == []


def test_the_next_stack_puts_back_what_could_not_be(nic: FakeNic) -> None:
    tuner = tuned(Tuning(nic_rx_ring=512))
    nic.refuses[0x11] = errno.EIO
    tuner.undo()
    del nic.refuses[0x11]
    tuned(Tuning(nic_rx_ring=1024)).undo()
    assert nic.rings == [256, 256]
    assert journals() == []


def test_what_was_left_is_not_undone_under_one_that_lives(nic: FakeNic) -> None:
    first = tuned(Tuning(nic_rx_ring=512))
    nic.refuses[0x11] = errno.EIO
    first.undo()
    second = tuned(Tuning(channels=2))
    del nic.refuses[0x11]
    Tuner("eth7", 7, Tuning()).repair()
    assert nic.rings == [512, 256]
    second.undo()
    Tuner("eth7", 7, Tuning()).repair()
    assert nic.rings == [256, 256]
    assert journals() == []


def test_a_journal_of_before_the_boot_is_not_gone_by(nic: FakeNic) -> None:
    tuned(Tuning(nic_rx_ring=512))
    [left] = journals()
    left.path.write_text(left.path.read_text().replace(left.owner.boot, "another"))
    Tuner("eth7", 7, Tuning()).repair()
    assert nic.rings == [512, 256]


def test_a_nic_that_was_moved_keeps_its_journal(nic: FakeNic) -> None:
    """It is tuned still; for when it is back, or for who puts it back by hand."""
    tuner = tuned(Tuning(nic_rx_ring=512))
    tuner.forget()
    [left] = leftovers("eth7")
    assert left.entries[0].old == [256, 256]
    assert tuner.undo() == []
    Tuner("eth7", 7, Tuning()).repair()
    assert nic.rings == [256, 256]
    assert journals() == []


def test_a_table_that_was_not_the_default_is_put_back_as_it_was(nic: FakeNic) -> None:
    nic.table = [3] * 16
    tuner = tuned(Tuning(rss_weights=[1, 1]))
    assert nic.table == [0] * 8 + [1] * 8
    tuner.undo()
    assert nic.table == [3] * 16


def test_one_that_is_tuned_is_not_tuned_by_another(nic: FakeNic) -> None:
    tuner = tuned(Tuning(channels=2))
    with pytest.raises(TuningRefused, match=f"has been tuned by process {os.getpid()}"):
        Tuner("eth7", 7, Tuning(channels=3)).check("native", 2)
    Tuner("eth7", 7, Tuning()).check("native", 2)  # nothing to tune
    tuner.undo()
    Tuner("eth7", 7, Tuning(channels=3)).check("native", 4)


def test_what_a_killed_process_left_is_undone_first(nic: FakeNic, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(Tuning(channels=2, nic_rx_ring=512))
    [left] = journals()
    text = left.path.read_text()
    left.path.write_text(text.replace(f'"started": {left.owner.started}', '"started": 1'))
    assert len(leftovers("eth7")) == 1
    assert leftovers("eth8") == []
    tuner = tuned(Tuning(channels=3))
    assert tuner.tuned["channels"]["before"] == [0, 0, 4]
    assert nic.rings == [256, 256]
    tuner.undo()
    assert nic.channels == [0, 0, 4]


def test_no_journal_no_tuning(nic: FakeNic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "DIRECTORY", Path("/proc/nowhere"))
    tuner = Tuner("eth7", 7, Tuning(channels=2))
    with pytest.raises(TuningRefused, match="could not be undone\nCause: No journal can be written"):
        tuner.before_attach()
    assert nic.log == []


def test_a_change_that_was_not_finished(nic: FakeNic) -> None:
    """Killed between the journal and the device, in the middle of a line, or before what was granted was noted."""
    tuned(Tuning(channels=2, nic_rx_ring=512))
    [left] = journals()
    lines = left.path.read_text().splitlines(keepends=True)
    assert len(lines) == 5  # who; rings, granted; channels, granted
    left.path.write_text("".join(lines[:4]) + lines[4][:10])
    assert [result.outcome for result in restore(journal.read(left.path), "eth7")] == ["restored", "restored"]
    assert (nic.channels, nic.rings) == ([0, 0, 4], [256, 256])
    left.path.write_text("".join(lines[:2]) + lines[3][:-1])
    assert [result.outcome for result in restore(journal.read(left.path), "eth7")] == ["as it was"]


def test_what_was_rounded_is_put_back_though_that_was_not_noted(nic: FakeNic) -> None:
    """Killed between the device and the journal's second line: what is there is not what was asked for."""
    tuned(Tuning(nic_rx_ring=1001))
    [left] = journals()
    left.path.write_text("".join(left.path.read_text().splitlines(keepends=True)[:2]))
    assert nic.rings == [1008, 256]
    [result] = restore(journal.read(left.path), "eth7")
    assert (result.outcome, result.text) == ("restored", "[1008, 256] is [256, 256] again")
    assert nic.rings == [256, 256]
    assert journals() == []


def test_files_that_are_no_journals(nic: FakeNic, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "tuned-1-2-3-0.jsonl").write_text("")
    (run / "tuned-1-2-3-1.jsonl").write_text("{}\n")
    (run / "tuned-1-2-3-2.jsonl").write_text('{"journal": 1, "unknown": 2}\n')
    (run / "tuned-1-2-3-3.jsonl").write_text("no JSON\n")
    assert journals() == []
