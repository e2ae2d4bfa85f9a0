"""What became of a job's run."""

from __future__ import annotations

import enum
import signal as signals
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskscaler.core import JobRecord

__all__ = ("JobResult", "JobState", "describe_exit", "restored")

# A shell whose command was ended by signal N exits with 128 + N itself.
_SHELL_SIGNAL_BASE = 128


class JobState(enum.Enum):
    """How a run stands. `WAITING` and `RUNNING` are followed by one of the others.

    `FAILED` is the script's own doing; `SYSTEM_FAILURE` is not: the
    infrastructure failed, and another attempt may succeed.
    """

    WAITING = "waiting"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"
    SYSTEM_FAILURE = "system_failure"

    @property
    def is_final(self) -> bool:
        """Return whether nothing more becomes of it."""
        return self not in (JobState.WAITING, JobState.RUNNING)


@dataclass(slots=True)
class JobResult:
    """What is known of a run; filled in as it proceeds.

    Attributes:
        name: of the run.
        state: how it stands.
        reason: why it stands so, for people; None if there is nothing to say.
        exit_code: of the script; None if it did not end by itself.
        signal: what ended the script, without `SIG`; None if nothing did.
        attempts: how often it got a slot.
        group: the id of the group of `instance`.
        instance: where the last attempt ran.
        slot: on that instance.
        queued_at: when it began to wait.
        started_at: when its last attempt got a slot.
        finished_at: when its state became final.
        warnings: what went wrong without changing the state.
        earlier: whether its last attempt was that of an earlier call of the command, so that
            this one only tells of it.
    """

    name: str
    state: JobState = JobState.WAITING
    reason: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    attempts: int = 0
    group: str | None = None
    instance: str | None = None
    slot: int | None = None
    queued_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    finished_at: datetime | None = None
    warnings: list[str] = field(default_factory=list[str])
    earlier: bool = False

    @property
    def wait_seconds(self) -> float | None:
        """Return how long it waited until its last attempt; None if it never got a slot.

        That of an earlier call is not known.
        """
        if self.started_at is None or self.earlier:
            return None
        return (self.started_at - self.queued_at).total_seconds()

    @property
    def run_seconds(self) -> float | None:
        """Return how long its last attempt took; None if there was none, or it still runs."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    def finish(self, state: JobState, reason: str | None = None) -> None:
        """Make the state final, now."""
        self.state, self.reason, self.finished_at = state, reason, datetime.now(UTC)


def restored(result: JobResult, record: JobRecord) -> None:
    """Put into a result what an earlier call of the command wrote down."""
    result.state = JobState(record.state)
    result.reason = record.reason or None
    result.exit_code, result.signal = record.status, record.signal
    result.attempts = record.attempts
    result.group, result.instance = record.group or None, record.instance or None
    result.slot = record.slot
    if result.state is not JobState.WAITING:
        # That of an attempt which was spoilt says nothing about the wait for the next.
        result.started_at, result.finished_at = record.started_at, record.finished_at
    result.warnings = list(record.warnings)


def describe_exit(status: int | None, signal: str | None) -> str:
    """Say in words how a script ended that did not succeed; every signal is named."""
    if signal is not None:
        return f"ended by signal {signal}"
    if status is None:
        return "ended for an unknown reason"
    if status > _SHELL_SIGNAL_BASE:
        try:
            name = signals.Signals(status - _SHELL_SIGNAL_BASE).name.removeprefix("SIG")
        except ValueError:
            pass
        else:
            return f"exit code {status}, as of a command ended by signal {name}"
    return f"exit code {status}"
