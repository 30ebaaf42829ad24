"""The rings over the end of their indices, from both sides at once: csrc/tests/test_ring.c, compiled and run."""

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
CC = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
FLAGS = ["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", f"-I{CSRC}"]


@pytest.mark.parametrize("sanitizer", ["", "address,undefined", "thread"])
def test_rings_wrap_around(sanitizer: str, tmp_path: Path) -> None:
    program = tmp_path / "test_ring"
    flags = [*FLAGS, *(["-O1", "-g", f"-fsanitize={sanitizer}"] if sanitizer else ["-O3"])]
    build = [*CC, *flags, str(CSRC / "tests/test_ring.c"), "-o", str(program), "-lpthread"]
    subprocess.run(build, check=True)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run([program], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
