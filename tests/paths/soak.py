"""A process that opens and closes a stack again and again, with traffic, and says what is left.

    python -m tests.paths.soak NETNS INTERFACE PEER_NETNS ROUNDS OPTIONS

OPTIONS: those of open(), as JSON. Prints a Soaked as JSON. Apart from pytest, whose plugin keeps every stack of a test until
it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.paths.left import check_left, held
from tests.paths.world import OURS, PORT, exchange, kernel_udp, opened
from xdpstack.testing.ledger import check_closed
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import End
from xdpstack.testing.wait import PATIENCE, until

libbpf = ctypes.CDLL("libbpf.so.1")
#: Datagrams that are echoed in a round.
DATAGRAMS = 20


@dataclass
class Soaked:
    """`memory` is the process's own (RssAnon), in bytes, after each round; `objects` are ids of BPF objects still there."""

    memory: list[int] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    made: int = 0


def memory_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def bpf_objects() -> Iterator[tuple[str, int]]:
    """Programs, maps and links that this process has open, by their ids."""
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            kind, _, value = line.partition(":")
            if kind in ("prog_id", "map_id", "link_id"):
                yield kind, int(value)


def exists(kind: str, number: int) -> bool:
    """Whether the kernel still has the object of that id."""
    descriptor = int(getattr(libbpf, f"bpf_{kind.removesuffix('_id')}_get_fd_by_id")(number))
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


def soak(near: End, far: Namespace, rounds: int, options: dict[str, Any]) -> Soaked:
    """Open, echo, close; each time nothing is left of it. The kernel's objects are looked for in the end."""
    out = Soaked()
    there: set[tuple[str, int]] = set()
    with kernel_udp(far, to=OURS[0]) as client:
        for number in range(rounds):
            with opened(near, **options) as stack, stack.udp(("::", PORT)) as sock:
                sock.settimeout(PATIENCE)
                size = 8000 if stack.devices[0].multi_buffer else 100
                for _ in range(DATAGRAMS):
                    exchange(sock, client, bytes(size))
                new = set(bpf_objects())
            check_closed(stack._core)
            del stack, sock
            out.made += len(new)
            there = {each for each in there | new if exists(*each)}  # they go some time after the last descriptor
            if number == 0:
                before = held()
            check_left(before)
            out.memory.append(memory_bytes())
    with contextlib.suppress(AssertionError):
        until(lambda: not any(exists(*each) for each in there))
    out.objects = [f"{kind} {number}" for kind, number in sorted(there) if exists(kind, number)]
    return out


def main(netns: str, name: str, peer: str, rounds: str, options: str) -> None:
    print(json.dumps(asdict(soak(End(existing(netns), name), existing(peer), int(rounds), json.loads(options)))))


def existing(name: str) -> Namespace:
    """A namespace that the test has made."""
    made = Namespace.__new__(Namespace)
    made.name = name
    return made


if __name__ == "__main__":
    main(*sys.argv[1:])
