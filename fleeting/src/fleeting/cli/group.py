"""`fleeting group`: its options and help. What each command does is imported when it is done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from fleeting.cli._target import connector_option, file_options, find_target, plugin_config_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleeting.types import Duration

__all__ = ("command",)

_WORDS = "fleeting.words"


class _WithWords(click.Command):
    """A command after whose `--` come the words of another command."""

    # Its overrides are not marked: importing typing_extensions takes half as long as click.

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        if "--" in args:
            index = args.index("--")
            args, words = args[:index], args[index + 1 :]
        rest = super().parse_args(ctx, args)
        ctx.meta[_WORDS] = tuple(words)
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
        raise click.BadParameter(f'{value!r} is too short: write for instance "2s"', ctx, param)
    return duration


def _group_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a group."""
    function = plugin_config_option(file_options(function))
    return click.option("--plugin", metavar="NAME", help="The plugin of the group.")(function)


_force = click.option(
    "--force", is_flag=True, help="Also if a running manager drives the group; it may object."
)
_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)


@click.group(
    "group",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def command() -> None:
    """Work with one group of instances by hand.

    \b
    The group is named in the same way everywhere:
      fleeting group status --plugin aws --plugin-config name=builders
      fleeting group status -c config.toml --runner builders

    Exit code: 0 all went well, 1 not all that was asked for was accepted, 2 the input was
    wrong, 3 the cloud or the network refused, or another process drives the group,
    130 interrupted. `run` and `connect` end with the code of the command or the shell.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone


@command.command("status")
@_group_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of a table.")
def _status(*, as_json: bool, **words: Any) -> int:
    """Show what the group is, and every instance with its state.

    \b
    Example:
      fleeting group status --plugin aws --plugin-config name=builders --json
    """  # noqa: D301 -- as above
    target = find_target(words)
    from fleeting.cli._open_group import perform
    from fleeting.cli._status import show_status

    return perform(show_status, target, as_json=as_json)


@command.command("increase")
@click.argument("count", metavar="N", type=click.IntRange(1))
@_group_options
@_force
@click.option("--wait", is_flag=True, help="Wait until they run.")
@click.option(
    "--timeout",
    metavar="D",
    default="10m",
    show_default=True,
    callback=_duration,
    help="How long to wait.",
)
def _increase(*, count: int, force: bool, wait: bool, timeout: Duration, **words: Any) -> int:
    """Ask for N more instances, and say how many were accepted.

    \b
    Example:
      fleeting group increase 2 --wait -c config.toml --runner builders
    """  # noqa: D301 -- as above
    target = find_target(words)
    from fleeting.cli._open_group import perform
    from fleeting.cli._resize import increase as carry_out

    return perform(carry_out, target, count, force=force, wait=timeout if wait else None)


@command.command("decrease")
@_ids
@_group_options
@_force
@click.option("--yes", is_flag=True, help="Do not ask.")
def _decrease(*, ids: tuple[str, ...], force: bool, yes: bool, **words: Any) -> int:
    """Remove instances, after showing them and asking.

    \b
    Example:
      fleeting group decrease i-0123 i-4567 --plugin aws --plugin-config name=builders
    """  # noqa: D301 -- as above
    target = find_target(words)
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("nobody can be asked without a terminal; add --yes to remove them")
    from fleeting.cli._open_group import perform
    from fleeting.cli._resize import decrease as carry_out

    return perform(carry_out, target, ids, force=force, yes=yes)


@command.command("suspend")
@_ids
@_group_options
@_force
def _suspend(*, ids: tuple[str, ...], force: bool, **words: Any) -> int:
    """Stop instances so that they cost less and can go on later."""
    return _suspend_or_resume("suspend", ids, words, force=force)


@command.command("resume")
@_ids
@_group_options
@_force
def _resume(*, ids: tuple[str, ...], force: bool, **words: Any) -> int:
    """Start suspended instances again."""
    return _suspend_or_resume("resume", ids, words, force=force)


def _suspend_or_resume(
    verb: str, ids: tuple[str, ...], words: dict[str, Any], *, force: bool
) -> int:
    target = find_target(words)
    from fleeting.cli._open_group import perform
    from fleeting.cli._resize import suspend_or_resume

    return perform(suspend_or_resume, target, verb, ids, force=force)


@command.command("connect")
@click.argument("id", metavar="ID")
@_group_options
@connector_option
def _connect(*, id: str, **words: Any) -> int:
    """Open a shell on an instance; this terminal becomes its terminal.

    The exit code is that of the shell. Enter, `~` and a period leave it at once.

    \b
    Example:
      fleeting group connect i-0123 -c config.toml --runner builders
    """  # noqa: D301 -- as above
    target = find_target(words)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(
            "a shell needs a terminal on both sides, and there is none here; for a command "
            "without one use: fleeting group run ID -- COMMAND"
        )
    if sys.platform == "win32":
        raise click.UsageError("on Windows there is no such terminal; use fleeting group run")
    from fleeting.cli._open_group import perform
    from fleeting.cli._shell import open_shell

    return perform(open_shell, target, id)


@command.command("run", cls=_WithWords, short_help="Run one command on an instance.")
@click.argument("id", metavar="ID")
@_group_options
@connector_option
@click.pass_context
def _run(ctx: click.Context, /, *, id: str, **words: Any) -> int:
    """Run one command on an instance, with live input and output; its exit code is the result.

    The words after -- are the command; for a shell's tricks write -- sh -c '...'.
    Ctrl-C ends the command there.

    \b
    Example:
      fleeting group run i-0123 -c config.toml --runner builders -- df -h
    """  # noqa: D301 -- as above
    target = find_target(words)
    if not ctx.meta[_WORDS]:
        raise click.UsageError("no command is given; write -- and the command after the options")
    from fleeting.cli._command import run_command
    from fleeting.cli._open_group import perform

    return perform(run_command, target, id, ctx.meta[_WORDS])


@command.command("watch", short_help="Show the group live.")
@_group_options
@click.option(
    "--interval",
    metavar="D",
    default="2s",
    show_default=True,
    callback=_duration,
    help="How often to look.",
)
def _watch(*, interval: Duration, **words: Any) -> int:
    """Show the group live: a table on a terminal, else a line for each change. Ctrl-C ends it.

    \b
    Example:
      fleeting group watch --interval 5s -c config.toml --runner builders
    """  # noqa: D301 -- as above
    target = find_target(words)
    from fleeting.cli._open_group import perform
    from fleeting.cli._watch import watch as carry_out

    try:
        return perform(carry_out, target, interval)
    except KeyboardInterrupt:
        return 0  # There is no other end.
