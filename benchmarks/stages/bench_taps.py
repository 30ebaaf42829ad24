"""What taps costs a frame that its claim's reader takes whole. While nobody reads whole frames the row is not on the path.

    python -m benchmarks.stages.bench_taps

How it is counted: benchmarks/stages/counted.py.
"""

from benchmarks.stages.counted import table

FUNCTIONS = {
    "taps.rx": "xs_taps_rx",
}
CASES = ("whole frames",)


def main() -> None:
    table("taps, 64 bytes", FUNCTIONS, CASES)


if __name__ == "__main__":
    main()
