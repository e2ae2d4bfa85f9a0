"""`taskscaler run`: its options and help; the imports are deferred until it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from fleeting import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleeting.types import Duration

__all__ = ("run",)

_COMMAND = "taskscaler.command"


class _RunCommand(click.Command):
    """A command with two forms: a jobs file, or `--` and a command with its arguments."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            index = args.index("--")
            ctx.meta[_COMMAND] = tuple(args[index + 1 :])
            args = args[:index]
        return super().parse_args(ctx, args)

    @override
    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] FILE.toml")
        formatter.write_usage(ctx.command_path, "[OPTIONS] -- COMMAND [ARG...]", prefix="       ")


def _positive(ctx: click.Context, param: click.Parameter, value: str | None) -> Duration | None:
    duration = _duration(ctx, param, value)
    if value is not None and not duration:
        raise click.BadParameter(
            f"must be more than 0s, got {value!r}; write for example 10m", ctx, param
        )
    return duration


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> Duration | None:
    from fleeting.types import Duration

    if value is None:
        return None
    try:
        duration = Duration.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    if duration < Duration(0):
        raise click.BadParameter(
            f"must not be negative, got {value!r}; remove the sign", ctx, param
        )
    return duration


def _one_file(ctx: click.Context, param: click.Parameter, value: tuple[Path, ...]) -> Path | None:
    if len(value) > 1:
        words = " ".join(str(word) for word in value)
        raise click.BadParameter(
            f"expected one jobs file, got {len(value)} arguments; to run a command, put -- before "
            f"it: {ctx.command_path} -- {words}",
            ctx,
            param,
        )
    return value[0] if value else None


def _option(name: str, least: int, text: str, most: int | None = None) -> Callable[[Any], Any]:
    return click.option(name, metavar="N", type=click.IntRange(least, most), help=text)


@click.command(cls=_RunCommand, short_help="Run jobs, or one command, on autoscaled instances.")
@click.argument("file", nargs=-1, type=click.Path(path_type=Path), callback=_one_file)
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Run the jobs where this config.toml says; it is reloaded when it changes.",
)
@click.option(
    "--runner", metavar="NAME", help="The runner in the config.toml.  [default: the only one]"
)
@click.option(
    "--state",
    metavar="FILE",
    # Without access, our own message names the owner.
    type=click.Path(path_type=Path, readable=False),
    help="Keep the state here; after a crash, the same command continues.",
)
@click.option(
    "--plugin", metavar="NAME", help="The plugin to get instances from.  [default: local]"
)
@click.option(
    "--plugin-config",
    metavar="KEY=VALUE",
    multiple=True,
    help="A setting of the plugin; may be repeated.",
)
@_option("--capacity-per-instance", 1, "Slots on each instance.  [default: 1]", 1_000_000)
@_option("--max-instances", 0, "At most N instances; 0 means no limit.  [default: 10]")
@_option("--max-use-count", 0, "Replace an instance after N jobs; 0 means never.  [default: 0]")
@_option("--idle-count", 0, "Keep N free slots ready.  [default: 0]")
@click.option(
    "--idle-time",
    metavar="D",
    callback=_duration,
    help="Remove an instance after it has been idle for D.  [default: 0s]",
)
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(min=1),
    help="Run COMMAND N times.  [default: 1]",
)
@click.option(
    "--output",
    type=click.Choice(["prefix", "group", "raw", "none"]),
    default="prefix",
    show_default=True,
    help="Show output live with the job's name, in one piece when the job ends, or not at all.",
)
@click.option(
    "--report",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Write a report of all jobs and instances.",
)
@click.option(
    "--keep-going/--fail-fast",
    default=True,
    help="After a job that did not succeed, go on, or cancel the others.  [default: --keep-going]",
)
@click.option(
    "--timeout",
    metavar="D",
    callback=_positive,
    help="Cancel the run after D.  [default: none]",
)
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> int:
    """Run the jobs in FILE.toml, or one COMMAND, on instances that are started as needed.

    \b
    Examples:
      taskscaler run examples/hello.toml
      taskscaler run --count 20 --capacity-per-instance 4 -- sh -c 'make test'
      taskscaler run --report report.json --timeout 30m jobs.toml
      taskscaler run --plugin aws --plugin-config name=builders jobs.toml
      taskscaler run --state night.sqlite jobs.toml
      taskscaler run --config config.toml --runner builders jobs.toml

    Exit code: 0 all jobs succeeded, 1 a job did not succeed, 2 the input was wrong,
    3 the infrastructure failed, 130 interrupted.

    The first Ctrl-C lets running jobs finish and starts no more, the second cancels
    them; then the instances are removed. A third Ctrl-C exits immediately.

    A duration D is written like 90s, 20m or 1h30m.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    from fleeting.errors import ConfigError, PluginError
    from taskscaler.cli.plan import Options, make_plan
    from taskscaler.cli.session import run_session

    try:
        plan = make_plan(Options(command=ctx.meta.get(_COMMAND), **options))
    except (ConfigError, PluginError) as error:
        for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
            say(f"error: {problem}", err=True)
        return 2
    return run_session(plan)
