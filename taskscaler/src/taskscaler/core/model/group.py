"""One group: its instances and how they come, serve and go.

Everything here changes the state at once and puts effects into an outbox. What
a listing means is in `listings.py`, who is well in `health.py`, who sleeps in
`suspension.py`, when to grow and shrink in `growth.py` and `removal.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from fleeting.types import Capability, State
from taskscaler.core.model.ages import AgeQueue
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.effects import Gone, Prepare, Refuse, Revoke
from taskscaler.core.model.instance import Instance, Life, Trigger
from taskscaler.core.model.operations import Operation, Operations
from taskscaler.core.model.records import InstanceRecord, TombstoneRecord
from taskscaler.core.model.settings import Placement, Settings
from taskscaler.core.model.slots import SlotIndex
from taskscaler.core.model.throttle import Backoff, Cooldown

if TYPE_CHECKING:
    from fleeting.errors import ProviderError
    from fleeting.types import GroupInfo
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.outbox import Outbox
    from taskscaler.core.model.tasks import Tasks
    from taskscaler.core.rules.listings import Digestion

__all__ = ("Group",)

# How many given-up ids to remember, in case a listing brings one of them back.
MEMORY = 10_000

# The lives in which tasks can run.
_LIVE = frozenset({Life.READY, Life.DRAINING})


class Group:
    """The core's view of one group.

    Attributes:
        name: its id.
        max_size: how many instances it can have; None if it knows no limit.
        settings: those of the scaler.
        tasks: those of the scaler.
        instances: by id.
        lives: how many instances are in each life.
        creating: those in that life, the first seen first.
        removing: those in that life.
        suspending: those in that life.
        resuming: those in that life.
        sick: those that failed their last check.
        keeping: those that keep suspended tasks.
        can_suspend: whether the group has the capability.
        operations: increases that are not done.
        slots: where tasks can go.
        idle: those that are ready and have no task, by since when.
        checks: those that work, as far as is known, by when that was known last.
        acquired: slots in use.
        backoff: the pause after failures to create.
        cooldown: until when the other groups come first.
        increased_at: when it was last asked for instances, in monotonic seconds.
        listing_backoff: the pause after failures to list.
        undecided: how many instances of the newest listing came back, and may be ours or not.
        listed: how often the group was listed.
        listed_at: when last, in monotonic seconds.
        listing: whether a listing is under way, or not digested to its end.
        listing_since: when the newest listing was asked for, in monotonic seconds.
        digestion: what is left of it; None if nothing is.
        list_at: when to list next, in monotonic seconds.
        pending: instances that the cloud means to create and has no id for.
        pending_since: since when that has not become less, in monotonic seconds.
        parting: idle instances that only older reservations keep, by id, each with its slots.
        parting_slots: all of those.
        calling: what was asked for and is not answered: the lives whose instances it
            concerns.
        checking: how many outcomes of checks are awaited.
        given_up: ids that were ours and are gone, with their incarnations.
        judge_again: whether the next listing is to judge again what is not ours.
        strangers: ids of instances that are not ours, as an earlier life of the scaler knew.
        stored_trouble: failures in a row, and the ends of both pauses, as they are stored.
    """

    def __init__(self, info: GroupInfo, settings: Settings, tasks: Tasks) -> None:
        self.name = info.id
        self.max_size = info.max_size
        self.can_suspend = Capability.SUSPEND in info.capabilities
        self.settings = settings
        self.tasks = tasks
        self.instances: dict[str, Instance] = {}
        self.lives = dict.fromkeys(Life, 0)
        self.creating: dict[str, Instance] = {}
        self.removing: dict[str, Instance] = {}
        self.suspending: dict[str, Instance] = {}
        self.resuming: dict[str, Instance] = {}
        self.sick: dict[str, Instance] = {}
        self.keeping: dict[str, Instance] = {}
        self.operations = Operations()
        self.slots = SlotIndex(
            settings.capacity_per_instance, spread=settings.placement is Placement.SPREAD
        )
        self.idle = AgeQueue(_idle_since)
        self.checks = AgeQueue(_checked_at)
        self.acquired = 0
        self.backoff = Backoff()
        self.cooldown = Cooldown()
        self.increased_at = float("-inf")
        self.listing_backoff = Backoff()
        self.undecided = 0
        self.listed = 0
        self.listed_at = float("-inf")
        self.listing = False
        self.listing_since = float("inf")
        self.digestion: Digestion | None = None
        self.list_at = 0.0
        self.pending = 0
        self.pending_since = 0.0
        self.parting: dict[str, int] = {}
        self.parting_slots = self._overdue = 0
        self.calling: set[Life] = set()
        self.checking = 0
        self.given_up: OrderedDict[str, str | None] = OrderedDict()
        self.judge_again = False
        self.strangers: frozenset[str] = frozenset()
        self.stored_trouble: tuple[int, float, float] = (0, 0.0, 0.0)
        # Those of a life that somebody goes through one by one.
        self._of_life = {
            Life.CREATING: self.creating,
            Life.REMOVING: self.removing,
            Life.SUSPENDING: self.suspending,
            Life.RESUMING: self.resuming,
        }
        self._numbers = 0

    # How much there is.

    @property
    def unseen(self) -> int:
        """Return how many instances may exist, or come to exist, that no listing has shown."""
        return max(self.operations.outstanding, self.pending)

    @property
    def size(self) -> int:
        """Return how many instances count against the limits."""
        return len(self.instances) + self.unseen + self.undecided

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
    def coming(self) -> int:
        """Return how many instances are not ready yet but will be."""
        return self.unseen + self.lives[Life.CREATING] + self.lives[Life.PREPARING]

    @property
    def unhealthy(self) -> int:
        """Return the slots that a task could get if their instances did not fail their checks."""
        if not self.sick:
            return 0
        return sum(one.open_slots for one in self.sick.values() if one.life is Life.READY)

    @property
    def suspended(self) -> int:
        """Return the slots that suspended tasks keep."""
        if not self.keeping:
            return 0
        return sum(len(one.suspended) for one in self.keeping.values())

    @property
    def unavailable(self) -> int:
        """Return the slots on live instances that nobody has and that no task will get."""
        live = self.lives[Life.READY] + self.lives[Life.DRAINING]
        total = live * self.settings.capacity_per_instance
        rest = total - self.acquired - self.slots.free - self.unhealthy
        if self.keeping:
            rest -= sum(len(one.suspended) for one in self.keeping.values() if one.life in _LIVE)
        return rest

    @property
    def expecting(self) -> bool:
        """Return whether a listing may soon show something new."""
        return bool(
            self.unseen or self.creating or self.removing or self.suspending or self.resuming
        )

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

    def runs(self, instance: Instance, out: Outbox) -> None:
        """The cloud says that it runs: find out whether it is ready.

        The operator's command is for new instances; one that has been ready before has
        proved that already.
        """
        self.step(instance, Trigger.RUNS)
        out.add(
            Prepare(
                self.name,
                instance.id,
                "" if instance.ready_at else self.settings.instance_ready_command,
                self.settings.instance_ready_timeout.total_seconds(),
            )
        )

    def prepared(self, instance: Instance, now: Now, out: Outbox) -> None:
        """It was reached and proved ready: it can take tasks."""
        instance.proven_at = instance.checked_at = now.monotonic
        self.step(instance, Trigger.PREPARED)
        self.checks.add(instance, len(self.instances))
        if instance.ready_at is None:
            # That an old one is ready again says nothing about new ones.
            self.backoff.succeeded(now.monotonic)
            instance.ready_at = now.wall
            out.put(self.record(instance))

    # How they serve.

    def acquire(self, instance: Instance, key: str) -> int:
        """Give a slot to a task, and return its number."""
        before = instance.available
        if self.parting:
            self.stay(instance)
        slot = instance.acquire(key)
        self.acquired += 1
        self.slots.moved(instance, before, instance.available)
        return slot

    def use_up(self, instance: Instance) -> None:
        """A task hears of its slot: the last use of an instance drains it."""
        if instance.uses_left == 0 and instance.life is Life.READY:
            instance.rule, instance.reason = Rule.USED_UP, "its use count is reached"
            self.step(instance, Trigger.RETIRED)

    def release(self, instance: Instance, key: str, now: Now, out: Outbox) -> None:
        """Take a slot back from a task, and let the instance go if it was waiting for that."""
        before = instance.available
        if key not in instance.unconfirmed:
            instance.proven_at = now.monotonic
        instance.release(key)
        self.acquired -= 1
        self.slots.moved(instance, before, instance.available)
        self.rest(instance, now, out)

    def rest(self, instance: Instance, now: Now, out: Outbox) -> None:
        """Do what is to be done when perhaps no task runs on it any more. Idempotent."""
        if instance.tasks:
            return
        instance.idle_since = now.monotonic
        if instance.suspended:
            self.stop(instance, now, out)
        elif instance.life is Life.READY:
            self.idle.add(instance, len(self.instances))
        elif instance.life is Life.DRAINING:
            self.condemn(instance, instance.rule or Rule.FAILED, instance.reason, now, out)

    def stop(self, instance: Instance, now: Now, out: Outbox) -> None:
        """It has suspended tasks only: let it be suspended, unless that failed just now."""
        if instance.life in _LIVE and instance.stop_at <= now.monotonic:
            self.step(instance, Trigger.STOPS)
            instance.ask_at = now.monotonic
            out.put(self.record(instance))

    # How they go.

    def retire(self, instance: Instance, rule: Rule, reason: str, now: Now, out: Outbox) -> None:
        """It is to go as soon as no task has a slot on it; it must be ready.

        Tasks that do not know yet that they have one wait on: the next may be better.
        """
        self.call_back(instance)
        if instance.vacant:
            self.condemn(instance, rule, reason, now, out)
            return
        instance.rule, instance.reason = rule, reason
        self.step(instance, Trigger.RETIRED)
        out.put(self.record(instance))
        self.rest(instance, now, out)

    def retire_again(self, instance: Instance, now: Now, out: Outbox) -> None:
        """It has just become ready; it goes on leaving if it was to go before it slept."""
        if instance.rule is not None and instance.life is Life.READY:
            self.retire(instance, instance.rule, instance.reason, now, out)

    def condemn(self, instance: Instance, rule: Rule, reason: str, now: Now, out: Outbox) -> None:
        """It is to be removed with the next decrease; no task may have a slot on it."""
        instance.rule, instance.reason = rule, reason
        self.step(instance, Trigger.CONDEMNED)
        instance.ask_at = now.monotonic
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
        instance = self.idle.drop_first()
        self.parting[instance.id] = instance.available
        self.parting_slots += instance.available

    def stay(self, instance: Instance) -> None:
        """Let an instance be like any other again, if it was parting."""
        if instance.id in self.parting:
            self.parting_slots -= self.parting.pop(instance.id)
            self.idle.add(instance, len(self.instances))

    def revoke(self, instance: Instance, cause: str, out: Outbox) -> None:
        """All tasks on it are lost, the suspended ones too."""
        self.revoke_running(instance, cause, out)
        before = instance.available
        for key in list(instance.suspended):
            instance.drop(key)
            if self.tasks.forget_suspended(key):
                out.add(Refuse(key, f"instance {instance.id} was lost: {cause}"))
            else:
                out.add(Revoke(key, instance.id, cause))
        self.keeping.pop(instance.id, None)
        self.slots.moved(instance, before, instance.available)

    def revoke_running(self, instance: Instance, cause: str, out: Outbox) -> None:
        """The tasks that run on it are lost; those that do not know their slot yet wait on."""
        self.call_back(instance)
        before = instance.available
        for key in list(instance.tasks):
            instance.release(key)
            self.acquired -= 1
            out.add(Revoke(key, instance.id, cause))
        self.slots.moved(instance, before, instance.available)

    def call_back(self, instance: Instance) -> bool:
        """Let those tasks wait on that do not know their slot yet; return whether any did."""
        waiting = list(instance.unconfirmed)
        before = instance.available
        for key in waiting:
            instance.release(key)
            self.acquired -= 1
        self.tasks.wait_again(waiting)
        self.slots.moved(instance, before, instance.available)
        return bool(waiting)

    def take_down(self, instance: Instance, rule: Rule, cause: str, now: Now, out: Outbox) -> None:
        """It is to be removed, whatever runs there."""
        self.revoke(instance, cause, out)
        self.condemn(instance, rule, cause, now, out)

    def lose(self, instance: Instance, cause: str, now: Now, out: Outbox) -> None:
        """It is no more: forget it, and remember its id."""
        self.revoke(instance, cause, out)
        was = instance.life
        self.step(instance, Trigger.VANISHED)
        del self.instances[instance.id]
        if self.cooldown.quota:
            self.cooldown.end()
        if was is Life.FOREIGN:
            return
        self.remember(instance.id, instance.incarnation, out)
        out.drop(("instance", self.name, instance.id))
        if instance.state is not State.DELETING:
            # The cloud never said that it removes it, so it may come back.
            out.put(TombstoneRecord(self.name, instance.id, instance.incarnation, now.wall))
        life = (instance.created_at, instance.ready_at, now.wall)
        out.add(Gone(self.name, instance.id, *life, instance.reason or cause, instance.used))

    def remember(self, id: str, incarnation: str | None, out: Outbox) -> None:
        """Remember an id that was given up, and forget the oldest if there are too many."""
        self.given_up[id] = incarnation
        while len(self.given_up) > MEMORY:
            oldest, _ = self.given_up.popitem(last=False)
            out.drop(("tombstone", self.name, oldest))

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
            instance.ready_at,
            tuple((key, one.slot, one.since) for key, one in instance.suspended.items())
            if instance.suspended
            else (),
        )

    def store_operation(self, operation: Operation, out: Outbox) -> None:
        """Store what is left of an operation, or forget it if that is nothing."""
        record = operation.record(self.name)
        if self.operations.is_open(operation):
            out.put(record)
        else:
            out.drop(record.key)

    def step(self, instance: Instance, trigger: Trigger) -> None:
        """Move an instance on in its life, and keep all counts right."""
        before, was = instance.available, instance.life
        if self.parting:
            self.stay(instance)
        instance.step(trigger)
        life = instance.life
        self.slots.moved(instance, before, instance.available)
        self.lives[was] -= 1
        if was in self._of_life:
            del self._of_life[was][instance.id]
        if life is not Life.GONE:
            self.lives[life] += 1
        if life in self._of_life:
            self._of_life[life][instance.id] = instance
        if was in _LIVE and life not in _LIVE:
            # Whoever checks it is told to stop when it is hung up.
            self.checking -= instance.checking
            instance.checking = False
            instance.failures = 0
            self.sick.pop(instance.id, None)


def _idle_since(instance: Instance) -> float | None:
    return instance.idle_since if instance.life is Life.READY and instance.vacant else None


def _checked_at(instance: Instance) -> float | None:
    if instance.life not in _LIVE or instance.checking or instance.failures:
        return None
    return max(instance.checked_at, instance.proven_at)
