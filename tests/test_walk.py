"""The walk: who runs when, on which packets, and that no packet and no frame is lost, whatever stages do."""

import errno
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.packets import HOST, OTHER
from tests.walk_graph import DROP, EMIT, KEEP, REASONS, Graph, packet
from xdpstack.native import ffi, lib
from xdpstack.testing import memory_stack

#: Stage 1 parts packets to 2 and 3, which meet again at 4.
DIAMOND = [(2, 3), (4,), (4,), (5,)]


def numbered(n: int, *script: int) -> list[bytes]:
    return [packet(*script)[:-4] + i.to_bytes(4) for i in range(n)]


# ---- order ----


def test_a_uniform_batch_walks_on_as_it_is() -> None:
    with Graph([(2,), (3,), (4,)]) as graph:
        frames = numbered(64)
        assert graph.walk(*frames) == frames
        assert graph.log() == [(1, 64), (2, 64), (3, 64)]


def test_a_parted_batch_meets_again_and_walks_on_together() -> None:
    with Graph(DIAMOND) as graph:
        sent = graph.walk(*(packet(i % 2) for i in range(40)))
        assert len(sent) == 40
        assert graph.log() == [(1, 40), (2, 20), (3, 20), (4, 40)]


def test_pending_nodes_run_in_the_order_of_the_table() -> None:
    """Also when a later one had packets first, and when the rest of the batch goes one way."""
    with Graph([(2, 4), (3,), (4,), (5,)]) as graph:
        graph.walk(packet(1), packet(0), packet(1))
        assert graph.log() == [(1, 3), (2, 1), (3, 1), (4, 3)]


def test_packets_of_one_way_stay_in_order() -> None:
    with Graph(DIAMOND) as graph:
        frames = [packet(i % 2)[:-4] + i.to_bytes(4) for i in range(64)]
        sent = graph.walk(*frames)
        for way in (0, 1):
            assert [f for f in sent if f[14] == way] == [f for f in frames if f[14] == way]


def test_a_batch_is_not_larger_than_what_was_received() -> None:
    """64 packets of each poll walk at a time; a budget of more is taken in several batches."""
    with Graph([(2,)]) as graph:
        graph.queue.inject(numbered(200))
        assert lib.xs_worker_poll(graph.worker, 150) == 150
        assert graph.log() == [(1, 64), (1, 64), (1, 22)]
        graph.poll()


# ---- edges ----


def test_a_backward_edge_is_taken() -> None:
    """Stages 1 and 2, then back to 1, which sends it to 3."""
    with Graph([(2, 3), (3, 1), (4,)]) as graph:
        assert graph.walk(packet(0, 1, 1)) == [packet(0, 1, 1)]
        assert graph.log() == [(1, 1), (2, 1), (1, 1), (3, 1)]


def test_a_stage_may_send_a_packet_to_itself() -> None:
    with Graph([(2, 1)]) as graph:
        assert graph.walk(packet(1, 1, 1, 0)) == [packet(1, 1, 1, 0)]
        assert graph.log() == [(1, 1)] * 4


@pytest.mark.parametrize("others", [0, 3])
def test_a_circle_ends_with_reason_loop(others: int) -> None:
    """Edge 0 leads back: a script that is over walks in a circle. A batch of one way, and one that is parted."""
    with Graph([(1, 2)]) as graph:
        assert len(graph.walk(packet(), *[packet(1)] * others)) == others
        assert graph.drops() == {"LOOP": 1}
        assert len(graph.log()) == 65, "64 turns"


def test_turns_are_counted_anew_in_each_walk() -> None:
    with Graph([(2, 1)]) as graph:
        for _ in range(10):
            assert len(graph.walk(packet(*[1] * 30, 0))) == 1


@pytest.mark.parametrize("edge", [1, 7, 0x3F])
def test_an_edge_that_the_stage_does_not_have(edge: int) -> None:
    with Graph([(2,)]) as graph:
        assert graph.walk(packet(edge), packet(0)) == [packet(0)]
        assert graph.drops(1) == {"BAD_EDGE": 1}


def test_an_edge_that_is_not_wired() -> None:
    with Graph([(2,)]) as graph:
        hook = lib.xs_worker_add_hook(graph.worker, ffi.NULL, ffi.NULL, ffi.NULL, 1)
        assert lib.xs_worker_wire(graph.worker, 1, 0, hook) == 0
        graph.walk(packet())
        assert graph.resume(hook, [0]) == 1
        assert graph.drops(hook) == {"BAD_EDGE": 1}
        assert lib.xs_worker_wire(graph.worker, 1, 0, 2) == 0


