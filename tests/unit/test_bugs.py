"""One sentence about an unexpected exception."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from fleeting import describe_bug


class Config(msgspec.Struct):
    """The configuration of a plugin."""

    token: str
    nested: dict[str, list[str]]
    region: str = "eu-1"
    number: int = 3


@dataclass
class Settings:
    """Other settings."""

    path: Path


def test_values_of_a_configuration_are_hidden() -> None:
    """Every text in it may be a secret, wherever it is; short words are not."""
    config = Config("s3cret-token", {"keys": ["inner-secret"]})
    error = ValueError("s3cret-token and inner-secret of /home/me/key in eu-1\x1b[2J")
    text = describe_bug(error, hidden=[config, Settings(Path("/home/me/key"))])
    assert text == (
        "unexpected error, a bug: ValueError: [hidden] and [hidden] of [hidden] in eu-1\\x1b[2J"
    )


def test_a_group_is_described_by_its_first_error() -> None:
    """The place is that of the error itself; a long text is cut."""
    with pytest.raises(ExceptionGroup) as caught:
        raise ExceptionGroup("several", [ExceptionGroup("inner", [KeyError("x" * 1000)])])
    text = describe_bug(caught.value)
    assert "KeyError: 'xxx" in text
    assert len(text) < 400


def test_too_many_open_files_are_no_bug() -> None:
    """The sentence says what to do."""
    error = OSError(errno.EMFILE, "too many open files")
    assert "raise `ulimit -n`" in describe_bug(error)


def test_an_error_without_text() -> None:
    """Its class is named, and the place where it was raised."""
    with pytest.raises(RecursionError) as caught:
        raise RecursionError
    assert "at unit/test_bugs.py:" in describe_bug(caught.value, where=True)
