"""The only importer of the extension module.

One shared object holds two modules: `_native` (cffi: control and blocking polls, with the GIL released) and `_views`
(the small C-API part: non-blocking receive, send and payload views, with the GIL kept, which is several times cheaper
there).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

from xdpstack.native import machine

machine.check_cpu()
try:
    from xdpstack.native import _native as _native
except ImportError as error:
    raise machine.explained(error) from error

ffi: Any = _native.ffi
lib: Any = _native.lib


def second_module(name: str) -> ModuleType:
    """Load another module out of the same shared object (PEP 489, "Multiple modules in one library")."""
    path = str(_native.__file__)
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"no {name} in {path}")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def text(pointer: Any) -> str | None:
    """A C string as str; NULL is None."""
    return None if pointer == ffi.NULL else ffi.string(pointer).decode()


def check(result: int, what: str) -> int:
    """Pass a count or zero on; raise OSError for a negative errno."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


if TYPE_CHECKING:
    from xdpstack.native import _views as views
else:
    views = second_module("_views")
