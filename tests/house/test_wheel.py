"""The wheel: one for every Python from 3.11 on, with all that a user needs, and it works where no source tree is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.tree import ROOT, files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree in which nothing was built."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = files("*.*", "LICENSE", "LICENSES/*", "xdpstack/**/*", "csrc/**/*", "bpf/**/*")
    for path in sources:
        if path.suffix not in (".so", ".pyc"):
            (folder / "tree" / path.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, folder / "tree" / path)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run(command, cwd=folder / "tree", check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_one_wheel_serves_every_python(wheel: Path) -> None:
    assert wheel.name.split("-")[2:4] == ["cp311", "abi3"]


def test_the_wheel_has_all_that_users_need(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "xdpstack/py.typed",
        "xdpstack/native/_native.abi3.so",
        "xdpstack/include/xdpstack_stage.h",
        "xdpstack/include/reasons.def",
        "xdpstack/bench/peers/rings.c",
    } <= names
    programs = {f"xdpstack/device/bpf/{path.stem}.o" for path in files("bpf/*.bpf.c")}
    assert programs
    assert programs <= names
    assert {str(path) for path in files("xdpstack/**/*.py")} <= names
    assert not [name for name in names if name.startswith(("tests/", "csrc/"))]


def test_the_wheel_works_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = "import xdpstack.native; print(xdpstack.native.__file__); print(xdpstack.native.lib.xs_reason_name(0))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(str(tmp_path / "site"))


def test_the_shipped_header_is_enough_to_compile_a_stage(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    stage = tmp_path / "stage.c"
    stage.write_text(
        """#include "xdpstack_stage.h"
        static void drop(void *self, struct xs_batch *b) {
            (void)self;
            for (uint32_t i = 0; i < b->n; i++) xs_drop(b, i, XS_REASON_NOT_SPECIFIED);
        }
        static const struct xs_stage_def def = {.name = "drop", .fn = drop};
        XS_EXPORT_STAGE(def, NULL)
        """
    )
    include = tmp_path / "site/xdpstack/include"
    command = ["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{include}"]
    subprocess.run([*command, str(stage), "-o", str(tmp_path / "stage.so")], check=True)
