"""A process that leaves the interpreter with a tuned stack open. Arguments: NETNS INTERFACE ADDRESS HOW WORKERS.

No workers are 0: whoever receives drives.
"""

from __future__ import annotations

import sys
import threading
import time

import xdpstack
from xdpstack.testing.wait import until


def main(netns: str, name: str, address: str, how: str, workers: str) -> None:
    """Never closes what it opens: `how` says which way it leaves, and what its other threads are in meanwhile."""
    stack = xdpstack.open(
        name,
        netns=netns,
        frames=1024,
        workers=int(workers) or None,
        tune=xdpstack.Tuning(napi_defer_hard_irqs=2, gro_flush_timeout_ns=200_000, merging="off"),
    )
    sock = stack.udp((address, 7))
    stuck = threading.Event()

    def hook(batch: object) -> None:
        stuck.set()
        time.sleep(1000)

    if "hook" in how:
        stack.hook("tc.rx", hook)
    if "run" in how:
        threading.Thread(target=stack.run, daemon=True).start()
        until(lambda: stack.driven)
    if "receive" in how:
        threading.Thread(target=sock.recvfrom, args=(100,), daemon=True).start()
    print("ready", flush=True)
    if "hook" in how:
        assert stuck.wait(30)
    else:
        sys.stdin.readline()
    if "exception" in how:
        raise RuntimeError("out of main")
    if "interrupt" in how:
        raise KeyboardInterrupt
    sys.exit(3)


main(*sys.argv[1:])
