"""`taskscaler run` with wrong input, failing infrastructure, timeouts and interrupts."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli_command import DEADLINE_SECONDS, PROGRAM

if TYPE_CHECKING:
    from cli_command import Command

JOB = '[[jobs]]\nname = "a"\nscript = ["true"]\n'
UNTIL_WRITTEN = """
[autoscaler]
max_instances = 1

[[jobs]]
name = "first"
script = ["echo $$", "cat {fifo}"]

[[jobs]]
name = "second"
script = ["true"]
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[jobs]", "is not valid TOML"),
        ("", "no jobs are defined"),
        (JOB + "tiemout = 1\n", "did you mean 'timeout'?"),
        (JOB + 'timeout = "soon"\n', "'soon' is not a duration"),
        (JOB + "retries = -1\n", "jobs[0].retries: must be at least 0, got -1"),
        (JOB + 'upload = ["missing.txt"]\n', "'missing.txt' does not exist"),
        (JOB + 'stdin = "missing.txt"\n', "the file does not exist"),
        ('[autoscaler]\nplugin = "nimbus"\n' + JOB, "no plugin named 'nimbus' is installed"),
        ("[autoscaler]\nmax_instances = -1\n" + JOB, "max_instances: must be at least 0, got -1"),
        ("[autoscaler]\nfailure_treshold = 1\n" + JOB, "did you mean 'failure_threshold'?"),
        ("[autoscaler]\ndelete_instances_on_shutdown = false\n" + JOB, "remove the key"),
        ("[autoscaler.plugin_config]\nrot = 1\n" + JOB, "did you mean 'root'?"),
        ('[autoscaler.plugin_config]\nroot = "/proc/x"\n' + JOB, "/proc/x cannot be used"),
    ],
)
def test_invalid_file_is_exit_code_2(taskscaler: Command, text: str, expected: str) -> None:
    """An error in a file is one sentence that names it, and nothing is started."""
    done = taskscaler.run_jobs(taskscaler.file(text))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()[:1]
    assert line.startswith("error: ")
    assert expected in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["missing.toml"], "missing.toml: the file does not exist"),
        ([], "nothing to run"),
        (["--"], "nothing to run"),
        (["a.toml", "--", "true"], "use only one"),
        (["make", "test"], "taskscaler run -- make test"),
        (["--count", "2", "a.toml"], "--count applies only to a command"),
        (["--count", "0", "--", "true"], "--count"),
        (["--max-instances", "-1", "--", "true"], "--max-instances"),
        (["--timeout", "soon", "--", "true"], "'soon' is not a duration"),
        (["--timeout", "0", "--", "true"], "must be more than 0s, got '0'"),
        (["--idle-time", "-1s", "--", "true"], "must not be negative, got '-1s'"),
        (["--plugin", "nimbus", "--", "true"], "run `fleeting install nimbus`"),
        (["--plugin-config", "root", "--", "true"], "is not KEY=VALUE"),
        (["--plugin-config", "rot=x", "--", "true"], "did you mean 'root'?"),
        (["--plugin-config", "root=/proc/x", "--", "true"], "/proc/x cannot be used"),
        (["--report", "/proc/x/y.json", "--", "true"], "--report /proc/x/y.json"),
        (["--output", "loud", "--", "true"], "--output"),
        (["--frobnicate", "--", "true"], "--frobnicate"),
    ],
)
def test_wrong_option_is_exit_code_2(taskscaler: Command, words: list[str], expected: str) -> None:
    """An error on the command line is one sentence that names the option."""
    done = taskscaler.run("run", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("retries", "state", "code"), [(1, "success", 0), (0, "system_failure", 3)]
)
def test_instance_killed_during_a_job(
    taskscaler: Command, retries: int, state: str, code: int
) -> None:
    """When the instance is lost, a job with a retry succeeds on another one."""
    done = taskscaler.run_jobs(
        taskscaler.file(f"""
            [[jobs]]
            name = "victim"
            retries = {retries}
            script = [
                'if mkdir "{taskscaler.folder}/once" 2>/dev/null',
                "then kill -KILL $(ps -o ppid= $PPID); sleep 60; fi",
                "echo survived",
            ]
        """)
    )
    assert done.returncode == code, done.stderr
    report = taskscaler.reported()
    (job,) = report["jobs"]
    assert (job["state"], job["attempts"]) == (state, retries + 1)
    assert len(report["instances"]) == retries + 1
    assert done.stdout == ("survived\n" if retries else "")
    if retries:
        assert job["instance"] == report["instances"][1]["id"]


def test_failed_script_is_not_retried(taskscaler: Command) -> None:
    """Retries apply to failures of the infrastructure, not to a script that fails."""
    path = taskscaler.file(JOB.replace("true", "false") + "retries = 3\n")
    assert taskscaler.run_jobs(path).returncode == 1
    assert [job["attempts"] for job in taskscaler.reported()["jobs"]] == [1]


def test_provider_that_always_fails_is_exit_code_3(taskscaler: Command) -> None:
    """If no instance becomes ready, the run ends after its timeout and says why."""
    done = taskscaler.run_jobs("--plugin-config", "fail_rate=1", "--timeout", "4s", "--", "true")
    assert done.returncode == 3
    assert "fail_rate" in done.stderr
    assert taskscaler.states() == {"command": "system_failure"}


