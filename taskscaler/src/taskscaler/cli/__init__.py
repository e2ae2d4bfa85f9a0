"""The `taskscaler` command.

Starting up is a feature: what is imported here, and for `--help`, is click alone.
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
    """Keep as many instances as the jobs need, and give each job a slot on one."""


_command_group.add_command(config)
_command_group.add_command(explain)
_command_group.add_command(run)


def main() -> None:
    """Run the command and exit with its code; wrong usage is one sentence and code 2."""
    sys.exit(run_program(_command_group, "taskscaler"))
