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
