"""What must survive a restart, as frozen values; a store keeps the newest of each key."""

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
    "Record",
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
        rule: why it is to go; None as long as it is not.
        reason: the same in words.
        ready_at: when it first became ready; None if it never did.
        suspended: the keys of tasks that are suspended on it, each with its slot and
            since when.
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
        """Return what a newer record of the same thing replaces."""
        return ("instance", self.group, self.id)


class OperationRecord(msgspec.Struct, frozen=True, gc=False, tag="operation"):
    """An increase that was asked for, or is about to be, and is not settled yet.

    Attributes:
        group: the id of the group.
        id: names the operation for ever.
        count: how many instances may still come of it.
        asked_at: when it was decided.
        strangers: the ids of the instances that were there before, and are not ours: no
            later life of the scaler may take them for what came of this.
    """

    group: str
    id: str
    count: int
    asked_at: datetime
    strangers: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what a newer record of the same thing replaces."""
        return ("operation", self.group, self.id)


class TombstoneRecord(msgspec.Struct, frozen=True, gc=False, tag="tombstone"):
    """An instance that was ours and was given up; should it come back, it is still ours.

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
        """Return what a newer record of the same thing replaces."""
        return ("tombstone", self.group, self.id)


class GroupRecord(msgspec.Struct, frozen=True, gc=False, tag="group"):
    """What a group did to us that is not to be tried again at once.

    Attributes:
        group: its id.
        failures: how many failures to create in a row.
        paused_until: no further try before this time.
        passed_over_until: other groups are preferred until this time.
        reason: the last failure, for people.
    """

    group: str
    failures: int
    paused_until: datetime
    passed_over_until: datetime
    reason: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what a newer record of the same thing replaces."""
        return ("group", self.group, "")


class ConnectRecord(msgspec.Struct, frozen=True, gc=False, tag="connect"):
    """How an instance was reached, with its host keys and credentials; of the shell, not the core.

    It holds secrets: a store that writes it anywhere seals it.

    Attributes:
        group: the id of its group.
        id: its id there.
        incarnation: of the instance that it is about; None if not known.
        info: as the provider gave it, with the host keys that were seen.
    """

    group: str
    id: str
    incarnation: str | None
    info: ConnectInfo

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what a newer record of the same thing replaces."""
        return ("connect", self.group, self.id)


class JobRecord(msgspec.Struct, frozen=True, gc=False, tag="job"):
    """What is known of one run of a job; of the job runner, not the core.

    Attributes:
        name: the run's, unique in its file.
        digest: of everything that defines the job; another one is another job.
        state: in the words of a report: `waiting` for another attempt, `running`, or how
            it ended.
        attempts: how many were begun.
        status: its exit status; None if it has none.
        signal: what ended it; None if nothing did.
        reason: for people; empty for the ordinary.
        group: the id of the group of `instance`; empty without one.
        instance: the id of that where it ran last; empty if nowhere.
        slot: the one on the instance; None without one.
        started_at: when its last attempt began.
        finished_at: when it ended; None as long as it runs.
        warnings: what went wrong without changing the state.
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

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what a newer record of the same thing replaces."""
        return ("job", "", self.name)


Record = (
    InstanceRecord | OperationRecord | TombstoneRecord | GroupRecord | ConnectRecord | JobRecord
)
