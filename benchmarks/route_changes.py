"""What changes of routes cost control, by how many routes there are.

    python -m benchmarks.route_changes [ROUTES ...]
    sudo python -m benchmarks.route_changes --burst [ROUTES ...]

Milliseconds, the best of the rounds, in memory: compiling a snapshot, the arrays of it for C, C's copy, the exchange; and
all of that by what control calls. But for the exchange it is done with the GIL.

--burst: with so many routes in a namespace, a thousand of them change, 200 a second. How often the routing table was made
meanwhile, with rests in between (xdpstack/publishing.py, xdpstack/control.py) and without, how long control's thread ran,
and how long after the last change that was in force.
"""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack

import xdpstack
from xdpstack import control
from xdpstack.native import check, ffi, lib
from xdpstack.native.core import Core
from xdpstack.netlink import Address, Link, Prefix, Route, Snapshot
from xdpstack.routing.native import NativeRouting
from xdpstack.routing.native_tables import Draft
from xdpstack.routing.nexthops import NextHopIds
from xdpstack.routing.tables import compile_tables
from xdpstack.stack import Stack
from xdpstack.testing import until
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import make_veth

ROUTES = (10, 100, 1_000, 10_000, 100_000)
DEVICES = {2: 0}


def host(routes: int) -> Snapshot:
    """A host with so many routes to networks of 256 addresses, by one of 100 gateways each."""
    made = [
        Route.make(f"{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/24", via=f"10.0.0.{2 + n % 100}", oif=2)
        for n in range(routes)
    ]
    return Snapshot.build([Link(2, "a0", bytes([2, 0, 0, 0, 0, 1]))], [Address.parse("10.0.0.1/24", 2)], made)


def best(seconds: Sequence[float]) -> str:
    return f"{min(seconds) * 1000:10.2f}"


def costs(routes: int, rounds: int) -> list[str]:
    """Of compiling, of the arrays for C, of C's copy, of the exchange, and of all that by what control calls."""
    snapshot = host(routes)
    core = Core(frames=64)
    spent: list[list[float]] = [[] for _ in range(5)]
    for _ in range(rounds):
        at = [time.perf_counter()]
        tables = compile_tables(snapshot)
        at.append(time.perf_counter())
        draft = Draft(tables, snapshot, DEVICES, NextHopIds())
        values = draft.values()
        at.append(time.perf_counter())
        out = ffi.new("struct xs_fib **")
        check(lib.xs_fib_create(values, out), "make the routing tables")
        at.append(time.perf_counter())
        lib.xs_stack_set_fib(core.pointer, out[0])
        at.append(time.perf_counter())
        for part, (begun, ended) in zip(spent, itertools.pairwise(at), strict=False):
            part.append(ended - begun)
        begun = time.perf_counter()
        NativeRouting(core.pointer).publish(snapshot, DEVICES)
        spent[4].append(time.perf_counter() - begun)
    core.destroy()
    return [best(part) for part in spent]


# ---- with a kernel ----

CHANGES, SECONDS = 1000, 5.0


def network(n: int) -> str:
    return f"{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/24"


def replace_routes(netns: Namespace, routes: range, gateway: int) -> None:
    netns.ip(*(f"route replace {network(n)} via 10.0.0.{gateway}" for n in routes))


def replace_slowly(netns: Namespace, routes: range, gateway: int) -> None:
    """Ten at a time, over SECONDS."""
    with subprocess.Popen(["ip", "-n", netns.name, "-batch", "-"], stdin=subprocess.PIPE, text=True) as ip:
        assert ip.stdin
        for n in routes:
            ip.stdin.write(f"route replace {network(n)} via 10.0.0.{gateway}\n")
            if n % 10 == 9:
                ip.stdin.flush()
                time.sleep(SECONDS * 10 / len(routes))


def settled(stack: Stack, gateway: bytes, last: Prefix) -> bool:
    """The last change is known, and every table is made of what is."""
    snapshot = stack.snapshot
    known = any(route.destination == last and route.hops[0].gateway == gateway for route in snapshot.routes)
    return known and stack._control.tables.wait(snapshot) is None


def control_seconds() -> float:
    """How long the thread of control has run."""
    (thread,) = (each for each in threading.enumerate() if each.name == "xdpstack-control")
    assert thread.ident
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def burst(routes: int, resting: bool) -> str:
    """A line of the table. `resting` False: tables are made whenever something has changed."""
    with ExitStack() as undo:
        here, there = Namespace("routes"), Namespace("gateways")
        undo.callback(here.delete)
        undo.callback(there.delete)
        near = make_veth(here, there).near
        replace_routes(here, range(routes), 2)
        stack = undo.enter_context(xdpstack.open(near.name, netns=here.name, observable=False))
        tables = stack._control.tables
        if not resting:
            undo.callback(setattr, control, "MIRROR_SECONDS", control.MIRROR_SECONDS)
            control.MIRROR_SECONDS = 1e9
            bring_to = tables.bring_to
            tables.bring_to = lambda snapshot, at_once=True: bring_to(snapshot)  # type: ignore[method-assign]
        before, ran = stack.info()["tables"]["routing"]["published"], control_seconds()
        begun = time.monotonic()
        replace_slowly(here, range(CHANGES), 3)
        changed = time.monotonic()
        until(lambda: settled(stack, bytes([10, 0, 0, 3]), Prefix.parse(network(CHANGES - 1))), seconds=120)
        ended = time.monotonic()
        made, ran = stack.info()["tables"]["routing"]["published"] - before, control_seconds() - ran
    how = "rests" if resting else "none"
    return f"{routes:>8} {how:>10} {changed - begun:>10.2f} {made:>10} {ran:>10.2f} {ended - changed:>10.2f}"


def main() -> None:
    words = sys.argv[1:]
    asked = [int(text) for text in words if text != "--burst"] or ROUTES
    if "--burst" in words:
        print(f"{'routes':>8} {'rests':>10} {'burst':>10} {'tables':>10} {'control':>10} {'late':>10}   s")
        for routes in asked:
            for resting in (False, True):
                print(burst(max(routes, CHANGES), resting))
        return
    print(f"{'routes':>8} {'compile':>10} {'arrays':>10} {'C copies':>10} {'exchange':>10} {'publish':>10}   ms")
    for routes in asked:
        print(f"{routes:>8}", *costs(routes, 3 if routes > 20_000 else 10))


if __name__ == "__main__":
    main()
