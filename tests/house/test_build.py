"""The build: what is missing is named with the package that brings it, and only what has changed is compiled."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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
