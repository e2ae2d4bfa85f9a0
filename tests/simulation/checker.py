"""Checks the invariants of a simulation against the events and effects of the core.

The checker uses the events, the effects and the actual state of the simulated clouds, and never
the core's own fields, which a mistake in the core could hide. `docs/simulation.md` describes the
invariants I1 to I15.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from fleeting.types import State
from taskscaler.core import InstanceRecord, effects, events
from taskscaler.simulation import SimulationObserver

from .observations import DecisionRate, IncreaseStreak, Observations, Place, Violation, incarnation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fleeting.types import Instance
    from taskscaler.core import Now, Settings
    from taskscaler.simulation import World
    from taskscaler.simulation._cloud import Cloud

__all__ = ("InvariantChecker",)

# The number of the newest events that are kept for a report.
HISTORY = 400


class InvariantChecker(SimulationObserver):
    """Raises `Violation` as soon as an invariant does not hold.

    Attributes:
        world: the world that is checked; set before it runs.
        history: the newest events with their effects.
        removed: the number of instances whose removal was requested so far.
        granted: the number of slots that were granted so far.
    """

    world: World

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.history: deque[tuple[Now, events.Event, Sequence[effects.Effect]]] = deque(
            maxlen=HISTORY
        )
        self.removed = 0
        self.granted = 0
        self.seen = Observations()
        self._uses: dict[tuple[str, str, str | None], int] = {}
        self._tainted: set[tuple[str, str, str | None]] = set()
        self._rate = DecisionRate()
        self._events = 0
        self._streaks: dict[str, IncreaseStreak] = {}
        self._requests = 0

    # The observer.

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        self.history.append((now, event, effects))
        kind = type(event)
        note = _ON_EVENT.get(kind)
        if note is not None:
            note(self, now, event)
        for effect in effects:
            check = _ON_EFFECT.get(type(effect))
            if check is not None:
                check(self, now, effect)
        after = _AFTER_EVENT.get(kind)
        if after is not None:
            after(self, now, event, effects)
        self._events += 1
        if not self._events % 16:
            self._compare_demand()

    def carried_out(self, now: Now, effect: effects.Effect) -> None:
        del now
        records = self.world.manager.records
        if isinstance(effect, effects.Grant):
            held = self.seen.held.get(effect.key)
            if held != (effect.group, effect.id, effect.slot):
                return
            self.seen.delivered.add(effect.key)
            if effect.key in self.seen.resumed:
                self.seen.resumed.discard(effect.key)
            else:
                self._count_use(effect)
            record = records.get(("instance", effect.group, effect.id))
            if not isinstance(record, InstanceRecord) or effect.key not in record.tasks:
                raise Violation("I11", f"{effect.key} got a slot that is not in the stored record")
        elif isinstance(effect, effects.Increase) and (
            ("operation", effect.group, effect.operation) not in records
        ):
            raise Violation("I11", f"{effect.operation} is requested before it is stored")

    def ended(self, now: Now) -> None:
        del now
        seen, self.seen = self.seen, Observations()
        if not self.settings.keep_instance_with_acquisitions:
            for key in seen.delivered & set(seen.held):
                group, id, _ = seen.held[key]
                self._tainted.add((group, id, incarnation(seen, group, id)))
        records = self.world.manager.records
        for group, cloud in self.world.clouds.items():
            for id, member in cloud.members.items():
                if member.troubled and ("instance", group, id) not in records:
                    # The next life cannot know that it is ours.
                    member.foreseen = member.ours = False

    # Tasks.

    def _reserve(self, now: Now, event: events.TaskReserved) -> None:
        del now
        self._requests += 1
        self.seen.reserved.add(event.key)

    def _check_reservation(
        self, now: Now, event: events.TaskReserved, answer: Sequence[effects.Effect]
    ) -> None:
        del now
        if any(isinstance(one, effects.Refuse) for one in answer) or self.settings.schedule:
            return
        if self.settings.policy.preemptive:
            free = sum(self._free_slots(place) for place in self.seen.ready)
            if free < len(self.seen.reserved):
                raise Violation("I7", f"{event.key} got a reservation with {free} free slots")

    def _free_slots(self, place: Place) -> int:
        if place in self.seen.leaving or place in self.seen.doomed:
            return 0
        free = self.settings.capacity_per_instance - len(self.seen.taken.get(place, ()))
        if self.settings.max_use_count:
            used = self._uses.get((*place, incarnation(self.seen, *place)), 0)
            free = min(free, self.settings.max_use_count - used)
        return max(0, free)

    def _unreserve(self, now: Now, event: events.TaskUnreserved) -> None:
        del now
        self.seen.reserved.remove(event.key)

    def _ask(self, now: Now, event: events.TaskAsked | events.TaskResumed) -> None:
        del now
        self._requests += 1
        self.seen.reserved.discard(event.key)
        self.seen.waiting.add(event.key)

    def _cancel(self, now: Now, event: events.TaskCancelled) -> None:
        del now
        # A suspended task that cancels its resumption stays suspended.
        self.seen.waiting.remove(event.key)

    def _release(self, now: Now, event: events.TaskReleased) -> None:
        # It may have a slot without knowing it, because the instance is being checked.
        self.seen.waiting.discard(event.key)
        self._release_slot(event.key, now)

    def _suspend(self, now: Now, event: events.TaskSuspended) -> None:
        self.seen.suspended_at[event.key] = now.monotonic
        self.seen.suspended[event.key] = self.seen.held.pop(event.key)
        self.seen.delivered.discard(event.key)

    def _drop_suspended(self, key: str) -> None:
        self._empty(*self.seen.suspended.pop(key))

    def _empty(self, group: str, id: str, slot: int) -> bool:
        """Empty a slot; return whether its instance has no other task."""
        taken = self.seen.taken[group, id]
        del taken[slot]
        if not taken:
            del self.seen.taken[group, id]
        return not taken

    def _is_busy(self, place: Place) -> bool:
        return any(key in self.seen.held for key in self.seen.taken.get(place, {}).values())

    def _release_slot(self, key: str, now: Now) -> None:
        held = self.seen.held.pop(key, None)
        if held is not None and self._empty(*held):
            self.seen.ready[held[:2]] = now.monotonic
        self.seen.delivered.discard(key)

    def _grant(self, now: Now, grant: effects.Grant) -> None:
        del now
        self.granted += 1
        seen, place = self.seen, (grant.group, grant.id)
        if grant.key not in seen.waiting:
            raise Violation("I15", f"{grant.key} gets a slot without waiting for one")
        seen.waiting.discard(grant.key)
        if grant.key in seen.suspended:
            if seen.suspended[grant.key] != (*place, grant.slot):
                raise Violation("I3", f"{grant.key} was resumed in a slot that is not its own")
            seen.held[grant.key] = seen.suspended.pop(grant.key)
            seen.resumed.add(grant.key)
            return
        taken = seen.taken.setdefault(place, {})
        if grant.slot in taken or not 0 <= grant.slot < self.settings.capacity_per_instance:
            raise Violation("I3", f"{grant.key} gets slot {grant.slot} of {place}; taken: {taken}")
        if place not in seen.ready or place in seen.leaving:
            raise Violation("I7", f"{grant.key} gets a slot on {place}, which is not ready")
        machine = (*place, incarnation(seen, *place))
        if machine in self._tainted:
            raise Violation("I11", f"{grant.key} gets a slot on {place}, where tasks were lost")
        taken[grant.slot] = grant.key
        seen.held[grant.key] = (*place, grant.slot)

    def _count_use(self, grant: effects.Grant) -> None:
        """Count a task that has begun, over all lives of the manager."""
        machine = (grant.group, grant.id, incarnation(self.seen, grant.group, grant.id))
        uses = self._uses[machine] = self._uses.get(machine, 0) + 1
        if 0 < self.settings.max_use_count < uses:
            raise Violation("I4", f"{grant.key} is use {uses} of {machine}")

    def _refuse(self, now: Now, refuse: effects.Refuse) -> None:
        del now
        if refuse.key not in self.seen.waiting | self.seen.reserved:
            raise Violation("I8", f"{refuse.key} is refused without a request")
        self.seen.reserved.discard(refuse.key)
        self.seen.waiting.discard(refuse.key)
        state = self.world.manager.state
        if refuse.key in self.seen.suspended and not (state and state.task(refuse.key)):
            self._drop_suspended(refuse.key)

    def _revoke(self, now: Now, revoke: effects.Revoke) -> None:
        if revoke.key in self.seen.suspended:
            self._lose_suspended(revoke, now)
            return
        held = self.seen.held.get(revoke.key)
        if held is None:
            raise Violation("I8", f"{revoke.key} loses a slot that it does not have")
        if not self._is_broken(held[0], held[1]):
            raise Violation(
                "I2", f"{revoke.key} loses its slot on a healthy instance: {revoke.cause}"
            )
        self._release_slot(revoke.key, now)

    def _lose_suspended(self, revoke: effects.Revoke, now: Now) -> None:
        """A suspended task loses its slot with the instance, or after the longest suspension."""
        group, id, _ = self.seen.suspended[revoke.key]
        slept = now.monotonic - self.seen.suspended_at.get(revoke.key, float("-inf"))
        is_over = slept >= self.settings.suspend_time_to_live.total_seconds()
        if not (is_over or self._is_broken(group, id) or self._is_overdue((group, id), now)):
            raise Violation("I2", f"{revoke.key} loses its slot while suspended: {revoke.cause}")
        self._drop_suspended(revoke.key)

    def _is_broken(self, group: str, id: str) -> bool:
        cloud = self.world.clouds[group]
        member = cloud.members.get(id)
        return (
            self.seen.closing
            or id in cloud.troubled
            or member is None
            or member.troubled
            or member.shown.state is not State.RUNNING
            or (group, id) in self.seen.unhealthy
        )

    def _compare_demand(self) -> None:
        """Compare with the core's own counts, which must return to zero."""
        state = self.world.manager.state
        if state is None:
            return
        demand = state.demand()
        seen = self.seen
        # A waiting task may have a slot already; it is told after the instance was checked.
        counted = (demand.waiting + demand.acquired, demand.reserved)
        expected = (len(seen.waiting - set(seen.suspended)) + len(seen.held), len(seen.reserved))
        if counted != expected:
            raise Violation("I8", f"expected {expected} tasks and reservations, got {counted}")

    # Instances.

    def _restore(self, now: Now, event: events.RecordsRestored) -> None:
        del now
        if not event.records:
            # This life cannot know what happened on the instances that it may adopt.
            self._uses.clear()
            self._tainted.clear()
        # They may have changed while the manager was down.
        self.settings = self.world.manager.settings
        for record in event.records:
            if isinstance(record, InstanceRecord):
                place = (record.group, record.id)
                is_kept = self.settings.keep_instance_with_acquisitions
                is_used_up = record.used >= self.settings.max_use_count > 0
                if record.rule or is_used_up or (record.tasks and not is_kept):
                    self.seen.doomed.add(place)
                for key, slot, _ in record.suspended:
                    if slot >= self.settings.capacity_per_instance:
                        continue
                    self.seen.suspended[key] = (*place, slot)
                    self.seen.taken.setdefault(place, {})[slot] = key

    def _list(
        self, now: Now, event: events.ListingArrived, answer: Sequence[effects.Effect]
    ) -> None:
        del answer
        group, seen = event.group, self.seen
        members = self.world.clouds[group].members
        listed = seen.listed[group] = {one.id: one for one in event.listing.instances}
        for id in listed:
            if (group, id) not in seen.first_listed:
                seen.first_listed[group, id] = now.monotonic
                self._note_late(group, id, now)
            seen.missing.pop((group, id), None)
            if id in members:
                members[id].foreseen = True
        for place in seen.taken:
            if place[0] == group and self._is_busy(place):
                self._check_busy(place, listed.get(place[1]))

    def _note_late(self, group: str, id: str, now: Now) -> None:
        """Note an instance that comes after it was written off, or that was not requested.

        It may be taken for what a request waits for. Then the one that was requested is
        unknown to the core until a listing shows it, and takes the place of the late one.
        """
        member = self.world.clouds[group].members.get(id)
        timeout = self.settings.creation_timeout.total_seconds()
        late = member is not None and (not member.ours or now.monotonic - member.since >= timeout)
        self.seen.late[group] = max(0, self.seen.late.get(group, 0) + (1 if late else -1))

    def _check_busy(self, place: Place, one: Instance | None) -> None:
        """Check that no task keeps its slot on an instance that is gone, failed or deleted."""
        if one is None:
            missing = self.seen.missing[place] = self.seen.missing.get(place, 0) + 1
            if missing >= self.settings.missed_updates:
                raise Violation("I13", f"tasks hold slots on {place}, missing {missing} times")
            return
        if one.state in (State.FAILED, State.DELETING):
            raise Violation("I13", f"tasks hold slots on {place}, which is {one.state.value}")

    def _prepared(self, now: Now, event: events.InstancePrepared) -> None:
        place = (event.group, event.id)
        self.seen.leaving.discard(place)
        self.seen.ready[place] = now.monotonic
        self._streaks.pop(event.group, None)

    def _break(self, now: Now, event: Any) -> None:
        del now
        self.seen.unhealthy.add((event.group, event.id))

    def _forget_instance(self, now: Now, gone: effects.Gone) -> None:
        del now
        place = (gone.group, gone.id)
        self.seen.ready.pop(place, None)
        if place in self.seen.leaving:
            # If the cloud has accepted a removal without effect, a later life cannot know it.
            for machine in [one for one in self._uses if one[:2] == place]:
                del self._uses[machine]
            self._tainted -= {one for one in self._tainted if one[:2] == place}
        self.seen.leaving.discard(place)
        self.seen.unhealthy.discard(place)
        self.seen.doomed.discard(place)
        self.seen.first_listed.pop(place, None)
        self.seen.missing.pop(place, None)
        if place in self.seen.taken:
            raise Violation("I13", f"{place} is gone while tasks hold slots on it")

    def _increase(self, now: Now, increase: effects.Increase) -> None:
        if increase.count < 1 or increase.count != increase.decision.decided:
            raise Violation("I1", f"increase by {increase.count}: {increase.decision}")
        clouds = self.world.clouds.values()
        limit = self.settings.max_instances
        listed = sum(len(instances) for instances in self.seen.listed.values())
        truth = sum(map(self._foreseeable, clouds))
        if limit and max(listed, truth) + increase.count > limit:
            raise Violation("I1", f"{increase.count} more, {listed} listed, {truth} exist")
        cloud = self.world.clouds[increase.group]
        there = self._foreseeable(cloud)
        limits = (cloud.model.info.max_size, self.settings.group_limits.get(increase.group))
        most = min((one for one in limits if one is not None), default=None)
        if most is not None and there + increase.count > most:
            raise Violation("I1", f"{increase.count} more, {there} exist in {increase.group}")
        streak = self._streaks.setdefault(
            increase.group, IncreaseStreak(now.monotonic, self._requests)
        )
        streak.increased(now.monotonic, self._requests, self.settings)

    def _foreseeable(self, cloud: Cloud) -> int:
        """Return the number of present and requested instances that the core can know of."""
        listed = self.seen.listed.get(cloud.model.info.id, {})
        # The core may take an instance that was added by others for one that it requested: no
        # cloud tells them apart.
        surprises = [
            id
            for id, member in cloud.members.items()
            if not (member.foreseen and member.ours) or (cloud.lied and id not in listed)
        ]
        hidden = sum(id not in listed for id in surprises)
        unseen = cloud.size - sum(id in listed for id in cloud.members)
        late = min(unseen, self.seen.late.get(cloud.model.info.id, 0))
        return cloud.size - len(surprises) - max(0, late - hidden)

    def _decrease(self, now: Now, decrease: effects.Decrease) -> None:
        del now
        self.removed += len(decrease.ids)
        if not decrease.ids or not decrease.decisions:
            raise Violation("I2", f"removal without instances or decisions: {decrease}")
        for id in decrease.ids:
            place = (decrease.group, id)
            if self._is_busy(place):
                raise Violation("I2", f"{place} is removed while tasks run there")
            if place in self.seen.taken:
                raise Violation("I2", f"{place} is removed while suspended tasks keep slots there")
            self.seen.leaving.add(place)

    def _suspend_instances(self, now: Now, suspend: effects.Suspend) -> None:
        del now
        for id in suspend.ids:
            if self._is_busy((suspend.group, id)):
                raise Violation("I2", f"{id} is suspended while tasks run there")

    def _is_overdue(self, place: Place, now: Now) -> bool:
        """Return whether an instance was listed for `creation_timeout` and does not run yet."""
        one = self.seen.listed.get(place[0], {}).get(place[1])
        seconds = self.settings.creation_timeout.total_seconds()
        since = self.seen.first_listed.get(place, now.monotonic)
        return (
            one is not None and one.state is not State.RUNNING and now.monotonic - since >= seconds
        )

    # The scaler itself.

    def _decide(self, now: Now, event: events.TimePassed) -> None:
        del event
        self._rate.decided(now.monotonic, self._events)

    def _decided(
        self, now: Now, event: events.TimePassed, answer: Sequence[effects.Effect]
    ) -> None:
        del event
        for one in answer:
            if isinstance(one, effects.WakeAt) and one.monotonic <= now.monotonic:
                raise Violation("rest", "a decision requests the next one at once")

    def _change(self, now: Now, event: events.SettingsChanged) -> None:
        del now
        self.settings = event.settings

    def _check_change(
        self, now: Now, event: events.SettingsChanged, answer: Sequence[effects.Effect]
    ) -> None:
        del now, event
        if any(isinstance(one, effects.Revoke | effects.Decrease) for one in answer):
            raise Violation("I14", "changed settings revoke slots or remove instances at once")

    def _shut_down(self, now: Now, event: events.ShutdownAsked) -> None:
        del now, event
        self.seen.closing = True


