"""What udp costs a packet.

udp.rx has checksum, lookup and queue; beside it and udp.tx what the reader and the sender in C cost around it.

    python -m benchmarks.stages.bench_udp

How it is counted: benchmarks/stages/counted.py.
"""

from benchmarks.stages.counted import table

FUNCTIONS = {
    "udp.rx": "xs_udp_rx",
    "recv_batch": "views_recv_batch",
    "release": "batch_release",
    "udp.tx": "xs_udp_tx",
}
CASES = (
    "rx IPv4",
    "rx IPv6",
    "rx IPv4, 64 senders",
    "rx IPv4, 1472 bytes",
    "tx IPv4",
    "tx IPv6",
)


def main() -> None:
    table("udp, 64 bytes unless said", FUNCTIONS, CASES)


if __name__ == "__main__":
    main()
