"""The frame of both command lines: turns errors into messages and exit codes.

Exit codes: 0 is success, 1 a negative answer, 2 invalid arguments or configuration, 3 a failure
of the system, the network or the cloud, and 130 an interruption by the user.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn, cast

import click

from fleeting._secrets import remember_secrets, secret_variables
from fleeting._text import discard_output, say, show
from fleeting.errors import ConfigError, FleetingError, InstallError, NotSupported, PluginError

__all__ = ("exit_at_once", "run_program")

# `os._exit` itself, before it is guarded.
exit_at_once = os._exit

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def run_program(command: click.Command, name: str) -> int:
    """Run a command line to its end, and return the exit code.

    Args:
        command: the command to run; an integer that it returns is the exit code.
        name: the name of the program, for messages.
    """
    _open_standard_streams()
    remember_secrets(secret_variables(os.environ))
    _guard_exit()
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 - as `_report` says
        return _report(error)
    finally:
        os._exit = exit_at_once
    return code if isinstance(code, int) else 0


def _guard_exit() -> None:
    """Make the end of this process by other code an error with a message.

    A plugin that calls `os._exit(0)` would end a run without a word and with the exit code of
    success. Child processes may end as they like.
    """
    process = os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() == process:
            with suppress(OSError):
                os.write(
                    _STDERR,
                    b"error: a plugin ended this process with os._exit; instances may be left\n",
                )
            status = status or 3
        exit_at_once(status)

    os._exit = refuse


def _open_standard_streams() -> None:
    """Open /dev/null in place of each standard stream that the caller closed, as by `>&-`.

    Otherwise the next file to be opened would get its number, and our output; and Python sets
    `sys.stdout` and the like to None, which other code does not expect.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    # Python has set these to None by now.
    sys.stdin = sys.stdin or os.fdopen(_STDIN, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(_STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)


def _describe(error: OSError) -> str:
    import traceback  # Imported late, because commands that succeed do not need it.

    # The text becomes part of a sentence; the name of a file keeps its case.
    text = (error.strerror or str(error)).lower()
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    # The error of a write does not say which file it was.
    if frame.f_code is click.echo.__code__:
        return f"cannot write to standard output: {text}"
    return f"the system refused: {text}{f' at {error.filename}' if error.filename else ''}"


def _report(error: BaseException) -> int:
    """Print a message about what ended the command, and return the exit code."""
    code = 3
    if isinstance(error, BaseExceptionGroup):
        from fleeting._run import first_error  # Only what is asynchronous raises groups.

        error = first_error(cast("BaseExceptionGroup[BaseException]", error))
    match error:
        case click.exceptions.NoArgsIsHelpError():
            show(f"{error.format_message()}\n", err=True)
            code = 2
        case click.ClickException():
            say(f"error: {error.format_message()}", err=True)
            context = getattr(error, "ctx", None)
            if context is not None:
                say(f"See `{context.command_path} --help`.", err=True)
            code = 2
        case FleetingError():
            code = _report_ours(error)
        case OSError():
            # For example when click prints the help and the disk below standard output is full.
            discard_output()
            say(f"error: {_describe(error)}", err=True)
        case click.Abort() | KeyboardInterrupt():
            say("interrupted", err=True)
            code = 130
        case SystemExit() if _is_from_click(error):
            discard_output()  # The reader of our output has gone, as in `| head`.
            code = 1
        case SystemExit():
            say("error: a plugin tried to end this process; report it to its author", err=True)
        case _:
            from fleeting._bugs import describe_bug

            # Without a traceback, which may show secrets.
            say(f"error: {describe_bug(error, where=True)}", err=True)
    return code


def _is_from_click(error: BaseException) -> bool:
    """Return whether click itself has ended the program, and not a plugin."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == click.core.__name__


def _report_ours(error: FleetingError) -> int:
    """Print one line for each problem, and return the exit code."""
    for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
        say(f"error: {problem}", err=True)
    if isinstance(error, InstallError):
        return 3 if error.retryable else 1
    # An operation that the plugin cannot do was a wrong request; nothing failed.
    return 2 if isinstance(error, ConfigError | PluginError | NotSupported) else 3
