"""The books of tasks: grants, reservations, drains, and the policy in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core import Rule, effects, events
from taskscaler.simulation import SimulationObserver

from .observations import Violation
from .policies import idle_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Now

    from .ledger import Ledger

__all__ = ("DrainBook", "GrantBook", "ReservationBook")

# Decisions are taken together for a moment, and checks take a while.
SLACK_SECONDS = 60.0
# All instances are looked at this often.
LOOK_SECONDS = 5.0
# The most checks of a group at the same time.
CHECKS_AT_ONCE = 50


class GrantBook(SimulationObserver):
    """A task gets a free slot at once, in the first group, on an instance that works.

    Args:
        ledger: what is known of the instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._again_at = 0.0

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        for effect in effects:
            if type(effect) is _GRANT and effect.key not in self._ledger.checker.seen.resumed:
                # A slot that was kept during a check may be on the last use of the instance.
                self._check_grant(effect, now, kept=type(event) is events.HealthPassed)
                if type(event) is not events.HealthPassed:
                    self._check_order(effect)
        if type(event) is events.TimePassed:
            self._check_waiting()
            if now.monotonic >= self._again_at:
                self._again_at = now.monotonic + LOOK_SECONDS
                self._check_heartbeats(now)

    def _check_grant(self, grant: effects.Grant, now: Now, *, kept: bool) -> None:
        """Check that the instance stays, works, and is ours."""
        ledger, place = self._ledger, (grant.group, grant.id)
        machine = ledger.machines.get(place)
        if machine is None or not machine.ready:
            raise Violation("health", f"{grant.key} gets a slot on {place}, which is not ready")
        if machine.failures:
            raise Violation("health", f"{grant.key} gets a slot on {place}, which failed a check")
        silent = now.monotonic - machine.proven_at
        if silent > ledger.checker.settings.probe_after.total_seconds():
            raise Violation("health", f"{place} was silent for {silent:g}s before a grant")
        if machine.rule is not None and not (
            machine.rule is Rule.USED_UP and (kept or machine in ledger.dismissed)
        ):
            raise Violation("reason", f"{grant.key} gets a slot on {place}: {machine.rule.value}")
        if machine.strange:
            raise Violation("stranger", f"{grant.key} gets a slot on {place}, which is not ours")

    def _check_order(self, grant: effects.Grant) -> None:
        """Check that no group before this one has a free slot."""
        ledger = self._ledger
        order = list(ledger.checker.world.clouds)
        preferred = order[: order.index(grant.group)]
        if preferred and self._certain(preferred):
            raise Violation("order", f"{grant.key} gets a slot in {grant.group}, not {preferred}")

    def _certain(self, groups: Sequence[str] | None = None) -> int:
        """Return how many slots are certainly free: none that a check may have taken."""
        ledger = self._ledger
        suspended = {place[:2] for place in ledger.checker.seen.suspended.values()}
        return sum(
            ledger.slots(one)
            for one in ledger.machines.values()
            if one.serves
            and not one.checking
            and (one.group, one.id) not in suspended
            and (groups is None or one.group in groups)
        )

    def _check_waiting(self) -> None:
        """Check that no task waits while a slot is free."""
        seen = self._ledger.checker.seen
        waiting = self._ledger.waiting()
        state = self._ledger.checker.world.manager.state
        if not waiting or state is None or state.digesting:
            return
        free = self._certain()
        if free > len(seen.reserved):
            raise Violation("free", f"{waiting} tasks wait although {free} slots are free")

    def _check_heartbeats(self, now: Now) -> None:
        """Check that no instance is silent for long."""
        ledger = self._ledger
        seconds = ledger.checker.settings.heartbeat_interval.total_seconds()
        if not seconds:
            return
        machines = ledger.machines.values()
        if sum(one.checking for one in machines) >= CHECKS_AT_ONCE:
            return
        since = now.monotonic - seconds - SLACK_SECONDS
        for one in machines:
            if one.ready and one.rule is None and not one.checking:
                at = max(one.proven_at, one.checked_at)
                if at < since and not ledger.is_suspending(one):
                    raise Violation("health", f"{one.id} was not checked since {at:g}")


class ReservationBook(SimulationObserver):
    """A reservation is granted if there is, or can be, a slot for it; and the policy is right.

    Args:
        ledger: what is known of the instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        if type(event) is events.TaskReserved:
            self._check_policy(now)
            if not any(type(one) is _REFUSE for one in effects):
                self._check_promise(event.key, now)
        elif type(event) is events.TimePassed:
            self._check_policy(now)

    def _check_policy(self, now: Now) -> None:
        checker = self._ledger.checker
        state = checker.world.manager.state
        expected = self._ledger.policy(now)
        if state is not None and state.policy != expected:
            raise Violation("policy", f"expected {expected} at {now.wall}, got {state.policy}")

    def _check_promise(self, key: str, now: Now) -> None:
        ledger, checker = self._ledger, self._ledger.checker
        settings, seen = checker.settings, checker.seen
        policy = ledger.policy(now)
        free = ledger.free()
        waiting = ledger.waiting()
        claims = len(seen.reserved) + waiting
        if policy.preemptive and claims > free:
            raise Violation("promise", f"{key}: {claims} claims, {free} free slots")
        limit = settings.max_instances
        if claims > free and limit:
            # Other slots could only be on instances that do not exist yet.
            present = sum(map(ledger.present, checker.world.clouds))
            idle = [one for one in ledger.machines.values() if not one.ready and one.rule is None]
            coming = sum(map(ledger.possible, checker.world.clouds))
            most = max(0, limit - present) + len(idle) + coming
            most *= settings.capacity_per_instance
            if claims > free + most:
                raise Violation("promise", f"{key}: {claims} claims, {free} free, {most} possible")
        if settings.reservation_throttling and free > waiting:
            held = len(seen.held)
            least = max(idle_target(policy, held + waiting), free - settings.capacity_per_instance)
            if claims > max(1, least + 1):
                raise Violation("promise", f"{key} leaves too little: {claims} of {free}")


class DrainBook(SimulationObserver):
    """A scaler that drains takes no new task, and buys nothing for later ones.

    Args:
        ledger: what is known of the instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: set[str] | None = None

    def ended(self, now: Now) -> None:
        del now
        self._known = None

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        del now
        seen = self._ledger.checker.seen
        if type(event) is events.DrainAsked and self._known is None:
            self._known = {*seen.waiting, *seen.reserved, *seen.held}
        if self._known is None:
            return
        if isinstance(event, events.TaskReserved | events.TaskAsked | events.TaskResumed):
            key = event.key
            refused = any(isinstance(one, _REFUSE) and one.key == key for one in effects)
            if key not in self._known and not refused:
                raise Violation("drain", f"{key} is accepted after the drain")
        for effect in effects:
            if type(effect) is _GRANT and effect.key not in self._known:
                raise Violation("drain", f"{effect.key} gets a slot after the drain")
            if type(effect) is _INCREASE and effect.decision.rule in (
                Rule.IDLE_CAPACITY,
                Rule.RETURN,
            ):
                wanted = effect.decision.rule.value
                if not seen.reserved:
                    raise Violation("drain", f"an instance is requested after the drain: {wanted}")


_GRANT, _REFUSE, _INCREASE = effects.Grant, effects.Refuse, effects.Increase
