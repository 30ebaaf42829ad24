"""Checks which C file includes which: only downwards.

    python tools/c_includes.py

    base < wire < tables, xsk, xdp < stages < walk, worker, stack, watchdog < fake, views < fuzz, tests

`include` (the public header), `ffi/*.cdef.h` and `reasons.def` are plain declarations that everyone may include, and
csrc/ffi/native.h, from which cffi generates, includes all. A stage does not include another stage's header; only
csrc/stages/registry.h, the list of them, knows them all. The BPF programs include UAPI headers, libbpf's and their own.
Prints each include that breaks a rule; exits with 1 if any does.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Which rank each folder of csrc/ has; a file includes files of its own rank or below.
RANKS = [
    ["include", "reasons.def", "base"],
    ["wire"],
    ["tables", "xsk", "xdp"],
    ["stages"],
    ["walk", "worker", "stack", "watchdog"],
    ["fake", "views"],
    ["ffi", "fuzz", "tests"],
]
RANK = {folder: rank for rank, folders in enumerate(RANKS) for folder in folders}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def part(path: Path) -> str:
    """The row of RANKS that a file of csrc/ belongs to: `csrc/walk.c` and `csrc/walk/` are both `walk`."""
    name = path.relative_to(ROOT / "csrc").parts[0]
    return name if name in RANK else name.split(".")[0].split("_")[0]


def stem(path: Path) -> str:
    """The stage that a file in csrc/stages/ belongs to: `udp.h` and `udp_tx.c` are both `udp`."""
    return path.name.split(".")[0].split("_")[0]


def resolve(file: Path, name: str) -> Path | None:
    """The file that `#include "name"` in `file` means, or None if no folder of the include path has it."""
    for folder in (file.parent, ROOT / "csrc", ROOT, ROOT / "bpf"):
        if (folder / name).is_file():
            return (folder / name).resolve()
    return None


def faults(file: Path) -> list[str]:
    """What is wrong with the includes of one file, a line each."""
    found = []
    in_bpf = file.is_relative_to(ROOT / "bpf")
    for bracket, name in INCLUDE.findall(file.read_text()):
        target = resolve(file, name)
        if bracket == "<":
            if in_bpf and not name.startswith(("linux/", "bpf/", "asm/")):
                found.append(f"<{name}> is neither UAPI nor libbpf")
        elif target is None:
            found.append(f'"{name}" is not in the tree')
        elif in_bpf:
            if not target.is_relative_to(ROOT / "bpf"):
                found.append(f'"{name}": a BPF program includes nothing of csrc/')
        elif target.is_relative_to(ROOT / "bpf") or target.name.endswith(".cdef.h"):
            continue
        elif part(target) not in RANK or part(file) not in RANK:
            found.append(f"{part(file)} or {part(target)} has no place in the ranks of tools/c_includes.py")
        elif RANK[part(target)] > RANK[part(file)]:
            found.append(f'"{name}": {part(target)} is above {part(file)}')
        elif part(file) == part(target) == "stages" and stem(file) not in (stem(target), "registry"):
            found.append(f'"{name}": stages do not include each other')
    return [f"{file.relative_to(ROOT)}: {fault}" for fault in found]


def main() -> int:
    files = [*ROOT.glob("csrc/**/*.[ch]"), *ROOT.glob("bpf/*.[ch]")]
    found = [line for file in sorted(files) for line in faults(file)]
    print("\n".join(found) or f"C includes: {len(files)} files, all downwards")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
