"""Round trips of one client beside a Python handler that blocks 50 ms, by who drives the stack. For docs/adr/0004.

    sudo python -m benchmarks.who_drives [SECONDS]

A veth pair of two queues. A thread of the program echoes on one port; a kernel client sends 500 small datagrams a second
there, on time, whatever becomes of the answers. Meanwhile another client sends four a second to another port, each of which
keeps the handler busy for 50 ms, that is for a fifth of the time:

    sleeps      in time.sleep(), as one that asks a database
    computes    in a Python loop, with the GIL
    is a hook   a hook on the path of the second port's packets, which sleeps
    loop        both ports in one thread's event loop, whose handler sleeps

Prints the median, the 99th percentile and the worst of the round trips in microseconds, how many took more than 10 ms, and
how many were not answered. With workers as many threads are in run(), for hooks.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import xdpstack
from xdpstack.errors import ClosedError
from xdpstack.testing.namespace import Namespace
from xdpstack.testing.veth import End, make_veth

US, PEER = "10.0.0.1", "10.0.0.2"
ECHO, SLOW = 7001, 7002
BLOCK_SECONDS, RATE = 0.05, 4
CLIENT_RATE = 500
MODES = ("inline", "run() in a thread", "workers=1", "workers=2")
HANDLERS = ("none", "sleeps", "computes", "is a hook", "loop")

#: The client is a process of its own, so that its time is not that of the program. It sends on time, whether or not it was
#: answered, and counts from when it was to send: what waits behind a block counts as long as it waits.
CLIENT = """
import socket, struct, sys, time
seconds, host, port, rate = float(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((host, port))
total, sent, times, clock = int(seconds * rate), 0, [], time.perf_counter
start = clock()
while len(times) < total and clock() < start + seconds + 2:
    while sent < total and clock() >= start + sent / rate:
        s.send(struct.pack("Q", sent)); sent += 1
    s.settimeout(max(1e-5, min(0.5, start + sent / rate - clock())) if sent < total else 0.5)
    try:
        number, = struct.unpack("Q", s.recv(99))
    except (TimeoutError, BlockingIOError):
        continue
    times.append(clock() - start - number / rate)
times.sort()
late = sum(t > 0.01 for t in times) * 100 / len(times)
print(*(1e6 * t for t in (times[len(times) // 2], times[len(times) * 99 // 100], times[-1])), late, total - len(times))
"""
BOTHER = """
import socket, sys, time
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:  # another port, and by and by each queue
        s.sendto(b"work", (sys.argv[1], int(sys.argv[2])))
    time.sleep(1 / float(sys.argv[3]))
"""


def sleep() -> None:
    time.sleep(BLOCK_SECONDS)


def compute() -> None:
    end = time.perf_counter() + BLOCK_SECONDS
    while time.perf_counter() < end:
        sum(range(100))


@contextmanager
def until_closed(work: Callable[[], object]) -> Iterator[None]:
    """`work` again and again in a thread, until what it uses is closed."""

    def again() -> None:
        with contextlib.suppress(ClosedError):
            while True:
                work()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)


def serve(stack: Any, handler: str, life: ExitStack) -> None:
    """Echo on one port, the handler on the other; for as long as the sockets live, which are closed when `life` ends."""
    echo, slow = stack.udp((US, ECHO)), stack.udp((US, SLOW))

    def answer() -> None:
        data, peer = echo.recvfrom(99)
        echo.sendto(data, peer)

    if handler == "loop":
        life.enter_context(until_closed(loop_of(echo, slow)))
    else:
        life.enter_context(until_closed(answer))
        handle: Callable[[], None] = {"sleeps": sleep, "computes": compute}.get(handler, lambda: None)
        life.enter_context(until_closed(lambda: (slow.recv(99), handle())))
    if handler == "is a hook":
        stack.hook("netfilter.input", hold_up, name="hold_up")
    life.callback(slow.close)
    life.callback(echo.close)


def hold_up(batch: xdpstack.HookBatch) -> None:
    if any(packet.dport == SLOW for packet in batch):
        sleep()


def loop_of(echo: Any, slow: Any) -> Callable[[], None]:
    """One turn of an event loop over both sockets."""
    epoll = select.epoll()
    for sock in (echo, slow):
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)

    def turn() -> None:
        epoll.poll(0.1)
        with contextlib.suppress(BlockingIOError):
            while True:
                data, peer = echo.recvfrom(99)
                echo.sendto(data, peer)
        with contextlib.suppress(BlockingIOError):
            slow.recv(99)
            sleep()

    return turn


def measure(near: End, far: Namespace, mode: str, handler: str, seconds: float) -> list[float]:
    workers = int(mode[-1]) if mode.startswith("workers") else None
    with ExitStack() as life:
        stack = life.enter_context(xdpstack.open(near.name, netns=near.netns.name, workers=workers))
        drivers = [threading.Thread(target=stack.run) for _ in range(workers or mode.startswith("run"))]
        for driver in drivers:
            driver.start()
            life.callback(driver.join)
        life.callback(stack.stop)
        serve(stack, handler, life)
        inside = ["ip", "netns", "exec", far.name, sys.executable, "-c"]
        if handler != "none":
            bother = subprocess.Popen([*inside, BOTHER, US, str(SLOW), str(RATE)])
            life.callback(bother.wait)
            life.callback(bother.kill)
        words = [*inside, CLIENT, str(seconds), US, str(ECHO), str(CLIENT_RATE)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        return [float(word) for word in done.stdout.split()]


def main(seconds: float) -> None:
    with ExitStack() as life:
        near, far = Namespace("near"), Namespace("far")
        life.callback(far.delete)
        life.callback(near.delete)
        pair = make_veth(near, far, queues=2, near=(f"{US}/24",), far=(f"{PEER}/24",))
        print(f"{'handler':12}{'driven by':20}{'p50':>9}{'p99':>9}{'max':>9}{'late':>7}{'lost':>6}")
        for handler in HANDLERS:
            for mode in MODES:
                p50, p99, worst, late, lost = measure(pair.near, far, mode, handler, seconds)
                print(f"{handler:12}{mode:20}{p50:9.0f}{p99:9.0f}{worst:9.0f}{late:6.1f}%{lost:6.0f}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
