"""The parts of the NIC lab that need no guest: its initramfs, its table, and that every model is expected and documented."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from tests.house.tree import text
from tests.nic.expected import EXPECTED
from tools.nic_lab.initramfs import in_load_order, newc
from tools.nic_lab.models import MODELS
from tools.nic_lab.packages import Cache, LabError
from tools.nic_lab.table import table


def module(root: Path, name: str, depends: str, packed: bool = False) -> None:
    data = b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=" + name.encode() + b"\0"
    path = root / "kernel" / f"{name}.ko{'.xz' if packed else ''}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lzma.compress(data) if packed else data)


def test_modules_come_after_those_that_they_need(tmp_path: Path) -> None:
    module(tmp_path, "igb", "dca,i2c-algo-bit", packed=True)
    module(tmp_path, "i2c-algo-bit", "")
    module(tmp_path, "dca", "")
    module(tmp_path, "overlay", "builtin_already")
    loaded = [name for name, _ in in_load_order(tmp_path, ["overlay", "igb", "dca", "not-there"])]
    assert loaded == ["overlay", "dca", "i2c_algo_bit", "igb"]


def test_the_archive_is_what_the_kernel_unpacks() -> None:
    archive = b"".join(newc([("bin", 0o040755, b""), ("init", 0o100755, b"#!/bin/sh\n")]))
    entries = []
    at = 0
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at += -(-(110 + name_size) // 4) * 4
        entries.append((name, fields[1], archive[at : at + size]))
        at += -(-size // 4) * 4
    assert entries == [("bin", 0o040755, b""), ("init", 0o100755, b"#!/bin/sh\n"), ("TRAILER!!!", 0, b"")]


def test_the_table_has_a_row_for_each_model_and_the_reasons() -> None:
    lines = table([{"model": "igb", "mode": "native"}, {"model": "e1000e", "why": {"mode": "refused"}}]).splitlines()
    assert lines == [
        "| model  | mode   |",
        "|--------|--------|",
        "| igb    | native |",
        "| e1000e |        |",
        "e1000e, mode: refused",
    ]


def test_every_model_is_expected_and_documented() -> None:
    assert {name for name, model in MODELS.items() if model.device} == set(EXPECTED)
    documented = text("docs/drivers.md")
    assert [name for name in MODELS if f"| {name} " not in documented] == []


def test_a_kernel_that_was_not_fetched_has_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDPSTACK_NIC_LAB", str(tmp_path))
    with pytest.raises(LabError, match="no vmlinuz"):
        _ = Cache().vmlinuz
