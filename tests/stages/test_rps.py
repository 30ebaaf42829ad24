"""rps over memory devices, workers stepped in a stated order: where flows go, how they arrive, what is dropped."""

from __future__ import annotations

import itertools
import os
import random
import struct
import threading
from collections import Counter, defaultdict
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether

from xdpstack.errors import ConfigurationError
from xdpstack.native import ffi, lib
from xdpstack.testing import MemoryDevice, MemoryStack, Rings, check_open, memory_stack, until

MAC = "02:00:00:00:00:01"
RINGS = Rings(rx=512, tx=512, fill=512, completion=512)
PORT = 7


def frame(number: int = 0, sport: int = 5, source: str = "10.0.0.2") -> bytes:
    packet = Ether(dst=MAC) / IP(src=source, dst="10.0.0.1") / UDP(sport=sport, dport=PORT, chksum=0) / bytes(4)
    return bytes(packet)[:-4] + number.to_bytes(4)


#: By source port; made once, the last four bytes are a number.
FRAMES = {sport: frame(sport=sport)[:-4] for sport in range(1000, 1064)}


def opened(workers: int = 2, queues: int = 1, **options: Any) -> MemoryStack:
    return memory_stack(
        MemoryDevice("a0", queues=queues, rings=RINGS),
        addresses={"a0": ["10.0.0.1/24"]},
        neighbours=["10.0.0.2 dev a0 lladdr 02:00:00:00:00:99"],
        workers=workers,
        frames=4096,
        **options,
    )


def rfs(stack: MemoryStack, worker: int, flows: int = 4096, **options: Any) -> None:
    """Every CPU is that worker's: whoever reads, reads there."""
    stack._rps.on(
        (), flows, dict.fromkeys(range(1024), worker), **{"max_backlog": 1000, "flow_limit": False, **options}
    )


def read_at(stack: MemoryStack, worker: int) -> None:
    """Readers are beside another worker from now on; the tables stay."""
    table = ffi.new("struct xs_rps_options *")
    table.worker_of_cpu = [worker] * 1024
    lib.xs_rfs_set_cpus(stack._core.pointer, table.worker_of_cpu)


def hash_of(stack: MemoryStack, packet: Any) -> int:
    data = bytes(packet)
    return int(lib.xs_rps_hash_of(stack._core.pointer, data, len(data), 14, struct.unpack(">H", data[12:14])[0]))


# ---- the hash ----


def test_a_flow_has_one_hash_both_ways_and_others_have_others() -> None:
    with opened() as stack:
        there = Ether() / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=5, dport=7) / b"one"
        back = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=7, dport=5) / b"another"
        assert hash_of(stack, there) == hash_of(stack, back) != 0
        same = Ether() / IP(src="10.0.0.1", dst="10.0.0.1")
        assert hash_of(stack, same / UDP(sport=5, dport=7)) == hash_of(stack, same / UDP(sport=7, dport=5))
        others = [
            Ether() / IP(src="10.0.0.3", dst="10.0.0.1") / UDP(sport=5, dport=7),
            Ether() / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=6, dport=7),
            Ether() / IP(src="10.0.0.2", dst="10.0.0.1", proto=6) / UDP(sport=5, dport=7),
            Ether() / IPv6(src="fd00::2", dst="fd00::1") / UDP(sport=5, dport=7),
        ]
        assert len({hash_of(stack, packet) for packet in [there, *others]}) == 5
    with opened() as stack:
        assert hash_of(stack, there) != 0, "another stack has another key"


def test_fragments_and_flow_labels() -> None:
    """All fragments of a datagram have the same, whose first alone has ports; a flow label stands for the ports."""
    with opened() as stack:
        head = Ether() / IP(src="10.0.0.2", dst="10.0.0.1", proto=17, flags="MF")
        first, second = head / UDP(sport=5, dport=7) / bytes(8), head / bytes(16)
        second[IP].frag, second[IP].flags = 2, 0
        assert hash_of(stack, first) == hash_of(stack, second)
        labelled = [
            Ether() / IPv6(src="fd00::2", dst="fd00::1", fl=9) / UDP(sport=port, dport=7) / b"x" for port in (5, 6)
        ]
        assert len({hash_of(stack, packet) for packet in labelled}) == 1
        labelled[1][IPv6].fl = 8
        assert len({hash_of(stack, packet) for packet in labelled}) == 2
        hops = Ether() / IPv6(src="fd00::2", dst="fd00::1") / IPv6ExtHdrHopByHop() / UDP(sport=5, dport=7)
        assert hash_of(stack, hops) != 0


