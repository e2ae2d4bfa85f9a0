"""The ledger: what the books know of each instance, from events, effects and records alone."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from fleeting.types import State
from taskscaler.core import (
    InstanceRecord,
    OperationRecord,
    Policy,
    UnknownInstances,
    effects,
    events,
)
from taskscaler.simulation import SimulationObserver

from .machines import NEVER, Machine, Request
from .policies import policy_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from taskscaler.core import Now, Settings

    from .checker import InvariantChecker
    from .observations import Place

__all__ = ("Ledger",)


class Ledger(SimulationObserver):
    """Keeps the books; sees each event before the checker and the other books do.

    Attributes:
        checker: knows which task has which slot; set before the world runs.
        machines: the instances by group and id.
        requests: the open requests by operation, the oldest first.
        given_up: ids that were ours, with their groups.
        failed_at: when something of each group last failed, in monotonic seconds.
        asked_at: when each group was last asked for instances.
        prepared_at: when an instance of each group last became ready.
        listed_at: when each group was last listed, in monotonic seconds.
        dismissed: the instances that this event dismissed.
        load: the load at each change of the last hours, the oldest first.
        born: when this life of the manager began, in monotonic seconds.
    """

    checker: InvariantChecker

    def __init__(self) -> None:
        self._begin(NEVER)

    def _begin(self, born: float) -> None:
        self.machines: dict[Place, Machine] = {}
        self.requests: dict[str, Request] = {}
        self.given_up: set[Place] = set()
        self.failed_at: dict[str, float] = {}
        self.asked_at: dict[str, float] = {}
        self.prepared_at: dict[str, float] = {}
        self.listed_at: dict[str, float] = {}
        self.dismissed: list[Machine] = []
        self._fresh: set[Place] = set()
        self._shown: dict[Place, State] = {}
        self.load: deque[tuple[float, int]] = deque([(NEVER, 0)])
        self.born = born
        self._looked: tuple[Settings, datetime] | None = None
        self._policy = Policy()

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        if self.dismissed:
            self.dismissed = []
        if self._fresh:
            self._fresh = set()
        if self._shown:
            self._shown = {}
        note = _ON_EVENT.get(type(event))
        if note is not None:
            note(self, now, event)
        for effect in effects:
            note = _ON_EFFECT.get(type(effect))
            if note is not None:
                note(self, now, effect)
        if type(event) is events.ListingArrived:
            self._look(now, event)

    def ended(self, now: Now) -> None:
        self._begin(now.monotonic)

    # Sums.

    def slots(self, machine: Machine) -> int:
        """Return how many slots of an instance are free and can be used."""
        settings, place = self.checker.settings, (machine.group, machine.id)
        kept, record = self.checker.seen.taken.get(place), machine.record
        free = settings.capacity_per_instance
        if kept or (record is not None and record.tasks):
            free -= len({*(kept or {}).values(), *(record.tasks if record else ())})
        if settings.max_use_count and record is not None:
            free = min(free, settings.max_use_count - record.used)
        return max(0, free)

    def free(self, groups: Sequence[str] | None = None) -> int:
        """Return how many tasks could get a slot now."""
        return sum(
            self.slots(one)
            for one in self.machines.values()
            if one.serves and (groups is None or one.group in groups)
        )

    def is_empty(self, machine: Machine) -> bool:
        """Return whether no task has or keeps a slot on an instance."""
        return (machine.group, machine.id) not in self.checker.seen.taken

    def checked_tasks(self) -> set[str]:
        """Return the tasks whose slots are kept while their instances are checked."""
        held = self.checker.seen.held
        return {
            key
            for one in self.machines.values()
            if one.checking and one.record is not None
            for key in one.record.tasks
            if key not in held
        }

    def held(self) -> int:
        """Return how many tasks have a slot, also while its instance is checked."""
        return len(self.checker.seen.held) + len(self.checked_tasks())

    def waiting(self) -> int:
        """Return how many tasks wait for a slot, without those that wait for a check only."""
        seen = self.checker.seen
        return len(seen.waiting.difference(seen.suspended, self.checked_tasks()))

    def is_suspending(self, machine: Machine) -> bool:
        """Return whether an instance keeps suspended tasks, so that it may stop soon."""
        return machine.record is not None and bool(machine.record.suspended)

    def present(self, group: str) -> int:
        """Return how many instances of a group are listed or known from records."""
        return sum(one.group == group for one in self.machines.values())

    def possible(self, group: str) -> int:
        """Return how many more instances the requests of a group may bring, at most."""
        requests = [one for one in self.requests.values() if one.group == group]
        return sum(max(0, one.count - one.seen) for one in requests)

    def policy(self, now: Now) -> Policy:
        """Return the policy that should be in force, and remember it for this minute."""
        settings, minute = self.checker.settings, now.wall.replace(second=0, microsecond=0)
        if not settings.schedule:
            return settings.policy
        if self._looked is None or self._looked[0] is not settings or self._looked[1] != minute:
            self._looked = (settings, minute)
            self._policy = policy_at(settings, minute)
        return self._policy

    def busiest(self, now: Now, seconds: float) -> int:
        """Return the highest load of the last seconds."""
        since = now.monotonic - seconds
        highest = 0
        for at, level in reversed(self.load):
            highest = max(highest, level)
            if at <= since + 1e-6:
                break
        return highest

    def observe(self, now: Now) -> None:
        """Record the load after an event; called by the last of the books."""
        seen = self.checker.seen
        level = len(seen.waiting) + len(seen.held)
        if seen.suspended:
            level -= len(seen.waiting & set(seen.suspended))
        if level != self.load[-1][1]:
            self.load.append((now.monotonic, level))
            while len(self.load) > 1 and self.load[1][0] < now.monotonic - 7200.0:
                self.load.popleft()

    # Events.

    def _restored(self, now: Now, event: events.RecordsRestored) -> None:
        for record in event.records:
            if isinstance(record, InstanceRecord):
                machine = Machine(record.group, record.id, now.monotonic, record.created_at)
                machine.record, machine.restored = record, True
                machine.incarnation = record.incarnation
                if record.tasks:
                    machine.causes.add("tasks were lost there")
                self.machines[record.group, record.id] = machine
            elif isinstance(record, OperationRecord):
                self.requests[record.id] = Request(
                    record.group, now.monotonic, record.count, settled=True
                )
            elif record.key[0] == "tombstone":
                self.given_up.add((record.key[1], record.key[2]))

    def _listing(self, now: Now, event: events.ListingArrived) -> None:
        group = event.group
        self.listed_at[group] = now.monotonic
        if event.listing.failures:
            self.failed_at[group] = now.monotonic
        for one in event.listing.instances:
            self._shown[group, one.id] = one.state
            machine = self.machines.get((group, one.id))
            if machine is None:
                continue
            if None not in (machine.incarnation, one.incarnation) and (
                machine.incarnation != one.incarnation
            ):
                machine.causes.add("recreated")
                continue
            machine.incarnation = one.incarnation
            self._note_state(machine, one.state)

    def _look(self, now: Now, event: events.ListingArrived) -> None:
        """Add what is new, and forget the strangers that are gone."""
        group = event.group
        self._forget_requests(group, now)
        shown = {one.id: one for one in event.listing.instances}
        for machine in [one for one in self.machines.values() if one.group == group]:
            machine.listed = machine.id in shown
            if not machine.listed and machine.record is None:
                del self.machines[group, machine.id]
            elif not machine.listed and machine.ready:
                machine.causes.add("missing")
        for id, one in shown.items():
            place = (group, id)
            known = self.machines.get(place)
            is_new = known is None or "recreated" in known.causes
            machine = self._add(now, place) if is_new else self.machines[place]
            machine.state, machine.incarnation, machine.listed = one.state, one.incarnation, True

    def _forget_requests(self, group: str, now: Now) -> None:
        """Forget the requests that can bring nothing any more, because it should be listed."""
        before = now.monotonic - 2 * self.checker.settings.creation_timeout.total_seconds()
        for id, one in list(self.requests.items()):
            if one.group == group and one.settled and one.asked < before:
                del self.requests[id]

    def _add(self, now: Now, place: Place) -> Machine:
        machine = self.machines[place] = Machine(*place, now.monotonic, now.wall)
        self._fresh.add(place)
        self._note_state(machine, self._shown.get(place, State.UNKNOWN))
        return machine

    def _note_state(self, machine: Machine, state: State) -> None:
        machine.state = state
        if state is State.FAILED:
            machine.causes.add("failed")
        elif state in (State.DELETING, State.SUSPENDING, State.SUSPENDED):
            machine.causes.add("taken away")

    def _is_strange(self, place: Place) -> bool:
        """Return whether no request can have brought an instance that is ours from now on."""
        if self.checker.settings.unknown_instances is UnknownInstances.ADOPT:
            return False
        group, id = place
        return all(
            one.names is not None and id not in one.names
            for one in self.requests.values()
            if one.group == group
        )

    def _list_failed(self, now: Now, event: events.ListingFailed) -> None:
        self.failed_at[event.group] = now.monotonic

    def _increased(self, now: Now, event: events.IncreaseSettled) -> None:
        request = self.requests[event.operation]
        request.settled = True
        accepted = event.accepted
        if event.unknown or accepted.error is not None or accepted.count < request.count:
            self.failed_at[event.group] = now.monotonic
        if not event.unknown:
            request.count = accepted.count
            if len(accepted.ids) == accepted.count:
                request.names = frozenset(accepted.ids)

    def _prepared(self, now: Now, event: events.InstancePrepared) -> None:
        machine = self.machines.get((event.group, event.id))
        self.prepared_at[event.group] = now.monotonic
        if machine is not None and machine.preparing:
            machine.ready = True
            machine.preparing = False
            machine.failures = 0
            machine.idle_since = machine.proven_at = now.monotonic

    def _unprepared(self, now: Now, event: events.PreparationFailed) -> None:
        self.failed_at[event.group] = now.monotonic
        self._cause(event, "unprepared")

    def _broke(self, now: Now, event: events.InstanceBroke) -> None:
        del now
        self._cause(event, "broke")

    def _interrupted(self, now: Now, event: events.InterruptionAnnounced) -> None:
        del now
        self._cause(event, "interrupted")

    def _cause(self, event: Any, cause: str) -> None:
        machine = self.machines.get((event.group, event.id))
        if machine is not None:
            machine.causes.add(cause)

    def _passed(self, now: Now, event: events.HealthPassed) -> None:
        machine = self.machines.get((event.group, event.id))
        if machine is not None and machine.checking:
            machine.checking = False
            machine.failures = 0
            machine.proven_at = machine.checked_at = now.monotonic

    def _failed(self, now: Now, event: events.HealthFailed) -> None:
        machine = self.machines.get((event.group, event.id))
        if machine is not None and machine.checking:
            machine.checking = False
            machine.checked_at = now.monotonic
            if not machine.failures:
                machine.failing_since = now.monotonic
            machine.failures += 1

    def _released(self, now: Now, event: events.TaskReleased) -> None:
        held = self.checker.seen.held.get(event.key)
        machine = self.machines.get(held[:2]) if held else None
        if machine is not None:
            machine.idle_since = now.monotonic
            if event.proved:
                machine.proven_at = now.monotonic

    # Effects.

    def _stored(self, now: Now, persist: effects.Persist) -> None:
        for record in persist.put:
            if isinstance(record, InstanceRecord):
                place = (record.group, record.id)
                machine = self.machines.get(place)
                was_ours = machine is not None and machine.record is not None
                if machine is None or "recreated" in machine.causes:
                    machine = self._add(now, place)
                if not was_ours:
                    machine.strange = self._is_strange(place)
                    self._count(machine)
                before, machine.record = machine.rule, record
                if record.rule is not None and before is None:
                    self.dismissed.append(machine)

    def _count(self, machine: Machine) -> None:
        """Count a new instance for the request that may have brought it."""
        if machine.state is State.DELETING:
            return  # Perhaps it was a stranger.
        requests = [one for one in self.requests.values() if one.group == machine.group]
        waiting = [one for one in requests if one.seen < one.count]
        named = [one for one in waiting if machine.id in (one.names or ())]
        for one in (named or waiting)[:1]:
            one.seen += 1

    def _gone(self, now: Now, gone: effects.Gone) -> None:
        if gone.ready_at is None:
            self.failed_at[gone.group] = now.monotonic
        place = (gone.group, gone.id)
        self.given_up.add(place)
        # A successor under the same id was stored before this effect.
        if place not in self._fresh:
            self.machines.pop(place, None)

    def _increase(self, now: Now, increase: effects.Increase) -> None:
        self.asked_at[increase.group] = now.monotonic
        self.requests[increase.operation] = Request(increase.group, now.monotonic, increase.count)

    def _check(self, now: Now, check: effects.CheckHealth) -> None:
        del now
        machine = self.machines.get((check.group, check.id))
        if machine is not None:
            machine.checking = True

    def _prepare(self, now: Now, prepare: effects.Prepare) -> None:
        del now
        machine = self.machines.get((prepare.group, prepare.id))
        if machine is not None:
            self._stop(machine)
            machine.preparing = True

    def _suspend(self, now: Now, suspend: effects.Suspend) -> None:
        del now
        for id in suspend.ids:
            machine = self.machines.get((suspend.group, id))
            if machine is not None:
                self._stop(machine)

    def _stop(self, machine: Machine) -> None:
        machine.ready = machine.checking = machine.preparing = False
        machine.failures = 0

    def _revoked(self, now: Now, revoke: effects.Revoke) -> None:
        seen = self.checker.seen
        held = seen.held.get(revoke.key) or seen.suspended.get(revoke.key)
        machine = self.machines.get(held[:2]) if held else None
        if machine is not None:
            machine.idle_since = now.monotonic


_ON_EVENT: Mapping[type[events.Event], Callable[[Any, Any, Any], None]] = {
    events.RecordsRestored: Ledger._restored,
    events.ListingArrived: Ledger._listing,
    events.ListingFailed: Ledger._list_failed,
    events.IncreaseSettled: Ledger._increased,
    events.InstancePrepared: Ledger._prepared,
    events.PreparationFailed: Ledger._unprepared,
    events.InstanceBroke: Ledger._broke,
    events.InterruptionAnnounced: Ledger._interrupted,
    events.HealthPassed: Ledger._passed,
    events.HealthFailed: Ledger._failed,
    events.TaskReleased: Ledger._released,
}
_ON_EFFECT: Mapping[type[effects.Effect], Callable[[Any, Any, Any], None]] = {
    effects.Persist: Ledger._stored,
    effects.Gone: Ledger._gone,
    effects.Increase: Ledger._increase,
    effects.CheckHealth: Ledger._check,
    effects.Prepare: Ledger._prepare,
    effects.Suspend: Ledger._suspend,
    effects.Revoke: Ledger._revoked,
}
