"""What neigh costs a packet whose next hop is known.

    python -m benchmarks.stages.bench_neigh

How it is counted: benchmarks/stages/counted.py.
"""

from benchmarks.stages.counted import table

FUNCTIONS = {
    "neigh.tx": "xs_neigh_tx",
}
CASES = (
    "tx IPv4",
    "tx IPv6",
)


def main() -> None:
    table("neigh, 64 bytes", FUNCTIONS, CASES)


if __name__ == "__main__":
    main()
