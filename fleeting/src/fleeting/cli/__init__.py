"""The `fleeting` command.

A command's module is imported when the command is run: asking for the version
or for the installed plugins must not pay for SSH. To add a command, write a
module in this package and name it in `COMMANDS`.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from fleeting import __version__
from fleeting._descriptors import open_standard_streams
from fleeting.cli._text import plain
from fleeting.errors import ConfigError, FleetingError, InstallError, PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("main",)

# The name of each command, and its one line of help, which costs no import.
COMMANDS: Mapping[str, str] = {
    "check": "Find what would hurt a group, before the first job.",
    "group": "Work with one group of instances by hand.",
    "info": "Show what a plugin is, and the keys of its configuration.",
    "install": "Install plugins, or all that a config file needs.",
    "list": "Show the installed plugins.",
    "login": "Keep the credentials of a private package index.",
    "logout": "Forget the credentials of a private package index.",
    "new": "Make the project of a new plugin.",
    "uninstall": "Remove a plugin.",
}


class _LazyGroup(click.Group):
    """A group whose commands are modules of this package, each with a `command`."""

    # Its overrides are not marked: importing typing_extensions takes half as long as click.

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="fleeting %(version)s")
def _command_group() -> None:
    """Work with groups of instances, whatever cloud they are in."""


def main() -> None:
    """Run the command and exit with its code.

    0 is success, 1 that the answer is no, 2 that what was given is wrong, 3 that the system,
    the network or the cloud refused, 130 that somebody interrupted.
    """
    open_standard_streams()
    sys.exit(_main())


def _main() -> int:
    try:
        code = _command_group.main(prog_name="fleeting", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        context = getattr(error, "ctx", None)
        if context is not None:
            click.echo(f"See `{context.command_path} --help`.", err=True)
        return 2
    except FleetingError as error:
        return _tell(error)
    except OSError as error:
        # Such as a full disk below standard output, which would be told again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"error: {plain(_refusal(error))}", err=True)
        return 3
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    return code if isinstance(code, int) else 0


def _refusal(error: OSError) -> str:
    # The words become part of a sentence; the name of a file stays what it is.
    words = (error.strerror or str(error)).lower()
    return f"the system refused: {words}{f' at {error.filename}' if error.filename else ''}"


def _tell(error: FleetingError) -> int:
    """Say what went wrong, a line for each problem, and return the exit code."""
    for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
        click.echo(f"error: {plain(problem)}", err=True)
    if isinstance(error, InstallError):
        return 3 if error.retryable else 1
    return 2 if isinstance(error, ConfigError | PluginError) else 3
