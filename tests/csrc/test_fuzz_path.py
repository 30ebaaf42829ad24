"""The path that fuzz targets are wired by is the path."""

import re
from pathlib import Path

from xdpstack.path import PATH

HEADER = Path(__file__).resolve().parents[2] / "csrc/fuzz/path.h"


def test_the_edges_are_those_of_the_path_table() -> None:
    listed = re.findall(r'X\("([\w.]+)", "(\w+)", "([\w.]+)", ([01])\)', HEADER.read_text())
    wanted = [
        (row.name, edge, target, str(int(edge == row.passes)))
        for row in PATH
        if row.where != "kernel"
        for edge, target in row.edges.items()
    ]
    assert listed == wanted
