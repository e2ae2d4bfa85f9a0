"""Finds secrets in texts, and removes them from the output of a test run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ("redact", "secret_values", "shows_secret")

# Shorter texts occur by chance.
SHORTEST = 4
# A single line of a key in PEM or OpenSSH format is a secret as well.
LINE_SHORTEST = 16

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?|secret|token|credential|private|api_?key", re.IGNORECASE
)
_PLACE_KEY = re.compile(r"(path|file|dir|id|name|arn|url)s?$", re.IGNORECASE)


def secret_values(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of a configuration that are secrets, according to the names of their keys.

    Values of keys such as `key_path`, `token_file` or `secret_id` are not secrets.
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
    """Return whether a text contains a secret, or a line of one."""
    return any(part in text for part in _parts(secrets))


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text with asterisks in place of secrets."""
    for part in sorted(_parts(secrets), key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def _parts(secrets: Iterable[str]) -> set[str]:
    """Return the forms in which secrets may occur: whole, escaped, and line by line."""
    found: set[str] = set()
    for secret in secrets:
        if len(secret) < SHORTEST:
            continue
        found |= {secret, repr(secret)[1:-1]}
        lines = secret.splitlines() if "\n" in secret else []
        found |= {line for line in lines if len(line) >= LINE_SHORTEST and "---" not in line}
    return found
