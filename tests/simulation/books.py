"""Books of what the core was told, answered and did, and the invariants that they must show.

The books are kept from events, effects and the truth in the simulated clouds,
never from the core's own fields, so that a mistake there cannot hide itself.
The numbers I1 to I15 name the invariants; `docs/simulation.md` has them in words.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from fleeting.types import State
from taskscaler.core import InstanceRecord, Rule, UnknownInstances, effects, events
from taskscaler.simulation import SimulationObserver

from .life import Broken, Life, Pace, Place, Streak, incarnation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fleeting.types import Instance
    from taskscaler.core import Now, Settings
    from taskscaler.simulation import World
    from taskscaler.simulation._cloud import Cloud

__all__ = ("Books",)

# How many of the newest events are kept for a report.
HISTORY = 400


class Books(SimulationObserver):
    """Keeps the books, and raises `Broken` as soon as they show what must not be.

    Attributes:
        world: what is watched; set before it runs.
        history: the newest events with what the core answered.
        scalings: how many increases and decreases there were so far.
    """

    world: World

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.history: deque[tuple[Now, events.Event, Sequence[effects.Effect]]] = deque(
            maxlen=HISTORY
        )
        self.scalings = 0
        self.life = Life()
        self._uses: dict[tuple[str, str, str | None], int] = {}
        # The same as the store has them, with those that were never told.
        self._granted: dict[tuple[str, str, str | None], int] = {}
        self._tainted: set[tuple[str, str, str | None]] = set()
        self._idle_seconds = settings.policy.idle_time.total_seconds()
        self._pace = Pace()
        self._told = 0
        self._streaks: dict[str, Streak] = {}
        self._asked = 0

    # What is seen.

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        self.history.append((now, event, effects))
        kind = type(event)
        note = _EVENTS.get(kind)
        if note is not None:
            note(self, now, event)
        for effect in effects:
            check = _EFFECTS.get(type(effect))
            if check is not None:
                check(self, now, effect)
        after = _AFTERWARDS.get(kind)
        if after is not None:
            after(self, now, event, effects)
        self._told += 1
        if not self._told % 16:
            self._compare()

    def carried_out(self, now: Now, effect: effects.Effect) -> None:
        del now
        records = self.world.manager.records
        if isinstance(effect, effects.Grant):
            held = self.life.held.get(effect.key)
            if held != (effect.group, effect.id, effect.slot):
                return
            self.life.delivered.add(effect.key)
            if effect.key in self.life.resumed:
                self.life.resumed.discard(effect.key)
            else:
                self._use(effect)
            record = records.get(("instance", effect.group, effect.id))
            if not isinstance(record, InstanceRecord) or effect.key not in record.tasks:
                raise Broken("I11", f"{effect.key} got a slot that the store knows nothing of")
        elif isinstance(effect, effects.Increase) and (
            ("operation", effect.group, effect.operation) not in records
        ):
            raise Broken("I11", f"{effect.operation} is asked for before it is stored")

    def ended(self, now: Now) -> None:
        life, self.life = self.life, Life(began=now.monotonic)
        if not self.settings.keep_instance_with_acquisitions:
            for key in life.delivered & set(life.held):
                group, id, _ = life.held[key]
                self._tainted.add((group, id, incarnation(life, group, id)))
        records = self.world.manager.records
        for group, cloud in self.world.clouds.items():
            for id, member in cloud.members.items():
                if member.troubled and ("instance", group, id) not in records:
                    # To the next life it is a stranger.
                    member.foreseen = member.ours = False

    # TaskPlayer.

    def _reserve(self, now: Now, event: events.TaskReserved) -> None:
        del now
        self._asked += 1
        self.life.reserved.add(event.key)

    def _reserved(
        self, now: Now, event: events.TaskReserved, answer: Sequence[effects.Effect]
    ) -> None:
        del now
        if any(isinstance(one, effects.Refuse) for one in answer) or self.settings.schedule:
            return
        if self.settings.policy.preemptive:
            free = sum(self._free(place) for place in self.life.ready)
            if free < len(self.life.reserved):
                raise Broken("I7", f"{event.key} was promised a slot, of which {free} are free")

    def _free(self, place: Place) -> int:
        if place in self.life.leaving or place in self.life.doomed:
            return 0
        free = self.settings.capacity_per_instance - len(self.life.taken.get(place, ()))
        if self.settings.max_use_count:
            used = self._uses.get((*place, incarnation(self.life, *place)), 0)
            free = min(free, self.settings.max_use_count - used)
        return max(0, free)

    def _unreserve(self, now: Now, event: events.TaskUnreserved) -> None:
        del now
        self.life.reserved.remove(event.key)

    def _ask(self, now: Now, event: events.TaskAsked | events.TaskResumed) -> None:
        del now
        self._asked += 1
        self.life.reserved.discard(event.key)
        self.life.waiting.add(event.key)

    def _cancel(self, now: Now, event: events.TaskCancelled) -> None:
        del now
        # One that was to be resumed stays suspended.
        self.life.waiting.remove(event.key)

    def _release(self, now: Now, event: events.TaskReleased) -> None:
        # Or it had a slot, and was not told yet because the instance is being checked.
        self.life.waiting.discard(event.key)
        self._vacate(event.key, now)
        self.life.revoked.discard(event.key)

    def _suspend(self, now: Now, event: events.TaskSuspended) -> None:
        self.life.kept_at[event.key] = now.monotonic
        self.life.kept[event.key] = self.life.held.pop(event.key)
        self.life.delivered.discard(event.key)

    def _stored(self, now: Now, persist: effects.Persist) -> None:
        """Notice how often instances are used by what is stored of them."""
        del now
        for record in persist.put:
            if isinstance(record, InstanceRecord):
                machine = (record.group, record.id, record.incarnation)
                # A task that leaves while its instance is checked gives its use back.
                self._granted[machine] = max(record.used, self._granted.get(machine, 0))

    def _forget(self, key: str) -> None:
        group, id, slot = self.life.kept.pop(key)
        taken = self.life.taken[group, id]
        del taken[slot]
        if not taken:
            del self.life.taken[group, id]

    def _is_busy(self, place: Place) -> bool:
        return any(key in self.life.held for key in self.life.taken.get(place, {}).values())

    def _vacate(self, key: str, now: Now) -> None:
        held = self.life.held.pop(key, None)
        if held is not None:
            group, id, slot = held
            taken = self.life.taken[group, id]
            del taken[slot]
            if not taken:
                del self.life.taken[group, id]
                self.life.ready[group, id] = now.monotonic
        self.life.delivered.discard(key)

    def _grant(self, now: Now, grant: effects.Grant) -> None:
        del now
        life, place = self.life, (grant.group, grant.id)
        if grant.key not in life.waiting:
            raise Broken("I15", f"{grant.key} gets a slot and does not wait for one")
        life.waiting.discard(grant.key)
        if grant.key in life.kept:
            if life.kept[grant.key] != (*place, grant.slot):
                raise Broken("I3", f"{grant.key} was resumed in another slot than its own")
            life.held[grant.key] = life.kept.pop(grant.key)
            life.resumed.add(grant.key)
            return
        taken = life.taken.setdefault(place, {})
        if grant.slot in taken or not 0 <= grant.slot < self.settings.capacity_per_instance:
            raise Broken("I3", f"{grant.key} gets slot {grant.slot} of {place}; taken: {taken}")
        if place not in life.ready or place in life.leaving:
            raise Broken("I7", f"{grant.key} gets a slot on {place}, which is not ready")
        machine = (*place, incarnation(life, *place))
        if machine in self._tainted:
            raise Broken("I11", f"{grant.key} gets a slot on {place}, where tasks were lost")
        taken[grant.slot] = grant.key
        life.held[grant.key] = (*place, grant.slot)

    def _use(self, grant: effects.Grant) -> None:
        """Count a task that has really begun, over all lives of the manager."""
        machine = (grant.group, grant.id, incarnation(self.life, grant.group, grant.id))
        uses = self._uses[machine] = self._uses.get(machine, 0) + 1
        if 0 < self.settings.max_use_count < uses:
            raise Broken("I4", f"{grant.key} is use {uses} of {machine}")

    def _refuse(self, now: Now, refuse: effects.Refuse) -> None:
        del now
        if refuse.key not in self.life.waiting | self.life.reserved:
            raise Broken("I8", f"{refuse.key} is refused and asked for nothing")
        self.life.reserved.discard(refuse.key)
        self.life.waiting.discard(refuse.key)
        if refuse.key in self.life.kept and not self.life.closing:
            self._forget(refuse.key)

    def _revoke(self, now: Now, revoke: effects.Revoke) -> None:
        if revoke.key in self.life.kept:
            self._give_up(revoke, now)
            return
        held = self.life.held.get(revoke.key)
        if held is None:
            raise Broken("I8", f"{revoke.key} loses a slot that it does not have")
        if not self._is_lost(held[0], held[1]):
            raise Broken("I2", f"{revoke.key} loses its slot on a healthy instance: {revoke.cause}")
        self._vacate(revoke.key, now)
        self.life.revoked.add(revoke.key)

    def _give_up(self, revoke: effects.Revoke, now: Now) -> None:
        """A suspended task is lost, with its instance or because it was so for too long."""
        group, id, _ = self.life.kept[revoke.key]
        slept = now.monotonic - self.life.kept_at.get(revoke.key, float("-inf"))
        is_over = slept >= self.settings.suspend_time_to_live.total_seconds()
        if not (is_over or self._is_lost(group, id) or self._is_late((group, id), now)):
            raise Broken("I2", f"{revoke.key} loses what it left on {id}: {revoke.cause}")
        self._forget(revoke.key)

    def _is_lost(self, group: str, id: str) -> bool:
        cloud = self.world.clouds[group]
        member = cloud.members.get(id)
        return (
            self.life.closing
            or id in cloud.troubled
            or member is None
            or member.troubled
            or member.shown.state is not State.RUNNING
            or (group, id) in self.life.sick
        )

    def _compare(self) -> None:
        """Compare with what the core says of itself: what is counted must come back to zero."""
        state = self.world.manager.state
        if state is None:
            return
        demand = state.demand()
        life = self.life
        # A task that waits may have a slot already, and is told when the instance is checked.
        told = (demand.waiting + demand.acquired, demand.reserved)
        wanted = (len(life.waiting - set(life.kept)) + len(life.held), len(life.reserved))
        if told != wanted:
            raise Broken("I8", f"tasks and reservations are {told}, and should be {wanted}")

    # Instances.

    def _restored(self, now: Now, event: events.RecordsRestored) -> None:
        self.life.began = now.monotonic
        # They may have been changed while the manager was away.
        self._put_in_force(self.world.manager.settings)
        for record in event.records:
            if isinstance(record, InstanceRecord):
                place = (record.group, record.id)
                is_kept = self.settings.keep_instance_with_acquisitions
                is_used_up = record.used >= self.settings.max_use_count > 0
                if record.rule or is_used_up or (record.tasks and not is_kept):
                    self.life.doomed.add(place)
                for key, slot, _ in record.suspended:
                    self.life.kept[key] = (*place, slot)
                    self.life.taken.setdefault(place, {})[slot] = key

    def _listed(
        self, now: Now, event: events.ListingArrived, answer: Sequence[effects.Effect]
    ) -> None:
        del answer
        group, life = event.group, self.life
        members = self.world.clouds[group].members
        listed = life.listed[group] = {one.id: one for one in event.listing.instances}
        for id in listed:
            life.first.setdefault((group, id), now.monotonic)
            life.missing.pop((group, id), None)
            if id in members:
                members[id].foreseen = True
        for place in life.taken:
            if place[0] == group and self._is_busy(place):
                self._look_for(place, listed.get(place[1]))

    def _look_for(self, place: Place, one: Instance | None) -> None:
        """Check that no task holds a slot for long on an instance that is not there."""
        if one is None:
            missing = self.life.missing[place] = self.life.missing.get(place, 0) + 1
            if missing >= self.settings.missed_updates:
                raise Broken("I13", f"tasks hold slots on {place}, missing {missing} times")
            return
        if one.state in (State.FAILED, State.DELETING):
            raise Broken("I13", f"tasks hold slots on {place}, which is {one.state.value}")

    def _ready(self, now: Now, event: events.InstancePrepared) -> None:
        place = (event.group, event.id)
        self.life.leaving.discard(place)
        self.life.ready[place] = now.monotonic
        self._streaks.pop(event.group, None)

    def _sick(self, now: Now, event: Any) -> None:
        del now
        self.life.sick.add((event.group, event.id))

    def _gone(self, now: Now, gone: effects.Gone) -> None:
        del now
        place = (gone.group, gone.id)
        self.life.ready.pop(place, None)
        self.life.leaving.discard(place)
        self.life.sick.discard(place)
        self.life.doomed.discard(place)
        self.life.first.pop(place, None)
        self.life.missing.pop(place, None)
        if place in self.life.taken:
            raise Broken("I13", f"{place} is gone, and tasks hold slots on it")

    def _increase(self, now: Now, increase: effects.Increase) -> None:
        self.scalings += 1
        if increase.count < 1 or increase.count != increase.decision.decided:
            raise Broken("I1", f"an increase by {increase.count}: {increase.decision}")
        clouds = self.world.clouds.values()
        limit = self.settings.max_instances
        listed = sum(len(instances) for instances in self.life.listed.values())
        truth = sum(map(self._foreseen, clouds))
        if limit and max(listed, truth) + increase.count > limit:
            raise Broken("I1", f"{increase.count} more than {listed} listed, {truth} in truth")
        cloud = self.world.clouds[increase.group]
        most = cloud.model.info.max_size
        if most is not None and self._foreseen(cloud) + increase.count > most:
            there = self._foreseen(cloud)
            raise Broken("I1", f"{increase.count} more than {there} in {increase.group}")
        streak = self._streaks.setdefault(increase.group, Streak(now.monotonic, self._asked))
        streak.grew(now.monotonic, self._asked, self.settings)

    def _foreseen(self, cloud: Cloud) -> int:
        """Return how many instances there are or will be that the core can know of."""
        listed = self.life.listed.get(cloud.model.info.id, {})
        # One that somebody else added may be taken for one that was asked for: no cloud says
        # which is which.
        surprises = sum(
            not (member.foreseen and member.ours) or (cloud.lied and id not in listed)
            for id, member in cloud.members.items()
        )
        return cloud.size - surprises

    def _decrease(self, now: Now, decrease: effects.Decrease) -> None:
        self.scalings += 1
        rules = {one.rule for one in decrease.decisions}
        if not decrease.ids or not rules:
            raise Broken("I2", f"a removal of nothing, or for nothing: {decrease}")
        for id in decrease.ids:
            place = (decrease.group, id)
            if self._is_busy(place):
                raise Broken("I2", f"{place} is removed, and tasks run there")
            if place in self.life.taken:
                raise Broken("I2", f"{place} is removed, and suspended tasks are there")
            self.life.leaving.add(place)
            if not any(self._is_reason(rule, now, *place) for rule in rules):
                raise Broken("I11", f"{place} is removed without a reason: {decrease.decisions}")

    def _asleep(self, now: Now, suspend: effects.Suspend) -> None:
        del now
        for id in suspend.ids:
            if self._is_busy((suspend.group, id)):
                raise Broken("I2", f"{id} is suspended, and tasks run there")

    def _is_reason(self, rule: Rule, now: Now, group: str, id: str) -> bool:
        place, cloud = (group, id), self.world.clouds[group]
        member = cloud.members.get(id)
        # What an earlier life has decided, it had its reasons for.
        lost = self._is_lost(group, id) or place in self.life.doomed
        if rule is Rule.IDLE:
            since = self.life.ready.get(place)
            return since is None or now.monotonic - since >= self._idle_seconds - 1e-6
        reasons = {
            Rule.USED_UP: self._is_used_up(place),
            Rule.FAILED: self._is_late(place, now),
            Rule.UNKNOWN: self.settings.unknown_instances is UnknownInstances.REMOVE
            or member is None
            or not member.ours,
            Rule.SHUTDOWN: self.life.closing,
            Rule.LOST: False,
            Rule.UNHEALTHY: False,
            Rule.INTERRUPTED: False,
        }
        return lost or reasons.get(rule, True)

    def _is_used_up(self, place: Place) -> bool:
        used = self._granted.get((*place, incarnation(self.life, *place)), 0)
        return used >= self.settings.max_use_count > 0

    def _is_late(self, place: Place, now: Now) -> bool:
        """Return whether it was listed for too long, and is still, as one that does not run."""
        one = self.life.listed.get(place[0], {}).get(place[1])
        seconds = self.settings.creation_timeout.total_seconds()
        since = self.life.first.get(place, now.monotonic)
        return (
            one is not None and one.state is not State.RUNNING and now.monotonic - since >= seconds
        )

    # The scaler itself.

    def _pass(self, now: Now, event: events.TimePassed) -> None:
        del event
        self._pace.decided(now.monotonic, self._told)

    def _passed(self, now: Now, event: events.TimePassed, answer: Sequence[effects.Effect]) -> None:
        del event
        for one in answer:
            if isinstance(one, effects.WakeAt) and one.monotonic <= now.monotonic:
                raise Broken("rest", "a decision asks for the next one at once")

    def _change(self, now: Now, event: events.SettingsChanged) -> None:
        del now
        self._put_in_force(event.settings)

    def _put_in_force(self, settings: Settings) -> None:
        self.settings = settings
        # What is asked for again may have been decided under earlier ones.
        self._idle_seconds = min(self._idle_seconds, settings.policy.idle_time.total_seconds())

    def _changed(
        self, now: Now, event: events.SettingsChanged, answer: Sequence[effects.Effect]
    ) -> None:
        del now, event
        if any(isinstance(one, effects.Revoke | effects.Decrease) for one in answer):
            raise Broken("I14", "other settings take something away at once")

    def _close(self, now: Now, event: events.ShutdownAsked) -> None:
        del now, event
        self.life.closing = True


_EVENTS: Mapping[type[events.Event], Callable[[Any, Any, Any], None]] = {
    events.TaskReserved: Books._reserve,
    events.TaskUnreserved: Books._unreserve,
    events.TaskAsked: Books._ask,
    events.TaskResumed: Books._ask,
    events.TaskCancelled: Books._cancel,
    events.TaskReleased: Books._release,
    events.TaskSuspended: Books._suspend,
    events.RecordsRestored: Books._restored,
    events.InstancePrepared: Books._ready,
    events.PreparationFailed: Books._sick,
    events.InstanceBroke: Books._sick,
    events.HealthFailed: Books._sick,
    events.InterruptionAnnounced: Books._sick,
    events.SettingsChanged: Books._change,
    events.ShutdownAsked: Books._close,
    events.TimePassed: Books._pass,
}
_EFFECTS: Mapping[type[effects.Effect], Callable[[Any, Any, Any], None]] = {
    effects.Persist: Books._stored,
    effects.Grant: Books._grant,
    effects.Refuse: Books._refuse,
    effects.Revoke: Books._revoke,
    effects.Gone: Books._gone,
    effects.Increase: Books._increase,
    effects.Decrease: Books._decrease,
    effects.Suspend: Books._asleep,
}
_AFTERWARDS: Mapping[type[events.Event], Callable[[Any, Any, Any, Any], None]] = {
    events.TaskReserved: Books._reserved,
    events.ListingArrived: Books._listed,
    events.SettingsChanged: Books._changed,
    events.TimePassed: Books._passed,
}
