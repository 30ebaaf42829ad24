"""C that only tests need: compiled against the tree's headers, and loaded into the test's process."""

import ctypes
import functools
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CC = shlex.split(sysconfig.get_config_var("CC") or "cc")
FLAGS = ["-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-fPIC", "-shared"]
DEFINES = ["-D_GNU_SOURCE", "-DXS_DEBUG=1"]
INCLUDES = ["-I", str(ROOT), "-I", str(ROOT / "csrc"), "-I", str(ROOT / "csrc/include")]


@functools.cache
def load(source: str) -> ctypes.CDLL:
    """tests/csrc/SOURCE as a loaded library; compiled once a run."""
    folder = Path(tempfile.mkdtemp(prefix="xdpstack-tests-"))
    try:
        return ctypes.CDLL(str(library(source, folder)))
    finally:
        shutil.rmtree(folder)  # a loaded library needs its file no more


def library(source: str, folder: Path) -> Path:
    """tests/csrc/SOURCE as a library in `folder`."""
    target = folder / Path(source).with_suffix(".so").name
    words = [*CC, *FLAGS, *DEFINES, *INCLUDES, str(ROOT / "tests/csrc" / source), "-o", str(target)]
    subprocess.run(words, check=True)
    return target
