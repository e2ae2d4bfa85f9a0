"""The group of the `taskscaler` commands.

The command must start fast: the modules imported here, and for `--help`, need only click.
"""

from __future__ import annotations

import click

from taskscaler import __version__
from taskscaler.cli.config import config
from taskscaler.cli.explain import explain
from taskscaler.cli.run import run

__all__ = ("command_group",)


@click.group(
    name="taskscaler",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="taskscaler")
def command_group() -> None:
    """Start as many instances as the jobs need, and run each job in a slot on one of them."""


command_group.add_command(config)
command_group.add_command(explain)
command_group.add_command(run)
