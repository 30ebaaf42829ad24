"""How much the random oracle tests do: a bounded run with a fixed seed in the suite, more when it is asked for.

XDPSTACK_ORACLE=50 pytest tests/kernel        # fifty times as many cases, from other seeds
XDPSTACK_ORACLE_SEED=7 pytest tests/kernel    # the cases of another seed
"""

import os
import random

#: How many times the cases of an ordinary run.
TIMES = int(os.environ.get("XDPSTACK_ORACLE", "1"))
#: Where the random numbers begin.
SEED = int(os.environ.get("XDPSTACK_ORACLE_SEED", "20000"))


def cases(usually: int) -> int:
    """How many cases to try."""
    return usually * TIMES


def seeds(first: int, usually: int) -> list[int]:
    """Seeds, one a world: always the same, and others when more are asked for."""
    return [*range(first, first + usually), *range(SEED, SEED + usually * (TIMES - 1))]


def rng(what: str) -> random.Random:
    """Random numbers of a test's own."""
    return random.Random(f"{what} {SEED}")
