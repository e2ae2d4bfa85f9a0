"""One group: its instances and how they come, serve and go.

Everything here changes the state at once and puts effects into an outbox. What
a listing means is in `listings.py`, when to grow and shrink in `scaling.py`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING

from fleeting.types import State
from taskscaler.core.decisions import Rule
from taskscaler.core.effects import Gone, Prepare, Revoke
from taskscaler.core.instances import Instance, Life, Trigger
from taskscaler.core.operations import Operation, Operations
from taskscaler.core.records import InstanceRecord, OperationRecord
from taskscaler.core.settings import Placement, Settings
from taskscaler.core.slots import SlotIndex
from taskscaler.core.throttle import Backoff, Cooldown

if TYPE_CHECKING:
    from datetime import datetime

    from fleeting.errors import ProviderError
    from taskscaler.core.events import Now
    from taskscaler.core.outbox import Outbox

__all__ = ("Group",)

# Below this many entries the queue of idle instances is not worth cleaning.
SMALL = 64

# How many given-up ids to remember, in case a listing brings one of them back.
MEMORY = 10_000


class Group:
    """The core's view of one group.

    Attributes:
        name: its id.
        max_size: how many instances it can have; None if it knows no limit.
        settings: those of the scaler.
        instances: by id.
        lives: how many instances are in each life.
        creating: those in that life, the first seen first.
        removing: those in that life.
        operations: increases that are not done.
        slots: where tasks can go.
        acquired: slots in use.
        backoff: the pause after failures to create.
        cooldown: until when the other groups come first.
        increased_at: when it was last asked for instances, in monotonic seconds.
        listing_backoff: the pause after failures to list.
        listed: how often the group was listed.
        listing: whether a listing is under way.
        listing_since: when the newest listing was asked for, in monotonic seconds.
        list_at: when to list next, in monotonic seconds.
        pending: instances that the cloud means to create and has no id for.
        pending_since: since when that has not become less, in monotonic seconds.
        parting: idle instances that only older reservations keep, by id, each with its slots.
        parting_slots: all of those.
        decreasing: whether the answer to a decrease is awaited.
        given_up: ids that were ours and are gone, with their incarnations.
        judge_again: whether the next listing is to judge again what is not ours.
        stored_trouble: failures in a row, and the ends of both pauses, as they are stored.
    """

    def __init__(self, name: str, max_size: int | None, settings: Settings) -> None:
        self.name = name
        self.max_size = max_size
        self.settings = settings
        self.instances: dict[str, Instance] = {}
        self.lives = dict.fromkeys(Life, 0)
        self.creating: dict[str, Instance] = {}
        self.removing: dict[str, Instance] = {}
        self.operations = Operations()
        self.slots = SlotIndex(
            settings.capacity_per_instance, spread=settings.placement is Placement.SPREAD
        )
        self.acquired = 0
        self.backoff = Backoff()
        self.cooldown = Cooldown()
        self.increased_at = float("-inf")
        self.listing_backoff = Backoff()
        self.listed = 0
        self.listing = False
        self.listing_since = float("inf")
        self.list_at = 0.0
        self.pending = 0
        self.pending_since = 0.0
        self.parting: dict[str, int] = {}
        self.parting_slots = 0
        self._overdue = 0
        self.decreasing = False
        self.given_up: OrderedDict[str, str | None] = OrderedDict()
        self.judge_again = False
        self.stored_trouble = (0, 0.0, 0.0)
        # By since when they are idle. Each instance has one entry at most, which may be
        # out of date; it is put right when it comes to the top.
        self._idle: list[tuple[float, int, Instance]] = []
        self._numbers = 0

    # How much there is.

    @property
    def unseen(self) -> int:
        """Return how many instances may exist, or come to exist, that no listing has shown."""
        return max(self.operations.outstanding, self.pending)

    @property
    def size(self) -> int:
        """Return how many instances count against the limits."""
        return len(self.instances) + self.unseen

    @property
    def limit(self) -> int | None:
        """Return the most instances it may have; None if neither it nor the operator says."""
        limits = (self.max_size, self.settings.group_limits.get(self.name))
        return min((one for one in limits if one is not None), default=None)

    @property
    def overdue(self) -> int:
        """Return how many of the unseen instances should have been seen long ago."""
        return min(self._overdue, self.unseen)

    def set_overdue(self, count: int) -> None:
        """Take note of that; what is seen afterwards is not overdue any more."""
        self._overdue = count

    def hear_pending(self, count: int, now: Now) -> None:
        """Take note of what the cloud means to create."""
        if not self.pending or count < self.pending:
            self.pending_since = now.monotonic
        self.pending = count

    @property
    def unhealthy(self) -> int:
        """Return the slots on instances that fail their health checks."""
        return 0

    @property
    def suspended(self) -> int:
        """Return the slots of tasks that are suspended."""
        return 0

    @property
    def coming(self) -> int:
        """Return how many instances are not ready yet but will be."""
        return self.unseen + self.lives[Life.CREATING] + self.lives[Life.PREPARING]

    @property
    def unavailable(self) -> int:
        """Return the slots on live instances that are not in use and that no task will get."""
        live = self.lives[Life.READY] + self.lives[Life.DRAINING]
        return live * self.settings.capacity_per_instance - self.acquired - self.slots.free

    @property
    def expecting(self) -> bool:
        """Return whether a listing may soon show something new."""
        return bool(self.unseen or self.creating or self.removing)

    @property
    def empty(self) -> bool:
        """Return whether nothing of ours is left or may still come."""
        return not self.unseen and len(self.instances) == self.lives[Life.FOREIGN]

    @property
    def trouble(self) -> str:
        """Return the last failure that was not followed by a success; empty if there is none."""
        return self.listing_backoff.reason or self.backoff.reason or self.cooldown.reason

    def ours(self) -> list[Instance]:
        """Return all instances but the foreign ones."""
        return [one for one in self.instances.values() if one.life is not Life.FOREIGN]

    # How instances come.

    def add(self, id: str, state: State, incarnation: str | None, life: Life, now: Now) -> Instance:
        """Take up an instance that was not known."""
        self._numbers += 1
        limit = self.settings.max_use_count
        instance = Instance(
            self.name,
            id,
            number=self._numbers,
            capacity=self.settings.capacity_per_instance,
            uses_left=limit or None,
            incarnation=incarnation,
            state=state,
            life=life,
            seen_at=now.monotonic,
            created_at=now.wall,
        )
        self.instances[id] = instance
        self.lives[life] += 1
        if life is Life.CREATING:
            self.creating[id] = instance
        return instance

    def restore(self, record: InstanceRecord, now: Now, out: Outbox) -> None:
        """Take up an instance that an earlier life of the scaler left."""
        instance = self.add(record.id, State.UNKNOWN, record.incarnation, Life.CREATING, now)
        instance.created_at = record.created_at
        instance.used = record.used
        if instance.uses_left is not None:
            instance.uses_left = max(0, instance.uses_left - record.used)
        if record.rule is not None and not record.tasks:
            self.condemn(instance, record.rule, record.reason, now, out)
        elif record.tasks:
            self.condemn(instance, Rule.FAILED, "it ran tasks when the scaler ended", now, out)
        elif instance.uses_left == 0:
            self.condemn(instance, Rule.USED_UP, "its use count is reached", now, out)

    def runs(self, instance: Instance, out: Outbox) -> None:
        """The cloud says for the first time that it runs: find out whether it is ready."""
        self._step(instance, Trigger.RUNS)
        out.add(
            Prepare(
                self.name,
                instance.id,
                self.settings.instance_ready_command,
                self.settings.instance_ready_timeout.total_seconds(),
            )
        )

    def prepared(self, instance: Instance, now: Now) -> None:
        """It is ready: it can take tasks, and its idle time begins."""
        self._step(instance, Trigger.PREPARED)
        instance.ready_at = now.wall
        self.backoff.succeeded(now.monotonic)
        self._rest(instance, now)

    # How they serve.

    def acquire(self, instance: Instance, key: str) -> int:
        """Give a slot to a task, and return its number. The last use of an instance drains it."""
        before = instance.available
        if self.parting:
            self.stay(instance)
        slot = instance.acquire(key)
        self.acquired += 1
        self.slots.moved(instance, before, instance.available)
        if instance.uses_left == 0:
            instance.rule, instance.reason = Rule.USED_UP, "its use count is reached"
            self._step(instance, Trigger.RETIRED)
        return slot

    def release(self, instance: Instance, key: str, now: Now, out: Outbox) -> None:
        """Take a slot back from a task, and remove the instance if it was waiting for that."""
        before = instance.available
        instance.release(key)
        self.acquired -= 1
        if instance.life is Life.READY:
            self.slots.moved(instance, before, instance.available)
            if not instance.tasks:
                self._rest(instance, now)
        elif not instance.tasks and instance.life is Life.DRAINING:
            self.condemn(instance, instance.rule or Rule.FAILED, instance.reason, now, out)

    def first_idle(self) -> Instance | None:
        """Return the instance that is idle the longest, or None."""
        while self._idle:
            since, number, instance = self._idle[0]
            if instance.life is Life.READY and not instance.tasks:
                if instance.idle_since == since:
                    return instance
                heapq.heapreplace(self._idle, (instance.idle_since, number, instance))
            else:
                heapq.heappop(self._idle)
                instance.queued_idle = False
        return None

    def idle_since(self) -> float | None:
        """Return a time, in monotonic seconds, before which no instance was idle, or None.

        Much cheaper than `first_idle`, and early at worst.
        """
        return self._idle[0][0] if self._idle else None

    # How they go.

    def retire(self, instance: Instance, rule: Rule, reason: str, now: Now, out: Outbox) -> None:
        """It is to go as soon as no task runs on it; it must be ready."""
        if not instance.tasks:
            self.condemn(instance, rule, reason, now, out)
            return
        instance.rule, instance.reason = rule, reason
        self._step(instance, Trigger.RETIRED)
        out.put(self.record(instance))

    def condemn(self, instance: Instance, rule: Rule, reason: str, now: Now, out: Outbox) -> None:
        """It is to be removed with the next decrease; no task may be running on it."""
        instance.rule, instance.reason = rule, reason
        self._step(instance, Trigger.CONDEMNED)
        instance.ask_removal_at = now.monotonic
        self.removing[instance.id] = instance
        out.put(self.record(instance))

    def creation_failed(self, reason: str, now: Now, error: ProviderError | None = None) -> None:
        """Something that was to become an instance did not: pause before the next try.

        Args:
            reason: for people.
            now: when.
            error: what the cloud said, if it did. Its class decides: what nobody but the
                operator can mend is not tried again for as long as any pause may last,
                and a group that has nothing to give is passed over.
        """
        retry_after = None
        if error is not None:
            retry_after = error.retry_after
            if not error.retryable:
                retry_after = max(retry_after or self.settings.backoff, self.settings.backoff_limit)
            self.cooldown.failed(now.monotonic, error, self.settings.cooldown)
        self.backoff.failed(
            now.monotonic,
            reason,
            first=self.settings.backoff,
            limit=self.settings.backoff_limit,
            retry_after=retry_after,
        )

    def part(self) -> None:
        """Mark the instance that is idle the longest as parting; there must be one."""
        _, _, instance = heapq.heappop(self._idle)
        instance.queued_idle = False
        self.parting[instance.id] = instance.available
        self.parting_slots += instance.available

    def stay(self, instance: Instance) -> None:
        """Let an instance be like any other again, if it was parting."""
        self.parting_slots -= self.parting.pop(instance.id, 0)

    def revoke(self, instance: Instance, cause: str, out: Outbox) -> None:
        """The tasks on it are lost."""
        before = instance.available
        for key in list(instance.tasks):
            instance.release(key)
            self.acquired -= 1
            out.add(Revoke(key, instance.id, cause))
        self.slots.moved(instance, before, instance.available)

    def lose(self, instance: Instance, cause: str, now: Now, out: Outbox) -> None:
        """It is no more: forget it, and remember its id."""
        self.revoke(instance, cause, out)
        was = instance.life
        self._step(instance, Trigger.VANISHED)
        del self.instances[instance.id]
        if self.cooldown.quota:
            self.cooldown.end()
        if was is Life.FOREIGN:
            return
        self.given_up[instance.id] = instance.incarnation
        while len(self.given_up) > MEMORY:
            self.given_up.popitem(last=False)
        out.drop(("instance", self.name, instance.id))
        out.add(self.summary(instance, instance.reason or cause, now.wall))

    def forget_foreign(self) -> None:
        """Let the listing that follows judge again what is not ours."""
        self.judge_again = False
        for instance in list(self.instances.values()):
            if instance.life is Life.FOREIGN:
                self._step(instance, Trigger.VANISHED)
                del self.instances[instance.id]

    # What is stored and told.

    def record(self, instance: Instance) -> InstanceRecord:
        """Return what must survive of an instance."""
        return InstanceRecord(
            self.name,
            instance.id,
            instance.incarnation,
            instance.created_at,
            instance.used,
            tuple(instance.tasks),
            instance.rule,
            instance.reason,
        )

    def store_operation(self, operation: Operation, out: Outbox) -> None:
        """Store what is left of an operation, or forget it if that is nothing."""
        record = OperationRecord(self.name, operation.id, operation.outstanding, operation.asked_at)
        if self.operations.is_open(operation):
            out.put(record)
        else:
            out.drop(record.key)

    def summary(self, instance: Instance, reason: str, removed_at: datetime) -> Gone:
        """Return the whole life of an instance."""
        return Gone(
            self.name,
            instance.id,
            instance.created_at,
            instance.ready_at,
            removed_at,
            reason,
            instance.used,
        )

    def _step(self, instance: Instance, trigger: Trigger) -> None:
        before, was = instance.available, instance.life
        if self.parting:
            self.stay(instance)
        instance.step(trigger)
        self.slots.moved(instance, before, instance.available)
        self.lives[was] -= 1
        if instance.life is not Life.GONE:
            self.lives[instance.life] += 1
        if was is Life.CREATING:
            del self.creating[instance.id]
        elif was is Life.REMOVING:
            del self.removing[instance.id]

    def _rest(self, instance: Instance, now: Now) -> None:
        instance.idle_since = now.monotonic
        self.queue_idle(instance)

    def queue_idle(self, instance: Instance) -> None:
        """Let `first_idle` know of an instance that is idle."""
        if not instance.queued_idle:
            instance.queued_idle = True
            heapq.heappush(self._idle, (instance.idle_since, instance.number, instance))
            if len(self._idle) > SMALL + 2 * len(self.instances):
                self._clean_idle()

    def _clean_idle(self) -> None:
        """Drop the entries of instances that are gone, which may be far from the top."""
        self._idle = [entry for entry in self._idle if entry[2].life is not Life.GONE]
        heapq.heapify(self._idle)
