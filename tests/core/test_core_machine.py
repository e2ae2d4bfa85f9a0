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

from core_model import check_state, picture
from core_player import Player
from fleeting.types import Capability, GroupInfo
from taskscaler import IllegalEvent
from taskscaler.core import (
    Phase,
    Placement,
    Policy,
    Settings,
    TaskStatus,
    UnknownInstances,
    effects,
    events,
)
from taskscaler.core.rules.listings import PORTION

START = datetime(2026, 3, 1, tzinfo=UTC)
KEYS = [f"task-{number}" for number in range(12)]


class ScalerMachine(Player, RuleBasedStateMachine):
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
        portion=st.sampled_from([PORTION, 1, 150]),
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
        portion: int,
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
        able = frozenset({Capability.SUSPEND} if can_suspend else ())
        names = [f"g{number}" for number in range(len(sizes))]
        infos = [
            GroupInfo(name, size, capabilities=able)
            for name, size in zip(names, sizes, strict=True)
        ]
        self.can_suspend = can_suspend
        self.begin(infos, portion)

    # The tasks.

    @rule(key=st.sampled_from(KEYS))
    def reserve(self, key: str) -> None:
        if self.state.task(key) is not None:
            self.refuses(events.TaskReserved(key))
            return
        free = self.state.demand().free
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
        if self.state.task(key) is not None and key not in self.reserved:
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
            assert self.kept(key), "it stays suspended"
            return
        if key not in self.waiting:
            self.refuses(events.TaskCancelled(key))
            return
        self.waiting.discard(key)
        # It may have a slot already, and not know of it because the instance is checked.
        task = self.state.task(key)
        has_slot = task is not None and task.status is TaskStatus.UNCONFIRMED
        self.apply(events.TaskReleased(key) if has_slot else events.TaskCancelled(key))
        assert self.state.task(key) is None, "I15"

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
        if held is None or not self.can_suspend:
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

    def status(self, key: str) -> TaskStatus | None:
        task = self.state.task(key)
        return None if task is None else task.status

    def kept(self, key: str) -> bool:
        return self.status(key) is TaskStatus.SUSPENDED

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
            self.sleep()

    # The cloud answers.

    @precondition(lambda self: self.todo)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.carry_out(self.todo.pop(data.draw(st.integers(0, len(self.todo) - 1))), data)

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

    # Invariants.

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "state"):
            return
        # They have a slot already, and were not told.
        held = [*self.state.held()]
        unconfirmed = {one.key for one in held if one.status is TaskStatus.UNCONFIRMED}
        reserved = {key for key in KEYS if self.status(key) is TaskStatus.RESERVED}
        assert reserved == self.reserved, "I8"
        assert set(self.state.waiting()) == self.waiting - unconfirmed
        assert {one.key for one in held} == set(self.slots) | self.revoked | unconfirmed
        kept = [*self.state.suspended()]
        assert {one.key for one in kept} == set(self.suspended)
        resuming = {one.key for one in kept if one.status is TaskStatus.RESUMING}
        assert resuming == self.resuming
        demand = self.state.demand()
        assert demand.waiting == len(self.waiting - unconfirmed)
        assert demand.acquired == len(self.slots) + len(unconfirmed)
        check_state(self.state)

    @invariant()
    def limit_is_kept_in_truth(self) -> None:
        """Holds as long as the cloud and the operator do nothing that cannot be foreseen."""
        if not hasattr(self, "state") or not self.settings.max_instances or self.lowered:
            return
        if not any(cloud.unforeseen for cloud in self.clouds.values()):
            total = sum(len(cloud.members) + cloud.nameless for cloud in self.clouds.values())
            assert total <= self.settings.max_instances, "I1 in truth"

    @invariant()
    def no_task_waits_while_a_slot_is_free(self) -> None:
        if hasattr(self, "state") and (demand := self.state.demand()).waiting:
            assert demand.free <= (len(self.reserved) if self.settings.policy.preemptive else 0)

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
        left = [one for one in self.state.instances() if one.phase is not Phase.FOREIGN]
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
        assert not [*self.state.held()]
        assert not [*self.state.suspended()]
        policy = replace(self.settings.policy, idle_count=0)
        self.settings = replace(self.settings, policy=policy)
        self.apply(events.SettingsChanged(self.settings))


ScalerMachine.TestCase.settings = settings(
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestScalerMachine = ScalerMachine.TestCase
