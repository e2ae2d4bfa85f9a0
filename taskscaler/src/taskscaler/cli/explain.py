"""`taskscaler explain`: its options and help. What it does is imported when it is done."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ("explain",)


@click.command(short_help="Say why tasks wait, from the state of a scaler.")
@click.argument("key", required=False)
@click.option(
    "--state",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The state file of a scaler that runs or has run.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A config.toml, whose runner names the state file.",
)
@click.option("--runner", metavar="NAME", help="Which of its runners.  [default: the only one]")
@click.option(
    "--decisions",
    metavar="N",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Show so many of the newest decisions.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def explain(
    key: str | None,
    *,
    state: Path | None,
    config: Path | None,
    runner: str | None,
    decisions: int,
    as_json: bool,
) -> int:
    """Say how things stand, why tasks wait, and what was decided lately.

    KEY is that of a task, or the name of a job; then what is known of it is said
    too. The scaler may run meanwhile; it is not disturbed.

    \b
    Examples:
      taskscaler explain --state night.sqlite
      taskscaler explain 'test#3' --state night.sqlite
      taskscaler explain --config config.toml --runner builders --decisions 50
      taskscaler explain --state night.sqlite --json | jq .why

    Exit code: 0, 1 if nothing is known of KEY, 2 the input was wrong.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    from fleeting.errors import ConfigError
    from taskscaler._errors import StoreError
    from taskscaler.cli.state_report import find_state, give_account

    try:
        path = find_state(state, config, runner)
        return give_account(path, key, decisions=decisions, as_json=as_json)
    except (ConfigError, StoreError) as error:
        for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
            click.echo(f"error: {problem}", err=True)
        return 2
