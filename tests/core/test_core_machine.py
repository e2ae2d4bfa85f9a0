"""The core against a cloud that answers late, wrongly, partly or never: a state machine.

Hypothesis plays the tasks, the cloud and the clock in any order. After each
step the invariants are checked against a model that keeps its own books; at
the end everything is released and the group must come to rest at zero.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from core_model import Cloud, check_group, picture
from fleeting.errors import OutOfCapacity, ProviderError, Throttled
from fleeting.types import Accepted, Capability, GroupInfo, State
from taskscaler.core import effects, events
from taskscaler.core.settings import Placement, Policy, Settings, UnknownInstances
from taskscaler.core.state import ScalerState
from taskscaler.errors import IllegalEvent

START = datetime(2026, 3, 1, tzinfo=UTC)
KEYS = [f"task-{number}" for number in range(12)]


class ScalerMachine(RuleBasedStateMachine):
    """Plays everything that can happen to a scaler."""

    @initialize(
        capacity=st.integers(1, 3),
        max_instances=st.integers(0, 5),
        max_use_count=st.integers(0, 3),
        idle_count=st.integers(0, 3),
        scale_factor=st.sampled_from([0.0, 0.5, 1.0]),
        preemptive=st.sampled_from([None, True, False]),
        placement=st.sampled_from(Placement),
        sizes=st.lists(st.sampled_from([None, 1, 3]), min_size=1, max_size=2),
        can_suspend=st.booleans(),
        probe_after=st.sampled_from([0, 10, 10_000]),
        max_instance_age=st.sampled_from([0, 0, 900]),
        remove_unhealthy_with_tasks=st.booleans(),
    )
    def start(
        self,
        capacity: int,
        max_instances: int,
        max_use_count: int,
        idle_count: int,
        scale_factor: float,
        preemptive: bool | None,  # noqa: FBT001 - Hypothesis passes everything by name
        placement: Placement,
        sizes: list[int | None],
        can_suspend: bool,  # noqa: FBT001 - the same
        probe_after: int,
        max_instance_age: int,
        remove_unhealthy_with_tasks: bool,  # noqa: FBT001 - the same
    ) -> None:
        policy = Policy(
            idle_count=idle_count,
            idle_time=timedelta(seconds=30),
            scale_factor=scale_factor,
            scale_factor_limit=2,
            preemptive_mode=preemptive,
        )
        self.settings = Settings(
            capacity_per_instance=capacity,
            max_instances=max_instances,
            max_use_count=max_use_count,
            policy=policy,
            placement=placement,
            # Long, so that few listings come to pass until something times out.
            update_interval_when_expecting=timedelta(seconds=20),
            probe_after=timedelta(seconds=probe_after),
            max_instance_age=timedelta(seconds=max_instance_age),
            remove_unhealthy_with_tasks=remove_unhealthy_with_tasks,
        )
        self.clouds = {f"g{number}": Cloud(f"g{number}") for number in range(len(sizes))}
        able = frozenset({Capability.SUSPEND} if can_suspend else ())
        infos = [
            GroupInfo(name, size, capabilities=able)
            for name, size in zip(self.clouds, sizes, strict=True)
        ]
        self.state = ScalerState(infos, self.settings, name="operation")
        self.seconds = 0.0
        self.wake_at = 0.0
        self.todo: list[effects.Effect] = []
        self.lowered = False
        self.reserved: set[str] = set()
        self.waiting: set[str] = set()
        self.slots: dict[str, tuple[str, str, int]] = {}
        self.suspended: dict[str, tuple[str, str, int]] = {}
        self.resuming: set[str] = set()
        self.revoked: set[str] = set()
        self.uses: dict[tuple[str, str | None], int] = {}
        self.scaled: list[effects.Effect] = []
        self.apply(events.RecordsRestored(()))
        self.apply(events.TimePassed())

    # The books.

    def apply(self, event: events.Event) -> list[effects.Effect]:
        now = events.Now(self.seconds, START + timedelta(seconds=self.seconds))
        answer = self.state.apply(event, now)
        for effect in answer:
            self.book(effect)
        if isinstance(event, events.TimePassed):
            assert self.wake_at > self.seconds, "time passes between two decisions"
        return answer

    def book(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Grant():
                self.grant(effect)
            case effects.Refuse():
                self.reserved.discard(effect.key)
                self.waiting.discard(effect.key)
                if effect.key in self.resuming:
                    self.resuming.discard(effect.key)
                    del self.suspended[effect.key]
            case effects.Revoke():
                del self.slots[effect.key]
                self.revoked.add(effect.key)
            case effects.WakeAt():
                self.wake_at = effect.monotonic
            case effects.Increase():
                self.check_increase(effect)
                self.scaled.append(effect)
                self.todo.append(effect)
            case effects.Decrease():
                busy = {(group, id) for group, id, _ in self.slots.values()}
                assert not busy & {(effect.group, id) for id in effect.ids}, "I2"
                assert effect.decisions
                self.scaled.append(effect)
                self.todo.append(effect)
            case effects.List() | effects.Prepare() | effects.CheckHealth():
                self.todo.append(effect)
            case effects.Suspend():
                busy = {(group, id) for group, id, _ in self.slots.values()}
                assert not busy & {(effect.group, id) for id in effect.ids}, "it is in use"
                self.todo.append(effect)
            case effects.Resume():
                self.todo.append(effect)
            case _:
                assert isinstance(effect, effects.Persist | effects.Gone | effects.Decided)

    def grant(self, grant: effects.Grant) -> None:
        taken = (grant.group, grant.id, grant.slot)
        if grant.key in self.resuming:
            self.resuming.discard(grant.key)
            assert self.suspended.pop(grant.key) == taken, "it goes on where it stopped"
            self.slots[grant.key] = taken
            return
        assert grant.key in self.waiting, "granted without having asked"
        self.waiting.discard(grant.key)
        assert taken not in self.slots.values(), "I3: the slot is taken"
        assert taken not in self.suspended.values(), "I3: the slot is kept"
        assert 0 <= grant.slot < self.settings.capacity_per_instance, "I3"
        self.slots[grant.key] = taken
        instance = self.state.groups[grant.group].instances[grant.id]
        machine = (grant.id, instance.incarnation)
        self.uses[machine] = self.uses.get(machine, 0) + 1
        if self.settings.max_use_count:
            assert self.uses[machine] <= self.settings.max_use_count, "I4"

    def check_increase(self, increase: effects.Increase) -> None:
        assert increase.count > 0
        assert increase.decision.decided == increase.count
        limit = self.settings.max_instances
        assert not limit or self.state.standing().demand.instances <= limit, "I1"
        group = self.state.groups[increase.group]
        assert group.max_size is None or group.size <= group.max_size, "I1 for one group"

    # The tasks.

    @rule(key=st.sampled_from(KEYS))
    def reserve(self, key: str) -> None:
        if key in self.state.tasks:
            self.refuses(events.TaskReserved(key))
            return
        free = sum(group.slots.free for group in self.state.groups.values())
        answer = self.apply(events.TaskReserved(key))
        if not any(isinstance(effect, effects.Refuse) for effect in answer):
            if self.settings.policy.preemptive:
                assert free > len(self.reserved), "I7"
            self.reserved.add(key)

    @rule(key=st.sampled_from(KEYS))
    def unreserve(self, key: str) -> None:
        if key not in self.reserved:
            self.refuses(events.TaskUnreserved(key))
            return
        self.reserved.discard(key)
        self.apply(events.TaskUnreserved(key))

    @rule(key=st.sampled_from(KEYS))
    def ask(self, key: str) -> None:
        if key in self.state.tasks and key not in self.reserved:
            self.refuses(events.TaskAsked(key))
            return
        self.reserved.discard(key)
        self.waiting.add(key)
        self.apply(events.TaskAsked(key))

    @rule(key=st.sampled_from(KEYS))
    def cancel(self, key: str) -> None:
        if key in self.resuming:
            self.resuming.discard(key)
            self.apply(events.TaskCancelled(key))
            assert key in self.state.tasks.suspended, "it stays suspended"
            return
        if key not in self.waiting:
            self.refuses(events.TaskCancelled(key))
            return
        self.waiting.discard(key)
        # It may have a slot already, and not know of it because the instance is checked.
        has_slot = key in self.state.tasks.held
        self.apply(events.TaskReleased(key) if has_slot else events.TaskCancelled(key))
        assert key not in self.state.tasks, "I15"

    @rule(key=st.sampled_from(KEYS))
    def release(self, key: str) -> None:
        if key not in self.slots and key not in self.revoked:
            if key not in self.waiting:
                self.refuses(events.TaskReleased(key))
            return
        self.slots.pop(key, None)
        self.revoked.discard(key)
        self.apply(events.TaskReleased(key))

    @rule(key=st.sampled_from(KEYS))
    def suspend(self, key: str) -> None:
        held = self.slots.get(key)
        if held is None or not self.state.groups[held[0]].can_suspend:
            self.refuses(events.TaskSuspended(key))
            return
        self.suspended[key] = self.slots.pop(key)
        self.apply(events.TaskSuspended(key))

    @rule(key=st.sampled_from(KEYS))
    def resume(self, key: str) -> None:
        if key not in self.suspended or key in self.resuming:
            self.refuses(events.TaskResumed(key))
            return
        self.resuming.add(key)
        self.apply(events.TaskResumed(key))

    @rule(key=st.sampled_from(KEYS))
    def drop(self, key: str) -> None:
        if key not in self.suspended or key in self.resuming:
            self.refuses(events.SuspendedTaskDropped(key))
            return
        del self.suspended[key]
        self.apply(events.SuspendedTaskDropped(key))

    def refuses(self, event: events.Event) -> None:
        before = picture(self.state)
        with pytest.raises(IllegalEvent):
            self.apply(event)
        assert picture(self.state) == before, "a refused event changes nothing"

    # The clock.

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.0, 10.0, 40.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        if self.wake_at <= self.seconds:
            self.apply(events.TimePassed())

    @rule()
    def wake(self) -> None:
        if self.wake_at < float("inf"):
            self.seconds = max(self.seconds, self.wake_at)
            self.apply(events.TimePassed())

    # The cloud answers.

    @precondition(lambda self: self.todo)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.carry_out(self.todo.pop(data.draw(st.integers(0, len(self.todo) - 1))), data)

    def carry_out(self, effect: effects.Effect, data: st.DataObject | None) -> None:
        def choose(*kinds: str) -> str:
            return data.draw(st.sampled_from(kinds)) if data else kinds[0]

        match effect:
            case effects.List():
                self.list(effect, choose("fresh", "fresh", "stale", "failed"))
            case effects.Increase():
                kinds = (
                    "whole",
                    "whole",
                    "part",
                    "less",
                    "refused",
                    "lost",
                    "lost for nothing",
                    "nameless",
                )
                self.increase(effect, choose(*kinds))
            case effects.Decrease():
                self.decrease(effect, choose("whole", "whole", "part", "refused", "slow", "lied"))
            case effects.CheckHealth():
                # A check ends without a word when its instance is given up.
                self.check(effect, choose("well", "well", "ill"))
            case effects.Suspend():
                self.stop(effect, choose("whole", "slow", "refused"))
            case effects.Resume():
                self.start_again(effect, choose("whole", "slow", "refused"))
            case effects.Prepare():
                if choose("ready", "ready", "failed") == "ready":
                    self.apply(events.InstancePrepared(effect.group, effect.id))
                else:
                    self.apply(events.PreparationFailed(effect.group, effect.id, "no answer"))
            case _:
                raise AssertionError(effect)

    def check(self, effect: effects.CheckHealth, kind: str) -> None:
        if kind == "well":
            self.apply(events.HealthPassed(effect.group, effect.id))
        else:
            self.apply(events.HealthFailed(effect.group, effect.id, "no answer"))

    def stop(self, effect: effects.Suspend, kind: str) -> None:
        cloud = self.clouds[effect.group]
        ids = effect.ids if kind != "refused" else ()
        for id in ids:
            if id in cloud.members:
                cloud.turn(id, State.SUSPENDING if kind == "slow" else State.SUSPENDED)
        error = ProviderError("not now") if kind == "refused" else None
        self.apply(events.SuspendSettled(effect.group, effect.ids, Accepted(len(ids), ids, error)))

    def start_again(self, effect: effects.Resume, kind: str) -> None:
        cloud = self.clouds[effect.group]
        ids = effect.ids if kind != "refused" else ()
        for id in ids:
            if id in cloud.members:
                cloud.turn(id, State.RESUMING if kind == "slow" else State.RUNNING)
        error = ProviderError("not now") if kind == "refused" else None
        self.apply(events.ResumeSettled(effect.group, effect.ids, Accepted(len(ids), ids, error)))

    def list(self, effect: effects.List, kind: str) -> None:
        cloud = self.clouds[effect.group]
        if kind == "failed":
            self.apply(events.ListingFailed(effect.group, Throttled("slow down")))
            return
        # Never two old ones in a row: that would be a cloud that lies for good.
        if kind == "stale" and cloud.previous is not None:
            listing, cloud.previous = cloud.previous, None
            if self.seconds > self.settings.creation_timeout.total_seconds():
                # What was accepted that long ago is written off when an old listing lacks it.
                self.lowered = True
            self.apply(events.ListingArrived(effect.group, listing))
            return
        listing = cloud.previous = cloud.listing()
        cloud.forget_deleted()
        self.apply(events.ListingArrived(effect.group, listing))

    def increase(self, effect: effects.Increase, kind: str) -> None:
        cloud = self.clouds[effect.group]
        error: ProviderError | None = None
        count = {"whole": effect.count, "lost": effect.count, "nameless": effect.count}.get(kind, 0)
        if kind == "part":
            count, error = effect.count // 2, OutOfCapacity("no more today")
        elif kind == "less":
            count = effect.count // 2
        elif kind in ("refused", "lost for nothing", "lost"):
            error = ProviderError("no answer")
        if kind == "nameless":
            cloud.nameless += count
        else:
            cloud.create(count)
        unknown = kind.startswith("lost")
        accepted = Accepted(0 if unknown else count, error=error)
        self.apply(
            events.IncreaseSettled(effect.group, effect.operation, accepted, unknown=unknown)
        )

    def decrease(self, effect: effects.Decrease, kind: str) -> None:
        cloud = self.clouds[effect.group]
        ids = {"part": effect.ids[:1], "refused": ()}.get(kind, effect.ids)
        error = ProviderError("not now") if len(ids) < len(effect.ids) else None
        for id in ids if kind != "lied" else ():
            if kind == "slow" and id in cloud.members:
                cloud.turn(id, State.DELETING)
            else:
                cloud.members.pop(id, None)
        accepted = Accepted(len(ids), ids, error)
        self.apply(events.DecreaseSettled(effect.group, effect.ids, accepted))

    @rule(seconds=st.sampled_from([0.0, 2.0]))
    def prosper(self, seconds: float) -> None:
        """All goes well for a moment, so that there is something to spoil."""
        self.settle(rounds=3, seconds=seconds)

    # The cloud acts by itself.

    @precondition(lambda self: any(cloud.members for cloud in self.clouds.values()))
    @rule(
        data=st.data(),
        what=st.sampled_from(
            [
                "boots",
                "boots",
                "boots",
                "fails",
                "is taken away",
                "is not understood",
                "is stopped",
                "vanishes",
                "is recreated",
            ]
        ),
    )
    def happen(self, data: st.DataObject, what: str) -> None:
        clouds = [cloud for cloud in self.clouds.values() if cloud.members]
        cloud = data.draw(st.sampled_from(clouds))
        cloud.happen(what, data.draw(st.sampled_from(sorted(cloud.members))))

    @rule(data=st.data(), what=st.sampled_from(["named", "added", "back"]))
    def appear(self, data: st.DataObject, what: str) -> None:
        cloud = data.draw(st.sampled_from(list(self.clouds.values())))
        if what == "named":
            cloud.name_all()
        elif what == "added":
            cloud.create(1)
            cloud.unforeseen = True
        elif cloud.vanished:
            instance = cloud.vanished.pop()
            cloud.members.setdefault(instance.id, instance)
            cloud.unforeseen = True

    @precondition(lambda self: any(cloud.members for cloud in self.clouds.values()))
    @rule(data=st.data())
    def announce(self, data: st.DataObject) -> None:
        clouds = [cloud for cloud in self.clouds.values() if cloud.members]
        cloud = data.draw(st.sampled_from(clouds))
        id = data.draw(st.sampled_from(sorted(cloud.members)))
        self.apply(events.InterruptionAnnounced(cloud.name, id, "spot"))

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def break_down(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.slots)))
        group, id, _ = self.slots[key]
        self.apply(events.InstanceBroke(group, id, "the connection broke"))

    @rule(
        max_instances=st.integers(0, 5),
        idle_count=st.integers(0, 3),
        unknown=st.sampled_from(UnknownInstances),
    )
    def reconfigure(self, max_instances: int, idle_count: int, unknown: UnknownInstances) -> None:
        self.settings = replace(
            self.settings,
            max_instances=max_instances,
            unknown_instances=unknown,
            policy=replace(self.settings.policy, idle_count=idle_count),
        )
        self.lowered = True
        self.apply(events.SettingsChanged(self.settings))

    # What always holds.

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "state"):
            return
        tasks = self.state.tasks
        instances = [
            one for group in self.state.groups.values() for one in group.instances.values()
        ]
        # They have a slot already, and do not know.
        unconfirmed = {key for one in instances for key in one.unconfirmed}
        # A suspended task is lost with its instance without a word, unless it wants to go on.
        for key in set(self.suspended) - self.resuming - set(tasks.suspended):
            group, id, _ = self.suspended.pop(key)
            known = self.state.groups[group].instances.get(id)
            assert known is None or key not in known.suspended
        assert set(tasks.reserved) == self.reserved, "I8"
        assert set(tasks.waiting) | unconfirmed == self.waiting
        assert set(tasks) == self.waiting - unconfirmed
        assert set(tasks.held) == set(self.slots) | self.revoked | unconfirmed
        assert set(tasks.suspended) == set(self.suspended)
        assert tasks.resuming == self.resuming
        demand = self.state.standing().demand
        assert demand.acquired == len(self.slots) + len(unconfirmed)
        for group in self.state.groups.values():
            check_group(group, self.settings)

    @invariant()
    def limit_is_kept_in_truth(self) -> None:
        """Holds as long as the cloud and the operator do nothing that cannot be foreseen."""
        if not hasattr(self, "state") or not self.settings.max_instances or self.lowered:
            return
        if not any(cloud.unforeseen for cloud in self.clouds.values()):
            total = sum(len(cloud.members) + cloud.nameless for cloud in self.clouds.values())
            assert total <= self.settings.max_instances, "I1 in truth"

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        if hasattr(self, "state") and self.state.tasks.waiting:
            free = sum(group.slots.free for group in self.state.groups.values())
            assert free <= (len(self.reserved) if self.settings.policy.preemptive else 0)

    # The end.

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        self.settle(rounds=150)
        self.scaled.clear()
        self.settle(rounds=30)
        if not self.settings.max_instance_age:
            assert self.scaled == [], "I6: no churn under constant load"
        self.let_go()
        self.settle(rounds=200)
        left = [one for group in self.state.groups.values() for one in group.ours()]
        assert left == [], "I5: zero is reached"
        self.scaled.clear()
        self.settle(rounds=30)
        assert self.scaled == [], "I5: and kept"

    def let_go(self) -> None:
        for key in sorted(self.reserved):
            self.unreserve(key)
        for key in sorted(self.waiting):
            self.cancel(key)
        for key in sorted(set(self.slots) | self.revoked):
            self.release(key)
        for key in sorted(self.suspended):
            if key in self.resuming:
                self.cancel(key)
            self.drop(key)
        assert not self.state.tasks.held
        assert not self.state.tasks.suspended
        policy = replace(self.settings.policy, idle_count=0)
        self.settings = replace(self.settings, policy=policy)
        self.apply(events.SettingsChanged(self.settings))

    def settle(self, *, rounds: int, seconds: float | None = None) -> None:
        """Let time pass in a cloud that now does what it is asked for.

        Without a step in seconds the core is told of time only when it wants to be, so that
        a wish that it forgot would let it sleep for ever.
        """
        for _ in range(rounds):
            while self.todo:
                self.carry_out(self.todo.pop(0), None)
            for cloud in self.clouds.values():
                cloud.name_all()
                for one in list(cloud.members.values()):
                    if one.state in (State.CREATING, State.UNKNOWN, State.RESUMING):
                        cloud.turn(one.id, State.RUNNING)
                    elif one.state is State.SUSPENDING:
                        cloud.turn(one.id, State.SUSPENDED)
            if seconds is not None:
                self.seconds += seconds
                self.apply(events.TimePassed())
            elif self.wake_at < float("inf"):
                self.wake()


ScalerMachine.TestCase.settings = settings(
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestScalerMachine = ScalerMachine.TestCase
