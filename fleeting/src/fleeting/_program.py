"""What every command line of ours does around its commands, `taskscaler` as well.

Here errors become sentences and exit codes: 0 is success, 1 that the answer is no, 2 that what
was given is wrong, 3 that the system, the network or the cloud refused, 130 that somebody
interrupted.
"""

from __future__ import annotations

import os
import sys

import click

from fleeting._text import plain
from fleeting.errors import ConfigError, FleetingError, InstallError, PluginError

__all__ = ("run_program",)

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def run_program(command: click.Command, name: str) -> int:
    """Run a command line to its end, and return the exit code.

    Args:
        command: what the words on the command line are for; what it returns is the code.
        name: of the program, for messages.
    """
    _open_standard_streams()
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        context = getattr(error, "ctx", None)
        if context is not None:
            click.echo(f"See `{context.command_path} --help`.", err=True)
        return 2
    except FleetingError as error:
        return _tell(error)
    except OSError as error:
        # Such as a full disk below standard output, when click prints the help.
        _give_up_output()
        click.echo(f"error: {plain(_refusal(error))}", err=True)
        return 3
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    return code if isinstance(code, int) else 0


def _open_standard_streams() -> None:
    """Connect those to nothing that were closed by who started us, as by `>&-`.

    Else the next file to be opened would take their numbers, and get what we write to them; and
    the interpreter has nothing at all in their place, which nobody expects.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    # Python has given up on those by now.
    sys.stdin = sys.stdin or os.fdopen(_STDIN, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(_STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)


def _give_up_output() -> None:
    """Drop what standard output still holds if it fails; else Python complains at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _refusal(error: OSError) -> str:
    # The words become part of a sentence; the name of a file stays what it is.
    words = (error.strerror or str(error)).lower()
    return f"the system refused: {words}{f' at {error.filename}' if error.filename else ''}"


def _tell(error: FleetingError) -> int:
    """Say what went wrong, a line for each problem, and return the exit code."""
    for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
        click.echo(f"error: {plain(problem)}", err=True)
    if isinstance(error, InstallError):
        return 3 if error.retryable else 1
    return 2 if isinstance(error, ConfigError | PluginError) else 3
