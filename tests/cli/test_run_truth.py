"""`taskscaler run` on bad machines, files and plugins: a result is true, or says why not."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cli_command import DEADLINE_SECONDS, PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

    from cli_command import Command


def test_killed_run_with_every_key_is_resumed(taskscaler: Command, fifo: Path) -> None:
    """A job with every key of the jobs file survives a killed command, and is run again."""
    (taskscaler.folder / "given").write_text("given\n")
    path = taskscaler.file(f"""
        [[jobs]]
        name = "a"
        script = ["cat", "echo $WORD > made", "echo begun", "cat {fifo}"]
        env = {{ WORD = "x" }}
        timeout = "10m"
        grace_period = "2s"
        retries = 1
        count = 1
        upload = ["given"]
        download = ["made", {{ from = "given", to = "here" }}]
        stdin = "given"
    """)
    state = taskscaler.folder / "state.sqlite"
    process = taskscaler.start("--state", state, path)
    assert process.stdout is not None
    assert any(b"begun" in line for line in process.stdout)
    process.kill()
    process.wait()
    again = taskscaler.start("--state", state, path)
    # The script of the killed command may read the pipe, too.
    while again.poll() is None:
        with suppress(OSError):  # The pipe has no reader yet.
            pipe = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            os.write(pipe, b"go on\n")
            os.close(pipe)
        time.sleep(0.1)
    _, messages = again.communicate()
    assert again.returncode == 0, messages
    (job,) = taskscaler.reported()["jobs"]
    assert (job["state"], job["attempts"]) == ("success", 2)
    assert (taskscaler.folder / "a" / "made").read_text() == "x\n"


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("exit 0", "its login shell ended with exit code 0 instead of running the command"),
        ('echo "Use the portal!"; exit 0', "and wrote: Use the portal!"),
        ("exec /bin/sh", "its login shell ended with exit code 0"),
        ("echo no room >&2; exit 1", "its login shell ended with exit code 1"),
        ('/bin/sh "$@"; exit 0', None),
    ],
)
def test_success_is_proved(taskscaler: Command, shell: str, expected: str | None) -> None:
    """A login shell that does not run the script is the failure of the infrastructure."""
    path = taskscaler.folder / "shell"
    path.write_text(f'#!/bin/sh\ncase "$2" in *script*) {shell};; *) exec /bin/sh "$@";; esac\n')
    path.chmod(0o755)
    done = taskscaler.run_jobs(
        "--plugin-config", f"shell={path}", "--", "sh", "-c", "touch ../../ran; exit 7"
    )
    (job,) = taskscaler.reported()["jobs"]
    if expected is None:
        assert (job["state"], job["exit_code"], done.returncode) == ("failed", 7, 1)
    else:
        assert (job["state"], job["exit_code"], done.returncode) == ("system_failure", None, 3)
        assert expected in job["reason"]


def test_an_instance_that_runs_no_command_is_not_ready(taskscaler: Command) -> None:
    """No job starts on it, and the run says what the login shell did."""
    words = ("--plugin-config", "shell=/bin/false", "--timeout", "8s", "--", "true")
    done = taskscaler.run_jobs(*words)
    (job,) = taskscaler.reported()["jobs"]
    assert (job["state"], job["attempts"], done.returncode) == ("system_failure", 0, 3)


def test_names_that_are_not_utf8(taskscaler: Command) -> None:
    """Such a file is downloaded; such a pipe is the failure of its job, and can be recorded."""
    path = taskscaler.file("""
        [autoscaler]
        max_instances = 1

        [[jobs]]
        name = "pipe"
        script = ['mkfifo "$(printf "a\\\\377b")"']
        download = ["*"]

        [[jobs]]
        name = "bytes"
        script = ['touch "$(printf "a\\\\377b")"']
        download = ["*"]
    """)
    done = taskscaler.run_jobs("--state", taskscaler.folder / "state.sqlite", path)
    assert taskscaler.states() == {"pipe": "system_failure", "bytes": "success"}, done.stderr
    assert done.returncode == 3
    assert "a\\udcffb is not a regular file" in done.stderr
    assert [one.name for one in (taskscaler.folder / "bytes").iterdir()] == [os.fsdecode(b"a\xffb")]


@pytest.mark.long
def test_folders_of_any_depth(taskscaler: Command) -> None:
    """A tree that is deeper than Python's recursion is downloaded."""
    path = taskscaler.file("""
        [[jobs]]
        name = "deep"
        script = ["i=0; while [ $i -lt 1050 ]; do mkdir d; cd d; i=$((i+1)); done; touch leaf"]
        download = ["**"]
    """)
    process = taskscaler.start(path)
    _, messages = process.communicate(timeout=300)
    deep = taskscaler.folder / "deep"
    leaf = deep.joinpath(*["d"] * 1050, "leaf").exists()
    # The test's own folder is removed by a recursion.
    subprocess.run(["rm", "-r", deep], check=True)  # noqa: S607 -- any rm
    assert (process.returncode, leaf) == (0, True), messages


def with_files(taskscaler: Command, limit: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `taskscaler run` with a hard limit of open files."""
    shell = ("/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh")
    return subprocess.run(
        [*shell, PROGRAM, "run", "--report", str(taskscaler.report), *words],
        cwd=taskscaler.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def test_few_open_files_mean_fewer_instances(taskscaler: Command) -> None:
    """The server of `local` creates no more instances than it can serve."""
    done = with_files(taskscaler, 40, "--count", "8", "--", "true")
    assert done.returncode == 0, done.stderr
    assert set(taskscaler.states().values()) == {"success"}


def test_too_few_open_files_are_the_reason(taskscaler: Command) -> None:
    """A job that cannot start for that reason says so."""
    slots = ("--capacity-per-instance", "20", "--max-instances", "1")
    done = with_files(taskscaler, 40, *slots, "--count", "20", "--", "sleep", "0.5")
    assert done.returncode == 3, done.stderr
    reasons = [job["reason"] for job in taskscaler.reported()["jobs"] if job["reason"]]
    assert any("too many open files; raise `ulimit -n`" in reason for reason in reasons), reasons
