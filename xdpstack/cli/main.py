"""The `xdpstack` command: its subcommands are the modules of this package, one a file.

A module `word.py` that has a click command named `word` is the subcommand `word`; modules without one serve the others. A
module is imported when its command is called, or when help lists them all.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import click

from xdpstack import cli
from xdpstack.errors import XdpstackError


class Commands(click.Group):
    """The group whose members are found in the package."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The names of all commands, sorted."""
        names = sorted(module.name for module in pkgutil.iter_modules(cli.__path__))
        return [name for name in names if self.get_command(context, name) is not None]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of that name, from the module of that name."""
        if (
            name == "main"
            or not name.isidentifier()
            or not any(m.name == name for m in pkgutil.iter_modules(cli.__path__))
        ):
            return None
        module = importlib.import_module(f"xdpstack.cli.{name}")
        members = vars(module).values()
        return next((each for each in members if isinstance(each, click.Command) and each.name == name), None)


@click.group(cls=Commands)
@click.version_option(package_name="xdpstack")
def group() -> None:
    """The Linux packet path in user space, at AF_XDP speed, programmed from Python."""


def main() -> None:
    """Run the command line. An exception of the package ends it with status 1, its message, cause and fix on stderr."""
    try:
        group(prog_name="xdpstack")
    except XdpstackError as error:
        click.echo(f"xdpstack: {error}", err=True)
        sys.exit(1)
