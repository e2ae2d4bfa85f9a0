"""The door for text: nothing of others controls a user's terminal, and no secret passes.

Text of others passes it twice. `foreign` bounds its length where it comes in, before it becomes
part of a message. `plain` escapes what is not printable where a message goes out, also line
breaks, so that a message cannot pretend to be several. Both hide the secrets that this process
knows. `say`, `say_json` and `show` are the only functions that write to a standard stream.

A plugin runs in this process and may print. `keep_output` moves everything that does not pass this
door from standard output to standard error, where it cannot corrupt a document or a job's output.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO, cast

from fleeting._secrets import hide_secrets

if TYPE_CHECKING:
    import logging

__all__ = (
    "discard_output",
    "foreign",
    "guard_logs",
    "is_terminal",
    "keep_output",
    "output_descriptor",
    "plain",
    "say",
    "say_json",
    "show",
    "wrapped",
)

FOREIGN_CHARACTERS = 500
_STDOUT, _STDERR = 1, 2
_INDENT = 2
# Letters and marks that show nothing, although Unicode calls them printable.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")


# No `@override`: importing typing_extensions takes half as long as importing click.
class _Stray(io.TextIOBase):
    """Stands in for `sys.stdout`: takes what a plugin prints, and passes it to standard error.

    Attributes:
        own: the stream that it stands in for.
        descriptor: of that stream.
    """

    def __init__(self, own: TextIO, descriptor: int) -> None:
        super().__init__()
        self.own = own
        self.descriptor = descriptor

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        sys.stderr.write(_plain_lines(text))
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def fileno(self) -> int:
        return _STDERR

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def plain(text: str) -> str:
    r"""Return the text on one line: with characters such as `\x1b` escaped, without secrets."""
    text = hide_secrets(text)
    if text.isprintable() and (text.isascii() or _INVISIBLE.isdisjoint(text)):
        return text
    return "".join(one if _is_visible(one) else _escaped(one) for one in text)


def foreign(text: str, limit: int = FOREIGN_CHARACTERS) -> str:
    """Return text of others as a short part of a message, on one line.

    Args:
        text: what an instance, a cloud or a plugin says.
        limit: how many characters of it to keep.
    """
    # Secrets go first: the beginning of one that was cut could not be recognized.
    text = hide_secrets(text)
    kept = " ".join(text[: limit + 1].split())
    return plain(kept if len(text) <= limit else f"{kept[:limit]}...")


def say(text: str, *, err: bool = False) -> None:
    """Print one line; a long message on a terminal is broken between words."""
    text = plain(text)
    if err and is_terminal(err=True):
        text = wrapped(text, _columns())
    show(f"{text}\n", err=err)


def wrapped(text: str, columns: int) -> str:
    """Return a message in lines that fit into a terminal, each with whole words."""
    if len(text) <= columns:
        return text
    import textwrap  # Most messages are short.

    lines = textwrap.wrap(
        text,
        max(columns, _INDENT + 1),
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def show(text: str, *, err: bool = False) -> None:
    """Print text of our own as it is; any text of others in it has passed `plain`."""
    import click  # It takes a while, and a library needs no command line.

    click.echo(text, nl=False, file=sys.stderr if err else _output())


def say_json(text: str) -> None:
    """Print a JSON document, with its secrets hidden; what is not printable is escaped."""
    import json  # Most commands do not need it.

    text = json.dumps(_without_secrets(json.loads(text)), indent=2, ensure_ascii=False)
    if not all(line.isprintable() for line in text.split("\n")):
        lines = text.split("\n")
        text = "\n".join(
            "".join(one if _is_visible(one) else json.dumps(one)[1:-1] for one in line)
            for line in lines
        )
    show(f"{text}\n")


def guard_logs() -> None:
    """Escape what a log message says, where Python prints it because no program set logging up."""
    import logging  # Most commands do not need it.

    class PlainFormatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return _plain_lines(super().format(record))

        def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
            record.message = plain(record.message)
            return super().formatMessage(record)

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())


def keep_output() -> None:
    """Keep standard output for this door; all other writes to it go to standard error from now on.

    This includes code in C and processes that inherit the stream. Repeating the call changes
    nothing.
    """
    if isinstance(sys.stdout, _Stray):
        return
    own, descriptor, encoding = sys.stdout, _STDOUT, sys.stdout.encoding
    own.flush()
    if own is sys.__stdout__:  # Not while a test captures it.
        descriptor = os.dup(_STDOUT)
        own = os.fdopen(descriptor, "w", encoding=encoding, errors="backslashreplace")
        os.dup2(_STDERR, _STDOUT)
    sys.stdout = _Stray(own, descriptor)


def output_descriptor() -> int:
    """Return the descriptor of standard output, for bytes that pass unchanged."""
    return sys.stdout.descriptor if isinstance(sys.stdout, _Stray) else _STDOUT


def is_terminal(*, err: bool = False) -> bool:
    """Return whether a standard stream is a terminal."""
    return (sys.stderr if err else _output()).isatty()


def discard_output() -> None:
    """Discard buffered output that cannot be written; otherwise Python reports it at exit."""
    own = _output()
    try:
        own.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, own.fileno())
        os.close(nothing)


def _output() -> TextIO:
    return sys.stdout.own if isinstance(sys.stdout, _Stray) else sys.stdout


def _columns() -> int:
    try:
        return os.get_terminal_size(_STDERR).columns or sys.maxsize
    except OSError:
        return sys.maxsize


def _is_visible(character: str) -> bool:
    return character.isprintable() and character not in _INVISIBLE


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _plain_lines(text: str) -> str:
    """Return text with its line breaks; a secret may have several lines."""
    return "\n".join(map(plain, hide_secrets(text).split("\n")))


def _without_secrets(value: object) -> object:
    if isinstance(value, dict):
        table = cast("dict[str, object]", value)
        return {key: _without_secrets(one) for key, one in table.items()}
    if isinstance(value, list):
        return [_without_secrets(one) for one in cast("list[object]", value)]
    return hide_secrets(value) if isinstance(value, str) else value
