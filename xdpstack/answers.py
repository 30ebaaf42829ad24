"""What `xdpstack show` and `xdpstack trace` may ask of a running stack, answered in plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xdpstack.walk import Walk, reason_text

if TYPE_CHECKING:
    from xdpstack.stack import Stack


def answers(stack: Stack, walk: Walk) -> dict[str, Callable[..., Any]]:
    """By question; for observe/server.py."""
    return {
        "counters": stack.counters,
        "reasons": lambda: {name: (count, reason_text(name)) for name, count in stack.reasons().items()},
        "nodes": lambda: [
            {
                "name": node.name,
                "row": node.hook.row if node.hook and not node.hook.engine else "",
                "engine": node.hook.engine if node.hook else "",
                "edges": node.edges,
                "targets": node.targets,
            }
            for node in walk.nodes
        ],
        "info": lambda: _info(stack),
        "trace_start": stack.trace_start,
        "trace_read": lambda: [walked.as_json() for walked in stack.trace_read()],
        "trace_stop": stack.trace_stop,
    }


def _info(stack: Stack) -> dict[str, Any]:
    ledger = stack.ledger()
    return {
        **stack.info(),
        "frames": stack.frames_by_owner(),
        "packets": {**asdict(ledger), "missing": ledger.missing},
    }
