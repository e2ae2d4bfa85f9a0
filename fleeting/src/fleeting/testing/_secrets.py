"""Finds secrets where they must not be, and takes them out of what a test run prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ("redact", "secret_values", "shows_secret")

# Shorter ones are found everywhere, and are no secrets.
SHORTEST = 4
# A line of a key in PEM or OpenSSH format is as telling as the whole.
LINE_SHORTEST = 16

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?|secret|token|credential|private|api_?key", re.IGNORECASE
)
_PLACE_KEY = re.compile(r"(path|file|dir|id|name|arn|url)s?$", re.IGNORECASE)


def secret_values(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a configuration that are secrets, judging by the names of their keys.

    A key that names a place (`key_path`, `token_file`) or a thing (`secret_id`) is none.
    """
    for key, value in table.items():
        if isinstance(value, dict):
            yield from secret_values(cast("dict[str, Any]", value))
        elif isinstance(value, list):
            items = cast("list[Any]", value)
            yield from secret_values({f"{index} {key}": item for index, item in enumerate(items)})
        elif isinstance(value, str) and _SECRET_KEY.search(key) and not _PLACE_KEY.search(key):
            yield value


def shows_secret(text: str, secrets: Iterable[str]) -> bool:
    """Return whether a text has a secret in it, or a telling part of one."""
    return any(part in text for part in _parts(secrets))


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text with asterisks in place of all secrets."""
    for part in sorted(_parts(secrets), key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def _parts(secrets: Iterable[str]) -> set[str]:
    """Return the secrets as they may stand in a text: whole, escaped, by the line."""
    found: set[str] = set()
    for secret in secrets:
        if len(secret) < SHORTEST:
            continue
        found |= {secret, repr(secret)[1:-1]}
        lines = secret.splitlines() if "\n" in secret else []
        found |= {line for line in lines if len(line) >= LINE_SHORTEST and "---" not in line}
    return found
