"""`taskscaler explain`: the report of a state file."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from cli_command import PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

    from cli_command import Command


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state file of a run of two jobs, one after the other."""
    state = tmp_path_factory.mktemp("state") / "s.sqlite"
    words = ("--state", state, "--max-instances", "1", "--count", "2", "--", "true")
    subprocess.run([PROGRAM, "run", *words], capture_output=True, check=True)
    return state


def test_stopped_scaler(taskscaler: Command, state: Path) -> None:
    """The report has the last state and its time, and the decisions with their inputs."""
    done = taskscaler.run("explain", "--state", state)
    assert done.returncode == 0
    assert "the scaler is not running; its state" in done.stdout
    assert "no task waits" in done.stdout
    assert "tasks wait for slots" in done.stdout
    assert "max_instances=1" in done.stdout


def test_task_of_a_job(taskscaler: Command, state: Path) -> None:
    """A task is found by the name of its job: its request, its slot and its end."""
    done = taskscaler.run("explain", "command#2", "--state", state, "--decisions", "0")
    assert done.returncode == 0
    assert "command#2/1/" in done.stdout
    assert "got one on local" in done.stdout
    assert "was released" in done.stdout
    assert "newest decisions" not in done.stdout


def test_json(taskscaler: Command, state: Path) -> None:
    """`--json` prints everything as one object."""
    done = taskscaler.run("explain", "command#1", "--state", state, "--json", "--decisions", "1")
    report = json.loads(done.stdout)
    assert report["running"] is False
    assert [fact["outcome"] for fact in report["known"]] == ["released"]
    assert len(report["decisions"]) == 1
    assert report["standing"]["demand"]["max_instances"] == 1
    assert report["age_seconds"] >= 0


def test_unknown_key_is_exit_code_1(taskscaler: Command, state: Path) -> None:
    """An unknown key has an exit code of its own."""
    done = taskscaler.run("explain", "missing", "--state", state)
    assert done.returncode == 1
    assert "no task or job 'missing'" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "use --state FILE or --config FILE"),
        (["--state", "missing.sqlite"], "missing.sqlite: the file does not exist"),
        (["--state", "."], ". is not a regular file"),
        (["--state", "text"], "text"),
        (["--config", "missing.toml"], "missing.toml: the file does not exist"),
    ],
)
def test_wrong_option_is_one_sentence(taskscaler: Command, words: list[str], expected: str) -> None:
    """A file that is missing or not a state file is exit code 2."""
    (taskscaler.folder / "text").write_text(
        "not a database, and long enough to be seen as such" * 99
    )
    done = taskscaler.run("explain", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
