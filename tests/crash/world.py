"""The jobs and instances of the crash tests: jobs write a log, instances outlive the manager."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

MAX_USE_COUNT = 4
JOBS = 16

# Used in a jobs file and in a `config.toml`.
AUTOSCALER = """
[{table}]
plugin = "local"
capacity_per_instance = 2
max_instances = 3
max_use_count = {uses}
update_interval_when_expecting = "200ms"
delete_instances_on_shutdown = true

[{table}.plugin_config]
root = "{root}"
persistent = true
boot_delay = "100ms"
"""
RUNNER = """
[[runners]]
name = "crash"
{autoscaler}
[runners.autoscaler.extensions]
id = "crash"

[runners.autoscaler.state_storage]
keep_instance_with_acquisitions = {keep}
"""
JOB = """
[[jobs]]
name = "{name}"
retries = {retries}
download = ["out"]
script = [
    "echo start {name} $HOME >> {log}",
    "sleep {seconds}",
    "echo {name} > out",
    "echo end {name} $HOME >> {log}",
    "exit {status}",
]
"""


@dataclass(frozen=True, slots=True)
class Crashed:
    """A job of a set.

    Attributes:
        name: the job's.
        retries: of the job.
        status: the exit status of its script.
    """

    name: str
    retries: int
    status: int


class JobSet:
    """A set of jobs with its own directory, completed by one or more calls of the command."""

    def __init__(self, folder: Path, random: Random, number: int) -> None:
        self.folder = folder / f"set{number}"
        self.folder.mkdir()
        self.log = self.folder / "log"
        self.log.touch()
        self.report = self.folder / "report.json"
        self.jobs = {
            f"job{number}-{index}": Crashed(
                f"job{number}-{index}",
                retries=random.choice((0, 0, 1, 20)),
                status=random.choice((0, 0, 0, 3)),
            )
            for index in range(JOBS)
        }
        # None configures the autoscaler in the jobs file, otherwise in a config.toml.
        self.keep = random.choice((None, "true", "false"))
        table = AUTOSCALER.format(
            table="autoscaler" if self.keep is None else "runners.autoscaler",
            uses=MAX_USE_COUNT,
            root=folder / "root",
        )
        if self.keep is not None:
            text = RUNNER.format(autoscaler=table, keep=self.keep)
            (self.folder / "config.toml").write_text(text)
            table = ""
        jobs = [
            JOB.format(
                name=job.name,
                retries=job.retries,
                log=self.log,
                seconds=round(random.uniform(0, 0.4), 2),
                status=job.status,
            )
            for job in self.jobs.values()
        ]
        (self.folder / "jobs.toml").write_text(table + "".join(jobs))

    def words(self) -> list[str]:
        """Return the options of the command, without those for the state."""
        config = [] if self.keep is None else ["--config", str(self.folder / "config.toml")]
        return [*config, "--report", str(self.report), str(self.folder / "jobs.toml")]

    def traces(self, kind: str) -> list[tuple[str, str]]:
        """Return the job's name and the instance's home for each start, or end, of a script."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(name, home) for found, name, home in lines if found == kind]

    def starts(self) -> Counter[str]:
        """Return how often each job's script was started."""
        return Counter(name for name, _ in self.traces("start"))


def processes(text: Path) -> list[int]:
    """Return the processes that have a path in their command line or environment."""
    wanted = os.fsencode(text)
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            facts = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if wanted in facts:
            found.append(int(folder.name))
    return found
