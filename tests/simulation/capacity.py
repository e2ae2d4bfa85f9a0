"""The books of capacity: limits, the token bucket, the order of groups, idle capacity, growth."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fleeting.types import State
from taskscaler.core import Rule, Settings, UnknownInstances, effects, events
from taskscaler.simulation import SimulationObserver

from .observations import Violation
from .policies import idle_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Now

    from .ledger import Ledger
    from .machines import Machine

__all__ = ("BucketBook", "ExcessBook", "GrowthBook", "OrderBook")

# Decisions are taken together for a moment.
SLACK_SECONDS = 30.0
# All instances are looked at this often.
LOOK_SECONDS = 5.0


class Since:
    """Since when a condition has held without a break.

    Args:
        seconds: how long it may.
    """

    def __init__(self, seconds: float = SLACK_SECONDS) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def holds(self, now: Now, holds: object, more_seconds: float = 0.0) -> bool:
        """Note whether it holds now; return whether that lasts for too long."""
        if not holds:
            self._since = None
            return False
        if self._since is None:
            self._since = now.monotonic
        return now.monotonic - self._since > self._seconds + more_seconds


class BucketBook(SimulationObserver):
    """The token bucket is never exceeded, over all lives of the manager.

    Args:
        ledger: what is known of the instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._settings = Settings()
        # Tokens that were taken and have not come back; and requests not carried out yet.
        self._missing = 0.0
        self._begun: dict[str, int] = {}
        self._at = 0.0
        # The wall time at monotonic zero; it changes if the clock is set.
        self._zero: datetime | None = None
        self._jumped = False

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        zero = now.wall - timedelta(seconds=now.monotonic)
        if self._zero is not None and abs((zero - self._zero).total_seconds()) > 1.0:
            self._jumped = True
        self._zero = zero
        if type(event) is events.RecordsRestored and self._jumped:
            # The stored time is wall time; a clock that was set forward fills the bucket.
            self._missing = 0.0
            self._jumped = False
        if self._settings is not self._ledger.checker.settings:
            self._refill(now)
            self._settings = self._ledger.checker.settings
            self._missing = min(self._missing, self._burst)
        for effect in effects:
            if type(effect) is _INCREASE:
                self._take(effect, now)

    def carried_out(self, now: Now, effect: effects.Effect) -> None:
        del now
        if type(effect) is _INCREASE:
            self._begun.pop(effect.operation, None)

    def ended(self, now: Now) -> None:
        del now
        # A request that was not carried out was not stored either.
        self._missing = max(0.0, self._missing - sum(self._begun.values()))
        self._begun.clear()
        if not self._ledger.checker.world.manager.records:
            self._missing = 0.0

    def _take(self, increase: effects.Increase, now: Now) -> None:
        self._refill(now)
        left = self._burst - self._missing
        if increase.count > left + 1e-3:
            raise Violation("tokens", f"{increase.count} requested with {left:g} tokens")
        self._missing += increase.count
        self._begun[increase.operation] = increase.count

    @property
    def _burst(self) -> float:
        settings = self._settings
        if settings.throttle_limit == math.inf:
            return math.inf
        return (
            settings.throttle_burst or settings.max_instances or math.ceil(settings.throttle_limit)
        )

    def _refill(self, now: Now) -> None:
        seconds, self._at = now.monotonic - self._at, now.monotonic
        limit = self._settings.throttle_limit
        self._missing = 0.0 if limit == math.inf else max(0.0, self._missing - seconds * limit)


