"""The group of the `fleeting` commands.

Each command is a module that is imported when the command runs, so that `--version` and
`list` do not import an SSH library. To add a command, write a module in this package and name
it in `COMMANDS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

from fleeting import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("COMMANDS", "command_group")

# Each command and its line of help, which is shown without importing the command.
COMMANDS: Mapping[str, str] = {
    "check": "Check a group for problems before the first job.",
    "group": "Inspect and change one group of instances.",
    "info": "Describe a plugin and the keys of its configuration.",
    "install": "Install plugins, or all that a config file needs.",
    "list": "List the installed plugins.",
    "login": "Store the credentials of a package index in the keyring.",
    "logout": "Remove the credentials of a package index from the keyring.",
    "new": "Create the project of a new plugin.",
    "uninstall": "Remove a plugin.",
}


class _LazyGroup(click.Group):
    """A group whose commands are modules of this package, each with a `command`."""

    # No `@override`: importing typing_extensions takes half as long as importing click.

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="fleeting %(version)s")
def command_group() -> None:
    """Manage plugins, and groups of instances on any cloud."""
