"""What was granted on each model, as a table in Markdown; its rows are made by tests/nic/test_granted.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The facts as columns, and below them the reasons for what was not granted."""
    names = list(dict.fromkeys(name for row in rows for name in row if name != "why"))
    cells = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        lines += [f"{row['model']}, {what}: {why}" for what, why in row.get("why", {}).items()]
    return "\n".join(lines)
