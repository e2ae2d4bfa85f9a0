"""The `taskscaler` command.

Starting up is a feature: what is imported here, and for `--help`, is click alone.
"""

from __future__ import annotations

import os
import sys

import click

from fleeting._descriptors import open_standard_streams
from taskscaler import __version__
from taskscaler.cli.config import config
from taskscaler.cli.explain import explain
from taskscaler.cli.run import run

__all__ = ("main",)


@click.group(
    name="taskscaler",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="taskscaler")
def _command_group() -> None:
    """Keep as many instances as the jobs need, and give each job a slot on one."""


_command_group.add_command(config)
_command_group.add_command(explain)
_command_group.add_command(run)


def main() -> None:
    """Run the command and exit with its code; wrong usage is one sentence and code 2."""
    open_standard_streams()
    sys.exit(_main())


def _give_up_output() -> None:
    """Drop what standard output still holds if it fails; else Python complains at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _main() -> int:
    try:
        code = _command_group.main(prog_name="taskscaler", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        context = getattr(error, "ctx", None)
        if context is not None:
            click.echo(f"See `{context.command_path} --help`.", err=True)
        return 2
    except OSError as error:
        # Such as a full disk below standard output, when click prints the help.
        _give_up_output()
        click.echo(f"error: the system refused: {str(error).lower()}", err=True)
        return 3
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    return code if isinstance(code, int) else 0
