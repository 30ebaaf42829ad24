"""The layout of the tree: lengths, file heads, one stem per stage, tests beside what they test, who imports what."""

import ast
import re

from tests.house.tree import C_SOURCES, PYTHON, ROOT, files, text
from xdpstack.path import ASKED_BY, PATH, Row, resolve
from xdpstack.walk import c_stages

STEMS = {row.stem for row in PATH}
#: Folders of tests/ that are not about one part of xdpstack/ or one stage.
JOURNEYS = {"house", "kernel", "paths", "bpf", "examples", "csrc", "nic", "offloaded"}

#: Source files of more than 400 lines, each with the reason why it is one file. More than 600 have no excuse.
LONG = {
    "xdpstack/stack.py": "the one object that users hold; each method hands on to the part that does it",
}


def test_source_files_are_not_too_long() -> None:
    lengths = {str(path): len(text(path).splitlines()) for path in PYTHON + C_SOURCES if path.parts[0] != "tests"}
    assert {path: lines for path, lines in lengths.items() if lines > (600 if path in LONG else 400)} == {}


def test_python_files_say_what_they_are_for() -> None:
    assert [path for path in PYTHON if not ast.get_docstring(ast.parse(text(path)))] == []


def test_c_files_say_what_they_are_for() -> None:
    """With a comment at their head, behind the line that names the licence if there is one."""
    heads = {path: re.sub(r"^//[^\n]*\n|^/\* SPDX[^\n]*\*/\n", "", text(path).lstrip()) for path in C_SOURCES}
    assert [path for path, head in heads.items() if not re.match(r"/\*(?:(?!\*/).){20,}", head, re.DOTALL)] == []


def test_lines_of_c_are_not_too_long() -> None:
    """Those of code are clang-format's to break; it leaves comments as they are."""
    lines = [
        (str(path), at) for path in C_SOURCES for at, line in enumerate(text(path).splitlines(), 1) if len(line) > 140
    ]
    assert lines == []


def test_heads_of_stages_say_what_is_before_and_behind_them() -> None:
    """As the path is wired in a new stack; rows that are off until somebody asks for them, as if only they were on."""
    wrong = {}
    for row in PATH:
        if row.name in c_stages():
            head = text(f"csrc/stages/{row.name.replace('.', '_')}.c").partition("*/")[0]
            if " * " + path_line(row) not in head.splitlines()[-1]:
                wrong[row.name] = path_line(row)
    assert wrong == {}


def path_line(row: Row) -> str:
    """Rows before > the row > rows behind, past those that are hooks' alone."""
    there = {each.name for each in PATH if each.where in ("kernel", "stack")} | {row.name}
    before = [
        each.name
        for each in PATH
        for target in each.edges.values()
        if each.name in there and resolve(target, there) == row.name
    ]
    behind = [resolve(target, there) for target in row.edges.values()]
    ways = " > ".join(filter(None, (", ".join(before), row.name, ", ".join(behind))))
    return f"Path: {ways}.{f' Off until {ASKED_BY[row.name]}.' if row.name in ASKED_BY else ''}"


def test_bpf_programs_are_dual_licensed() -> None:
    """GPL, so that the kernel lets them call every helper; or Apache, as the rest of the project."""
    programs = files("bpf/*.[ch]")
    line = "SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)"
    assert programs
    assert [path for path in programs if path.suffix == ".c" and line not in text(path).splitlines()[0]] == []
    once_more = re.compile(r'^#include "\w+\.bpf\.c"$', re.MULTILINE)  # another program's text, licence included
    whole = [path for path in files("bpf/*.bpf.c") if not once_more.search(text(path))]
    assert [path for path in whole if 'SEC("license") = "GPL"' not in text(path)] == []


def test_stages_have_one_stem_everywhere() -> None:
    """Under the stem that the path table has for it."""
    in_c = {path.name.split(".")[0].split("_")[0] for path in files("csrc/stages/*.c")}
    configured = {path.stem for path in files("xdpstack/stages/*.py")} - {"__init__"}
    documented = {path.stem for path in files("docs/stages/*.md")}
    assert in_c | configured | documented <= STEMS


def test_each_row_has_a_file_in_c() -> None:
    """With its name: `udp.rx` is defined in csrc/stages/udp_rx.c."""
    defined = {
        (row, path.stem)
        for path in files("csrc/stages/*.c")
        for row in re.findall(r"^const struct xs_stage_def \w+ = \{\s*\.name = \"([\w.]+)\"", text(path), re.MULTILINE)
    }
    assert {row for row, _ in defined} == set(c_stages())
    assert {(row, stem) for row, stem in defined if row.replace(".", "_") != stem} == set()


def test_tests_mirror_the_package() -> None:
    parts = {path.stem for path in (ROOT / "xdpstack").iterdir()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert folders - parts - STEMS - JOURNEYS - {"__pycache__"} == set()


def test_only_the_native_package_imports_the_extension() -> None:
    importers = set()
    for path in files("xdpstack/**/*.py"):
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                if {"_native", "_views"} & {part for name in names for part in name.split(".")}:
                    importers.add(str(path.parent))
    assert importers == {"xdpstack/native"}
