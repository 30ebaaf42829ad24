"""The build: what is missing is named with the package that brings it, and only what has changed is compiled."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools

from tests.house.tree import ROOT, text


def build_ext(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(folder), "--build-temp", str(folder)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path) -> None:
    build = build_ext(tmp_path, CC="no-such-compiler")
    assert build.returncode != 0
    assert "a C compiler and its library (tried: no-such-compiler -c)" in build.stderr
    assert "apt-get install gcc libc6-dev" in build.stderr


def test_a_missing_clang_is_named_alone(tmp_path: Path) -> None:
    build = build_ext(tmp_path, BPF_CLANG="no-such-clang")
    assert build.returncode != 0
    assert "clang, with its BPF target" in build.stderr
    assert "apt-get install clang\n" in build.stderr


def test_a_missing_header_is_named_with_its_package(tmp_path: Path) -> None:
    """A compiler that sees no system header but those given to it finds neither libbpf's nor the kernel's."""
    build = build_ext(tmp_path, CC="cc -nostdinc")
    assert build.returncode != 0
    for package in ("libc6-dev", "python3-dev", "linux-libc-dev", "libbpf-dev"):
        assert package in build.stderr


@pytest.fixture
def compile_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Compiles one.c and two.c, of which one.c includes one.h, as the build does; returns what was compiled anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    changed_only = runpy.run_path(str(ROOT / "setup.py"))["ChangedOnly"]
    Path("one.h").write_text("int one;")
    Path("one.c").write_text('#include "one.h"')
    Path("two.c").write_text("int two;")
    for source in ("one.h", "one.c", "two.c"):
        os.utime(source, (1e9, 1e9))  # a cached compilation is done in the same tick of the file system's clock

    def build(*flags: str) -> list[str]:
        spawned: list[list[str]] = []

        def spawn(command: list[str]) -> None:
            spawned.append(command)
            subprocess.run(command, check=True)

        compiler = changed_only(spawn)
        for name in ("one", "two"):
            compiler(["cc", *flags, "-c", f"{name}.c", "-o", f"{name}.o"])
        compiler(["cc", "-shared", "one.o", "two.o", "-o", "both.so"])
        return sorted(command[command.index("-c") + 1] for command in spawned if "-c" in command)

    return build


def test_only_what_has_changed_is_compiled(compile_changed: Any) -> None:
    assert compile_changed("-fPIC") == ["one.c", "two.c"]
    assert compile_changed("-fPIC") == []
    Path("one.h").write_text("int one = 1;")
    assert compile_changed("-fPIC") == ["one.c"]
    assert compile_changed("-fPIC", "-O1") == ["one.c", "two.c"]


@pytest.fixture
def compile_bpf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Compiles one.bpf.c into out/ as the build does; returns whether it was compiled anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    compile_bpf = runpy.run_path(str(ROOT / "setup.py"))["compile_bpf"]
    here = compile_bpf.__globals__
    here["ROOT"] = tmp_path
    Path("bpf").mkdir()
    Path("bpf/one.bpf.c").write_text("int one;")
    made = Path("out/one.bpf.o")

    def build(*flags: str, clang: str | None = None) -> bool:
        before = made.stat().st_mtime_ns if made.exists() else 0
        here["BPF_FLAGS"] = ["-target", "bpf", *flags]
        here["BPF_CLANG"] = [clang] if clang else ["clang"]
        compile_bpf(made.parent, Path("notes"))
        return made.stat().st_mtime_ns != before

    return build


def test_bpf_is_compiled_anew_when_a_source_the_flags_or_clang_have_changed(compile_bpf: Any, tmp_path: Path) -> None:
    assert compile_bpf()
    assert not compile_bpf()
    (tmp_path / "bpf/one.h").write_text("")
    assert compile_bpf()
    assert not compile_bpf()
    assert compile_bpf("-DTWO")
    assert not compile_bpf("-DTWO")
    other = tmp_path / "clang"
    other.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "clang, of tomorrow" && exit\nexec clang "$@"\n')
    other.chmod(0o755)
    assert compile_bpf("-DTWO", clang=str(other))
    other.write_text(other.read_text().replace("tomorrow", "the day after"))
    assert compile_bpf("-DTWO", clang=str(other))
    assert not compile_bpf("-DTWO", clang=str(other))


def test_a_bpf_source_that_failed_is_compiled_again(compile_bpf: Any, tmp_path: Path) -> None:
    compile_bpf()
    (tmp_path / "bpf/one.bpf.c").write_text("int one")
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            compile_bpf()


def test_a_source_distribution_has_all_that_the_tests_look_at() -> None:
    """Every folder that is kept, but for what only serves the repository itself."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a repository: this is a source distribution, or an export")
    folders = {path.split("/")[0] for path in tracked.stdout.splitlines() if "/" in path and path[0] != "."}
    shipped = set(re.findall(r"^(?:graft|recursive-include) (\S+)", text("MANIFEST.in"), re.MULTILINE))
    assert folders - shipped == {"xdpstack"}  # setuptools' own


def test_a_source_that_failed_is_compiled_again(compile_changed: Any) -> None:
    compile_changed("-fPIC")
    Path("two.c").write_text("int two")
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            compile_changed("-fPIC")
    Path("two.c").write_text("int two;")
    assert compile_changed("-fPIC") == ["two.c"]
