"""`fleeting group`: the options and help of its commands; each imports its work when it runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from fleeting._text import is_terminal
from fleeting.cli._selection import (
    connector_option,
    file_options,
    plugin_config_option,
    select_group,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleeting.cli._selection import GroupSelection
    from fleeting.types import Duration

__all__ = ("command",)

_REMOTE_COMMAND = "fleeting.remote_command"


class _WithRemoteCommand(click.Command):
    """A command line that ends with `--` and the command to run on an instance."""

    # No `@override`: importing typing_extensions takes half as long as importing click.

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        if "--" in args:
            index = args.index("--")
            args, words = args[:index], args[index + 1 :]
        rest = super().parse_args(ctx, args)
        ctx.meta[_REMOTE_COMMAND] = tuple(words)
        return rest

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] ID -- COMMAND [ARG...]")


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> Duration:
    from fleeting.types import Duration

    try:
        duration = Duration.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    if duration <= Duration(0):
        raise click.BadParameter(f"must be longer than 0, got {value}", ctx, param)
    return duration


def _group_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select a group."""
    function = plugin_config_option(file_options(function))
    return click.option("--plugin", metavar="NAME", help="The plugin of the group.")(function)


def _select(options: dict[str, Any]) -> GroupSelection:
    return select_group(options, plugin_syntax="--plugin NAME")


_force = click.option("--force", is_flag=True, help="Go on if another process drives the group.")
_until_done = click.option(
    "--timeout",
    metavar="D",
    default="10m",
    show_default=True,
    callback=_duration,
    help="How long to wait until it is done.",
)
_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)


