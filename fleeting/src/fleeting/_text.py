"""The door for foreign text: a cloud or an instance must not control a user's terminal.

Text of others passes it twice. `foreign` bounds its length where it comes in, before it becomes
part of a message. `plain` escapes what is not printable where a message goes out, also line
breaks, so that a message cannot pretend to be several; `say` does so for a line of a command.
"""

from __future__ import annotations

import click

__all__ = ("foreign", "guard_logs", "plain", "say", "say_json")

FOREIGN_CHARACTERS = 500


def plain(text: str) -> str:
    r"""Return the text with each non-printable character escaped, such as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def foreign(text: str, limit: int = FOREIGN_CHARACTERS) -> str:
    """Return text of others as a short part of a message, on one line.

    Args:
        text: what an instance, a cloud or a plugin says.
        limit: how many characters of it to keep.
    """
    kept = " ".join(text[: limit + 1].split())
    return plain(kept if len(text) <= limit else f"{kept[:limit]}...")


def say(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(plain(text), err=err)


def say_json(text: str) -> None:
    """Print a JSON document; characters that are not printable are escaped as JSON does."""
    import json  # Most commands do not need it.

    lines = text.split("\n")
    if not all(line.isprintable() for line in lines):
        lines = [
            "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line)
            for line in lines
        ]
    click.echo("\n".join(lines))


def guard_logs() -> None:
    """Escape what a log message says, where Python prints it because no program set logging up."""
    import logging  # Most commands do not need it.

    class PlainFormatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return "\n".join(map(plain, super().format(record).split("\n")))

        def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
            record.message = plain(record.message)
            return super().formatMessage(record)

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
