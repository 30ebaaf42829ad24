"""What setuptools cannot be told in pyproject.toml: the C extension and the BPF programs.

One shared object, `xdpstack/native/_native.abi3.so`, holds all the C. It is two Python modules (PEP 489 allows that):
`_native`, which cffi generates from csrc/ffi/, and `_views`, the small C-API part of csrc/views/. Both keep to the
limited API, so one wheel serves every Python from 3.11 on. clang compiles each bpf/*.bpf.c into package data.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BPF_OUT = Path("xdpstack/device/bpf")


def bpf_compile(out: Path) -> None:
    """Compile bpf/*.bpf.c into `out`, with BTF so that libbpf can size maps and name fields."""
    clang = os.environ.get("BPF_CLANG", "clang")
    if shutil.which(clang) is None:
        sys.exit(f"xdpstack: {clang} is missing, which compiles the XDP programs: apt-get install clang")
    out.mkdir(parents=True, exist_ok=True)
    arch = {"x86_64": "x86", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    for source in sorted((ROOT / "bpf").glob("*.bpf.c")):
        target = out / source.name.replace(".bpf.c", ".bpf.o")
        newest = max(p.stat().st_mtime for p in (ROOT / "bpf").iterdir())
        if target.exists() and target.stat().st_mtime > newest:
            continue
        command = [clang, "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3"]
        command += [f"-D__TARGET_ARCH_{arch}", "-I", include, "-I", str(ROOT / "bpf"), "-c", str(source), "-o", str(target)]
        print(" ".join(command))
        subprocess.run(command, check=True)


class BuildExt(build_ext):
    """Builds the BPF objects beside the extension, into the tree for an editable install."""

    def run(self) -> None:
        bpf_compile((ROOT if self.inplace else Path(self.build_lib)) / BPF_OUT)
        super().run()


setup(
    packages=[
        ".".join(p.relative_to(ROOT).parts) for p in sorted((ROOT / "xdpstack").rglob("*")) if (p / "__init__.py").exists()
    ]
    + ["xdpstack"],
    package_data={"xdpstack": ["py.typed"], "xdpstack.native": ["*.pyi"]},
    cffi_modules=["csrc/ffi/build.py:ffibuilder"],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
