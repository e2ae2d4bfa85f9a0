"""`taskscaler explain`: what a state file says of a scaler and its tasks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli_command import Command


@pytest.fixture
def state(taskscaler: Command) -> str:
    """Return the name of a state file after a run of two jobs, one after the other."""
    words = ("--state", "s.sqlite", "--max-instances", "1", "--count", "2", "--", "true")
    assert taskscaler.run_jobs(*words).returncode == 0
    return "s.sqlite"


def test_state_of_a_scaler_that_ended(taskscaler: Command, state: str) -> None:
    """It is said how things stood, when that was, and what was decided with which inputs."""
    done = taskscaler.run("explain", "--state", state)
    assert done.returncode == 0
    assert "a scaler that is not running now, as it was" in done.stdout
    assert "no task waits" in done.stdout
    assert "tasks wait for slots" in done.stdout
    assert "max_instances=1" in done.stdout


def test_what_became_of_a_job(taskscaler: Command, state: str) -> None:
    """By the name of its job, a task is found: when it asked, where it ran, how it ended."""
    done = taskscaler.run("explain", "command#2", "--state", state, "--decisions", "0")
    assert done.returncode == 0
    assert "command#2/1/" in done.stdout
    assert "got a slot on local" in done.stdout
    assert "was released" in done.stdout
    assert "newest decisions" not in done.stdout


def test_json(taskscaler: Command, state: str) -> None:
    """A program gets all of it as one object."""
    done = taskscaler.run("explain", "command#1", "--state", state, "--json", "--decisions", "1")
    told = json.loads(done.stdout)
    assert told["running"] is False
    assert [fact["outcome"] for fact in told["known"]] == ["released"]
    assert len(told["decisions"]) == 1
    assert told["standing"]["demand"]["max_instances"] == 1
    assert told["age_seconds"] >= 0


def test_unknown_key_is_exit_code_1(taskscaler: Command, state: str) -> None:
    """A key that nobody has heard of is an error of its own."""
    done = taskscaler.run("explain", "nobody", "--state", state)
    assert done.returncode == 1
    assert "nothing is known of 'nobody'" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "give --state FILE, or --config FILE"),
        (["--state", "missing.sqlite"], "missing.sqlite: there is no such file"),
        (["--state", "."], ". is no file; name the file"),
        (["--state", "text"], "text"),
        (["--config", "missing.toml"], "missing.toml: there is no such file"),
    ],
)
def test_wrong_words_are_one_sentence(taskscaler: Command, words: list[str], expected: str) -> None:
    """What is not there, or is no state, is exit code 2."""
    (taskscaler.folder / "text").write_text("this is no database, and long enough to say so" * 99)
    done = taskscaler.run("explain", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
