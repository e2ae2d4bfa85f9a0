from __future__ import annotations

from datetime import timedelta

import pytest

from fleeting.errors import (
    ConfigError,
    FleetingError,
    GroupGone,
    InstanceGone,
    PermissionDenied,
    PluginBroken,
    PluginConflict,
    PluginMismatch,
    PluginNotFound,
    ProviderError,
    Throttled,
)

MESSAGES = [
    PluginNotFound("plugin", "awss", ["aws", "local"], "try `uv pip install fleeting-plugin-awss`"),
    PluginNotFound("connector", "telnet", [], "try another"),
    PluginConflict("plugin", "aws", ["one 1.0", "other 2.0"]),
    PluginBroken("aws", "fleeting-plugin-aws", "ImportError: no boto"),
    PluginMismatch("aws", "1.0", "aws:2"),
]


@pytest.mark.parametrize("error", MESSAGES, ids=lambda error: type(error).__name__)
def test_messages_are_one_sentence(error: FleetingError) -> None:
    """A message that an error composes is one line, quotes the name and says what to do."""
    assert "\n" not in str(error)
    assert repr(error.name) in str(error)  # type: ignore[attr-defined] # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownArgumentType] - all of these have one
    assert ";" in str(error)


def test_not_found_names_what_is_installed() -> None:
    """The error for a missing plugin lists the installed ones."""
    assert "(installed: aws, local)" in str(MESSAGES[0])
    assert "(installed: none)" in str(MESSAGES[1])


def test_conflict_names_both_sides() -> None:
    """A conflict names every distribution that registers the name."""
    assert "one 1.0 and by other 2.0" in str(MESSAGES[2])


def test_config_error_has_a_line_for_each_problem() -> None:
    """The message has one line for each problem, and `problems` has them separately."""
    error = ConfigError("a.toml: one", "a.toml: two")
    assert error.problems == ("a.toml: one", "a.toml: two")
    assert str(error).splitlines() == ["a.toml: one", "a.toml: two"]


def test_provider_error_says_when_to_try_again() -> None:
    """A provider error says whether and when to retry; some are not retryable."""
    wait = timedelta(seconds=3)
    assert Throttled("too many", retry_after=wait).retry_after == wait
    assert ProviderError("no answer").retry_after is None
    assert ProviderError.retryable
    assert Throttled.retryable
    assert not PermissionDenied.retryable
    assert not GroupGone.retryable


def test_instance_error_names_its_instance() -> None:
    """An instance error has the id of its instance."""
    assert InstanceGone("i-1", "instance i-1 is gone").id == "i-1"