def test_wiring_is_checked() -> None:
    with Graph([(2,)]) as graph:
        for node, edge, to in ((9, 0, 1), (1, 1, 2), (1, 0, 9)):
            assert lib.xs_worker_wire(graph.worker, node, edge, to) == -errno.EINVAL
        assert lib.xs_worker_set_entry(graph.worker, 0, 9) == -errno.EINVAL
        assert lib.xs_worker_add_stage(graph.worker, b"nosuch.rx") == -errno.ENOENT
        assert lib.xs_worker_add_hook(graph.worker, ffi.NULL, ffi.NULL, ffi.NULL, 9) == -errno.EINVAL


def test_there_is_room_for_64_nodes() -> None:
    with Graph([(2,)]) as graph:
        made = [lib.xs_worker_add_hook(graph.worker, ffi.NULL, ffi.NULL, ffi.NULL, 0) for _ in range(62)]
        assert made == [*range(3, 64), -errno.ENOSPC]


# ---- drops ----


def test_drops_are_counted_at_the_stage_by_reason() -> None:
    with Graph([(2,), (3,)]) as graph:
        assert len(graph.walk(*[packet(DROP)] * 3, *[packet(0, DROP)] * 2, packet())) == 1
        assert (graph.drops(1), graph.drops(2)) == ({"HOOK": 3}, {"HOOK": 2})
        assert graph.core.ledger().dropped == 5


def test_a_batch_that_is_dropped_whole() -> None:
    with Graph([(2,)]) as graph:
        assert graph.walk(*[packet(DROP)] * 64) == []
        assert graph.drops() == {"HOOK": 64}


def test_a_jumbo_packet_is_dropped_with_all_its_frames() -> None:
    with Graph([(2,)]) as graph:
        graph.walk(packet(DROP, size=9000))
        assert graph.drops() == {"HOOK": 1}
        counts = graph.core.frame_counts()
        assert counts["free"] + counts["filled"] == graph.core.frames


def test_a_batch_that_is_dropped_whole_with_jumbo_packets_in_it() -> None:
    with Graph([(2,)]) as graph:
        graph.walk(packet(DROP), packet(DROP, size=9000), packet(DROP), packet(DROP, size=4000))
        assert graph.drops() == {"HOOK": 4}
        counts = graph.core.frame_counts()
        assert counts["free"] + counts["filled"] == graph.core.frames


def test_a_batch_that_is_dropped_whole_for_several_reasons() -> None:
    """Each packet for its own: to another host, and of a protocol that nobody handles."""
    other, unknown = (to + bytes(6) + proto + bytes(46) for to, proto in ((OTHER, b"\x08\x00"), (HOST, b"\x88\xb5")))
    with memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]}) as stack:
        stack.inject("a0", other, unknown, unknown)
        stack.poll()
        assert stack.reasons() == {"OTHERHOST": 1, "UNHANDLED_PROTO": 2}
        assert stack.ledger().dropped == 3


def test_a_batch_that_takes_an_edge_that_there_is_not() -> None:
    with Graph([(2,)]) as graph:
        assert graph.walk(*[packet(7)] * 5) == []
        assert graph.drops() == {"BAD_EDGE": 5}


# ---- packets that a stage makes ----


def test_an_emitted_packet_walks_with_the_others() -> None:
    with Graph([(2,), (3,)]) as graph:
        assert len(graph.walk(*[packet(EMIT)] * 10)) == 20
        assert graph.log() == [(1, 10), (2, 20)]
        assert graph.core.ledger().created == 10


def test_an_emitted_packet_may_take_another_edge() -> None:
    with Graph(DIAMOND) as graph:
        assert len(graph.walk(*[packet(EMIT | 1)] * 4)) == 8
        assert graph.log() == [(1, 4), (2, 4), (3, 4), (4, 8)]


def test_a_full_batch_takes_no_more_packets() -> None:
    """64 packets, doubled at each of three stages: the fourth doubling does not fit into 256."""
    stages = [(2,), (3,), (4,)]
    with Graph(stages, frames=4096) as graph:
        sent = graph.walk(*[packet(EMIT, EMIT, EMIT)] * 64)
        assert len(sent) == 64 * 4, "emitted packets have empty scripts: one more of each received one at each stage"
        graph.settle()
        assert graph.core.ledger().created == 64 * 3