def test_what_is_no_ip_or_cut_short_has_none() -> None:
    with opened() as stack:
        whole = bytes(Ether() / IP(src="10.0.0.2", dst="10.0.0.1") / UDP() / b"x")
        assert hash_of(stack, whole[:33]) == 0
        assert hash_of(stack, whole[:36]) != 0, "without ports"
        assert hash_of(stack, Ether(type=0x88CC) / bytes(50)) == 0
        assert hash_of(stack, whole[:14] + b"\x65" + whole[15:]) == 0


# ---- RPS ----


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_flows_are_spread_and_each_keeps_its_order(order: tuple[int, ...]) -> None:
    with opened(workers=3) as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        stack.rps()
        sock.setblocking(False)
        got: dict[int, list[int]] = defaultdict(list)
        rng = random.Random(1)
        sent: Counter[int] = Counter()
        for _ in range(60):
            for sport in rng.choices(list(FRAMES), k=50):
                assert stack.inject("a0", FRAMES[sport] + sent[sport].to_bytes(4)) == 1
                sent[sport] += 1
            stack.step(order=order)
            check_open(stack._core)
            with_room(sock, got)
        stack.step(2)
        with_room(sock, got)
        assert got == {sport: list(range(n)) for sport, n in sent.items()}
        counters = stack.counters()
        assert 0.4 < counters["rps.rx.steered"] / 3000 < 0.9
        assert stack.reasons() == {}


def with_room(sock: Any, got: dict[int, list[int]]) -> None:
    """Everything that there is to read, by source port."""
    while True:
        try:
            data, (_, port) = sock.recvfrom(100)
        except BlockingIOError:
            return
        got[port].append(int.from_bytes(data))


def test_weights_say_who_gets_what() -> None:
    with opened(workers=3) as stack, stack.udp(("10.0.0.1", PORT)):
        stack.rps([0, 0, 1])
        for sport in FRAMES:
            stack.inject("a0", FRAMES[sport] + bytes(4))
        stack.step()
        assert stack.counters()["rps.rx.steered"] == len(FRAMES)
        pkts = stack._core.packets
        assert {pkts[i].owner_device for i in range(4096) if pkts[i].owner == lib.XS_QUEUED} == {2}


def test_off_it_is_not_on_the_path() -> None:
    with opened() as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        sock.setblocking(False)
        names = [node.name for node in stack._walk.nodes]
        assert stack.info()["rps"] == {}
        stack.rps([0, 1])
        assert {"rps.rx", "rps.tx"} <= {node.name for node in stack._walk.nodes}
        assert stack.info()["rps"]["weights"] == [0, 1]
        stack.inject("a0", FRAMES[1000] + bytes(4))
        stack.step(order=[0])
        stack.rps_off()  # what was on its way arrives all the same
        assert [node.name for node in stack._walk.nodes] == names
        assert stack.info()["rps"] == {}
        stack.step(order=[1])
        assert sock.recv(9) == bytes(4)
        stack.inject("a0", FRAMES[1000] + bytes(4))
        stack.step(order=[0])
        assert sock.recv(9) == bytes(4)


def test_a_full_backlog_drops() -> None:
    with opened() as stack, stack.udp(("10.0.0.1", PORT)):
        stack.rps([0, 1], max_backlog=100)
        for number in range(150):
            stack.inject("a0", FRAMES[1000 + number % 64] + bytes(4))
        stack.step(order=[0])
        assert stack.reasons() == {"CPU_BACKLOG": 50}
        check_open(stack._core)
        stack.step(order=[1])
        assert stack.counters()["udp.rx.packets"] == 100


def test_with_a_flow_limit_the_flow_that_floods_is_cut() -> None:
    with opened() as stack, stack.udp(("10.0.0.1", PORT)):
        stack.rps([0, 1], max_backlog=400, flow_limit=True)
        for number in range(390):
            stack.inject("a0", FRAMES[1000 if number % 3 else 1001 + number % 60] + bytes(4))
        stack.step(2, order=[0])
        counters = stack.counters()
        assert counters["rps.rx.limited"] == stack.reasons()["CPU_BACKLOG"] > 0
        stack.step(2, order=[1])
        check_open(stack._core)


