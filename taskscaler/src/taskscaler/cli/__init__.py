"""The `taskscaler` command.

The command must start fast: the modules imported here, and for `--help`, need only click.
"""

from __future__ import annotations

import sys

import click

from fleeting import run_program
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
    """Start as many instances as the jobs need, and run each job in a slot on one of them."""


_command_group.add_command(config)
_command_group.add_command(explain)
_command_group.add_command(run)


def main() -> None:
    """Run the command and exit with its code; wrong usage is one sentence and exit code 2."""
    sys.exit(run_program(_command_group, "taskscaler"))