_ON_EVENT: Mapping[type[events.Event], Callable[[Any, Any, Any], None]] = {
    events.TaskReserved: InvariantChecker._reserve,
    events.TaskUnreserved: InvariantChecker._unreserve,
    events.TaskAsked: InvariantChecker._ask,
    events.TaskResumed: InvariantChecker._ask,
    events.TaskCancelled: InvariantChecker._cancel,
    events.TaskReleased: InvariantChecker._release,
    events.TaskSuspended: InvariantChecker._suspend,
    events.RecordsRestored: InvariantChecker._restore,
    events.InstancePrepared: InvariantChecker._prepared,
    events.PreparationFailed: InvariantChecker._break,
    events.InstanceBroke: InvariantChecker._break,
    events.HealthFailed: InvariantChecker._break,
    events.InterruptionAnnounced: InvariantChecker._break,
    events.SettingsChanged: InvariantChecker._change,
    events.ShutdownAsked: InvariantChecker._shut_down,
    events.TimePassed: InvariantChecker._decide,
}
_ON_EFFECT: Mapping[type[effects.Effect], Callable[[Any, Any, Any], None]] = {
    effects.Grant: InvariantChecker._grant,
    effects.Refuse: InvariantChecker._refuse,
    effects.Revoke: InvariantChecker._revoke,
    effects.Gone: InvariantChecker._forget_instance,
    effects.Increase: InvariantChecker._increase,
    effects.Decrease: InvariantChecker._decrease,
    effects.Suspend: InvariantChecker._suspend_instances,
}
_AFTER_EVENT: Mapping[type[events.Event], Callable[[Any, Any, Any, Any], None]] = {
    events.TaskReserved: InvariantChecker._check_reservation,
    events.ListingArrived: InvariantChecker._list,
    events.SettingsChanged: InvariantChecker._check_change,
    events.TimePassed: InvariantChecker._decided,
}
