"""The plugin itself, run by pytest inside pytest."""

import os

import pytest

from xdpstack.testing.ledger import check_descriptors, descriptors

PLUGIN = ("-p", "xdpstack.testing.plugin")


def test_root_tests_are_left_out_and_said(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.root
        def test_with_root(): ...

        def test_without(): ...
        """
    )
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["xdpstack: NOT ROOT: tests marked 'root' are left out*"])


def test_as_root_nothing_is_left_out(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    pytester.makepyfile("import pytest\n@pytest.mark.root\ndef test_with_root(): ...")
    result = pytester.runpytest_inprocess(*PLUGIN, "--strict-markers")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*NOT ROOT*")


def test_a_stack_left_open_fails_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from xdpstack.testing import memory_stack

        def test_leaves_it_open():
            memory_stack("a0", addresses={"a0": ["10.0.0.1/24"]})

        def test_closes_it(ledger):
            with memory_stack("a0", "b0") as stack:
                assert ledger.stacks == [stack]
                ledger.check()
        """
    )
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["E*AssertionError: the test left a stack open, over a0"])


def test_frames_that_are_lost_fail_the_test(pytester: pytest.Pytester) -> None:
    """A frame that claims to be held when the stack is closed: its owner has forgotten it."""
    pytester.makepyfile(
        """
        from xdpstack.testing import memory_stack

        def test_loses_a_frame():
            with memory_stack("a0") as stack:
                stack._core.packets[7].owner = 3
                stack._core.packets[7].flags = 0x800
        """
    )
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E*AssertionError: frames that did not come home: {'held': 1}"])


def test_a_failed_test_is_reported_once(pytester: pytest.Pytester) -> None:
    """Also if it leaves a stack open, and its traceback keeps everything alive."""
    pytester.makepyfile(
        """
        from xdpstack.testing import memory_stack

        def test_fails():
            stack = memory_stack("a0")
            assert False
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(failed=1)


def test_descriptors_left_open_are_found() -> None:
    before = descriptors()
    check_descriptors(before)
    left = os.eventfd(0)
    try:
        with pytest.raises(AssertionError, match=rf"left open: {{{left}: 'anon_inode:\[eventfd\]'}}"):
            check_descriptors(before)
    finally:
        os.close(left)
    check_descriptors(before)


def test_the_plugin_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    """pytest loads it into every run where the package is installed."""
    pytester.makepyfile(
        """
        import sys

        def test_imports():
            assert "xdpstack.testing.plugin" in sys.modules
            assert not {"xdpstack.native", "xdpstack.netlink", "scapy", "pyroute2"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


def test_every_public_name_is_there() -> None:
    import xdpstack.testing

    assert all(hasattr(xdpstack.testing, name) for name in xdpstack.testing.__all__)
