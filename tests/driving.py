"""Threads that drive a stack, as a program's would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def worker_threads() -> dict[str, Path]:
    """The threads of this process that are stacks' workers, by name; also one that has ended a moment ago."""
    named = {}
    for path in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            named[path.joinpath("comm").read_text().strip()] = path
    return {name: path for name, path in named.items() if name.startswith("xdpstack/")}


@contextmanager
def driven(*turns: Callable[[], object]) -> Iterator[None]:
    """A thread for each of `turns` calls it again and again as long as the block runs. None of them may raise."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def drive(turn: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                turn()
        except BaseException as error:
            failures.append(error)

    drivers = [threading.Thread(target=drive, args=(turn,)) for turn in turns]
    for driver in drivers:
        driver.start()
    try:
        yield
    finally:
        stop.set()
        for driver in drivers:
            driver.join()
    assert failures == []
