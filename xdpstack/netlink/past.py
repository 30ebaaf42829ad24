"""What the kernel does not forget: IPv4 is routed by it even when what caused it has been undone."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Past:
    """Once true, these stay so as long as the network namespace is there."""

    rules: bool = False
    """A policy rule was added or deleted: tables local and main are no longer one (fib_unmerge, fib_has_custom_rules)."""
    local_routes: bool = False
    """Somebody added a route of type local (fib_has_custom_local_routes); nobody tells, so known is what was seen."""
