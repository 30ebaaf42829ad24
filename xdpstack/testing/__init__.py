"""Tools for testing what is built on xdpstack, and xdpstack itself. See docs/testing.md.

The pytest plugin is there as soon as the package is installed. Without privilege: `memory_stack()`, a Stack over memory
devices, and `MemoryWalk`, single stages. As root: namespaces, veth pairs and peers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdpstack.device.memory import MemoryDevice as MemoryDevice
    from xdpstack.device.memory_queue import FOREVER_NS as FOREVER_NS
    from xdpstack.device.memory_queue import Rings as Rings
    from xdpstack.testing.ledger import Ledger as Ledger
    from xdpstack.testing.ledger import check_closed as check_closed
    from xdpstack.testing.ledger import check_open as check_open
    from xdpstack.testing.memory import MemoryStack as MemoryStack
    from xdpstack.testing.memory import memory_stack as memory_stack
    from xdpstack.testing.memory_walk import MemoryWalk as MemoryWalk
    from xdpstack.testing.memory_walk import TestDevice as TestDevice
    from xdpstack.testing.memory_walk import rows as rows
    from xdpstack.testing.namespace import Namespace as Namespace
    from xdpstack.testing.packets import assert_packets_equal as assert_packets_equal
    from xdpstack.testing.partial import make_partial as make_partial
    from xdpstack.testing.peer import Peer as Peer
    from xdpstack.testing.veth import End as End
    from xdpstack.testing.veth import Veth as Veth
    from xdpstack.testing.veth import make_veth as make_veth
    from xdpstack.testing.wait import until as until

#: Where each public name lives. Imported when it is first used: pytest loads the plugin into every run, also of projects
#: that have nothing to do with packets.
_HOMES = {
    "MemoryDevice": "xdpstack.device.memory",
    "FOREVER_NS": "xdpstack.device.memory_queue",
    "Rings": "xdpstack.device.memory_queue",
    "Ledger": "xdpstack.testing.ledger",
    "check_closed": "xdpstack.testing.ledger",
    "check_open": "xdpstack.testing.ledger",
    "MemoryStack": "xdpstack.testing.memory",
    "memory_stack": "xdpstack.testing.memory",
    "MemoryWalk": "xdpstack.testing.memory_walk",
    "TestDevice": "xdpstack.testing.memory_walk",
    "rows": "xdpstack.testing.memory_walk",
    "Namespace": "xdpstack.testing.namespace",
    "assert_packets_equal": "xdpstack.testing.packets",
    "make_partial": "xdpstack.testing.partial",
    "Peer": "xdpstack.testing.peer",
    "End": "xdpstack.testing.veth",
    "Veth": "xdpstack.testing.veth",
    "make_veth": "xdpstack.testing.veth",
    "until": "xdpstack.testing.wait",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
