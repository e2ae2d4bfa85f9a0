"""`taskscaler run`: its options and help. What it does is imported when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleeting.types import Duration

__all__ = ("run",)

_COMMAND = "taskscaler.command"


class _RunCommand(click.Command):
    """A command of two forms: with a file, or with `--` and the words of a command."""

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
        raise click.BadParameter(f'{value!r} is too short: write for instance "10m"', ctx, param)
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
        raise click.BadParameter(f"{value!r} is less than nothing: drop the sign", ctx, param)
    return duration


def _one_file(ctx: click.Context, param: click.Parameter, value: tuple[Path, ...]) -> Path | None:
    if len(value) > 1:
        words = " ".join(str(word) for word in value)
        raise click.BadParameter(
            f"one file of jobs at a time; to run a command, write -- before it: "
            f"{ctx.command_path} -- {words}",
            ctx,
            param,
        )
    return value[0] if value else None


def _option(name: str, least: int, text: str, most: int | None = None) -> Callable[[Any], Any]:
    return click.option(name, metavar="N", type=click.IntRange(least, most), help=text)


@click.command(cls=_RunCommand, short_help="Run jobs, or one command, on autoscaled instances.")
@click.argument("file", nargs=-1, type=click.Path(path_type=Path), callback=_one_file)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A config.toml that says where the jobs run; read again when it changes.",
)
@click.option("--runner", metavar="NAME", help="Which of its runners.  [default: the only one]")
@click.option(
    "--state",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Keep there what must survive a crash; then the same command goes on.",
)
@click.option("--plugin", metavar="NAME", help="Where instances come from.  [default: local]")
@click.option(
    "--plugin-config",
    metavar="KEY=VALUE",
    multiple=True,
    help="A setting of the plugin; repeatable.",
)
@_option("--capacity-per-instance", 1, "Slots on each instance.  [default: 1]", 1_000_000)
@_option("--max-instances", 0, "At most so many instances; 0 is no limit.  [default: 10]")
@_option("--max-use-count", 0, "Replace an instance after N jobs; 0 is never.  [default: 0]")
@_option("--idle-count", 0, "Free slots to keep ready.  [default: 0]")
@click.option(
    "--idle-time",
    metavar="D",
    callback=_duration,
    help="Keep an unused instance so long.",
)
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(min=1),
    help="Run the COMMAND N times.  [default: 1]",
)
@click.option(
    "--output",
    type=click.Choice(["prefix", "group", "none"]),
    default="prefix",
    show_default=True,
    help="Show the jobs' output live with the job's name, in one piece when a job ends, or not.",
)
@click.option(
    "--report",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Write what happened there.",
)
@click.option(
    "--keep-going/--fail-fast",
    default=True,
    help="After a job that did not succeed, go on, or cancel the others.  [default: --keep-going]",
)
@click.option("--timeout", metavar="D", callback=_positive, help="For the whole run.")
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> int:
    """Run the jobs of FILE.toml, or one COMMAND, on instances that come and go with them.

    \b
    Examples:
      taskscaler run examples/hello.toml
      taskscaler run --count 20 --capacity-per-instance 4 -- sh -c 'make test'
      taskscaler run --report report.json --timeout 30m jobs.toml
      taskscaler run --plugin aws --plugin-config name=builders jobs.toml
      taskscaler run --state night.sqlite jobs.toml
      taskscaler run --config config.toml --runner builders jobs.toml

    Exit code: 0 all jobs succeeded, 1 some did not, 2 the input was wrong, 3 the
    infrastructure failed, 130 interrupted. The first Ctrl-C starts no more jobs and
    lets those finish that run, the second cancels them; both remove the instances.
    One more does not wait for that.
    A duration D is written like 90s, 20m or 1h30m.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    from fleeting.errors import ConfigError, PluginError
    from taskscaler.cli.plan import Options, make_plan
    from taskscaler.cli.session import run_session

    try:
        plan = make_plan(Options(command=ctx.meta.get(_COMMAND), **options))
    except (ConfigError, PluginError) as error:
        for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
            click.echo(f"error: {problem}", err=True)
        return 2
    return run_session(plan)
