"""What the walk itself costs a packet, and a Python hook.

    python -m benchmarks.stages.bench_walk

`walk` is the walk with the stages less the stages: batches whose packets all go one way, batches that a stage in C
(benchmarks/stages/split.c) sends by two edges, so that they are scattered and meet again. A Python hook is counted as what
it adds to everything that a batch costs, Python included. How it is counted: benchmarks/stages/counted.py.
"""

from benchmarks.stages.counted import count

STAGES = ("xs_napi_rx", "xs_ip_rx", "xs_routing_rx", "xs_ip_local", "xs_udp_rx", "split_batch")


def walk(case: str) -> float:
    """The walk's own instructions per packet."""
    costs = count(case)
    return costs["xs_walk_run"] - sum(costs[stage] for stage in STAGES)


def main() -> None:
    print("instructions per packet")
    for case in ("rx IPv4", "uniform", "scatter"):
        print(f"{'walk, ' + case:40}{walk(case):10.1f}", flush=True)
    base = count("rx IPv4").total
    for case in ("Python hook", "Python hook, each packet"):
        print(f"{case:40}{count(case).total - base:10.1f}", flush=True)


if __name__ == "__main__":
    main()
