"""What the tests against the kernel share."""

from collections.abc import Iterator

import pytest

from tests.kernel.udp_lab import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A receiver and a sender, each in a namespace of its own."""
    made = Lab()
    try:
        yield made
    finally:
        made.close()
