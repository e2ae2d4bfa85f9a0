"""A `config.toml` as GitLab Runner reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleeting import as_gitlab_reads, decode_settings
from fleeting.errors import ConfigError
from fleeting.types import Duration
from taskscaler.config import FileConfig


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a plugin with defaults that are not zero."""

    name: str
    size: int = 5
    file: Path | None = None
    wait: Duration = Duration(seconds=3)
    labels: list[str] = msgspec.field(default_factory=lambda: ["a"])


def read(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the tables and the problems of a file."""
    found, problems = as_gitlab_reads(data, FileConfig)
    return found, [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("runner", "expected"),
    [
        ({"NAME": "a", "Limit": 3}, {"name": "a", "limit": 3}),
        ({"id": 0, "limit": 0, "name": "", "url": ""}, {}),
        ({"limit": -1, "request_concurrency": -7}, {}),
        ({"limit": False, "name": []}, {"limit": False, "name": []}),
        ({"other": 0, "Docker": {"Image": ""}}, {"other": 0, "Docker": {"Image": ""}}),
        ({"autoscaler": []}, {"autoscaler": []}),
        ({"Autoscaler": {"PLUGIN": "x"}}, {"autoscaler": {"plugin": "x"}}),
    ],
)
def test_zero_is_not_set(runner: dict[str, Any], expected: dict[str, Any]) -> None:
    """Keys have any case; a zero of the right type is left out, and a wrong type stays."""
    assert read({"runners": [runner]}) == ({"runners": [expected]}, [])


def test_zero_in_our_table_is_a_zero() -> None:
    """GitLab Runner does not write `extensions`, so its zeros are meant."""
    extensions = {"max_instance_age": "0s", "missed_updates": 0, "state_key_file": ""}
    found, _ = read({"runners": [{"autoscaler": {"extensions": extensions}}]})
    del extensions["state_key_file"]
    assert found["runners"][0]["autoscaler"]["extensions"] == extensions


def test_concurrent_is_never_left_out() -> None:
    """GitLab Runner refuses `concurrent = 0`, so it does not mean "not set"."""
    assert read({"concurrent": 0}) == ({"concurrent": 0}, [])


@pytest.mark.parametrize(
    ("number", "meant"), [(1_200_000_000_000, "20m"), (90, "20m"), (10**29, "20m"), (-5, "20m")]
)
def test_bare_number_is_nanoseconds(number: int, meant: str) -> None:
    """The message has the duration that GitLab Runner would read, if it is a sensible one."""
    _, problems = read({"runners": [{"autoscaler": {"policy": [{"idle_time": number}]}}]})
    [problem] = problems
    assert problem.startswith("runners[0].autoscaler.policy[0].idle_time: GitLab Runner reads")
    assert problem.endswith(f'{number} as nanoseconds; write a duration such as "{meant}"')


def test_two_spellings_of_a_key_are_reported() -> None:
    """Tables in two spellings are one table; for another value that is a mistake."""
    runner = {"Autoscaler": {"plugin": "x"}, "autoscaler": {"max_instances": 3}}
    found, problems = read({"runners": [runner], "concurrent": 3, "Concurrent": 4})
    assert found["runners"] == [{"autoscaler": {"plugin": "x", "max_instances": 3}}]
    assert problems == ["Concurrent: 'concurrent' is written twice; remove one of them"]


def test_settings_of_a_plugin() -> None:
    """Only an empty path or duration is not set; a plugin may have other defaults than zero."""
    table: dict[str, Any] = {"Name": "", "size": 0, "file": "", "wait": "", "labels": []}
    assert decode_settings(table, Settings, where="x") == Settings(name="", size=0, labels=[])
    with pytest.raises(ConfigError) as caught:
        decode_settings({"name": 1, "wait": 5, "sice": 2}, Settings, where="x")
    assert [text.partition(":")[0] for text in caught.value.problems] == ["x"] * 3
