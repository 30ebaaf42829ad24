"""What the calls of a UDP socket cost a datagram, in Python: `python -m benchmarks.stages.bench_udp_calls`.

Nanoseconds, the best of the rounds: of udp.rx with its tick through the walk, and of the calls with all that they do, 64
datagrams at a time. The frames are in the cache. Instructions of the stages: bench_udp.py.
"""

import time
from collections.abc import Callable

from tests.udp.by_hand_host import ByHandHost
from tests.udp.datagrams import HERE, HERE6, PEER, PEER6, datagram, packed
from xdpstack.native import check, ffi, lib
from xdpstack.udp.socket import UdpSocket

BATCH, ROUNDS = 64, 200
#: name -> (what we are bound to, the peer, bytes of payload)
CASES = {
    "IPv4, 64 B": (HERE, PEER, 22),
    "IPv4, 1,442 B": (HERE, PEER, 1400),
    "IPv6, 84 B": (HERE6, PEER6, 22),
    "IPv4, 64 k sockets": (HERE, PEER, 22),
}


class Bench:
    """A host with one socket (or very many), and 64 datagrams for it that can be walked again and again."""

    def __init__(self, case: str) -> None:
        here, peer, size = CASES[case]
        self.host = ByHandHost([packed(HERE)[12:], packed(HERE6)], frames=1024)
        self.sock = self.open(here, "sockets" in case)
        self.sock.setblocking(False)
        self.payload, self.peer = bytes(size), (peer, 1000) if here == HERE else (peer, 1000, 0, 0)
        self.one = datagram(self.payload, to=here, source=peer)
        rx = self.host.rx
        frames = [rx.put(self.one) for _ in range(BATCH)]
        self.packets = [(frame, ffi.new("struct xs_pkt *", rx.core.packets[frame])) for frame in frames]
        self.frames = ffi.new("uint32_t[]", frames)

    def open(self, here: str, many: bool) -> UdpSocket:
        if many:  # published once: 65,000 keys
            from xdpstack.udp import native
            from xdpstack.udp.semantics import Bound

            sock = self.host.udp.open((here, 7))
            others = [Bound(n, 4, packed(here), n) for n in range(500, 65535)]
            native.publish(
                self.host.core,
                [(sock._endpoint.bound, sock._endpoint.pointer)] + [(b, sock._endpoint.pointer) for b in others],
            )
            return sock
        return self.host.udp.open((here, 7))

    def arrive(self) -> int:
        """The 64 datagrams come in; returns the nanoseconds of the walk."""
        rx = self.host.rx
        for frame, pkt in self.packets:
            rx.core.packets[frame] = pkt[0]
        before = time.perf_counter_ns()
        lib.xs_worker_walk(rx.worker, rx.node, self.frames, BATCH)
        return time.perf_counter_ns() - before

    def take_back(self) -> None:
        """The frames come home and are ours again: last in, first out."""
        frames = ffi.new("uint32_t[]", BATCH)
        check(lib.xs_worker_take(self.host.rx.worker, frames, BATCH), "take frames")
        home = {frame for frame, _ in self.packets}
        assert set(frames) == home

    def calls(self) -> dict[str, Callable[[], object]]:
        """Name -> what empties a queue of 64."""
        sock, room = self.sock, bytearray(2048)

        def batch(use: Callable[[object], object]) -> Callable[[], object]:
            def call() -> None:
                with sock.recv_batch(BATCH) as got:
                    use(got)

            return call

        return {
            "recvfrom": lambda: [sock.recvfrom(2048) for _ in range(BATCH)],
            "recvfrom_into": lambda: [sock.recvfrom_into(room) for _ in range(BATCH)],
            "batch, columns": batch(lambda got: got.lengths),
            "batch, payloads": batch(lambda got: got.payloads()),
            "batch, both": batch(list),
            "batch, views": batch(lambda got: got.views()),
        }


def receive_ns(case: str) -> dict[str, float]:
    """Nanoseconds a datagram, best of the rounds: the walk, and each way of reading."""
    bench = Bench(case)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, call in bench.calls().items():
            walked = bench.arrive()
            before = time.perf_counter_ns()
            call()
            spent = time.perf_counter_ns() - before
            bench.take_back()
            for key, value in (("udp.rx", walked), (name, spent)):
                best[key] = min(best.get(key, 1e9), value / BATCH)
    return best


def send_ns(case: str) -> dict[str, float]:
    """Nanoseconds a datagram of sending, up to a hook behind udp.tx."""
    bench = Bench(case)
    payloads, best = [bench.payload] * BATCH, {"sendto": 1e9, "send_batch": 1e9}
    for _ in range(ROUNDS):
        for name, call in (
            ("sendto", lambda: [bench.sock.sendto(bench.payload, bench.peer) for _ in range(BATCH)]),
            ("send_batch", lambda: bench.sock.send_batch(payloads, bench.peer)),
        ):
            before = time.perf_counter_ns()
            call()
            best[name] = min(best[name], (time.perf_counter_ns() - before) / BATCH)
            bench.host.take_sent()
    return best


def main() -> None:
    for case in CASES:
        print(case)
        for name, ns in {**receive_ns(case), **send_ns(case)}.items():
            print(f"  {name:18}{ns:10.1f} ns")


if __name__ == "__main__":
    main()
