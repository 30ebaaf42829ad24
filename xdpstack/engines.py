"""Which engine runs a layer: its C stages, its plain Python definition, or an object of the user's.

open(engines={"routing": "python"}) --> checked() --> stand_ins(): a Python hook in the place of each of the layer's rows
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from xdpstack.errors import ConfigurationError
from xdpstack.layer import Layer, stand_in
from xdpstack.routing.engine import RoutingBatch
from xdpstack.routing.layer import RoutingLayer
from xdpstack.routing.native import NativeRouting
from xdpstack.udp.engine import UdpBatch
from xdpstack.udp.layer import UdpLayer
from xdpstack.walk import Hook

#: The layers whose engine can be chosen, and the rows of the path that are theirs.
ROWS: Mapping[str, tuple[str, ...]] = {"routing": ("routing.rx", "routing.tx"), "udp": ("udp.rx", "udp.tx")}
NATIVE, PYTHON = "native", "python"

#: An engine as it is asked for.
Engine = str | Layer


def checked(engines: Mapping[str, Engine] | None) -> dict[str, Engine]:
    """The engine of every layer. Raises ConfigurationError for a layer or an engine that there is not."""
    asked = dict(engines or {})
    unknown = [name for name in asked if name not in ROWS]
    if unknown:
        raise ConfigurationError(
            f"there is no layer {unknown[0]!r} whose engine could be chosen", fix=f"One of: {', '.join(ROWS)}."
        )
    for name, engine in asked.items():
        known = engine in (NATIVE, PYTHON) if isinstance(engine, str) else callable(getattr(engine, "process", None))
        if not known or isinstance(engine, type):
            raise ConfigurationError(
                f"{engine!r} is no engine for the layer {name}",
                fix=f'"{NATIVE}", "{PYTHON}", or an object with a method process(batch).',
            )
    return {name: asked.get(name, NATIVE) for name in ROWS}


def text(engine: Engine) -> str:
    """What info() calls it."""
    return engine if isinstance(engine, str) else type(engine).__qualname__


def stand_ins(
    engines: Mapping[str, Engine], host: Any, routing: RoutingLayer, native: NativeRouting, udp: UdpLayer
) -> list[Hook]:
    """The hooks for the rows of all layers that do not run in C. `host` is the stack."""
    own: dict[str, tuple[Layer, Any]] = {
        "routing": (routing, partial(RoutingBatch, layer=routing, ids=native.ids, host=host)),
        "udp": (udp, partial(UdpBatch, layer=udp, host=host)),
    }
    hooks = []
    for name, engine in engines.items():
        layer, batch = own[name]
        if engine != NATIVE:
            made: Layer = layer if isinstance(engine, str) else engine
            hooks += [stand_in(row, made, text(engine), batch) for row in ROWS[name]]
    return hooks
