"""What comments and documents speak of exists: C names, files, Python names, make targets, links."""

import importlib
import re
from pathlib import Path

from tests.house.tree import C_COMMENT, C_SOURCES, C_STRING, DOCS, PYTHON, ROOT, files, text

#: All that speaks of the tree, but for the tests of this folder, which speak of what is not there.
SPEAKING = [path for path in [*PYTHON, *C_SOURCES, *DOCS, Path("Makefile")] if path.parts[:2] != ("tests", "house")]
#: Files that the build makes.
MADE = re.compile(r"xdpstack/include/|xdpstack/device/bpf/|xdpstack/native/_native\.|.*\.bpf\.o$")

# A name that goes on as a pattern, as xs_<stem>_rx and XS_UAPI_*, names nothing in particular.
C_NAME = re.compile(r"\b(?:xs|XS)_\w*\w\b(?<!_)(?![*<{#])")
FILE = re.compile(r"(?<![\w/.<-])(?:csrc|bpf|xdpstack|tests|docs|examples|benchmarks|tools)/[\w/.-]*\.\w+(?![\w*<])")
PYTHON_NAME = re.compile(r"`(xdpstack(?:\.[A-Za-z_]\w*)+)")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")
COMMAND = re.compile(r"(?:`|^ +)(?:sudo )?make ([a-z-]+)", re.MULTILINE)


def mentions(pattern: re.Pattern[str], paths: list[Path]) -> set[tuple[str, str]]:
    """Each (file, mention) of the pattern."""
    return {(str(path), mention) for path in paths for mention in pattern.findall(text(path))}


def test_c_names_exist() -> None:
    names: set[str] = set()
    for path in C_SOURCES:
        code = C_COMMENT.sub(" ", text(path))
        names |= set(re.findall(r"\w+", C_STRING.sub(" ", code)))
        # Put together by a macro, from csrc/reasons.def.
        names |= {f"XS_REASON_{reason}" for reason in re.findall(r"^XS_REASON\((\w+)", code, re.MULTILINE)}
    assert {(path, name) for path, name in mentions(C_NAME, SPEAKING) if name not in names} == set()


def test_files_exist() -> None:
    folders = [ROOT, ROOT / "csrc"]  # C files name each other from csrc/ on
    missing = {
        (path, file)
        for path, file in mentions(FILE, SPEAKING)
        if not any((folder / file).exists() for folder in folders)
    }
    assert {(path, file) for path, file in missing if not MADE.match(file)} == set()


def test_links_lead_somewhere() -> None:
    links = mentions(LINK, DOCS)
    assert {(path, link) for path, link in links if not (ROOT / path).parent.joinpath(link).exists()} == set()


def test_the_index_has_every_document() -> None:
    """Those of docs/stages/ are named after their stages, and those of docs/adr/ in an index of their own."""
    links = [
        link
        for _, link in mentions(LINK, [Path("docs/README.md")])
        if link in {path.name for path in files("docs/*.md")}
    ]
    assert sorted(links) == sorted(set(links))
    linked = {link for _, link in mentions(LINK, [Path("docs/README.md")])}
    assert {path.name for path in files("docs/*.md")} - linked == {"README.md"}


def test_python_names_exist() -> None:
    assert {(path, name) for path, name in mentions(PYTHON_NAME, SPEAKING) if not python_name_exists(name)} == set()


def python_name_exists(dotted: str) -> bool:
    parts = dotted.split(".")
    found: object = importlib.import_module(parts[0])
    for count, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:count]))
            except ModuleNotFoundError:
                return False
    return True


def test_make_commands_exist() -> None:
    commands = set(re.findall(r"^([a-z-]+):.*## ", text("Makefile"), re.MULTILINE))
    assert {(path, name) for path, name in mentions(COMMAND, DOCS) if name not in commands} == set()
