"""Runs the real `taskscaler` command: in this process, or as a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskscaler.cli import main

PROGRAM = str(Path(sys.executable).with_name("taskscaler"))
# Long enough for a slow computer; a test that passes never waits so long.
DEADLINE_SECONDS = 60


class Command:
    """The `taskscaler` command of this environment, with a directory of its own.

    Args:
        folder: where the command is run.
        output: captures what it prints in this process; without it, `run` starts a process.
    """

    def __init__(self, folder: Path, output: pytest.CaptureFixture[str] | None = None) -> None:
        self.folder = folder
        self._output = output
        self.report = folder / "report.json"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start `taskscaler run` with a report as a process, with its output in pipes."""
        process = subprocess.Popen(
            [PROGRAM, "run", "--report", self.report, *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(process)
        return process

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command in this process, which takes half as long as a process of its own."""
        if self._output is None:
            return self.run_process(*words)
        arguments = ["taskscaler", *(str(word) for word in words)]
        self._output.readouterr()
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(self.folder):
            patch.setattr(sys, "argv", arguments)
            # A process of its own knows no secret of an earlier one.
            patch.setattr("fleeting._secrets._lasting", set[str]())
            patch.setattr("fleeting._secrets._settings", set[str]())
            with pytest.raises(SystemExit) as ended:
                main()
        printed = self._output.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, *printed)

    def run_process(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command as a process of its own."""
        return subprocess.run(
            [PROGRAM, *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def run_jobs(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `taskscaler run` with a report, in this process."""
        return self.run("run", "--report", self.report, *words)

    def file(self, text: str) -> Path:
        """Write a jobs file."""
        path = self.folder / "jobs.toml"
        path.write_text(text)
        return path

    def reported(self) -> dict[str, Any]:
        """Return the report; check that every instance in it was removed."""
        report: dict[str, Any] = json.loads(self.report.read_text())
        assert all(instance["removed_at"] for instance in report["instances"])
        return report

    def states(self) -> dict[str, str]:
        """Return the state of each job, by name."""
        return {job["name"]: job["state"] for job in self.reported()["jobs"]}

    def close(self) -> None:
        """End the processes that a failed test has left."""
        for process in self._started:
            process.kill()
            process.communicate()
