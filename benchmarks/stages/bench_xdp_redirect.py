"""What a frame costs that leaves again by itself (`Stack.redirect()`): its row, and the worker's poll, all of it.

    python -m benchmarks.stages.bench_xdp_redirect

How it is counted: benchmarks/stages/counted.py.
"""

from benchmarks.stages.counted import table

FUNCTIONS = {
    "xdp.redirect": "xs_xdp_redirect",
    "napi.tx": "xs_napi_tx",
    "complete": "xs_napi_complete",
    "refill": "xs_napi_refill",
    "the poll": "xs_worker_poll",
}
CASES = ("redirect",)


def main() -> None:
    table("redirect, 64 bytes", FUNCTIONS, CASES)


if __name__ == "__main__":
    main()
