"""Writes the table of docs/path.md anew from xdpstack/path.py.

    python tools/path_table.py [--check]

With --check it writes nothing, and exits with 1 if the table of the page is another one.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/path.md"
sys.path.insert(0, str(ROOT))

from xdpstack.path import ASKED_BY, PATH, Row  # noqa: E402 (the path of an uninstalled tree comes first)


def line(row: Row) -> str:
    """One row of the table, in Markdown; an edge by which an absent row is passed is in parentheses."""
    edges = ", ".join(
        f"({edge} → `{target}`)" if edge == row.passes else f"{edge} → `{target}`" for edge, target in row.edges.items()
    )
    mirrors = ", ".join(f"`{name.strip()}`" for name in row.mirrors.split(", "))
    there = {
        "kernel": "in the kernel",
        "stack": "always",
        "asked": f"with `{ASKED_BY.get(row.name)}`",
        "hook": "hooks only",
    }
    return f"| `{row.name}` | {row.what} | {there[row.where]} | {edges or 'the end'} | {mirrors} |"


def tables() -> str:
    """Both directions, each a table under its heading."""
    parts = []
    for direction, heading in (("rx", "## Receive"), ("tx", "## Transmit")):
        rows = [line(row) for row in PATH if row.direction == direction]
        titles = ("stage", "what it does", "there", "where packets go next", "in Linux")
        head = [f"| {' | '.join(titles)} |", f"| {' | '.join('---' for _ in titles)} |"]
        parts.append("\n".join([heading, "", *head, *rows]))
    return "\n\n".join(parts)


def main() -> int:
    page = PAGE.read_text()
    written = re.sub(
        r"(?<=<!-- tables -->\n\n).*(?=\n\n<!-- end of tables -->)", lambda _: tables(), page, flags=re.DOTALL
    )
    if "--check" not in sys.argv:
        PAGE.write_text(written)
    elif written != page:
        print("docs/path.md does not show xdpstack/path.py: run python tools/path_table.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