def test_without_a_free_frame_nothing_is_emitted() -> None:
    with Graph([(2,)], frames=64) as graph:
        assert graph.core.frame_counts()["free"] == 0, "all in the fill ring"
        assert len(graph.walk(*[packet(EMIT)] * 10)) == 10
        assert graph.core.ledger().created == 0
        assert graph.states[0][8:12] == (10).to_bytes(4, "little")


# ---- packets that a stage holds ----


def test_a_held_packet_is_in_the_ledger_until_its_tick() -> None:
    with Graph([(2,)], ticks=2) as graph:
        assert graph.walk(*[packet(KEEP)] * 5) == []
        assert graph.core.ledger().held == 5
        assert graph.core.frame_counts()["held"] == 5
        graph.poll()
        assert graph.queue.sent() == []
        graph.poll()
        assert len(graph.queue.sent()) == 5


def test_a_held_jumbo_is_held_with_all_its_frames() -> None:
    with Graph([(2,)], ticks=1) as graph:
        graph.walk(packet(KEEP, size=9000))
        assert graph.core.frame_counts()["held"] == 6
        assert graph.core.ledger().held == 1
        graph.check()


def test_a_tick_releases_no_more_than_fits() -> None:
    with Graph([(2,)], ticks=6, frames=2048) as graph:
        for _ in range(6):
            graph.walk(*[packet(KEEP)] * 60)
        assert graph.core.ledger().held == 360
        released = []
        while graph.core.ledger().held:
            before = graph.core.ledger().held
            graph.poll()
            released.append(before - graph.core.ledger().held)
        assert max(released) <= 256
        assert sum(released) == 360


def test_a_tick_may_release_by_a_bad_edge() -> None:
    with Graph([(2,)]) as graph:
        graph.walk(packet(KEEP | 5))
        graph.poll()
        assert graph.drops() == {"BAD_EDGE": 1}


def test_what_a_tick_releases_passes_the_stages_behind() -> None:
    with Graph(DIAMOND) as graph:
        graph.walk(packet(KEEP | 0), packet(KEEP | 1))
        graph.poll()
        assert graph.log()[1:] == [(2, 1), (3, 1), (4, 2)]


# ---- Python hooks ----


def test_a_hook_parks_and_resumes() -> None:
    with Graph([(2,), (3, 4), (4,)], python=[2]) as graph:
        assert graph.walk(*numbered(10)) == []
        assert lib.xs_worker_parked(graph.worker) == 1 << 2
        assert len(graph.parked(2)) == 10
        assert graph.core.ledger().held == 10
        next_ = [0] * 4 + [1] * 3 + [lib.XS_DROP] * 3
        assert graph.resume(2, next_, [REASONS["SOCKET_FILTER"]] * 10) == 10
        assert sorted(graph.queue.sent()) == numbered(7)
        assert graph.drops(2) == {"SOCKET_FILTER": 3}
        assert graph.log() == [(1, 10), (3, 4)]
        assert graph.packets(2) == 10


def test_a_poll_waits_while_packets_are_parked() -> None:
    with Graph([(2,)], python=[1]) as graph:
        graph.walk(packet())
        graph.queue.inject([packet()])
        assert lib.xs_worker_poll(graph.worker, 64) == -errno.EAGAIN
        assert graph.resume(1, [0]) == 1
        graph.poll()
        assert len(graph.parked(1)) == 1
        graph.run_python()


def test_parked_packets_are_looked_at_again_only_once_counted() -> None:
    """Ticks run after packets were parked in the same poll, and may park more."""
    with Graph([(2,), (3,)], python=[2], ticks=1) as graph:
        graph.walk(packet(KEEP))
        graph.walk(packet())
        assert len(graph.parked(2)) == 2
        assert graph.packets(2) == 2
        graph.check()
        graph.run_python()


def test_packets_parked_meanwhile_stay_parked() -> None:
    """Python resumes what it has seen, the oldest; those that came after are for its next call."""
    with Graph([(2,)], python=[1]) as graph:
        graph.walk(*numbered(6))
        assert graph.resume(1, [0, 0]) == 2
        assert graph.queue.sent() == numbered(2)
        assert len(graph.parked(1)) == 4
        assert lib.xs_worker_parked(graph.worker) == 1 << 1
        graph.check()
        assert graph.resume(1, [0] * 5) == -errno.EINVAL
        assert graph.resume(0, []) == -errno.EINVAL
        graph.run_python()


