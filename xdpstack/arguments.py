"""Numbers that users give: whether they can be, said by name before anything is made of them."""

from __future__ import annotations

from xdpstack.errors import ConfigurationError


def whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number within bounds, both included. Raises ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(
            f"{name} is {value!r}", "That is no whole number.", f"It can be {least} to {most}: {name}={least}."
        )
    if not least <= value <= most:
        nearest = min(max(value, least), most)
        raise ConfigurationError(f"{name} is {value}", f"It can be {least} to {most}.", f"{name}={nearest}")
    return value


def power_of_two(name: str, value: object, least: int, most: int) -> int:
    """A power of two within bounds, both included. Raises ConfigurationError, which names the next one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} is {value!r}", "That is no whole number.", f"{name}={least}")
    larger = 1 << max(0, value - 1).bit_length()
    if value < 1 or larger != value:
        raise ConfigurationError(
            f"{name} is {value}, which is no power of two",
            f"It can be one from {least} to {most}.",
            f"{name}={min(max(larger, least), most)}",
        )
    return whole(name, value, least, most)
