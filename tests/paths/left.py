"""What a stack holds of the process and the machine, so that tests can say that it is all given back."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xdpstack.observe.server import DIRECTORY
from xdpstack.testing.namespace import NAMED
from xdpstack.testing.veth import End
from xdpstack.testing.wait import until


@dataclass(frozen=True, slots=True)
class Held:
    """Descriptors and threads by number; `mappings` are those shared with the kernel: frames, rings, the deadline."""

    descriptors: dict[int, str]
    threads: dict[int, str]
    mappings: Counter[str]
    namespaces: frozenset[str]
    observers: frozenset[str]


def held() -> Held:
    """What this process has now."""
    gc.collect()  # an exception holds its traceback, and that what the failed call had made
    return Held(
        _descriptors(),
        _threads(),
        Counter(_shared_mappings()),
        frozenset(path.name for path in NAMED.glob(f"*-{os.getpid()}-*")),
        frozenset(path.name for path in DIRECTORY.glob(f"{os.getpid()}-*")),
    )


def _descriptors() -> dict[int, str]:
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            found[int(path.name)] = str(path.readlink())
        except FileNotFoundError:
            continue  # that of the directory
    return found


def _threads() -> dict[int, str]:
    found = {}
    for path in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            found[int(path.name)] = path.joinpath("comm").read_text().strip()
    return found


def _shared_mappings() -> Iterator[str]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, *_, name = line.split(maxsplit=5)
        if "s" in permissions:
            start, end = (int(each, 16) for each in span.split("-"))
            yield f"{end - start} {name}"


def check_left(before: Held) -> None:
    """What this process has now is what it had before. A thread is there for a moment after it was waited for."""
    with suppress(AssertionError):
        until(lambda: held() == before, seconds=5.0)
    after = held()
    for name in Held.__slots__:
        now, then = getattr(after, name), getattr(before, name)
        assert now == then, f"{name} were {then} and are {now}"


@contextmanager
def nothing_left(*ends: End) -> Iterator[None]:
    """After the block the process has what it had before, and no XDP program is on the ends of the pair."""
    before = held()
    programs = [end.has_xdp() for end in ends]
    yield
    check_left(before)
    assert [end.has_xdp() for end in ends] == programs
