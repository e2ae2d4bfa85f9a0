"""`taskscaler run` from end to end: jobs, files, output and failed scripts."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli_command import Command

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_example_succeeds(taskscaler: Command, example: Path) -> None:
    """Every example in the repository succeeds."""
    folder = taskscaler.folder / "examples"
    folder.mkdir()
    for path in EXAMPLES.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    done = taskscaler.run_jobs(folder / example.name)
    assert done.returncode == 0, done.stderr
    assert set(taskscaler.states().values()) == {"success"}


def test_output_of_a_command_is_unchanged(taskscaler: Command) -> None:
    """The output of a single job has no prefix and may contain bytes that are not UTF-8."""
    done = taskscaler.run_process(
        "run", "--", "sh", "-c", "printf 'out \\377'; printf 'err\\n' >&2"
    )
    assert done.returncode == 0
    assert done.stdout == "out \\xff"
    assert "err\n" in done.stderr


def test_output_of_several_jobs_has_prefixes(taskscaler: Command) -> None:
    """Lines are never mixed, and an incomplete last line is completed."""
    done = taskscaler.run_jobs("--count", "3", "--", "printf", "a\\nb")
    lines = sorted(done.stdout.splitlines())
    assert lines == sorted(f"command#{n} | {text}" for n in (1, 2, 3) for text in "ab")


def test_grouped_output_is_in_one_piece(taskscaler: Command) -> None:
    """With `--output group` the output of each job is in one piece, under its name."""
    done = taskscaler.run_jobs("--count", "3", "--output", "group", "--", "printf", "a\\nb\\n")
    pieces = sorted(done.stdout.split("==> ")[1:])
    assert pieces == [f"command#{n} <==\na\nb\n" for n in (1, 2, 3)]


def test_no_output(taskscaler: Command) -> None:
    """With `--output none` the output of jobs is dropped, but not the messages."""
    done = taskscaler.run_jobs("--count", "2", "--output", "none", "--", "echo", "a")
    assert done.stdout == ""
    assert "2 jobs: 2 success" in done.stderr


def test_failed_script_is_exit_code_1(taskscaler: Command) -> None:
    """Exit code, signal, timeout and a missing program are distinguished; other jobs go on."""
    path = taskscaler.file("""
        [autoscaler]
        capacity_per_instance = 4
        max_instances = 1

        [[jobs]]
        name = "exit"
        script = ["exit 3", "echo never"]

        [[jobs]]
        name = "signal"
        script = ["kill -TERM $$"]

        [[jobs]]
        name = "timeout"
        script = ["sleep 60"]
        timeout = "200ms"

        [[jobs]]
        name = "missing"
        script = ["no-such-program"]

        [[jobs]]
        name = "good"
        script = ["true"]
    """)
    done = taskscaler.run_jobs(path)
    assert done.returncode == 1
    assert "never" not in done.stdout
    assert "signal TERM" in done.stderr
    jobs = {job["name"]: job for job in taskscaler.reported()["jobs"]}
    assert {
        name: (job["state"], job["exit_code"], job["signal"]) for name, job in jobs.items()
    } == {
        "exit": ("failed", 3, None),
        "signal": ("failed", 143, None),
        "timeout": ("timed_out", None, None),
        "missing": ("failed", 127, None),
        "good": ("success", 0, None),
    }


def test_fail_fast_cancels_the_others(taskscaler: Command, fifo: Path) -> None:
    """With `--fail-fast` the first failure cancels running jobs and starts no more."""
    path = taskscaler.file(f"""
        [autoscaler]
        capacity_per_instance = 2
        max_instances = 1

        [[jobs]]
        name = "endless"
        script = ["cat {fifo}"]

        [[jobs]]
        name = "bad"
        script = ["false"]

        [[jobs]]
        name = "later"
        script = ["true"]
    """)
    assert taskscaler.run_jobs("--fail-fast", path).returncode == 1
    assert taskscaler.states() == {"endless": "canceled", "bad": "failed", "later": "canceled"}


def test_uploads_and_downloads(taskscaler: Command) -> None:
    """Uploads keep their paths; downloads are in a directory with the name of the job."""
    folder = taskscaler.folder
    (folder / "src/lib").mkdir(parents=True)
    (folder / "src/lib/code.txt").write_text("code")
    (folder / "input.txt").write_bytes(b"line\n\xff" * 100_000)
    path = taskscaler.file("""
        [[jobs]]
        name = "build"
        script = ["mkdir -p dist/sub", "cat src/lib/code.txt > dist/sub/a", "cat > dist/b"]
        upload = ["src/**"]
        download = ["dist/*", { from = "dist/b", to = "out" }]
        stdin = "input.txt"

        [[jobs]]
        name = "failing"
        script = ["echo partial > log", "exit 1"]
        download = ["log", "nothing/*"]
    """)
    done = taskscaler.run_jobs(path)
    assert done.returncode == 1
    assert (folder / "build/dist/sub/a").read_text() == "code"
    assert (folder / "build/dist/b").read_bytes() == (folder / "input.txt").read_bytes()
    assert (folder / "out/dist/b").read_bytes() == (folder / "input.txt").read_bytes()
    assert (folder / "failing/log").read_text() == "partial\n"
    assert "warning: download 'nothing/*': no files match" in done.stderr


def test_job_leaves_nothing_for_the_next_one(taskscaler: Command) -> None:
    """Two jobs on one slot find the same empty home directory."""
    script = "ls -A; ls -A ~ | grep -c taskscaler"
    done = taskscaler.run_jobs("--count", "2", "--max-instances", "1", "--", "sh", "-c", script)
    assert sorted(done.stdout.splitlines()) == ["command#1 | 1", "command#2 | 1"]


def test_instance_is_replaced_after_its_last_use(taskscaler: Command) -> None:
    """With `--max-use-count 1` no two jobs share an instance."""
    done = taskscaler.run_jobs(
        "--count", "3", "--max-instances", "2", "--max-use-count", "1", "--", "true"
    )
    assert done.returncode == 0
    report = taskscaler.reported()
    assert len({job["instance"] for job in report["jobs"]}) == 3
    assert [instance["tasks_run"] for instance in report["instances"]] == [1, 1, 1]


@pytest.mark.long
def test_thousand_jobs(taskscaler: Command) -> None:
    """A thousand jobs on sixteen slots of two instances all succeed."""
    done = taskscaler.run_jobs(
        "--count", "1000", "--capacity-per-instance", "8", "--max-instances", "2", "--", "true"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = taskscaler.reported()
    assert report["summary"]["success"] == 1000
    assert sum(instance["tasks_run"] for instance in report["instances"]) == 1000
    assert len(report["instances"]) == 2


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the peak of a process")
def test_large_output_takes_little_memory(taskscaler: Command) -> None:
    """Two hundred megabytes of output arrive unchanged and are not kept in memory."""
    size = 200_000_000
    process = taskscaler.start("--", "sh", "-c", f"head -c {size} /dev/zero")
    assert process.stdout is not None
    digest, total, peak = hashlib.sha256(), 0, 0
    # The usage of an ended child process would include the peak of this process.
    status = Path(f"/proc/{process.pid}/status")
    while data := process.stdout.read(1 << 20):
        total += len(data)
        digest.update(data)
        if found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text()):
            peak = int(found[1])
    assert process.wait() == 0
    assert total == size
    assert digest.digest() == hashlib.sha256(bytes(size)).digest()
    assert 0 < peak < 200_000  # kibibytes; the interpreter and its libraries take 60,000


def test_closed_output_ends_the_run(taskscaler: Command) -> None:
    """When `| head` closes the output, the run ends without a traceback and without instances."""
    process = taskscaler.start("--", "yes")
    head = subprocess.run(
        ["/usr/bin/env", "head", "-n", "1"], stdin=process.stdout, capture_output=True, check=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert head.stdout == b"y\n"
    assert process.stderr is not None
    messages = process.stderr.read().decode()
    assert process.wait() == 130
    assert "Traceback" not in messages
    assert taskscaler.states() == {"command": "canceled"}
