"""Runs the real `taskscaler` command, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# Long enough for a slow machine; nothing that goes well waits for it.
DEADLINE_SECONDS = 60


class Command:
    """The `taskscaler` command of this environment, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = folder / "report.json"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start `taskscaler run` with a report; its output comes through pipes."""
        process = subprocess.Popen(
            [self.program, "run", "--report", self.report, *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(process)
        return process

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command, with these words alone, to its end."""
        return subprocess.run(
            [self.program, *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def run_jobs(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `taskscaler run` with a report to its end."""
        return self.run("run", "--report", self.report, *words)

    def file(self, text: str) -> Path:
        """Write a jobs file."""
        path = self.folder / "jobs.toml"
        path.write_text(text)
        return path

    def reported(self) -> dict[str, Any]:
        """Return the report; every instance in it must have been removed."""
        report: dict[str, Any] = json.loads(self.report.read_text())
        assert all(instance["removed_at"] for instance in report["instances"])
        return report

    def states(self) -> dict[str, str]:
        """Return the state of each job, by its name."""
        return {job["name"]: job["state"] for job in self.reported()["jobs"]}

    @property
    def program(self) -> str:
        """Return the path of the command."""
        return str(Path(sys.executable).with_name("taskscaler"))

    def close(self) -> None:
        """End what a failed test has left behind."""
        for process in self._started:
            process.kill()
            process.communicate()
