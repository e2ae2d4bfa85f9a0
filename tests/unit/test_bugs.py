"""One sentence about an unexpected exception."""

from __future__ import annotations

import errno

import pytest

from fleeting import describe_bug
from fleeting._secret_keys import texts
from fleeting._secrets import remember_settings


def test_values_of_a_configuration_are_hidden() -> None:
    """Every text in it may be a secret, wherever it is; short words are not."""
    config = {"token": "s3cret-token", "nested": {"keys": ["inner-secret"]}, "region": "eu-1"}
    remember_settings(texts({**config, "path": "/home/me/key", "number": 3}))
    error = ValueError("s3cret-token and inner-secret of /home/me/key in eu-1\x1b[2J")
    assert describe_bug(error) == (
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
