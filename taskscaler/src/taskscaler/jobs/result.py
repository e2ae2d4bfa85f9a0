"""The state and the result of a run of a job."""

from __future__ import annotations

import enum
import signal as signals
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskscaler.core import JobRecord

__all__ = ("JobResult", "JobState", "describe_exit", "restore")

# A shell whose last command was terminated by signal N exits with status 128 + N.
_SHELL_SIGNAL_BASE = 128


class JobState(enum.Enum):
    """The state of a run: `WAITING` and `RUNNING`, then one of the final states.

    `FAILED` means that the script failed. `SYSTEM_FAILURE` means that the infrastructure
    failed; another attempt may succeed.
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
        """Return whether the state can no longer change."""
        return self not in (JobState.WAITING, JobState.RUNNING)


@dataclass(slots=True)
class JobResult:
    """The result of a run; filled in while the run proceeds.

    Times are shown by the wall clock, which may be set at any moment; durations are measured by
    a clock that only goes forward.

    Attributes:
        name: of the run.
        state: of the run.
        reason: a human-readable reason for the state; None if there is none.
        exit_code: of the script; None if the script did not exit.
        signal: the signal that terminated the script, without `SIG`; None if none did.
        attempts: how often the run got a slot.
        group: the id of the group of `instance`.
        instance: the id of the instance of the last attempt.
        slot: the number of the slot on that instance.
        queued_at: when it began to wait.
        started_at: when its last attempt got a slot.
        finished_at: when its state became final.
        warnings: problems that did not change the state.
        earlier: whether the last attempt belongs to an earlier call of the command, and this
            call only reports it.
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
    _queued: float = field(default_factory=time.monotonic, repr=False)
    _started: float | None = field(default=None, repr=False)
    _finished: float | None = field(default=None, repr=False)
    _ran: float | None = field(default=None, repr=False)

    @property
    def wait_seconds(self) -> float | None:
        """Return how long it waited for its last attempt.

        None if it never got a slot, or if an earlier call ran it: then it is not known.
        """
        if self._started is None or self.earlier:
            return None
        return self._started - self._queued

    @property
    def run_seconds(self) -> float | None:
        """Return how long its last attempt took; None if there was none, or it has not ended.

        That of an earlier call is known from its journal.
        """
        if self._started is not None and self._finished is not None:
            return self._finished - self._started
        return self._ran

    def start(self) -> None:
        """Set the current time as the start of an attempt."""
        self.started_at, self._started = datetime.now(UTC), time.monotonic()

    def finish(self, state: JobState, reason: str | None = None) -> None:
        """Set a final state, and the current time as the time of the end."""
        self.state, self.reason = state, reason
        self.finished_at, self._finished = datetime.now(UTC), time.monotonic()


def restore(result: JobResult, record: JobRecord) -> None:
    """Fill a result from the record that an earlier call of the command wrote."""
    result.state = JobState(record.state)
    result.reason = record.reason or None
    result.exit_code, result.signal = record.status, record.signal
    result.attempts = record.attempts
    result.group, result.instance = record.group or None, record.instance or None
    result.slot = record.slot
    if result.state is not JobState.WAITING:
        # A waiting run will be attempted again, which sets both times.
        result.started_at, result.finished_at = record.started_at, record.finished_at
        result._ran = record.ran_seconds  # noqa: SLF001 -- the same module
    result.warnings = list(record.warnings)


def describe_exit(status: int | None, signal: str | None) -> str:
    """Return how a script that did not succeed ended, for an operator to read.

    Signals are named, even if the shell has turned them into an exit status.
    """
    if signal is not None:
        return f"terminated by signal {signal}"
    if status is None:
        return "ended for an unknown reason"
    if status > _SHELL_SIGNAL_BASE:
        try:
            name = signals.Signals(status - _SHELL_SIGNAL_BASE).name.removeprefix("SIG")
        except ValueError:
            pass
        else:
            return f"exit code {status} (128 + signal {name})"
    return f"exit code {status}"
