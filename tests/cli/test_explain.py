"""`taskscaler explain`: the report of a state file."""

from __future__ import annotations

import json
import signal
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


CONFIG = """
concurrent = 1
[[runners]]
name = "builders"
[runners.autoscaler]
plugin = "local"
capacity_per_instance = 4
max_instances = 1
delete_instances_on_shutdown = true
[runners.autoscaler.plugin_config]
root = "farm"
persistent = true
"""
JOBS = """
[[jobs]]
name = "work"
count = 3
script = ["echo up; cat {fifo}"]
retries = 1
[[jobs]]
name = "last"
script = ["true"]
"""


def test_jobs_that_are_held_back(taskscaler: Command, fifo: Path) -> None:
    """They are known from the start, by the name of the run or the job, and after `kill -9`."""
    (taskscaler.folder / "config.toml").write_text(CONFIG)
    jobs = taskscaler.file(JOBS.format(fifo=fifo))
    process = taskscaler.start("--config", "config.toml", jobs)
    assert process.stdout is not None
    assert b"up" in process.stdout.readline()

    def explain(*words: str) -> str:
        done = taskscaler.run("explain", "--config", "config.toml", "--decisions", "0", *words)
        assert done.returncode == 0
        return done.stdout

    assert "3 jobs wait for their turn: concurrent = 1" in explain()
    while "tasks with a slot:" not in explain():  # The picture is a second old.
        pass
    assert explain().endswith("next first:\n  work#2\n  work#3\n  last\n")
    place = "job work#2 waits: concurrent = 1; it is number 1 of 3 in the queue of jobs"
    assert explain("work#2").splitlines()[-1] == place
    of_job = explain("work").splitlines()
    assert any(line.startswith("job work#1: running in attempt 1 on local") for line in of_job)
    assert [line[:18] for line in of_job[-2:]] == ["job work#2 waits: ", "job work#3 waits: "]
    found = json.loads(explain("--json", "last"))
    assert found["jobs"]["names"] == ["work#2", "work#3", "last"]
    assert found["jobs"]["count"] == 3
    assert found["known"] == [
        {"is": "held back", "name": "last", "place": 3, "why": "concurrent = 1"}
    ]

    process.kill()
    process.communicate()
    fifo.unlink()
    told = explain("work")
    assert "3 jobs have not run; call the same command again to run them" in told
    assert "when the scaler stopped unexpectedly" in told
    assert "job work#1: attempt 1 on local" in told
    assert "was lost: the scaler stopped unexpectedly while it ran, started at" in told
    assert "job work#2 has not run; call the same command again" in told
    assert "jobs that have not run:\n  work#2\n  work#3\n  last\n" in explain()

    fifo.touch()
    assert taskscaler.run("run", "--config", "config.toml", jobs).returncode == 0
    told = explain("work#1")
    assert "and was lost: the scaler stopped unexpectedly while it ran" in told
    assert "work#1/2/" in told
    assert "jobs" not in explain()


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


def test_jobs_that_do_not_start_any_more(taskscaler: Command, fifo: Path) -> None:
    """After Ctrl-C the running job ends, and the others have the reason."""
    (taskscaler.folder / "config.toml").write_text(CONFIG)
    process = taskscaler.start("--config", "config.toml", taskscaler.file(JOBS.format(fifo=fifo)))
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"up" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert any(b"no more jobs will start" in line for line in process.stderr)
    words = ("--config", "config.toml", "--decisions", "0")
    told = ""
    # The record follows the message, and the picture is a second old.
    while "do not start" not in told or "tasks with a slot:" not in told:
        told = taskscaler.run("explain", *words).stdout
    assert "3 jobs do not start: interrupted by SIGINT; " in told
    assert told.endswith("jobs that do not start:\n  work#2\n  work#3\n  last\n")
    told = taskscaler.run("explain", "last", *words).stdout
    assert told.splitlines()[-1] == "job last does not start: interrupted by SIGINT"
    fifo.write_text("go on\n")
    process.communicate()
    told = taskscaler.run("explain", "last", *words).stdout
    assert told.splitlines()[-1].startswith("job last has not run; call the same command again")
