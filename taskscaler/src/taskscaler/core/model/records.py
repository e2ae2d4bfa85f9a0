"""The records that must survive a restart; a store keeps the newest of each key."""

from __future__ import annotations

from datetime import datetime

import msgspec

from fleeting.types import ConnectInfo
from taskscaler.core.model.decisions import Rule

__all__ = (
    "ConnectRecord",
    "GroupRecord",
    "InstanceRecord",
    "JobRecord",
    "OperationRecord",
    "QueueRecord",
    "Record",
    "ThrottleRecord",
    "TombstoneRecord",
)


class InstanceRecord(msgspec.Struct, frozen=True, gc=False, tag="instance"):
    """An instance that is ours.

    Attributes:
        group: the id of its group.
        id: its id there.
        incarnation: tells it from a later machine of the same id; None if not known.
        created_at: when it was first seen.
        used: how many tasks were started on it.
        tasks: the keys of those that hold a slot on it.
        rule: the rule by which it was dismissed; None if it was not.
        reason: the same as a human-readable sentence.
        ready_at: when it first became ready; None if it never did.
        suspended: the keys of tasks that are suspended on it, each with its slot and the
            time of its suspension.
    """

    group: str
    id: str
    incarnation: str | None
    created_at: datetime
    used: int
    tasks: tuple[str, ...]
    rule: Rule | None = None
    reason: str = ""
    ready_at: datetime | None = None
    suspended: tuple[tuple[str, int, datetime], ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the key; a newer record with the same key replaces this one."""
        return ("instance", self.group, self.id)


class OperationRecord(msgspec.Struct, frozen=True, gc=False, tag="operation"):
    """An increase that was requested, or is about to be, and is not settled yet.

    Attributes:
        group: the id of the group.
        id: its unique name.
        count: how many instances it is still expected to bring.
        asked_at: when it was decided.
        strangers: ids of the foreign instances that existed before it: after a restart, they
            must not be taken for the instances that it created.
        seen: how many of its instances have been seen.
        unlikely: how many more may come, although nothing waits for them.
        answered: whether the provider has said how many come.
    """

    group: str
    id: str
    count: int
    asked_at: datetime
    strangers: tuple[str, ...] = ()
    seen: int = 0
    unlikely: int = 0
    answered: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the key; a newer record with the same key replaces this one."""
        return ("operation", self.group, self.id)


class TombstoneRecord(msgspec.Struct, frozen=True, gc=False, tag="tombstone"):
    """An instance that was ours and was given up; if it comes back, it is ours.

    Attributes:
        group: the id of its group.
        id: its id there.
        incarnation: tells it from a later machine of the same id; None if not known.
        at: when it was given up.
    """

    group: str
    id: str
    incarnation: str | None
    at: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the key; a newer record with the same key replaces this one."""
        return ("tombstone", self.group, self.id)


class GroupRecord(msgspec.Struct, frozen=True, gc=False, tag="group"):
    """The pauses of a group after failures.

    Attributes:
        group: its id.
        failures: failures to create in a row.
        paused_until: no further attempt before this time.
        passed_over_until: other groups are preferred until this time.
        reason: the last failure, human-readable.
        quota: whether other groups are preferred because its quota is used up.
        doubted_until: when it may be tried again after it delivered nothing; None if it did.
    """

    group: str
    failures: int
    paused_until: datetime
    passed_over_until: datetime
    reason: str
    quota: bool = False
    doubted_until: datetime | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the key; a newer record with the same key replaces this one."""
        return ("group", self.group, "")


class ThrottleRecord(msgspec.Struct, frozen=True, gc=False, tag="throttle"):
    """How many instances were created lately, over all groups.

    Attributes:
        full_at: when the token bucket is full again.
    """

    full_at: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the key; a newer record with the same key replaces this one."""
        return ("throttle", "", "")


class ConnectRecord(msgspec.Struct, frozen=True, gc=False, tag="connect"):
    """How to connect to an instance, with host keys and credentials. Used by the runtime.

    It holds secrets: a store that writes it anywhere must encrypt it.

    Attributes:
        group: the id of its group.
        id: its id there.
        incarnation: of that instance; None if not known.
        info: as the provider returned it, with the host keys that were seen.
    """

    group: str
    id: str
    incarnation: str | None
    info: ConnectInfo

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the key; a newer record with the same key replaces this one."""
        return ("connect", self.group, self.id)


class JobRecord(msgspec.Struct, frozen=True, gc=False, tag="job"):
    """One run of a job. Used by the job runner.

    Attributes:
        name: the run's, unique in its file.
        digest: of everything that defines the job; with another digest it is another job.
        state: as in a report: `waiting` for another attempt, `running`, or how it ended.
        attempts: how many were started.
        status: its exit status; None if it has none.
        signal: the signal that ended it; None without one.
        reason: human-readable; empty for an ordinary end.
        group: the id of the group of `instance`; empty without one.
        instance: the id of the instance where it ran last; empty without one.
        slot: the slot on that instance; None without one.
        started_at: when its last attempt began.
        finished_at: when it ended; None while it runs.
        warnings: problems that did not change the state.
        ran_seconds: how long its last attempt took, whatever the wall clock did meanwhile.
    """

    name: str
    digest: str
    state: str
    attempts: int
    status: int | None = None
    signal: str | None = None
    reason: str = ""
    group: str = ""
    instance: str = ""
    slot: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    ran_seconds: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the key; a newer record with the same key replaces this one."""
        return ("job", "", self.name)


class QueueRecord(msgspec.Struct, frozen=True, gc=False, tag="queue"):
    """The jobs of one call of the command, and how many run at a time. Used by the job runner.

    The runs that wait for their turn follow from this and from the records of the jobs, so it
    changes only with the limit.

    Attributes:
        jobs: the name, the number of runs and the digest of each job, in order; cut off if
            there are too many.
        more: how many runs the jobs that are cut off have.
        workers: how many runs may hold or ask for a slot at a time; 0 if no more start.
        why: what limits them, human-readable; empty without a limit.
    """

    jobs: tuple[tuple[str, int, str], ...]
    more: int
    workers: int
    why: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Return the key; a newer record with the same key replaces this one."""
        return ("queue", "", "")


Record = (
    InstanceRecord
    | OperationRecord
    | TombstoneRecord
    | GroupRecord
    | ThrottleRecord
    | ConnectRecord
    | JobRecord
    | QueueRecord
)
