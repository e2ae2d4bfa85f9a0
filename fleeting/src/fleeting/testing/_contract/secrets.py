"""Finds secrets in texts, and removes them from the output of a test run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting._secret_keys import secret_values
from fleeting._secrets import forms

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("redact", "secret_values", "shows_secret")

# Shorter texts occur by chance.
SHORTEST = 4


def shows_secret(text: str, secrets: Iterable[str]) -> bool:
    """Return whether a text contains a secret, or a line of one."""
    return any(part in text for part in _parts(secrets))


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text with asterisks in place of secrets."""
    for part in sorted(_parts(secrets), key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def _parts(secrets: Iterable[str]) -> set[str]:
    return {form for secret in secrets for form in forms(secret, SHORTEST)}