def test_frames_go_home() -> None:
    with opened(workers=3) as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        stack.rps([0, 1, 1])
        sock.setblocking(False)
        got: dict[int, list[int]] = defaultdict(list)
        for number in range(20_000):
            if stack.inject("a0", FRAMES[1000 + number % 64] + bytes(4)) == 0 or number % 200 == 0:
                stack.step()
                with_room(sock, got)
        stack.step(2)
        with_room(sock, got)
        stack.step(2)
        pkts = stack._core.packets
        assert {pkts[i].owner for i in range(4096, 3 * 4096)} == {lib.XS_FREE}
        assert {pkts[i].owner for i in range(4096)} == {lib.XS_FREE, lib.XS_FILLED}


def test_queued_frames_leave_the_rings_theirs() -> None:
    """Nobody reads, all workers queue frames of one partition: its queue still has what it is to receive into."""
    with opened(workers=2) as stack:
        socks = [stack.udp(("10.0.0.1", port)) for port in (PORT, 8, 9)]
        for sock in socks:
            sock.setsockopt(1, 33, 1 << 28)  # SO_RCVBUFFORCE, without a kernel socket
        stack.rps()
        for number in range(8000):
            stack.inject("a0", FRAMES[1000 + number % 64] + bytes(4))
            if number % 100 == 0:
                stack.step()
        stack.step(3)
        assert stack.reasons().get("PROTO_MEM", 0) > 0
        assert stack.frames_by_owner()["filled"] == 512


# ---- RFS ----


def test_what_was_queued_before_says_nothing_of_how_far_its_flow_is_read() -> None:
    """Its number is what the frame's last use left there: the source of an IPv6 datagram that was sent from it."""
    with opened() as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        stack.rps()
        sock.setblocking(False)
        for number in range(64):
            stack.inject("a0", FRAMES[1000 + number] + bytes(4))
        stack.step(2)
        core = stack._core
        queued = [i for i in range(core.frames) if core.packets[i].owner == lib.XS_QUEUED]
        assert len(queued) == 64
        for i in queued:
            core.metas[i].src = bytes.fromhex("20010db8") + bytes(12)
        rfs(stack, 1, flows=64)
        assert len(sock.recv_batch(64)) == 64
        stack.rps_off()


@pytest.mark.parametrize("seed", range(12))
def test_a_flow_follows_its_reader_and_keeps_its_order(seed: int) -> None:
    """Whatever the order of workers, packets, reads and moves of the reader: each flow arrives in order, and all of it."""
    rng = random.Random(seed)
    with opened(workers=3, queues=2) as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        rfs(stack, 0)
        sock.setblocking(False)
        sent: Counter[int] = Counter()
        got: dict[int, list[int]] = defaultdict(list)
        for _ in range(600):
            for _ in range(rng.randrange(6)):
                sport = rng.choice(range(1000, 1006))
                assert stack.inject("a0", FRAMES[sport] + sent[sport].to_bytes(4), queue=sport % 2) == 1
                sent[sport] += 1
            stack.step(order=rng.sample(range(3), rng.randrange(1, 4)))
            if rng.random() < 0.1:
                read_at(stack, rng.randrange(3))
            for _ in range(rng.randrange(8)):
                try:
                    data, (_, port) = sock.recvfrom(100)
                except BlockingIOError:
                    break
                got[port].append(int.from_bytes(data))
            check_open(stack._core)
        stack.step(3)
        with_room(sock, got)
        assert got == {sport: list(range(n)) for sport, n in sent.items()}
        counters = stack.counters()
        assert counters["rps.rx.moved"] > 5
        assert counters["rps.rx.stayed"] > 5


def test_a_flow_moves_when_all_of_it_has_been_read() -> None:
    with opened() as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        stack._rps.on([1, 0], 4096, dict.fromkeys(range(1024), 1), 1000, False)

        def steered() -> int:
            return stack.counters().get("rps.rx.steered", 0)

        def arrive() -> None:
            assert stack.inject("a0", FRAMES[1000] + bytes(4)) == 1
            stack.step()

        arrive()
        arrive()
        assert steered() == 0  # nobody has read yet
        sock.recv(9)
        arrive()
        assert steered() == 0  # one is still queued
        sock.recv(9)
        sock.recv(9)
        arrive()
        assert steered() == 1  # the flow has moved
        assert stack.counters()["rps.rx.moved"] == 1
        sock.recv(9)
        read_at(stack, 255)  # the reader went where no worker is: the entry stands, as in Linux
        arrive()
        assert steered() == 2


