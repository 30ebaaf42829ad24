"""What setuptools cannot be told in pyproject.toml: the C extension, the BPF programs and the public C header.

One shared object, `xdpstack/native/_native.abi3.so`, holds all the C. It is two Python modules (PEP 489 allows that):
`_native`, which cffi generates from csrc/ffi/, and `_views`, the small C-API part of csrc/views/. Both keep to the
limited API, so one wheel serves every Python from 3.11 on. clang compiles each bpf/*.bpf.c into package data, and
csrc/include/ is shipped as `xdpstack/include/`, for stages that users write in C.

Before anything is compiled, everything that compiling needs is looked for, and what is missing is named with the
package that brings it.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

log = logging.getLogger(__name__)  # setuptools configures logging: -q is quiet, -v shows commands

ROOT = Path(__file__).resolve().parent
PYTHON_INCLUDE = sysconfig.get_path("include")
CC = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
BPF_CLANG = shlex.split(os.environ.get("BPF_CLANG") or "clang")
#: -I: where Debian keeps asm/types.h of the machine's architecture, which -target bpf does not look into.
BPF_FLAGS = ["-target", "bpf", "-mcpu=v3", "-I", f"/usr/include/{platform.machine()}-linux-gnu"]
BPF_ARCH = {"x86_64": "x86", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

LIBBPF_1 = "#include <bpf/libbpf.h>\n#if LIBBPF_MAJOR_VERSION < 1\n#error too old\n#endif\nint main(void) { return 0; }"
#: What compiling needs; a command, and a C text that it compiles if the need is met; the package that brings it on
#: Debian and Ubuntu, and on Fedora.
NEEDS = [
    ("a C compiler and its library", [*CC, "-c"], "#include <stdlib.h>", ("gcc libc6-dev", "gcc glibc-devel")),
    ("Python.h", [*CC, "-c", "-I", PYTHON_INCLUDE], "#include <Python.h>", ("python3-dev", "python3-devel")),
    ("the kernel's headers", [*CC, "-c"], "#include <linux/if_xdp.h>", ("linux-libc-dev", "kernel-headers")),
    ("libbpf, 1.0 or newer", [*CC, "-lbpf"], LIBBPF_1, ("libbpf-dev", "libbpf-devel")),
    ("clang, with its BPF target", [*BPF_CLANG, *BPF_FLAGS, "-c"], "int probe;", ("clang", "clang")),
]


def require_tools() -> None:
    """End the build with a list of what is missing and which packages bring it, unless all of NEEDS is there."""
    missing = [need for need in NEEDS if not compiles(need[1], need[2])]
    if not missing:
        return
    lines = ["xdpstack cannot be built here. Not found:"]
    lines += [f"  {what} (tried: {shlex.join(command)})" for what, command, _, _ in missing]
    lines.append("  on Debian and Ubuntu:  apt-get install " + " ".join(debian for *_, (debian, _) in missing))
    lines.append("  on Fedora:             dnf install " + " ".join(fedora for *_, (_, fedora) in missing))
    sys.exit("\n".join(lines))


def compiles(command: list[str], text: str) -> bool:
    """Whether `command` is there and compiles the C text."""
    if shutil.which(command[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [*command, "-x", "c", "-", "-o", f"{folder}/probe"]
        return subprocess.run(command, input=text, text=True, capture_output=True).returncode == 0


def compile_bpf(out: Path, notes: Path) -> None:
    """Compile bpf/*.bpf.c into `out`, with BTF so that libbpf can size maps and name fields.

    What is newer than all of bpf/, and was made by the same command of the same clang, stays: that is noted in `notes`.
    """
    out.mkdir(parents=True, exist_ok=True)
    notes.mkdir(parents=True, exist_ok=True)
    newest = max((path.stat().st_mtime for path in (ROOT / "bpf").glob("*")), default=0)
    clang = subprocess.run([*BPF_CLANG, "--version"], capture_output=True, text=True, check=True).stdout
    for source in sorted((ROOT / "bpf").glob("*.bpf.c")):
        target = out / source.name.replace(".bpf.c", ".bpf.o")
        command = [*BPF_CLANG, "-O2", "-g", "-Wall", "-Werror", *BPF_FLAGS, f"-D__TARGET_ARCH_{BPF_ARCH}"]
        command += ["-I", str(ROOT / "bpf"), "-c", str(source), "-o", str(target)]
        made_by = notes / f"{hashlib.sha256(str(target.resolve()).encode()).hexdigest()[:16]}.command"
        made = f"{target.resolve()}\n{shlex.join(command)}\n{clang}"
        if target.exists() and target.stat().st_mtime > newest and made_by.exists() and made_by.read_text() == made:
            continue
        made_by.unlink(missing_ok=True)
        log.info(shlex.join(command))
        subprocess.run(command, check=True)
        made_by.write_text(made)


def ship_headers(out: Path) -> None:
    """Copy what a user's C stage includes: the public header, and the list of drop reasons that it includes."""
    out.mkdir(parents=True, exist_ok=True)
    for header in [*(ROOT / "csrc/include").glob("*.h"), *(ROOT / "csrc").glob("*.def")]:
        shutil.copyfile(header, out / header.name)


class ChangedOnly:
    """Stands in for a compiler's `spawn`: compiles on every CPU, and only what has changed since the last build.

    distutils compiles all sources of an extension, one by one, when any has changed. The compiler itself writes down
    which headers a source read (-MMD); an object is kept if it is newer than all of them and its command is the same.
    """

    def __init__(self, spawn) -> None:
        self.spawn = spawn
        self.pool = ThreadPoolExecutor(os.cpu_count())
        self.compiling: list[Future[None]] = []

    def __call__(self, command: list[str], **options: object) -> None:
        if "-c" in command:
            self.compiling.append(self.pool.submit(self.compile, command, **options))
        else:  # links what was compiled
            for future in self.compiling:
                future.result()
            self.spawn(command, **options)

    def compile(self, command: list[str], **options: object) -> None:
        target = Path(command[command.index("-o") + 1])
        depends, made_by = target.with_suffix(".d"), target.with_suffix(".command")
        command = [*command, "-MMD", "-MF", str(depends)]
        if made_by.exists() and made_by.read_text() == shlex.join(command) and newer_than_all(target, depends):
            return
        made_by.unlink(missing_ok=True)
        self.spawn(command, **options)
        made_by.write_text(shlex.join(command))


def newer_than_all(target: Path, depends: Path) -> bool:
    """Whether the object is newer than each file in the make rule that the compiler wrote into `depends`."""
    try:
        files = depends.read_text().replace("\\\n", " ").split()[1:]
        return all(Path(file).stat().st_mtime < target.stat().st_mtime for file in files)
    except FileNotFoundError:
        return False


class BuildExt(build_ext):
    """Builds the extension and, beside it, the BPF objects and public headers: in the tree if installed editable."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # what has changed is decided file by file, above

    def run(self) -> None:
        require_tools()
        package = (ROOT if self.inplace else Path(self.build_lib)) / "xdpstack"
        compile_bpf(package / "device/bpf", Path(self.build_temp))
        ship_headers(package / "include")
        super().run()

    def build_extensions(self) -> None:
        self.compiler.spawn = ChangedOnly(self.compiler.spawn)
        super().build_extensions()


setup(
    packages=[".".join(path.parent.relative_to(ROOT).parts) for path in sorted(ROOT.glob("xdpstack/**/__init__.py"))],
    # What BuildExt makes, it puts where the package is built: no pattern is needed for that.
    include_package_data=False,
    package_data={"xdpstack": ["py.typed"], "xdpstack.native": ["*.pyi"], "xdpstack.bench": ["peers/*.c"]},
    # Here, because each spelling in pyproject.toml is refused or deprecated by some setuptools that we support.
    license="Apache-2.0",
    license_files=["LICENSE", "LICENSES/*"],
    cffi_modules=["csrc/ffi/build.py:ffibuilder"],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
