"""Stages in C from a shared object of the user's, built against xdpstack_stage.h (docs/hooks.md)."""

from __future__ import annotations

import ctypes
from pathlib import Path

from xdpstack.errors import ConfigurationError
from xdpstack.walk import CStage

#: Bumped with XS_STAGE_ABI of xdpstack_stage.h.
STAGE_ABI = 3
#: Edges and counters a stage definition has room for (struct xs_stage_def).
_EDGES, _COUNTERS = 8, 16


class _StageDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("fn", ctypes.c_void_p),
        ("tick", ctypes.c_void_p),
        ("edges", ctypes.c_char_p * _EDGES),
        ("counters", ctypes.c_char_p * _COUNTERS),
    )


class _StageExport(ctypes.Structure):
    _fields_ = (("abi", ctypes.c_uint32), ("definition", ctypes.POINTER(_StageDef)), ("state", ctypes.c_void_p))


def get_include() -> str:
    """The folder of xdpstack_stage.h, for the compiler's -I."""
    return str(Path(__file__).parent / "include")


def load_stage(path: str | Path) -> CStage:
    """Load a C stage from a shared object that was built against xdpstack_stage.h and has XS_EXPORT_STAGE().

    Raises ConfigurationError when the object exports no stage or was built against another version of the header.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigurationError(f"cannot load the stage {path}", cause=str(error)) from error
    try:
        export = _StageExport.in_dll(library, "xs_stage_export")
    except ValueError:
        raise ConfigurationError(
            f"{path} exports no stage", fix="Add XS_EXPORT_STAGE(definition, state) to it."
        ) from None
    if export.abi != STAGE_ABI:
        raise ConfigurationError(
            f"{path} was built for stage ABI {export.abi}, this is {STAGE_ABI}",
            fix="Build it again against this version's xdpstack_stage.h (xdpstack.get_include()).",
        )
    definition = export.definition.contents
    return CStage(
        name=definition.name.decode(),
        function=definition.fn,
        tick=definition.tick or 0,
        state=export.state or 0,
        edges=tuple(e.decode() for e in definition.edges if e),
        counters=tuple(c.decode() for c in definition.counters if c),
        library=library,
    )
