"""The scripts that make and CI use."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.house.tree import ROOT
from tools import c_includes, left_behind, requirements

NOBODY = 65534


# ---- left_behind.py ----


def test_a_command_that_leaves_nothing_keeps_its_status() -> None:
    assert left_behind.main(["true"]) == 0
    assert left_behind.main(["sh", "-c", "exit 3"]) == 3


def test_a_process_left_behind_is_named(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(left_behind, "GRACE_S", 0.1)
    assert left_behind.main(["sh", "-c", "sleep 60 >&2 & echo $!"]) == 1
    output = capfd.readouterr()
    os.kill(int(output.out), 9)
    assert f"process {output.out.strip()}: sleep 60" in output.err


@pytest.mark.root
def test_a_namespace_left_behind_is_named(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(left_behind, "GRACE_S", 0.1)
    name = f"xs-house-{os.getpid()}"
    try:
        assert left_behind.main(["ip", "netns", "add", name]) == 1
        assert f"network namespace {name}" in capfd.readouterr().err
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


# ---- c_includes.py ----


@pytest.mark.parametrize(
    "file,include,fault",
    [
        ("csrc/base/ring.h", '"xsk/xsk.h"', "xsk is above base"),
        ("csrc/stages/ip.c", '"stages/udp.h"', "stages do not include each other"),
        ("csrc/stages/ip.c", '"nowhere.h"', "is not in the tree"),
        ("csrc/elsewhere/ip.c", '"xsk/xsk.h"', "has no place"),
        ("bpf/xdp.bpf.c", '"xsk/xsk.h"', "includes nothing of csrc"),
        ("bpf/xdp.bpf.c", "<stdio.h>", "neither UAPI nor libbpf"),
        ("csrc/stages/ip_rx.c", '"stages/ip.h"', None),
        ("csrc/stages/ip.c", '"xsk/xsk.h"', None),
        ("csrc/stages/registry.h", '"stages/udp.h"', None),
        ("bpf/xdp.bpf.c", "<linux/bpf.h>", None),
    ],
)
def test_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, include: str, fault: str | None) -> None:
    monkeypatch.setattr(c_includes, "ROOT", tmp_path)
    for name in ("csrc/xsk/xsk.h", "csrc/stages/ip.h", "csrc/stages/udp.h", file):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / file).write_text(f"#include {include}\n")
    faults = c_includes.faults(tmp_path / file)
    assert faults == [] if fault is None else fault in faults[0]


def test_all_includes_of_the_tree_are_allowed() -> None:
    assert c_includes.main() == 0


# ---- requirements.py ----


def test_an_extra_has_what_the_extras_in_it_have() -> None:
    testing = set(requirements.requirements(["testing"]))
    assert testing < set(requirements.requirements(["dev"]))
    assert any(line.startswith("cffi") for line in requirements.requirements([]))


# ---- system-packages ----


@pytest.fixture
def machine(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """A machine on which all but libbpf-dev and netbase is installed: its environment, and what apt-get was told."""
    log = tmp_path / "log"
    log.write_text("")
    have = "python3 python3-venv gcc libc6-dev python3-dev linux-libc-dev clang"
    have += " iproute2 iputils-ping ethtool nftables procps"
    scripts = {
        "dpkg-query": "".join(f"printf 'ii {name} '\n" for name in have.split()) + "exit 1\n",
        "apt-get": f'echo "$@" >>{log}\n',
        "id": "echo 0\n",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, log


def test_only_missing_packages_are_installed(machine: tuple[dict[str, str], Path]) -> None:
    environment, log = machine
    subprocess.run([ROOT / "tools/system-packages", "python", "build", "network"], env=environment, check=True)
    update, install = log.read_text().splitlines()
    assert update.startswith("update")
    assert [word for word in install.split()[1:] if not word.startswith("-")] == ["libbpf-dev", "netbase"]


def test_nothing_is_done_when_nothing_is_missing(machine: tuple[dict[str, str], Path]) -> None:
    environment, log = machine
    run = subprocess.run([ROOT / "tools/system-packages", "python"], env=environment, check=True, capture_output=True)
    assert (run.stdout, run.stderr, log.read_text()) == (b"", b"", "")


# ---- as-owner, as-root ----


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    os.chown(tmp_path, NOBODY, NOBODY)
    return tmp_path


def as_sudo(tool: str, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "SUDO_USER": "nobody"}
    return subprocess.run(
        [ROOT / "tools" / tool, *command], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.root
def test_as_owner_runs_as_the_user_who_called_sudo(checkout: Path) -> None:
    assert as_sudo("as-owner", checkout, "id", "-u").stdout == f"{NOBODY}\n"


@pytest.mark.root
def test_as_root_hands_back_what_was_made_also_after_a_failure(checkout: Path) -> None:
    run = as_sudo("as-root", checkout, "sh", "-c", "mkdir made && touch made/file && exit 4")
    assert run.returncode == 4
    assert {path.stat().st_uid for path in (checkout / "made", checkout / "made/file")} == {NOBODY}


def test_as_root_says_how_to_have_root(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "MAKE_GOAL": "demo"}
    run = subprocess.run([ROOT / "tools/as-root", "touch", tmp_path / "ran"], env=environment, capture_output=True)
    assert run.returncode == 1
    assert run.stderr.endswith(b"sudo make demo\n")
    assert not (tmp_path / "ran").exists()
