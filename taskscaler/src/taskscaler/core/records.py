"""What must survive a restart, as frozen values; a store keeps the newest of each key."""

from __future__ import annotations

from datetime import datetime

import msgspec

from taskscaler.core.decisions import Rule

__all__ = ("InstanceRecord", "OperationRecord", "Record")


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
    """

    group: str
    id: str
    incarnation: str | None
    created_at: datetime
    used: int
    tasks: tuple[str, ...]
    rule: Rule | None = None
    reason: str = ""

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
    """

    group: str
    id: str
    count: int
    asked_at: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what a newer record of the same thing replaces."""
        return ("operation", self.group, self.id)


Record = InstanceRecord | OperationRecord