class OrderBook(SimulationObserver):
    """A later group grows only if each preferred one has a reason not to.

    Args:
        ledger: what is known of the instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        del event
        if len(self._ledger.checker.world.clouds) == 1:
            return
        for effect in effects:
            if type(effect) is _INCREASE:
                self._check(effect, now)

    def _check(self, increase: effects.Increase, now: Now) -> None:
        for group in self._ledger.checker.world.clouds:
            if group == increase.group:
                return
            if self.is_able(group, now):
                raise Violation("order", f"{increase.group} grows, and {group} could")

    def is_able(self, group: str, now: Now) -> bool:
        """Return whether a group could certainly grow: nothing failed there for long."""
        ledger, settings = self._ledger, self._ledger.checker.settings
        pause = max(settings.cooldown, settings.backoff_limit, settings.creation_timeout)
        since = now.monotonic - 2 * pause.total_seconds()
        failed = ledger.failed_at.get(group, -math.inf)
        asked = ledger.asked_at.get(group, -math.inf)
        # A group must have delivered the newest request; until then it may be doubted.
        if ledger.prepared_at.get(group, -1.0) < max(failed, asked):
            return False
        if max(failed, asked, ledger.born) > since or group not in ledger.listed_at:
            return False
        if any(one.group == group for one in ledger.requests.values()):
            return False
        limits = (
            ledger.checker.world.clouds[group].model.info.max_size,
            settings.group_limits.get(group),
        )
        room = min((one for one in limits if one is not None), default=math.inf)
        machines = [one for one in ledger.machines.values() if one.group == group]
        coming = any(not one.ready for one in machines)
        return not coming and len(machines) < room


class ExcessBook(SimulationObserver):
    """Neither too many instances nor unneeded ones stay for long.

    Args:
        ledger: what is known of the instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._begin()

    def _begin(self) -> None:
        self._idle = Since()
        self._over = Since()
        self._over_in: dict[str, Since] = {}
        self._again_at = 0.0

    def ended(self, now: Now) -> None:
        del now
        self._begin()

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        del effects
        checker = self._ledger.checker
        if type(event) is not events.TimePassed or checker.seen.closing:
            return
        # A look at all instances takes long, and the conditions have to hold for longer.
        if now.monotonic < self._again_at:
            return
        self._again_at = now.monotonic + LOOK_SECONDS
        settings = checker.settings
        state = checker.world.manager.state
        if state is None or state.digesting:
            return
        self._check_limits(settings, now)
        idle_seconds = self._ledger.policy(now).idle_time.total_seconds()
        unneeded = self._unneeded(settings, now, idle_seconds + SLACK_SECONDS)
        if self._idle.holds(now, unneeded):
            raise Violation("idle most", f"{unneeded} stay, and nothing needs them")

    def _unneeded(self, settings: Settings, now: Now, seconds: float) -> list[str]:
        """Return the idle instances that should be gone already; none if one may be needed."""
        ledger, seen = self._ledger, self._ledger.checker.seen
        idle = [
            one
            for one in ledger.machines.values()
            if one.serves and ledger.is_empty(one) and now.monotonic - one.idle_since > seconds
        ]
        if not idle:
            return []
        policy = ledger.policy(now)
        leaving = [one for one in ledger.machines.values() if one.rule is Rule.PREFERENCE]
        moving = len(leaving) * settings.capacity_per_instance
        outgoing = sum(ledger.slots(one) for one in idle if self._is_old(one, settings, now))
        peak = ledger.busiest(now, seconds)
        held, free = ledger.held(), ledger.free()
        least = peak + idle_target(policy, peak)
        needs = len(seen.waiting) + max(len(seen.reserved), idle_target(policy, held))
        over = min(held + free - least, free - outgoing - needs) - moving
        return [one.id for one in idle] if max(map(ledger.slots, idle)) <= over else []

    def _is_old(self, machine: Machine, settings: Settings, now: Now) -> bool:
        seconds = settings.max_instance_age.total_seconds()
        age = (now.wall - machine.born).total_seconds() + 7200.0 * machine.restored
        return 0 < seconds <= max(age, now.monotonic - machine.seen_at)

    def _check_limits(self, settings: Settings, now: Now) -> None:
        """Check that above a limit all are dismissed that can be."""
        machines = list(self._ledger.machines.values())
        # A dismissed one is gone sooner or later; one that sleeps is left alone.
        staying = [one for one in machines if self._stays(one)]
        reserved = len(self._ledger.checker.seen.reserved)
        limit = settings.max_instances
        strange = [one.group for one in machines if self._takes_room(one, settings)]
        kept = len(staying) - reserved
        over = limit > 0 and kept > max(0, limit - len(strange))
        if self._over.holds(now, over):
            raise Violation("limits", f"{kept} instances stay, and {limit} are allowed")
        for group, most in settings.group_limits.items():
            kept = sum(one.group == group for one in staying) - reserved
            over = kept > max(0, most - strange.count(group))
            if self._over_in.setdefault(group, Since()).holds(now, over):
                raise Violation("limits", f"{kept} instances stay in {group} of {most}")

    def _takes_room(self, machine: Machine, settings: Settings) -> bool:
        """Return whether a stranger stays, and takes the room of one of ours."""
        removes = settings.unknown_instances is UnknownInstances.REMOVE
        return machine.record is None and machine.state is not State.DELETING and not removes

    def _stays(self, machine: Machine) -> bool:
        record = machine.record
        return (
            record is not None
            and record.rule is None
            and not record.suspended
            and machine.listed
            and machine.state is not State.DELETING
            and not machine.checking
        )


class GrowthBook(SimulationObserver):
    """Tasks do not wait for long while a group could certainly grow.

    Args:
        ledger: what is known of the instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._order = OrderBook(ledger)
        self._starved = Since()

    def ended(self, now: Now) -> None:
        del now
        self._starved = Since()

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        self._order.applied(now, event, effects)
        if type(event) is not events.TimePassed:
            return
        checker = self._ledger.checker
        settings, seen = checker.settings, checker.seen
        waiting = seen.waiting.difference(seen.suspended)
        able = bool(waiting) and not seen.closing and self._could_grow(settings, now)
        patience = 0.1 * settings.creation_timeout.total_seconds()
        if self._starved.holds(now, able, patience + settings.increase_interval.total_seconds()):
            raise Violation("growth", f"{len(waiting)} tasks wait, and nothing is requested")

    def _could_grow(self, settings: Settings, now: Now) -> bool:
        ledger = self._ledger
        clouds = ledger.checker.world.clouds
        if settings.throttle_limit < 1.0 or any(one.checking for one in ledger.machines.values()):
            return False
        if any(not one.ready and one.rule is None for one in ledger.machines.values()):
            return False
        most = sum(ledger.present(one) + ledger.possible(one) for one in clouds)
        if 0 < settings.max_instances <= most:
            return False
        return any(self._order.is_able(one, now) for one in clouds)


_INCREASE = effects.Increase
