"""The report, the exit code, and how an end is put into words."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from fleeting.errors import ConfigError
from taskscaler.cli.session import exit_code
from taskscaler.jobs import (
    JobResult,
    JobState,
    Report,
    check_writable,
    describe_exit,
    write_report,
)

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_report_replaces_the_older_one(tmp_path: Path) -> None:
    """The whole object is there under its name, and no other file is."""
    path = tmp_path / "report.json"
    path.write_text("old")
    result = JobResult("a", queued_at=NOON)
    result.finish(JobState.CANCELED, "interrupted")
    write_report(path, Report([result], [], NOON, NOON, exit_code=130))
    report = json.loads(path.read_text())
    assert set(report) == {"jobs", "instances", "summary"}
    assert report["jobs"][0]["wait_seconds"] is None
    assert report["summary"]["canceled"] == report["summary"]["total"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_report_that_cannot_be_written_is_noticed_before(tmp_path: Path) -> None:
    """A folder that is missing, or a folder in the file's place, is the user's to mend."""
    for path in (tmp_path, tmp_path / "missing" / "report.json"):
        with pytest.raises(ConfigError, match="--report"):
            check_writable(path)
    check_writable(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "signal", "expected"),
    [
        (3, None, "exit code 3"),
        (137, None, "exit code 137, as of a command ended by signal KILL"),
        (255, None, "exit code 255"),
        (None, "TERM", "ended by signal TERM"),
        (None, None, "ended for an unknown reason"),
    ],
)
def test_end_of_a_script_in_words(status: int | None, signal: str | None, expected: str) -> None:
    """A signal is named, also when the script's shell has hidden it in its exit code."""
    assert describe_exit(status, signal) == expected


@pytest.mark.parametrize(
    ("states", "interrupted", "wrong", "infrastructure", "expected"),
    [
        ("success", False, False, False, 0),
        ("success failed", False, False, False, 1),
        ("success timed_out", False, False, False, 1),
        ("canceled", False, False, False, 1),
        ("failed system_failure", False, False, False, 3),
        ("success", False, False, True, 3),
        ("system_failure", False, True, True, 2),
        ("system_failure", True, True, True, 130),
    ],
)
def test_exit_code_that_wins(
    states: str,
    interrupted: bool,  # noqa: FBT001 -- as above
    wrong: bool,  # noqa: FBT001 -- as above
    infrastructure: bool,  # noqa: FBT001 -- as above
    expected: int,
) -> None:
    """Where several hold, it is 130, then 2, then 3, then 1."""
    found = exit_code(
        [JobState(state) for state in states.split()],
        interrupted=interrupted,
        wrong_input=wrong,
        infrastructure=infrastructure,
    )
    assert found == expected


def test_report_replaces_no_device(tmp_path: Path) -> None:
    """A pipe or a device in the file's place is refused, and stays what it is."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="pipe or a device"):
        check_writable(pipe)
    assert pipe.is_fifo()


def test_report_through_a_link_leaves_the_link(tmp_path: Path) -> None:
    """What a link leads to is written, and the link stays one."""
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "report.json")
    write_report(link, Report([], [], NOON, NOON, exit_code=0))
    assert link.is_symlink()
    assert json.loads((tmp_path / "report.json").read_text())["summary"]["total"] == 0
