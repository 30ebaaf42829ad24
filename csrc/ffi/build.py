"""Builds the extension `xdpstack.native._native`: reads the declarations, lists the C sources.

The declarations that Python sees are the `*.cdef.h` files in this folder. cffi parses them and the C sources include
the very same text, so the two sides cannot drift apart.
"""

import os
import platform
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent
ROOT = CSRC.parent

#: Order matters: later files use the types of earlier ones. The last are what BPF programs share with user space.
CDEFS = [*sorted(HERE.glob("*.cdef.h")), *sorted((ROOT / "bpf").glob("*.cdef.h"))]
#: Not part of the extension: fuzz targets and stand-alone tests have their own main(); ffi is what cffi generates from.
OUTSIDE = {"fuzz", "tests", "ffi"}

sources = [str(p.relative_to(ROOT)) for p in sorted(CSRC.rglob("*.c")) if p.relative_to(CSRC).parts[0] not in OUTSIDE]

cflags = ["-std=gnu17", "-O3", "-g", "-fno-strict-aliasing", "-fvisibility=hidden"]
cflags += ["-Wall", "-Wextra", "-Wno-unused-parameter"]
if platform.machine() == "x86_64":
    cflags.append("-march=x86-64-v2")
if os.environ.get("XDPSTACK_WERROR"):
    cflags.append("-Werror")
sanitize = os.environ.get("XDPSTACK_SANITIZE", "")  # e.g. "address,undefined"
if sanitize:
    cflags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-O1"]
if os.environ.get("XDPSTACK_DEBUG") or sanitize:
    cflags.append("-DXS_DEBUG=1")  # ownership checks on every hand-over

ffibuilder = FFI()
for path in CDEFS:
    ffibuilder.cdef(path.read_text(), override=False)
ffibuilder.set_source(
    "xdpstack.native._native",
    '#include "csrc/ffi/native.h"\n',
    sources=sources,
    include_dirs=[str(ROOT), str(CSRC)],
    # Python 3.11's limited API, the first with the buffer protocol, for all of the extension.
    define_macros=[("_GNU_SOURCE", "1"), ("Py_LIMITED_API", "0x030b0000")],
    extra_compile_args=cflags,
    extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
    libraries=["bpf", "pthread"],
    py_limited_api=True,
)
