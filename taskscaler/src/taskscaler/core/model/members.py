"""The instances of one group, and which of them are ours."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from taskscaler.core.model.agenda import CHANGED
from taskscaler.core.model.instance import Health, TrackedInstance
from taskscaler.core.model.lifecycle import TRANSITIONS, Phase, Trigger
from taskscaler.core.model.records import TombstoneRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from fleeting.types import Instance as Listed
    from fleeting.types import State
    from taskscaler.core.model.agenda import Agenda
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.settings import Settings

__all__ = ("Members", "Ownership", "may_be_same")

# How many given-up ids to remember, in case a listing brings one of them back.
MEMORY = 10_000


def may_be_same(before: str | None, after: str | None) -> bool:
    """Return whether two incarnations under one id may be the same machine."""
    return before is None or after is None or before == after


class Members:
    """All instances of one group, ours and foreign ones. Writes their phases.

    Args:
        group: the id of the group.
        settings: with the capacity and the use count of instances, which never change.
        agenda: learns of every step.

    Attributes:
        counts: how many instances are in each phase.
        creating: those in that phase by id, the first seen first.
        strangers: those that are not ours by id, also while they are being removed.
    """

    def __init__(self, group: str, settings: Settings, agenda: Agenda) -> None:
        self.counts = dict.fromkeys(Phase, 0)
        self.creating: dict[str, TrackedInstance] = {}
        self.strangers: dict[str, TrackedInstance] = {}
        self._by_id: dict[str, TrackedInstance] = {}
        self._group = group
        self._agenda = agenda
        self._capacity = settings.capacity_per_instance
        self._max_uses = settings.max_use_count
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[TrackedInstance]:
        """Return all instances in the order in which they were first seen."""
        return iter(self._by_id.values())

    def get(self, id: str) -> TrackedInstance | None:
        """Return an instance by its id, or None."""
        return self._by_id.get(id)

    @property
    def slots(self) -> int:
        """Return how many slots the serving instances have, free or not."""
        return self.serving * self._capacity

    @property
    def serving(self) -> int:
        """Return on how many instances tasks can run."""
        return self.counts[Phase.READY] + self.counts[Phase.DRAINING]

    def add(
        self, id: str, state: State, incarnation: str | None, phase: Phase, now: Now
    ) -> TrackedInstance:
        """Start to track an instance, in the phase CREATING or FOREIGN."""
        self._numbers += 1
        instance = TrackedInstance(
            self._group,
            id,
            number=self._numbers,
            capacity=self._capacity,
            max_uses=self._max_uses,
            incarnation=incarnation,
            state=state,
            phase=phase,
            seen_at=now.monotonic,
            created_at=now.wall,
            health=Health(now.monotonic, now.monotonic, now.monotonic),
        )
        self._by_id[id] = instance
        self.counts[phase] += 1
        if phase is Phase.CREATING:
            self.creating[id] = instance
        if instance.stranger:
            self.strangers[id] = instance
        return instance

    def step(self, instance: TrackedInstance, trigger: Trigger) -> None:
        """Move an instance to its next phase; one that is GONE is forgotten.

        Raises:
            KeyError: the table does not allow it, which is a bug.
        """
        was, phase = instance.phase, TRANSITIONS[instance.phase][trigger]
        instance.phase = phase
        if trigger is not Trigger.DISMISSED:
            # A dismissal alone is not news: a used up instance had no slots left to offer,
            # and whatever else leads to one is news by itself.
            self._agenda.news |= CHANGED
        if was is phase:
            return
        self.counts[was] -= 1
        if was is Phase.CREATING:
            del self.creating[instance.id]
        if phase is Phase.GONE:
            del self._by_id[instance.id]
            self.strangers.pop(instance.id, None)
        else:
            self.counts[phase] += 1


class Ownership:
    """Which instances of one group are ours, as far as the members do not tell.

    Args:
        group: the id of the group.
        temporary: whether its instances end with this process, so that none comes back after a
            restart.

    Attributes:
        strangers: ids of foreign instances that an unsettled request of a previous
            process already found, with their incarnations; they cannot be what it created.
        rejudge: whether the next listing is to judge foreign instances again.
        undecided: how many instances of the newest listing may be ours or not, until
            the answer to a request names them.
    """

    def __init__(self, group: str, *, temporary: bool) -> None:
        self.strangers: dict[str, str | None] = {}
        self.rejudge = False
        self.undecided = 0
        self._group = group
        self._temporary = temporary
        self._given_up: OrderedDict[str, str | None] = OrderedDict()
        # Ids of ours that are gone, in case the cloud replaces one later.
        self._gone: OrderedDict[str, None] = OrderedDict()

    def was_ours(self, id: str) -> bool:
        """Return whether an instance that is gone was ours."""
        return id in self._gone

    def lose(self, id: str) -> None:
        """Remember that an instance of ours is gone, and forget the oldest if there are many."""
        self._gone[id] = None
        if len(self._gone) > MEMORY:
            self._gone.popitem(last=False)

    def has_given_up(self, listed: Listed) -> bool:
        """Return whether a listed instance is one that was ours and was given up."""
        if listed.id not in self._given_up:
            return False
        return may_be_same(self._given_up[listed.id], listed.incarnation)

    def give_up(self, instance: TrackedInstance, at: datetime, out: Outbox, *, ended: bool) -> None:
        """Remember an instance of ours that is gone, in case it comes back.

        Args:
            instance: the one.
            at: when.
            out: takes what is to be stored.
            ended: whether the cloud has confirmed that it ends it. Without an incarnation its
                id is free then: some clouds use the same ids again and again.
        """
        if not ended and not self._temporary:
            # It may come back after a restart, too.
            out.put(TombstoneRecord(self._group, instance.id, instance.incarnation, at))
        if not ended or instance.incarnation is not None:
            self.remember(instance.id, instance.incarnation, out)

    def remember(self, id: str, incarnation: str | None, out: Outbox) -> None:
        """Remember an id that was given up, and forget the oldest if there are too many."""
        self._given_up[id] = incarnation
        while len(self._given_up) > MEMORY:
            oldest, _ = self._given_up.popitem(last=False)
            out.drop(("tombstone", self._group, oldest))

    def forget(self, id: str, out: Outbox) -> None:
        """Forget that an id was given up, because its instance is tracked again."""
        if id in self._given_up:
            del self._given_up[id]
            out.drop(("tombstone", self._group, id))
