"""What a machine must have for the extension to be loaded, said in words where it is missing.

The extension is compiled for x86-64-v2 (csrc/ffi/build.py) and linked with libbpf. A CPU below that level would end the
process with SIGILL somewhere, so it is asked first.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

#: What x86-64-v2 has beyond x86-64 (System V psABI, 3.1.1), as /proc/cpuinfo calls it.
X86_64_V2 = ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3")
CPUINFO = Path("/proc/cpuinfo")


def check_cpu() -> None:
    """Raise ImportError on an x86-64 CPU that lacks what the extension is compiled for. Others have one level alone."""
    if platform.machine() != "x86_64" or not CPUINFO.exists():
        return
    with CPUINFO.open() as lines:
        lacking = missing(lines)
    if lacking:
        raise ImportError(
            f"xdpstack is compiled for CPUs of level x86-64-v2 (2009 and newer), and this one lacks {', '.join(lacking)}"
            " (/proc/cpuinfo). In a virtual machine: give it a CPU model that has them, as `-cpu host` does."
        )


def missing(cpuinfo: Iterable[str]) -> list[str]:
    """What of X86_64_V2 the first CPU of /proc/cpuinfo does not have; nothing if it does not say."""
    for line in cpuinfo:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return sorted(set(X86_64_V2) - set(value.split()))
    return []


def explained(error: ImportError) -> ImportError:
    """The exception to raise where the extension could not be loaded: what is missing, and what brings it."""
    said = str(error)
    if isinstance(error, ModuleNotFoundError) or "cannot import name '_native'" in said:
        return ImportError(
            "the C extension of xdpstack is not here (xdpstack/native/_native.abi3.so): in a checkout `make` builds it,"
            " `pip install .` elsewhere; a wheel is for one architecture",
        )
    if "libbpf" in said:
        return ImportError(
            f"xdpstack needs libbpf, at least in the version that it was built with: {said}."
            " On Debian and Ubuntu: apt-get install libbpf1; on Fedora: dnf install libbpf"
        )
    return error