def test_dropped_packets_do_not_let_a_flow_overtake() -> None:
    """What is dropped behind those that are queued says nothing about these."""
    with opened() as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        rfs(stack, 0)
        sock.setsockopt(1, 8, 4096)  # SO_RCVBUF: a few datagrams
        sock.setblocking(False)
        got: dict[int, list[int]] = defaultdict(list)
        for number in range(40):
            stack.inject("a0", FRAMES[1000] + number.to_bytes(4))
        stack.step(2)
        assert stack.reasons()["SOCKET_RCVBUFF"] > 20
        read_at(stack, 1)
        for number in range(40, 200):
            got[1000] += [int.from_bytes(sock.recv(9))] if sock.stats()["queued"] else []
            stack.inject("a0", FRAMES[1000] + number.to_bytes(4))
            stack.step(order=[1, 0])
        stack.step(2)
        with_room(sock, got)
        assert got[1000] == sorted(got[1000])


# ---- XPS ----


def test_a_flow_leaves_by_one_of_its_workers_queues() -> None:
    """Worker 0 has queues 0 and 2, worker 1 has 1: sockets are theirs in turn."""
    with opened(workers=2, queues=3) as stack:
        stack.rps()
        socks = [stack.udp(("10.0.0.1", port)) for port in (PORT, 8)]
        queues = stack.backend.queues["a0"]
        used: dict[tuple[int, int], set[int]] = defaultdict(set)
        for round_ in range(3):
            for port in range(2000, 2040):
                for sock in socks:
                    sock.sendto(bytes([round_]), ("10.0.0.2", port))
            stack.step(2)
            for number, queue in enumerate(queues):
                for data in queue.sent():
                    udp = Ether(data)[UDP]
                    used[udp.sport, udp.dport].add(number)
        assert len(used) == 80
        assert all(len(numbers) == 1 for numbers in used.values()), "a flow keeps its queue"
        by_socket: dict[int, set[int]] = defaultdict(set)
        for (sport, _), numbers in used.items():
            by_socket[sport] |= numbers
        assert by_socket == {PORT: {0, 2}, 8: {1}}


def test_a_worker_without_a_queue_spreads_over_all() -> None:
    with opened(workers=3, queues=2) as stack:
        stack.rps()
        socks = [stack.udp(("10.0.0.1", port)) for port in (PORT, 8, 9)]
        for port in range(2000, 2040):
            socks[2].sendto(b"x", ("10.0.0.2", port))
        stack.step(2)
        assert all(queue.sent() for queue in stack.backend.queues["a0"])
        assert stack.counters()["napi.tx.handed_over"] == 40


# ---- asking for what cannot be ----


@pytest.mark.parametrize("weights", [[1], [0, 0], [1, -1], [200, 100]])
def test_weights_that_cannot_be(weights: list[int]) -> None:
    with opened() as stack, pytest.raises(ConfigurationError, match="weights"):
        stack.rps(weights)


def test_limits_that_cannot_be() -> None:
    with opened() as stack:
        for backlog in (0, 5000):
            with pytest.raises(ConfigurationError, match="max_backlog"):
                stack.rps(max_backlog=backlog)
        with pytest.raises(ConfigurationError, match="where the workers run"):
            stack.rps(flows=100)
        with pytest.raises(ConfigurationError, match="flows"):
            rfs(stack, 0, flows=1 << 25)
        assert stack.info()["rps"] == {}


# ---- with threads ----


def test_flows_keep_their_order_while_workers_and_readers_run() -> None:
    """Threads steer to each other, the reader moves from CPU to CPU: nothing is lost, nothing overtaken."""
    cpus = sorted(os.sched_getaffinity(0))
    both = [cpus[0], cpus[-1]]
    total, flows = 4000, list(FRAMES)[:8]
    got: dict[int, list[int]] = defaultdict(list)
    with opened(queues=2, threads=True, cpus=both) as stack, stack.udp(("10.0.0.1", PORT)) as sock:
        stack.rps(flows=1024)
        sock.settimeout(20)

        def read() -> None:
            for number in range(total):
                if number % 50 == 0:
                    os.sched_setaffinity(0, {both[number // 50 % 2]})
                data, peer = sock.recvfrom(100)
                got[peer[1]].append(int.from_bytes(data))

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(total):
            sport = flows[number % 8]
            until(lambda: stack.inject("a0", FRAMES[sport] + number.to_bytes(4), queue=sport % 2))  # noqa: B023
            until(lambda: number - sum(map(len, got.values())) < 200)  # noqa: B023
        reader.join(30)
        assert not reader.is_alive()
        assert got == {sport: list(range(i, total, 8)) for i, sport in enumerate(flows)}
        assert stack.counters()["rps.rx.steered"] > 0
        assert stack.reasons() == {}
        stack._driving.end()
        check_open(stack._core)
