"""What napi costs a packet: rings to descriptors and back.

`poll` is the RX ring, `refill` the fill ring, `complete` the completions.

    python -m benchmarks.stages.bench_napi

How it is counted: benchmarks/stages/counted.py.
"""

from benchmarks.stages.counted import table

FUNCTIONS = {
    "poll": "xs_napi_poll",
    "napi.rx": "xs_napi_rx",
    "refill": "xs_napi_refill",
    "napi.tx": "xs_napi_tx",
    "complete": "xs_napi_complete",
}
CASES = (
    "rx IPv4",
    "rx IPv6",
    "raw",
    "raw, two routers",
    "tx IPv4",
    "tx IPv6",
)


def main() -> None:
    table("napi, 64 bytes", FUNCTIONS, CASES)


if __name__ == "__main__":
    main()
