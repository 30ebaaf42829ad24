"""From one set of table entries to another while the program runs.

The program may run between any two writes, so their order makes every state in between safe: what claims leave alone goes in
before the claims and comes out after them; the program is told to look for a kind of claim (xs_device) after its entries are
in and to stop before they come out; and within a table what lifts goes in last and comes out first.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Protocol

from xdpstack.device.claim_tables import LIFT, Entries

TABLES = (
    "xs_kept",
    "xs_local",
    "xs_forward",
    "xs_sockets",
    "xs_prefixes",
    "xs_selectors",
    "xs_everything",
    "xs_shortcuts",
    "xs_ports",
    "xs_device",
)
#: Those of them that are arrays, in which what is zero is not there; the others are hashes and tries.
ARRAYS = ("xs_everything", "xs_shortcuts", "xs_ports", "xs_device")
#: The order in which entries go in: by table, and whether they lift. They come out the other way round, and last.
ORDER = tuple((table, lifting) for table in TABLES for lifting in (False, True))


class TableWriter(Protocol):
    """Where entries are written: the maps of a loaded program."""

    def update(self, table: str, entries: Mapping[bytes, bytes]) -> None:
        """Insert or replace. Raises TableFull, or OSError; some of the entries may be in then."""

    def delete(self, table: str, keys: Collection[bytes]) -> None:
        """Remove; keys that are not there are no error."""


def apply(writer: TableWriter, before: Entries, after: Entries) -> None:
    """Write what differs. When a write raises, those before it are undone."""
    new: dict[tuple[str, bool], dict[bytes, bytes]] = {}
    old: dict[tuple[str, bool], list[bytes]] = {}
    for (table, key), value in after.items():
        if before.get((table, key)) != value:
            new.setdefault((table, _lifts(table, value)), {})[key] = value
    for (table, key), value in before.items():
        if (table, key) not in after:
            old.setdefault((table, _lifts(table, value)), []).append(key)

    done: list[tuple[str, Collection[bytes]]] = []
    try:
        for table, lifting in ORDER:
            if entries := new.get((table, lifting)):
                done.append((table, entries))
                writer.update(table, entries)
        for table, lifting in reversed(ORDER):
            if keys := old.get((table, lifting)):
                done.append((table, keys))
                writer.delete(table, keys)
    except BaseException:
        for table, touched in reversed(done):
            if added := [key for key in touched if (table, key) not in before]:
                writer.delete(table, added)
            if changed := {key: before[table, key] for key in touched if (table, key) in before}:
                writer.update(table, changed)
        raise


def _lifts(table: str, value: bytes) -> bool:
    """Whether the entry says that something is lifted, in a table where some entries say the opposite."""
    if table not in ("xs_forward", "xs_prefixes", "xs_selectors"):
        return False
    flags: int = struct.unpack("=II", value)[1]
    return bool(flags & LIFT)