def test_timeout_of_the_run(taskscaler: Command, fifo: Path) -> None:
    """After the timeout, running jobs have timed out and waiting jobs are canceled."""
    path = taskscaler.file(UNTIL_WRITTEN.format(fifo=fifo))
    assert taskscaler.run_jobs("--timeout", "6s", path).returncode == 1
    assert taskscaler.states() == {"first": "timed_out", "second": "canceled"}


def test_last_words_of_a_job_are_shown(taskscaler: Command) -> None:
    """The text that a script prints after TERM is its output, until its grace period is over."""
    trap = "trap 'echo saved; exit 1' TERM"
    loop = "while :; do sleep 0.1; done"
    path = taskscaler.file(f"""
        [[jobs]]
        name = "tidy"
        timeout = "500ms"
        grace_period = "1m"
        script = ["{trap}", "{loop}"]

        [[jobs]]
        name = "stubborn"
        timeout = "500ms"
        grace_period = "300ms"
        script = ["trap '' TERM", "{loop}"]
    """)
    done = taskscaler.run_jobs(path)
    assert (done.returncode, done.stdout) == (1, "tidy | saved\n"), done.stderr
    assert taskscaler.states() == {"tidy": "timed_out", "stubborn": "timed_out"}


def wait_for(process: subprocess.Popen[bytes], stream: str, text: bytes) -> None:
    """Read the output of a process until a line contains the text."""
    pipe = process.stdout if stream == "stdout" else process.stderr
    assert pipe is not None
    assert any(text in line for line in pipe), f"{text!r} never came"


def test_first_interrupt_lets_running_jobs_finish(taskscaler: Command, fifo: Path) -> None:
    """After one Ctrl-C no more jobs start, running jobs finish, and instances are removed."""
    process = taskscaler.start(taskscaler.file(UNTIL_WRITTEN.format(fifo=fifo)))
    wait_for(process, "stdout", b"first | ")
    process.send_signal(signal.SIGINT)
    wait_for(process, "stderr", b"no more jobs will start")
    fifo.write_text("go on\n")
    assert process.wait() == 130
    assert taskscaler.states() == {"first": "success", "second": "canceled"}


def test_second_interrupt_cancels(taskscaler: Command, fifo: Path) -> None:
    """After two of them running jobs are cancelled too, and instances are removed."""
    process = taskscaler.start(taskscaler.file(UNTIL_WRITTEN.format(fifo=fifo)))
    wait_for(process, "stdout", b"first | ")
    process.send_signal(signal.SIGINT)
    wait_for(process, "stderr", b"no more jobs will start")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert taskscaler.states() == {"first": "canceled", "second": "canceled"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_removes_instances(
    taskscaler: Command, fifo: Path, number: signal.Signals
) -> None:
    """When the command is terminated or its terminal is closed, no instance is left."""
    process = taskscaler.start(taskscaler.file(UNTIL_WRITTEN.format(fifo=fifo)))
    wait_for(process, "stdout", b"first | ")
    process.send_signal(number)
    assert process.wait() == 130
    assert taskscaler.states() == {"first": "canceled", "second": "canceled"}


@pytest.mark.parametrize("errors", [subprocess.DEVNULL, subprocess.STDOUT])
def test_signals_work_while_the_output_is_not_read(taskscaler: Command, errors: int) -> None:
    """The command can be interrupted while its reader does not read, as `less` does."""
    reading, writing = os.pipe()
    room = select.poll()
    room.register(writing, select.POLLOUT)
    process = subprocess.Popen(
        [PROGRAM, "run", "--plugin-config", f"root={taskscaler.folder}/i", "--", "yes"],
        stdout=writing,
        stderr=errors,
    )
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while room.poll(0):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # The progress cannot be read, so each signal gets some time to take effect.
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
        # A signal that comes while Python exits ends it by itself; a shell shows 130 for both.
        assert process.poll() in {130, -signal.SIGINT}
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("words", [("--help",), ("run", "--", "echo", "hello")])
def test_output_to_a_full_disk_is_exit_code_3(words: tuple[str, ...]) -> None:
    """When standard output cannot be written, the error is one sentence."""
    with FULL.open("wb") as full:
        done = subprocess.run([PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 3
    assert b"no space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_ignored(taskscaler: Command, closed: str) -> None:
    """If standard streams are closed, the jobs run and their output goes nowhere else."""
    line = f'"{PROGRAM}" run --report report.json -- echo hello {closed}'
    done = subprocess.run(["sh", "-c", line], cwd=taskscaler.folder, check=False)  # noqa: S607 -- any sh
    assert done.returncode == 0
    assert taskscaler.states() == {"command": "success"}


def test_removed_input_is_a_system_failure(taskscaler: Command) -> None:
    """A job whose `stdin` file was removed fails with a reason; other jobs do not fail."""
    gone = taskscaler.folder / "gone.txt"
    gone.touch()
    text = (
        "[autoscaler]\nmax_instances = 1\n"
        f'[[jobs]]\nname = "remover"\nscript = ["rm {gone}"]\n'
        '[[jobs]]\nname = "reader"\nscript = ["cat"]\nstdin = "gone.txt"\n'
    )
    done = taskscaler.run_jobs(taskscaler.file(text))
    assert done.returncode == 3
    assert taskscaler.states() == {"remover": "success", "reader": "system_failure"}
    assert "gone.txt can no longer be read" in done.stderr


def test_wrong_setting_of_the_plugin_is_reported_once(taskscaler: Command) -> None:
    """An error of the plugin is reported once, not for each job."""
    setting = "root=~missing-user/x"
    done = taskscaler.run_jobs("--plugin-config", setting, "--count", "3", "--", "true")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "there is no such user" in line