def test_a_hook_keeps_a_jumbo_whole() -> None:
    with Graph([(2,)], python=[1]) as graph:
        graph.walk(packet(size=9000))
        assert graph.core.frame_counts()["held"] == 6
        graph.check()
        assert graph.resume(1, [0]) == 1
        assert graph.queue.sent() == [packet(size=9000)]


def test_a_hook_that_is_full_drops() -> None:
    """Held packets are released to it in one tick, while it has a batch parked: 300 where 256 fit."""
    with Graph([(2,), (3,)], python=[2], ticks=100, frames=2048) as graph:
        for _ in range(4):
            graph.walk(*[packet(KEEP)] * 60)
        graph.states[0][4:8] = (0).to_bytes(4, "little")
        graph.walk(*[packet()] * 60)
        assert len(graph.parked(2)) == 256
        assert graph.drops() == {"CPU_BACKLOG": 44}
        graph.check()
        graph.run_python()


def test_nodes_are_not_rewired_under_parked_packets() -> None:
    with Graph([(2,)], python=[1]) as graph:
        graph.walk(packet())
        assert lib.xs_worker_reset_nodes(graph.worker) == -errno.EBUSY
        graph.run_python()


# ---- trace ----


def steps(graph: Graph) -> list[tuple[int, int, int, int]]:
    """(number of the packet, node, edge, reason) of each."""
    out = ffi.new("struct xs_trace_values *")
    found: list[tuple[int, int, int, int]] = []
    for number in itertools.count():
        if not lib.xs_worker_trace_read(graph.worker, number, out):
            return found
        found += [(number, step.node, step.next, step.reason) for step in out.step[0 : out.nsteps]]
    return found


def trace(graph: Graph, packets: int, node: int = lib.XS_TRACE_ANY, reason: int = lib.XS_TRACE_ANY) -> int:
    return int(lib.xs_worker_trace_start(graph.worker, packets, node, reason))


def test_a_trace_has_every_step_of_the_packets_asked_for() -> None:
    with Graph(DIAMOND) as graph:
        trace(graph, 2)
        graph.walk(packet(0), packet(1, DROP), packet(0))
        assert sorted(steps(graph)) == [
            (0, 0, 0, 0),
            (0, 1, 0, 0),
            (0, 2, 0, 0),
            (0, 4, 0, 0),
            (0, 5, lib.XS_KEPT, 0),
            (1, 0, 0, 0),
            (1, 1, 1, 0),
            (1, 3, lib.XS_DROP, REASONS["HOOK"]),
        ]
        lib.xs_worker_trace_stop(graph.worker)
        assert steps(graph) == []


def test_a_trace_starts_with_the_packets_bytes() -> None:
    with Graph([(2,)]) as graph:
        trace(graph, 1)
        graph.walk(packet(size=500))
        out = ffi.new("struct xs_trace_values *")
        assert lib.xs_worker_trace_read(graph.worker, 0, out) == 1
        assert bytes(out.bytes)[: out.len] == packet(size=500)[:130]


def test_a_trace_shows_a_hook_once_with_what_it_said() -> None:
    with Graph([(2,)], python=[1]) as graph:
        trace(graph, 1)
        graph.walk(packet())
        assert steps(graph) == [(0, 0, 0, 0)]
        graph.resume(1, [lib.XS_DROP], [REASONS["SOCKET_FILTER"]])
        assert steps(graph) == [(0, 0, 0, 0), (0, 1, lib.XS_DROP, REASONS["SOCKET_FILTER"])]


def test_a_trace_of_held_packets_goes_on_with_their_release() -> None:
    with Graph([(2,)]) as graph:
        trace(graph, 1)
        graph.walk(packet(KEEP))
        graph.poll()
        assert [step[1:3] for step in steps(graph)] == [(0, 0), (1, lib.XS_KEPT), (1, 0), (2, lib.XS_KEPT)]


@pytest.mark.parametrize("packets", [0, 4097])
def test_a_trace_is_of_1_to_4096_packets(packets: int) -> None:
    with Graph([(2,)]) as graph:
        assert trace(graph, packets) == -errno.EINVAL


def test_a_rare_drop_is_found_among_many_packets() -> None:
    with Graph(DIAMOND) as graph:
        trace(graph, 2, reason=REASONS["HOOK"])
        for _ in range(40):
            graph.walk(*[packet(0)] * 40)
        assert steps(graph) == []
        graph.walk(packet(0), packet(1, DROP), packet(0))
        dropped = [(0, 0, 0, 0), (0, 1, 1, 0), (0, 3, lib.XS_DROP, REASONS["HOOK"])]
        assert steps(graph) == dropped
        for _ in range(40):
            graph.walk(*[packet(0)] * 40)
        graph.walk(packet(1, DROP), packet(1, DROP))
        assert steps(graph) == [*dropped, *((1, *step[1:]) for step in dropped)]


