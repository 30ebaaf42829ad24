"""The two ledgers of a stack, checked: nothing is lost, nothing is there twice."""

from __future__ import annotations

from xdpstack.native.core import Core


def check_open(core: Core) -> None:
    """Between two polls: frames by owner sum to the pool and none is walking; packets that began have an end.

    Raises AssertionError with both ledgers.
    """
    frames, packets = core.frame_counts(), core.ledger()
    assert sum(frames.values()) == core.frames, f"{core.frames} frames, but by owner there are {frames}"
    assert frames["walking"] == 0, f"a poll left frames in no one's hands: {frames}"
    assert packets.missing == 0, f"packets began and have no end ({packets.missing}): {packets}; frames: {frames}"


def check_closed(core: Core) -> None:
    """After all devices are detached and all sockets closed: every frame is home. Raises AssertionError."""
    check_open(core)
    frames = core.frame_counts()
    away = {owner: n for owner, n in frames.items() if n and owner != "free"}
    assert not away, f"frames that did not come home: {away}"
