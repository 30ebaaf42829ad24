"""The table in docs/path.md is the path table of the code."""

import subprocess
import sys

from tests.house.tree import ROOT


def test_the_table_of_the_docs_is_up_to_date() -> None:
    check = subprocess.run([sys.executable, "tools/path_table.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
