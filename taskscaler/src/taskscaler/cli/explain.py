"""`taskscaler explain`: its options and help; the imports are deferred until it runs."""

from __future__ import annotations

from pathlib import Path

import click

from fleeting import say

__all__ = ("explain",)


@click.command(short_help="Show why tasks wait, from a state file.")
@click.argument("key", required=False)
@click.option(
    "--state",
    metavar="FILE",
    # Without access, our own message names the owner.
    type=click.Path(path_type=Path, readable=False),
    help="The state file of a running or stopped scaler.",
)
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A config.toml; use the state file of its runner.",
)
@click.option(
    "--runner", metavar="NAME", help="The runner in the config.toml.  [default: the only one]"
)
@click.option(
    "--decisions",
    metavar="N",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the newest decisions to show.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(
    key: str | None,
    *,
    state: Path | None,
    config: Path | None,
    runner: str | None,
    decisions: int,
    as_json: bool,
) -> int:
    """Show the state of a scaler, why tasks wait, and the newest scaling decisions.

    KEY is the key of a task or the name of a job, to show that one as well. The
    scaler may be running; it is not affected.

    \b
    Examples:
      taskscaler explain --state night.sqlite
      taskscaler explain 'test#3' --state night.sqlite
      taskscaler explain --config config.toml --runner builders --decisions 50
      taskscaler explain --state night.sqlite --json | jq .why

    Exit code: 0, 1 if KEY is unknown, 2 if the input was wrong.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    from fleeting.errors import ConfigError
    from taskscaler._errors import StoreError
    from taskscaler.cli.state_report import find_state_file, print_state_report

    try:
        path = find_state_file(state, config, runner)
        return print_state_report(path, key, decisions=decisions, as_json=as_json)
    except (ConfigError, StoreError) as error:
        for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
            say(f"error: {problem}", err=True)
        return 2
