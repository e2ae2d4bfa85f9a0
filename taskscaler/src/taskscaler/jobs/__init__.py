"""Jobs: tasks with a script. Reading them, running them, and telling what became of them."""

from __future__ import annotations

from taskscaler.jobs.executor import Executor, JobStreams, Outcome
from taskscaler.jobs.file import Download, Job, JobRun, JobsFile, check_job, expand, read_jobs_file
from taskscaler.jobs.journal import Journal, clear_journal
from taskscaler.jobs.output import JobOutput, OutputMode, Stream, Writer, output_factory
from taskscaler.jobs.report import Report, check_writable, write_report
from taskscaler.jobs.result import JobResult, JobState, describe_exit
from taskscaler.jobs.runner import JobRunner, Observer

__all__ = (
    "Download",
    "Executor",
    "Job",
    "JobOutput",
    "JobResult",
    "JobRun",
    "JobRunner",
    "JobState",
    "JobStreams",
    "JobsFile",
    "Journal",
    "Observer",
    "Outcome",
    "OutputMode",
    "Report",
    "Stream",
    "Writer",
    "check_job",
    "check_writable",
    "clear_journal",
    "describe_exit",
    "expand",
    "output_factory",
    "read_jobs_file",
    "write_report",
)
