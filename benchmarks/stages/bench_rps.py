"""What rps costs a packet when it is on: that stays, of one flow or of many, that goes to another worker, that is sent.

    python -m benchmarks.stages.bench_rps

While it is off its rows are not on the path. How it is counted: benchmarks/stages/counted.py.
"""

from benchmarks.stages.counted import table

FUNCTIONS = {
    "rps.rx": "xs_rps_rx",
    "crossing": "xs_crossing_take",
    "rps.tx": "xs_rps_tx",
}
CASES = ("rps", "rps, 64 senders", "rps, steered", "rps, steered, RFS", "rps, tx")


def main() -> None:
    table("rps, 64 bytes, IPv4", FUNCTIONS, CASES)


if __name__ == "__main__":
    main()
