"""Programs that are measured: in their namespace, on their core, ready when they say so, ended by number."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from xdpstack.bench.results import BenchError

READY_SECONDS = 120.0  # a subject in Python under valgrind takes a while to begin; one that takes longer has failed
END_SECONDS = 20.0  # and to end

Ready = Callable[["subprocess.Popen[str]"], None]


class Count:
    """A number of 8 bytes that another process writes into a mapped file: see counter()."""

    def __init__(self, folder: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder)
        os.ftruncate(descriptor, 8)
        os.close(descriptor)
        self.path = Path(name)
        self._number = counter(name)

    def __int__(self) -> int:
        return self._number.value


def counter(path: str) -> ctypes.c_uint64:
    """The number of a Count, for the process that writes it: `.value = n` is one store.

    struct.pack_into() is two: it clears the bytes first, and whoever reads then sees 0.
    """
    with Path(path).open("r+b") as file:
        return ctypes.c_uint64.from_buffer(mmap.mmap(file.fileno(), 8))


def says_ready(child: subprocess.Popen[str]) -> None:
    """Wait for the line "ready". BenchError if it is another, or does not come."""
    assert child.stdout is not None
    if not select.select([child.stdout], [], [], READY_SECONDS)[0]:
        raise BenchError(f"was not ready within {READY_SECONDS:.0f} s")
    if child.stdout.readline().strip() != "ready":
        with suppress(subprocess.TimeoutExpired):
            child.wait(END_SECONDS)  # so that its status can be told
        raise BenchError("ended before it was ready")


@contextmanager
def running(
    netns: str | None,
    cpu: int,
    words: list[str],
    ready: Ready = says_ready,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A program on one core, in a namespace (None: ours), that is ready. An interrupt from the terminal is for us alone.

    BenchError, with the last that it said on stderr, when it does not get ready, and when it ended by itself.
    """
    command = [*(["ip", "netns", "exec", netns] if netns else []), "taskset", "-c", str(cpu), *words]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            try:
                ready(child)
            except BenchError as error:
                raise BenchError(f"{_told(words, child, errors)}: {error}") from None
            try:
                yield child
            except BenchError as error:
                if child.poll() is None:
                    raise  # it is not the one that failed
                raise BenchError(_told(words, child, errors)) from error
            if child.poll() is not None:
                raise BenchError(_told(words, child, errors))
        finally:
            end(child)


def _told(words: list[str], child: subprocess.Popen[str], errors: IO[str]) -> str:
    """A line about a program that did not do well: its status, and the last that it said."""
    status = child.poll()
    errors.seek(0)
    said = " ".join(errors.read().split()[-40:])
    ended = f" ended by itself with status {status}" if status is not None else ""
    return f"{Path(words[0]).name}{ended}" + (f": {said}" if said else "")


def end(child: subprocess.Popen[str]) -> None:
    """End it, with force if it does not end by itself; idempotent."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
