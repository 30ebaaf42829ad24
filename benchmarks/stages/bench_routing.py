"""What routing costs a packet.

A run of one flow, where it decides once, and senders that all differ, where it decides each time.

    python -m benchmarks.stages.bench_routing

How it is counted: benchmarks/stages/counted.py.
"""

from benchmarks.stages.counted import table

FUNCTIONS = {
    "routing.rx": "xs_routing_rx",
    "routing.tx": "xs_routing_tx",
}
CASES = (
    "rx IPv4",
    "rx IPv6",
    "rx IPv4, 64 senders",
    "rx IPv6, 64 senders",
    "tx IPv4",
    "tx IPv6",
)


def main() -> None:
    table("routing, 64 bytes", FUNCTIONS, CASES)


if __name__ == "__main__":
    main()
