"""A machine that cannot run the extension is told what it lacks, before anything crashes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xdpstack.native
from xdpstack.native import machine

PACKAGE = Path(xdpstack.__path__[0])
BASE = "fpu vme de pse tsc msr sse sse2"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of what `import xdpstack.native` needs."""
    native = tmp_path / "xdpstack/native"
    native.mkdir(parents=True)
    for name in ("__init__.py", "errors.py"):
        shutil.copy(PACKAGE / name, native.parent)
    for path in [*(PACKAGE / "native").glob("*.py"), Path(xdpstack.native._native.__file__)]:
        shutil.copy(path, native)
    return native


def importing(copied: Path) -> str:
    """The last line that importing the copy prints on standard error."""
    program = "import xdpstack.native; print(xdpstack.native.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(copied.parents[1]), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    if not done.returncode:
        assert done.stdout.startswith(str(copied))
        return ""
    return done.stderr.splitlines()[-1]


def test_the_copy_can_be_imported(copied: Path) -> None:
    assert importing(copied) == ""


def test_a_missing_libbpf_is_named_with_its_package(copied: Path) -> None:
    extension = copied / "_native.abi3.so"
    extension.write_bytes(extension.read_bytes().replace(b"\0libbpf.so.1\0", b"\0libbpf.so.0\0"))
    said = importing(copied)
    assert said.startswith("ImportError: xdpstack needs libbpf")
    assert "libbpf.so.0: cannot open shared object file" in said
    assert "apt-get install libbpf1" in said


def test_an_extension_that_was_not_built_is_told_from_one_that_cannot_be_loaded(copied: Path) -> None:
    (copied / "_native.abi3.so").unlink()
    assert importing(copied).startswith("ImportError: the C extension of xdpstack is not here")
    (copied / "_native.abi3.so").write_bytes(b"something else")
    assert "invalid ELF header" in importing(copied) or "file too short" in importing(copied)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other architectures have one level alone")
def test_an_old_cpu_is_refused_before_the_extension_is_loaded(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: old\nflags\t\t: {BASE} cx16 lahf_lm pni ssse3\n")
    asks = copied / "machine.py"
    asks.write_text(asks.read_text().replace('/proc/cpuinfo")', f'{tmp_path}/cpuinfo")'))
    (copied / "_native.abi3.so").write_bytes(b"would crash")
    said = importing(copied)
    assert said.startswith("ImportError: xdpstack is compiled for CPUs of level x86-64-v2")
    assert "lacks popcnt, sse4_1, sse4_2 (" in said


@pytest.mark.parametrize(
    "cpuinfo, lacking",
    [
        (f"flags\t\t: {BASE} {' '.join(machine.X86_64_V2)} avx2\n", []),
        (f"processor\t: 0\nflags\t\t: {BASE}\nflags\t\t: {' '.join(machine.X86_64_V2)}\n", sorted(machine.X86_64_V2)),
        ("processor\t: 0\n", []),
        ("", []),
    ],
)
def test_what_a_cpu_lacks(cpuinfo: str, lacking: list[str]) -> None:
    assert machine.missing(cpuinfo.splitlines(keepends=True)) == lacking


def test_this_machine_has_it() -> None:
    machine.check_cpu()