def test_packets_that_come_to_a_node_are_found() -> None:
    with Graph(DIAMOND) as graph:
        trace(graph, 1, node=3)
        graph.walk(packet(0), packet(1, 0), packet(1, DROP))
        assert [step[:3] for step in steps(graph)][:3] == [(0, 0, 0), (0, 1, 1), (0, 3, 0)]


def test_packets_that_are_dropped_at_a_node_are_found() -> None:
    with Graph(DIAMOND) as graph:
        trace(graph, 4, node=3, reason=REASONS["HOOK"])
        graph.walk(packet(DROP), packet(1, 0), packet(1, DROP))
        assert [step[:3] for step in steps(graph)] == [(0, 0, 0), (0, 1, 1), (0, 3, lib.XS_DROP)]


def test_a_packet_that_goes_in_circles_ends_with_its_last_step() -> None:
    with Graph([(1, 2)]) as graph:
        trace(graph, 1, reason=REASONS["LOOP"])
        graph.walk(packet())
        found = steps(graph)
        assert len(found) == lib.XS_TRACE_STEPS
        assert found[-1][2:] == (lib.XS_DROP, REASONS["LOOP"])


# ---- whatever stages do ----

actions = st.one_of(st.integers(0, 4), st.sampled_from([DROP, KEEP, KEEP | 1, KEEP | 2, EMIT, EMIT | 1, EMIT | KEEP]))
scripts = st.lists(actions, max_size=12)
rounds = st.lists(st.lists(scripts, max_size=24), min_size=1, max_size=5)


@st.composite
def graphs(draw: st.DrawFn, backward: bool) -> tuple[list[list[int]], list[int]]:
    """Edges of up to six stages, and which of them are Python hooks."""
    n = draw(st.integers(1, 6))
    stages = []
    for at in range(1, n + 1):
        lowest = 1 if backward else at + 1
        onward = st.integers(at + 1, n + 1)  # edge 0 leads on: an empty script ends
        stages.append([draw(onward), *draw(st.lists(st.integers(lowest, n + 1), max_size=3))])
    return stages, draw(st.lists(st.integers(1, n), max_size=2, unique=True))


def fate(script: list[int], stages: list[list[int]], python: list[int]) -> str:
    """What becomes of one packet by its script: "sent", or the reason why it is dropped."""
    node, script = 1, list(script)
    while node <= len(stages):
        action = script.pop(0) if script else 0
        if action == DROP:
            return "HOOK"
        edge = action & 0x3F
        if edge >= len(stages[node - 1]):
            return "BAD_EDGE"
        node = stages[node - 1][edge]
    return "sent"


@settings(max_examples=300, deadline=None)
@given(graphs(backward=False), rounds)
def test_every_packet_ends_as_its_script_says(graph: tuple[list[list[int]], list[int]], given_rounds: list) -> None:
    stages, python = graph
    expected: dict[str, int] = {}
    with Graph(stages, python, ticks=1) as walked:
        for batch in given_rounds:
            for script in batch:
                end = fate(script, stages, python)
                expected[end] = expected.get(end, 0) + 1
            walked.queue.inject([packet(*script) for script in batch])
            walked.poll()
            walked.run_python()
            walked.check()
        sent = walked.queue.sent() + walked.settle()
        ledger = walked.core.ledger()
        assert len(sent) - ledger.created == expected.pop("sent", 0)
        assert walked.drops() == expected
        assert (ledger.sent, ledger.received) == (len(sent), sum(len(batch) for batch in given_rounds))


@settings(max_examples=300, deadline=None)
@given(graphs(backward=True), rounds, st.booleans())
def test_ledgers_are_exact_whatever_stages_do(
    graph: tuple[list[list[int]], list[int]], given_rounds: list, jumbo: bool
) -> None:
    stages, python = graph
    with Graph(stages, python, ticks=1, frames=512) as walked:
        for batch in given_rounds:
            walked.queue.inject(
                [packet(*script, size=4000 if jumbo and i % 3 == 0 else 60) for i, script in enumerate(batch)]
            )
            walked.poll()
            walked.check()
            walked.run_python()
            walked.check()
