"""The pytest plugin of xdpstack: fixtures for namespaces, veth pairs and peers, and checks that nothing is left behind.

Fixtures (docs/testing.md):

    netns    factory of network namespaces, deleted at the end, also after a failure
    veth     factory of veth pairs across two namespaces
    peer     factory of raw peers on a device
    ledger   the stacks that the test opened; used by every test, whether named or not

Tests marked `root` are deselected, and the header says so, when the run is not root's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from xdpstack.testing.ledger import Ledger, check_descriptors, descriptors, watched

if TYPE_CHECKING:  # pytest loads this module into every run: what it needs is imported when a fixture is used
    from xdpstack.testing.namespace import Namespace
    from xdpstack.testing.peer import Peer
    from xdpstack.testing.veth import End, Veth

ROOT_MARK = "root: needs root: makes network namespaces, loads XDP programs"
#: Fixtures whose users may leave kernel objects behind.
_KERNEL_FIXTURES = frozenset({"netns", "veth", "peer"})
_FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark."""
    config.addinivalue_line("markers", ROOT_MARK)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says what a run without root leaves out."""
    if os.geteuid() == 0:
        return None
    return "xdpstack: NOT ROOT: tests marked 'root' are left out (real devices, namespaces, XDP); run as root for all"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves tests marked `root` out of a run that is not root's."""
    if os.geteuid() == 0:
        return
    left_out = [item for item in items if item.get_closest_marker("root")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("root")]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes that a test has failed: what it leaves behind then is no news."""
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(autouse=True)
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Every stack that a test opens is closed by it, with both ledgers exact and every frame home.

    A test that opened a stack, or used a namespace, leaves no socket or other kernel object open. What a failed test
    leaves behind is closed and not reported.
    """
    before = descriptors()
    with watched() as noted:
        yield noted
    opened = bool(noted.stacks)
    if request.node.stash.get(_FAILED, False):
        noted.close()
        return
    noted.finish()
    noted.stacks.clear()  # a stack's memory and workers go with the last reference to it
    if opened or _KERNEL_FIXTURES & set(request.fixturenames):
        check_descriptors(before)


@pytest.fixture(scope="session")
def _without_orphans() -> None:
    """Namespaces of runs that were killed are gone."""
    from xdpstack.testing.namespace import delete_orphans

    delete_orphans()


@pytest.fixture
def netns(_without_orphans: None) -> Iterator[Callable[..., Namespace]]:
    """`netns()`, `netns("client")`: a new network namespace, with loopback up; the word is part of its name."""
    from xdpstack.testing.namespace import Namespace

    with ExitStack() as stack:

        def make(label: str = "") -> Namespace:
            made = Namespace(label)
            stack.callback(made.delete)
            return made

        yield make


@pytest.fixture
def veth(netns: Callable[..., Namespace]) -> Iterator[Callable[..., Veth]]:
    """`veth()`: a pair that is up, each end in a namespace of its own; with the arguments of make_veth().

    `netns_near=`, `netns_far=` put an end into a namespace that is there already. At the end of the test no XDP program
    may be attached any more.
    """
    from xdpstack.testing.veth import make_veth

    pairs: list[Veth] = []

    def make(*, netns_near: Namespace | None = None, netns_far: Namespace | None = None, **options: Any) -> Veth:
        number = len(pairs)
        options = {"near_name": f"near{number}", "far_name": f"far{number}", **options}
        pair = make_veth(netns_near or netns("near"), netns_far or netns("far"), **options)
        pairs.append(pair)
        return pair

    yield make
    left = [end.name for pair in pairs for end in pair.ends() if end.netns.exists and _still_has_xdp(end)]
    assert not left, f"XDP programs were left attached on {', '.join(left)}"


def _still_has_xdp(end: End) -> bool:
    try:
        return end.has_xdp()
    except RuntimeError:  # the test has deleted the device
        return False


@pytest.fixture
def peer() -> Iterator[Callable[[End], Peer]]:
    """`peer(pair.far)`: sends and receives raw frames on that device (xdpstack.testing.Peer)."""
    from xdpstack.testing.peer import Peer

    with ExitStack() as stack:

        def make(end: End) -> Peer:
            made = Peer(end)
            stack.callback(made.close)
            return made

        yield make
