"""What a device says of the frames it receives, beyond their bytes: which of it is granted, and the program that asks.

Linux calls it XDP metadata (Documentation/networking/xdp-rx-metadata.rst). A program may only ask when it was loaded
for that one device, and runs in native mode only; so the program comes in two objects, and the one that asks is taken
only where somebody wants to know. Where it cannot be had, the other is attached, and `why` says what was in the way.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from xdpstack.device.netdev import NetdevFeatures, RxMetadata
from xdpstack.device.xdp import OPTIONS, Granted, Hint, Mode, XdpProgram
from xdpstack.errors import ConfigurationError, ModeRefused, MtuTooLarge, VerifierError, XdpstackError

_FEATURES: dict[Hint, RxMetadata] = {
    "hash": RxMetadata.HASH,
    "timestamp": RxMetadata.TIMESTAMP,
    "vlan": RxMetadata.VLAN_TAG,
}


@dataclass(frozen=True, slots=True)
class Attached:
    """A program that is attached; `why` says of each hint that was asked for and not granted, the reason."""

    program: XdpProgram
    granted: Granted
    why: str = ""

    @property
    def hints(self) -> tuple[Hint, ...]:
        """What it asks the device."""
        return self.program.hints


def checked(asked: Collection[str]) -> tuple[Hint, ...]:
    """What a user asked for, each once. Raises ConfigurationError for what there is not."""
    if isinstance(asked, str) or (unknown := set(asked) - set(OPTIONS)):
        raise ConfigurationError(
            f"metadata is {asked!r}", f"There is no {sorted(unknown)}." if not isinstance(asked, str) else "",
            f"Some of ({', '.join(map(repr, OPTIONS))}), in a tuple.",
        )  # fmt: skip
    return tuple(hint for hint in OPTIONS if hint in asked)


def grant(asked: Collection[Hint], mode: Mode, features: NetdevFeatures | None) -> tuple[tuple[Hint, ...], str]:
    """What may be asked of a device with these features, and why not the rest. No I/O."""
    if not asked:
        return (), ""
    if mode in ("generic", "offloaded"):
        return (), f"A program in {mode} mode cannot ask its device."
    if features is None or features.rx_metadata is None:  # a kernel before 6.7 does not say: it is tried
        return tuple(asked), ""
    has = tuple(hint for hint in asked if _FEATURES[hint] in features.rx_metadata)
    lacks = [hint for hint in asked if hint not in has]
    return has, f"The driver does not give: {', '.join(lacks)}." if lacks else ""


def open_attached(
    name: str, queues: int, mode: Mode, asked: Collection[Hint], features: NetdevFeatures | None
) -> Attached:
    """Load the program and attach it, with the hints that can be had. Raises what XdpProgram.open and attach raise."""
    hints, why = grant(asked, mode, features)
    if hints:
        try:
            return _attach(name, queues, "native", hints, why)
        except (ModeRefused, MtuTooLarge, VerifierError) as refusal:
            why = f"A program that asks the device is refused: {refusal}"
        except OSError as refusal:
            if isinstance(refusal, XdpstackError):
                raise
            why = f"A program that asks the device is refused: {refusal.strerror}"
    return _attach(name, queues, mode, (), why)


def _attach(name: str, queues: int, mode: Mode, hints: tuple[Hint, ...], why: str) -> Attached:
    program = XdpProgram.open(name, queues, mode=mode, metadata=True, hints=hints)
    try:
        return Attached(program, program.attach(), why)
    except BaseException:
        program.close()
        raise
