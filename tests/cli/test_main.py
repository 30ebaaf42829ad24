"""The command line finds its commands in the package, one a file."""

import pkgutil
import subprocess
import sys

from click.testing import CliRunner

from xdpstack import cli
from xdpstack.cli.main import group


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(group, ["--help"])
    assert result.exit_code == 0
    for name in ("lab", "show", "trace"):
        assert f"\n  {name} " in result.output
    assert "find" not in [
        line.split()[0] for line in result.output.splitlines() if line.startswith("  ") and line.split()
    ]


def test_every_command_has_help() -> None:
    for module in pkgutil.iter_modules(cli.__path__):
        result = CliRunner().invoke(group, [module.name, "--help"])
        if result.exit_code == 2:
            assert "No such command" in result.output
        else:
            assert result.output.startswith(f"Usage: group {module.name} ")
            assert len(result.output.splitlines()) > 3


def test_unknown_commands_are_refused() -> None:
    for name in ("nothere", "main", "../x", "find"):
        result = CliRunner().invoke(group, [name])
        assert result.exit_code == 2
        assert "No such command" in result.output


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xdpstack", "show", "path"], capture_output=True, text=True, check=True
    )
    assert "napi.rx" in done.stdout
