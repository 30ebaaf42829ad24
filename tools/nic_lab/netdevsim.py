"""netdevsim for the guest's kernel: a device without hardware that takes XDP programs as a NIC does that runs them itself.

Debian does not build that module. It is compiled from the source of the kernel with its headers, all Debian packages of the
same version, by the host's compiler and make; the kernel's own build tools run with the C library that came with QEMU, as
they may need a newer one than the host's. Needs gcc, make and libelf.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from tools.nic_lab.packages import Cache, LabError

SOURCE = "drivers/net/netdevsim"
#: What of the kernel's configuration is otherwise: the module itself, no BTF of it, nothing that only a newer gcc has.
DIFFERENT = ("CONFIG_NETDEVSIM=m", "CONFIG_DEBUG_INFO_BTF_MODULES=", "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=")
#: Programs that Debian has behind one that looks which of several is meant, and finds none if it is run by another loader.
TOOLS = {"scripts/mod/modpost": "modpost.real-lsb-64", "tools/objtool/objtool": "objtool.real-x86"}


def add(cache: Cache) -> None:
    """Put the module beside those of the kernel in the cache, if it is not there. Raises LabError."""
    [modules] = cache.kernel.glob("**/kernel/drivers/net")
    target = modules / "netdevsim.ko"
    if target.exists():
        return
    if missing := [name for name in ("gcc", "make", "strip") if not shutil.which(name)]:
        raise LabError(f"netdevsim has to be compiled: apt-get install {' '.join(missing)}")
    version = cache.kernel_version  # 7.3.4+deb13-amd64
    common, series = version.rpartition("-")[0], ".".join(version.split(".")[:2])
    names = [f"linux-headers-{version}", f"linux-headers-{common}-common", f"linux-kbuild-{common}"]
    root = cache.folder / f"build-{version}"
    cache.unpacked(root, [*names, f"linux-source-{series}"])
    source = _source(root, series)
    tools = root / f"usr/lib/linux-kbuild-{common}"
    libraries = cache.qemu / "usr/lib/x86_64-linux-gnu"
    for name, real in TOOLS.items():
        if (tools / name).with_name(real).exists():
            _with_loader(tools / name, (tools / name).with_name(real), libraries)
    headers = root / "usr/src" / names[0]
    words = ["make", "-C", root / "usr/src" / names[1], f"KBUILD_OUTPUT={headers}", f"M={source}", "CC=gcc"]
    done = subprocess.run([*words, *DIFFERENT, "modules"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"netdevsim cannot be compiled: {done.stderr.strip()[-500:]}")
    new = target.with_suffix(".new")
    subprocess.run(["strip", "--strip-debug", "-o", new, source / "netdevsim.ko"], check=True)
    new.rename(target)


def _source(root: Path, series: str) -> Path:
    """The folder of the module's source, out of the archive with all of the kernel's."""
    [archive] = root.glob(f"usr/src/linux-source-{series}.tar.*")
    words = ["tar", "-xf", archive, "-C", root, "--strip-components=1", f"linux-source-{series}/{SOURCE}"]
    subprocess.run(words, check=True)
    return root / SOURCE


def _with_loader(tool: Path, real: Path, libraries: Path) -> None:
    search = f"{libraries}:/usr/lib/x86_64-linux-gnu"
    loader = shlex.join([str(libraries / "ld-linux-x86-64.so.2"), "--library-path", search, str(real)])
    tool.write_text(f'#!/bin/sh\nexec {loader} "$@"\n')
