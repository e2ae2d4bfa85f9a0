"""`fleeting check`: its options and help; the work is in `_findings`."""

from __future__ import annotations

from typing import Any

import click

from fleeting.cli._selection import (
    connector_option,
    file_options,
    plugin_config_option,
    select_group,
)

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
    help="Connect to a running instance as well.  [default: --connect]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of text.")
def command(*, name: str | None, connect: bool, as_json: bool, **options: Any) -> int:
    """Check a group for problems before the first job, and show how to fix them.

    NAME is the plugin, such as aws or aws:1. No instance is started or changed.

    \b
    Examples:
      fleeting check aws --plugin-config name=builders
      fleeting check -c config.toml --runner builders --json

    Exit code: 0 no errors found, 1 errors found, 2 invalid input.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    selection = select_group({**options, "plugin": name}, plugin_syntax="the NAME of a plugin")
    from fleeting._registry import Registry
    from fleeting.cli._findings import check_group
    from fleeting.cli._signals import run_cancellable

    # A group whose instances cannot be reached can still be opened, and then costs money.
    Registry().check_connector(selection.settings.connector)
    return run_cancellable(check_group, selection, connects=connect, as_json=as_json)
