"""The report, the exit code, and the description of an exit status."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Self

import pytest
from typing_extensions import override

from fleeting.errors import ConfigError
from taskscaler.core import JobRecord
from taskscaler.jobs.report import RunReport, check_report_path, exit_code, write_report
from taskscaler.jobs.result import JobResult, JobState, describe_exit, restore

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_report_replaces_an_older_one(tmp_path: Path) -> None:
    """The complete object is in the file, and no temporary file is left."""
    path = tmp_path / "report.json"
    path.write_text("old")
    result = JobResult("a", queued_at=NOON)
    result.finish(JobState.CANCELED, "interrupted")
    write_report(path, RunReport([result], [], NOON, NOON, exit_code=130, seconds=1.0))
    report = json.loads(path.read_text())
    assert set(report) == {"jobs", "instances", "summary"}
    assert report["jobs"][0]["wait_seconds"] is None
    assert report["summary"]["canceled"] == report["summary"]["total"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_report_path_is_an_error(tmp_path: Path) -> None:
    """A missing directory, or a directory in the place of the file, is reported before the run."""
    for path in (tmp_path, tmp_path / "missing" / "report.json"):
        with pytest.raises(ConfigError, match="--report"):
            check_report_path(path)
    check_report_path(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "signal", "expected"),
    [
        (3, None, "exit code 3"),
        (137, None, "exit code 137 (128 + signal KILL)"),
        (255, None, "exit code 255"),
        (None, "TERM", "terminated by signal TERM"),
        (None, None, "ended for an unknown reason"),
    ],
)
def test_description_of_an_exit(status: int | None, signal: str | None, expected: str) -> None:
    """A signal is named, even when the shell has turned it into an exit code."""
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
def test_precedence_of_exit_codes(
    states: str,
    interrupted: bool,  # noqa: FBT001 -- as above
    wrong: bool,  # noqa: FBT001 -- as above
    infrastructure: bool,  # noqa: FBT001 -- as above
    expected: int,
) -> None:
    """If several apply, it is 130, then 2, then 3, then 1."""
    found = exit_code(
        [JobState(state) for state in states.split()],
        interrupted=interrupted,
        wrong_input=wrong,
        infrastructure=infrastructure,
    )
    assert found == expected


def test_report_replaces_no_device(tmp_path: Path) -> None:
    """A pipe or a device in the place of the file is refused and not replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="pipe or a device"):
        check_report_path(pipe)
    assert pipe.is_fifo()


def test_report_through_a_link_of_the_user_keeps_the_link(tmp_path: Path) -> None:
    """The target of a symbolic link is written, and the link is kept."""
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "report.json")
    report = RunReport([], [], NOON, NOON, exit_code=0, seconds=1.0)
    write_report(check_report_path(link), report)
    assert link.is_symlink()
    assert json.loads((tmp_path / "report.json").read_text())["summary"]["total"] == 0


def test_a_link_that_a_job_downloads_does_not_redirect_the_report(tmp_path: Path) -> None:
    """A link that arrives during the run is replaced, and its target is not touched."""
    path = check_report_path(tmp_path / "report.json")
    (tmp_path / "report.json").symlink_to(tmp_path / "outside")
    write_report(path, RunReport([], [], NOON, NOON, exit_code=0, seconds=1.0))
    assert not (tmp_path / "outside").exists()
    assert json.loads(path.read_text())["summary"]["total"] == 0


def test_text_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    """Whatever a plugin reports, the report is written and can be read."""
    path = tmp_path / "report.json"
    result = JobResult("a", instance="i-\udcff", reason="é")
    write_report(path, RunReport([result], [], NOON, NOON, exit_code=3, seconds=1.0))
    (job,) = json.loads(path.read_text())["jobs"]
    assert (job["instance"], job["reason"]) == ("i-\udcff", "é")


def test_durations_do_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the clock is set back by an hour, a job still took a positive time."""

    class SetBack(datetime):
        hours = 12

        @classmethod
        @override
        def now(cls, tz: tzinfo | None = None) -> Self:
            cls.hours -= 1
            return cls(2026, 1, 1, cls.hours, tzinfo=tz)

    monkeypatch.setattr("taskscaler.jobs.result.datetime", SetBack)
    result = JobResult("a")
    result.start()
    result.finish(JobState.SUCCESS)
    assert result.started_at is not None
    assert result.finished_at is not None
    assert result.finished_at < result.started_at < result.queued_at
    assert 0 <= (result.wait_seconds or 0) < 60
    assert 0 <= (result.run_seconds or 0) < 60


def test_duration_of_an_earlier_call_does_not_follow_the_wall_clock() -> None:
    """The journal has it as well as the times, which may contradict each other."""
    record = JobRecord(
        "a", "", "success", 1, started_at=NOON, finished_at=NOON - timedelta(hours=1), ran_seconds=2
    )
    earlier = JobResult("a", earlier=True)
    restore(earlier, record)
    assert earlier.run_seconds == 2
