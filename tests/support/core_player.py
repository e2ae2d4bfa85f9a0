"""Plays the cloud and keeps the books for a core that is driven in any order.

The books are what a scaler must do, kept without looking at what it keeps: who
waits, who holds which slot, how often an instance was used.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from core_model import Cloud, fleet_of
from fleeting.errors import ConfigError, GroupGone, OutOfCapacity, ProviderError, Throttled
from fleeting.types import Accepted, GroupInfo, State
from taskscaler.core import ScalerState, Stage, effects, events
from taskscaler.core.rules.listings import PORTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Settings

START = datetime(2026, 3, 1, tzinfo=UTC)

# Effects that are answered by an event.
CALLS = (
    effects.List,
    effects.Increase,
    effects.Decrease,
    effects.Prepare,
    effects.CheckHealth,
    effects.Suspend,
    effects.Resume,
)


class Player:
    """A core, the clouds of its groups, a clock, and the books."""

    settings: Settings

    def begin(self, infos: Sequence[GroupInfo], portion: int = PORTION) -> None:
        self.clouds = {info.id: Cloud(info.id) for info in infos}
        self.state = ScalerState(infos, self.settings, name="operation", portion=portion)
        self.seconds = 0.0
        self.wake_at = float("inf")
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
        wakes = [effect.monotonic for effect in answer if isinstance(effect, effects.WakeAt)]
        assert len(wakes) <= 1, "when to decide next is computed once"
        if not isinstance(event, events.TimePassed):
            assert all(at < self.wake_at for at in wakes), "a wish is replaced by an earlier one"
        for effect in answer:
            self.book(effect)
        if isinstance(event, events.TimePassed):
            assert self.state.digesting or self.wake_at > self.seconds, (
                "time passes between two decisions"
            )
        return answer

    def book(self, effect: effects.Effect) -> None:
        if isinstance(effect, CALLS):
            self.todo.append(effect)
        match effect:
            case effects.Grant():
                self.grant(effect)
            case effects.Refuse():
                self.refused(effect.key)
            case effects.Revoke():
                self.lost(effect.key)
            case effects.WakeAt():
                self.wake_at = effect.monotonic
            case effects.Increase():
                self.check_increase(effect)
                self.scaled.append(effect)
            case effects.Decrease():
                self.check_unused(effect.group, effect.ids)
                assert effect.decisions
                self.scaled.append(effect)
            case effects.Suspend():
                self.check_unused(effect.group, effect.ids)
            case _:
                pass

    def refused(self, key: str) -> None:
        self.reserved.discard(key)
        self.waiting.discard(key)
        if key in self.resuming:
            self.resuming.discard(key)
            if self.state.task(key) is None:
                del self.suspended[key]

    def lost(self, key: str) -> None:
        if key in self.suspended:
            # It has nothing to give back.
            del self.suspended[key]
        else:
            del self.slots[key]
            self.revoked.add(key)

    def check_unused(self, group: str, ids: Sequence[str]) -> None:
        busy = {(group, id) for group, id, _ in self.slots.values()}
        assert not busy & {(group, id) for id in ids}, "I2"

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
        instance = self.state.instance(grant.group, grant.id)
        assert instance is not None, "granted on an instance that is gone"
        machine = (grant.id, instance.incarnation)
        self.uses[machine] = self.uses.get(machine, 0) + 1
        if self.settings.max_use_count:
            assert self.uses[machine] <= self.settings.max_use_count, "I4"

    def check_increase(self, increase: effects.Increase) -> None:
        assert increase.count > 0
        assert increase.decision.decided == increase.count
        limit = self.settings.max_instances
        assert not limit or self.state.demand().instances <= limit, "I1"
        group = fleet_of(self.state).group(increase.group)
        assert group.max_size is None or group.size <= group.max_size, "I1 for one group"

    # The cloud answers.

    def carry_out(self, effect: effects.Effect, data: st.DataObject | None) -> None:
        def choose(*kinds: str) -> str:
            return data.draw(st.sampled_from(kinds)) if data else kinds[0]

        match effect:
            case effects.List():
                self.list(effect, choose("fresh", "fresh", "stale", "failed", "gone"))
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
                self.prepare(effect, choose("ready", "ready", "failed", "delayed", "our fault"))
            case _:
                raise AssertionError(effect)

    def prepare(self, effect: effects.Prepare, kind: str) -> None:
        group, id = effect.group, effect.id
        if kind != "ready":
            self.apply(events.InstanceDelayed(group, id, Stage.CONNECT, "no answer"))
        match kind:
            case "failed":
                self.apply(events.PreparationFailed(group, id, "no answer"))
            case "our fault":
                error = ConfigError("no key")
                self.apply(events.PreparationFailed(group, id, "no key", error))
            case _:
                self.apply(events.InstancePrepared(group, id))

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
        if kind == "gone":
            # It is created again, empty, if it is listed the next time.
            cloud.members.clear()
            cloud.nameless = 0
            cloud.previous = None
            self.apply(events.ListingFailed(effect.group, GroupGone("no such group")))
            return
        # Never two old ones in a row: that would be a cloud that lies for good.
        if kind == "stale" and cloud.previous is not None:
            listing, cloud.previous = cloud.previous, None
            if self.seconds > self.settings.creation_timeout.total_seconds():
                # After an old listing without them, accepted instances are written off.
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
                self.sleep()

    def sleep(self) -> None:
        """Pass the time until the core has to be woken."""
        self.seconds = max(self.seconds, self.wake_at)
        self.apply(events.TimePassed())
