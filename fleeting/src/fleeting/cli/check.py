"""`fleeting check`: its options and help. What it does is imported when it is done."""

from __future__ import annotations

from typing import Any

import click

from fleeting.cli._target import connector_option, file_options, find_target, plugin_config_option

__all__ = ("command",)


@click.command(
    "check",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("name", required=False)
@plugin_config_option
@file_options
@connector_option
@click.option(
    "--connect/--no-connect",
    default=True,
    help="Also connect to one instance that runs.  [default: --connect]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead.")
def command(*, name: str | None, connect: bool, as_json: bool, **words: Any) -> int:
    """Find what would hurt a group before the first job, and say how to mend it.

    NAME is the plugin, such as aws or aws:1. Nothing is started or changed.

    \b
    Examples:
      fleeting check aws --plugin-config name=builders
      fleeting check -c config.toml --runner builders --json

    Exit code: 0 nothing stands in the way, 1 something does, 2 the input was wrong.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    target = find_target({**words, "plugin": name}, name="the NAME of a plugin")
    from fleeting.cli._check import check_group
    from fleeting.cli._open_group import perform

    return perform(check_group, target, connects=connect, as_json=as_json)
