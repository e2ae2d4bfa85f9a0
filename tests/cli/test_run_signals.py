"""Signals that `taskscaler run` gets: what lets jobs finish, and what comes after the jobs."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from fleeting.testing import FakeConfig, FakeProvider
from fleeting.types import ConnectorSettings
from taskscaler import Settings
from taskscaler.cli.plan import GroupPlan, Plan
from taskscaler.cli.session import run_session
from taskscaler.jobs.job import Job, expand
from taskscaler.jobs.output import OutputMode
from taskscaler.jobs.report import write_report

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cli_command import Command
    from taskscaler.jobs.report import RunReport

UNTIL_WRITTEN = """
[autoscaler]
max_instances = 1
[[jobs]]
name = "first"
script = ["echo up; cat {fifo}"]
[[jobs]]
name = "second"
script = ["true"]
"""


def plan_of(folder: Path, provider: FakeProvider) -> Plan:
    """Return a plan of two jobs on an instance that never boots, with a timeout of 0.2 s."""
    group = GroupPlan(
        name="1",
        provider=provider,
        plugin_config=FakeConfig(boot_updates=None),
        connector=ConnectorSettings(),
    )
    interval = timedelta(seconds=0.02)
    return Plan(
        runs=expand([Job(name="job", script=["true"], count=2)], folder, where="test"),
        groups=(group,),
        settings=Settings(
            max_instances=1,
            update_interval_when_expecting=interval,
            delete_instances_on_shutdown=True,
        ),
        acquire_timeout=timedelta(minutes=1),
        output=OutputMode.PREFIX,
        report=None,
        keep_going=True,
        timeout=timedelta(seconds=0.2),
    )


def wait_for(process: subprocess.Popen[bytes], stream: str, text: bytes) -> None:
    """Read a stream of the command until a line contains the text."""
    pipe = getattr(process, stream)
    assert any(text in line for line in pipe), f"{text!r} never came"


def test_quit_lets_running_jobs_finish(taskscaler: Command, fifo: Path) -> None:
    """SIGQUIT is the first Ctrl-C, and repeating it cancels nothing."""
    process = taskscaler.start(taskscaler.file(UNTIL_WRITTEN.format(fifo=fifo)))
    wait_for(process, "stdout", b"first | ")
    process.send_signal(signal.SIGQUIT)
    wait_for(process, "stderr", b"no more jobs will start")
    process.send_signal(signal.SIGQUIT)
    fifo.write_text("go on\n")
    assert process.wait() == 130
    assert taskscaler.states() == {"first": "success", "second": "canceled"}


def test_quit_after_which_the_run_is_cancelled(taskscaler: Command, fifo: Path) -> None:
    """After SIGQUIT, a Ctrl-C is the second one."""
    process = taskscaler.start(taskscaler.file(UNTIL_WRITTEN.format(fifo=fifo)))
    wait_for(process, "stdout", b"first | ")
    process.send_signal(signal.SIGQUIT)
    wait_for(process, "stderr", b"no more jobs will start")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert taskscaler.states() == {"first": "canceled", "second": "canceled"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_signal_while_the_report_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """A signal after the jobs loses neither the report nor the summary."""
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path / "locks"))

    def interrupted(path: Path, report: RunReport) -> None:
        signal.raise_signal(number)
        write_report(path, report)

    monkeypatch.setattr("taskscaler.cli.session.write_report", interrupted)
    report = tmp_path / "report.json"
    plan = replace(plan_of(tmp_path, FakeProvider()), report=report)
    assert run_session(plan) in {3, 130}
    assert json.loads(report.read_text())["summary"]["total"] == 2
    assert "2 jobs: " in capfd.readouterr().err