@click.group(
    "group",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def command() -> None:
    """Inspect and change one group of instances.

    \b
    Every command selects the group in the same way:
      fleeting group status --plugin aws --plugin-config name=builders
      fleeting group status -c config.toml --runner builders

    Exit code: 0 success, 1 not everything was accepted, 2 invalid input, 3 the cloud or the
    network failed or another process drives the group, 130 interrupted. `run` and `connect`
    exit with the code of the command or the shell.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone


@command.command("status")
@_group_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of a table.")
def _status(*, as_json: bool, **options: Any) -> int:
    """Show the group, and every instance with its state.

    \b
    Example:
      fleeting group status --plugin aws --plugin-config name=builders --json
    """  # noqa: D301 -- as above
    selection = _select(options)
    from fleeting.cli._signals import run_cancellable
    from fleeting.cli._status import show_status

    return run_cancellable(show_status, selection, as_json=as_json)


@command.command("increase")
@click.argument("count", metavar="N", type=click.IntRange(1))
@_group_options
@_force
@click.option("--wait", is_flag=True, help="Wait until the instances run.")
@click.option(
    "--timeout",
    metavar="D",
    default="10m",
    show_default=True,
    callback=_duration,
    help="How long --wait waits.",
)
def _increase(*, count: int, force: bool, wait: bool, timeout: Duration, **options: Any) -> int:
    """Add N instances, and show how many the group accepted.

    \b
    Example:
      fleeting group increase 2 --wait -c config.toml --runner builders
    """  # noqa: D301 -- as above
    selection = _select(options)
    from fleeting.cli._changes import increase as carry_out
    from fleeting.cli._signals import run_cancellable

    return run_cancellable(carry_out, selection, count, force=force, wait=timeout if wait else None)


@command.command("decrease")
@_ids
@_group_options
@_force
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def _decrease(*, ids: tuple[str, ...], force: bool, yes: bool, **options: Any) -> int:
    """Remove instances, after showing them and asking for confirmation.

    \b
    Example:
      fleeting group decrease i-0123 i-4567 --plugin aws --plugin-config name=builders
    """  # noqa: D301 -- as above
    selection = _select(options)
    if not yes and not (sys.stdin.isatty() and is_terminal(err=True)):
        raise click.UsageError(
            "cannot ask for confirmation without a terminal; use --yes to remove them"
        )
    from fleeting.cli._changes import decrease as carry_out
    from fleeting.cli._signals import run_cancellable

    return run_cancellable(carry_out, selection, ids, force=force, yes=yes)


@command.command("suspend")
@_ids
@_group_options
@_force
@_until_done
def _suspend(*, ids: tuple[str, ...], force: bool, timeout: Duration, **options: Any) -> int:
    """Stop instances so that they cost less and can be resumed later; wait until they stopped."""
    return _suspend_or_resume("suspend", ids, options, force=force, timeout=timeout)


@command.command("resume")
@_ids
@_group_options
@_force
@_until_done
def _resume(*, ids: tuple[str, ...], force: bool, timeout: Duration, **options: Any) -> int:
    """Start suspended instances again, and wait until they run."""
    return _suspend_or_resume("resume", ids, options, force=force, timeout=timeout)


def _suspend_or_resume(
    verb: str, ids: tuple[str, ...], options: dict[str, Any], *, force: bool, timeout: Duration
) -> int:
    selection = _select(options)
    from fleeting.cli._changes import suspend_or_resume
    from fleeting.cli._signals import run_cancellable

    return run_cancellable(suspend_or_resume, selection, verb, ids, force=force, limit=timeout)


@command.command("connect")
@click.argument("id", metavar="ID")
@_group_options
@connector_option
def _connect(*, id: str, **options: Any) -> int:
    """Open a shell on an instance; this terminal becomes its terminal.

    The exit code is that of the shell. To leave it at once, type Enter, `~` and a period.

    \b
    Example:
      fleeting group connect i-0123 -c config.toml --runner builders
    """  # noqa: D301 -- as above
    selection = _select(options)
    if not (sys.stdin.isatty() and is_terminal()):
        raise click.UsageError(
            "connect needs a terminal for input and output; to run a command without one, use "
            "fleeting group run ID -- COMMAND"
        )
    if sys.platform == "win32":
        raise click.UsageError(
            "connect is not supported on Windows; use fleeting group run ID -- COMMAND"
        )
    from fleeting.cli._remote_shell import open_shell
    from fleeting.cli._signals import run_cancellable

    return run_cancellable(open_shell, selection, id)


@command.command("run", cls=_WithRemoteCommand, short_help="Run one command on an instance.")
@click.argument("id", metavar="ID")
@_group_options
@connector_option
@click.pass_context
def _run(ctx: click.Context, /, *, id: str, **options: Any) -> int:
    """Run one command on an instance, with live input and output, and exit with its code.

    The command comes after --, and no shell interprets it; for a shell, use -- sh -c '...'.
    Ctrl-C ends the command on the instance.

    \b
    Example:
      fleeting group run i-0123 -c config.toml --runner builders -- df -h
    """  # noqa: D301 -- as above
    selection = _select(options)
    if not ctx.meta[_REMOTE_COMMAND]:
        raise click.UsageError("no command given; write it after the options and --")
    from fleeting.cli._remote_command import run_command
    from fleeting.cli._signals import run_cancellable

    return run_cancellable(run_command, selection, id, ctx.meta[_REMOTE_COMMAND])


@command.command("watch", short_help="Show the group and its changes live.")
@_group_options
@click.option(
    "--interval",
    metavar="D",
    default="2s",
    show_default=True,
    callback=_duration,
    help="How often to list the group.",
)
def _watch(*, interval: Duration, **options: Any) -> int:
    """Show the group live: a table on a terminal, otherwise a line for each change.

    Ctrl-C ends it, with exit code 0.

    \b
    Example:
      fleeting group watch --interval 5s -c config.toml --runner builders
    """  # noqa: D301 -- as above
    selection = _select(options)
    from fleeting.cli._signals import run_cancellable
    from fleeting.cli._watch import watch as carry_out

    try:
        return run_cancellable(carry_out, selection, interval)
    except KeyboardInterrupt:
        return 0  # Ctrl-C is the ordinary end.
