"""The book of removals: each one has a reason that the books can confirm."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from fleeting.types import State
from taskscaler.core import Rule, UnknownInstances, effects, events
from taskscaler.simulation import SimulationObserver

from .observations import Violation
from .policies import idle_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskscaler.core import Now

    from .ledger import Ledger
    from .machines import Machine

__all__ = ("RemovalBook",)

# While most of a group fails, a tenth of it may be replaced in so many seconds.
SHARE_SECONDS = 300.0


class RemovalBook(SimulationObserver):
    """Confirms the reason of each removal when it is decided.

    Args:
        ledger: what is known of the instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._replaced: dict[str, deque[float]] = {}
        self._may_remove: dict[str, bool] = {}
        self._removing = False
        # The core remembers the load for the `idle_time` that was in force at the time.
        self._remembered_since = float("-inf")

    def ended(self, now: Now) -> None:
        del now
        self._replaced.clear()
        self._may_remove.clear()
        self._removing = False

    def applied(self, now: Now, event: events.Event, effects: Sequence[effects.Effect]) -> None:
        if type(event) is events.ShutdownAsked:
            self._removing = event.remove
        elif type(event) is events.ListingArrived:
            self._may_remove[event.group] = self._removes_strangers
        elif type(event) is events.TimePassed:
            seconds = self._ledger.policy(now).idle_time.total_seconds()
            self._remembered_since = max(self._remembered_since, now.monotonic - seconds)
        for machine in self._ledger.dismissed:
            assert machine.rule is not None
            confirm = _REASONS[machine.rule]
            if type(event) is events.RecordsRestored:
                confirm = RemovalBook._lost_tasks
            why = confirm(self, machine, now)
            if why:
                place = f"{machine.group} {machine.id}"
                raise Violation("reason", f"{place} goes as {machine.rule.value!r}: {why}")
        for effect in effects:
            if type(effect) is _DECREASE:
                self._check_request(effect)

    @property
    def _removes_strangers(self) -> bool:
        settings = self._ledger.checker.settings
        return settings.unknown_instances is UnknownInstances.REMOVE

    def _check_request(self, decrease: effects.Decrease) -> None:
        """Check that the request names the reasons of its instances, and no other."""
        told = {one.rule for one in decrease.decisions}
        known: set[Rule] = set()
        for id in decrease.ids:
            machine = self._ledger.machines.get((decrease.group, id))
            if machine is not None and machine.rule is not None:
                known.add(machine.rule)
                continue
            known.add(Rule.UNKNOWN)
            is_ours = machine is not None and machine.record is not None
            allowed = self._removes_strangers or self._may_remove.get(decrease.group, False)
            if is_ours or not allowed:
                raise Violation("reason", f"{decrease.group} {id} is removed and was not dismissed")
        if told != known:
            raise Violation("reason", f"the reasons are {known}, and the request says {told}")

    # Each returns what speaks against a removal.

    def _idle(self, machine: Machine, now: Now) -> str:
        ledger, checker = self._ledger, self._ledger.checker
        policy = ledger.policy(now)
        seconds = policy.idle_time.total_seconds()
        idle_for = now.monotonic - machine.idle_since
        if not ledger.is_empty(machine):
            return "it has tasks"
        if idle_for < seconds - 1e-6:
            return f"it was idle for {idle_for:g}s only"
        free, held = ledger.free(), ledger.held()
        peak = ledger.busiest(now, now.monotonic - self._remembered_since)
        if held + free < peak + idle_target(policy, peak):
            return f"{held} + {free} slots stay, and {peak} tasks needed one lately"
        least = idle_target(policy, held)
        if policy.preemptive:
            least = max(least, len(checker.seen.reserved))
        return (
            f"{free} free slots stay of {least}"
            if free < least
            else self._against_order(machine, now)
        )

    def _against_order(self, machine: Machine, now: Now) -> str:
        """A later group is emptied first."""
        order = list(self._ledger.checker.world.clouds)
        later = order[order.index(machine.group) + 1 :]
        seconds = self._ledger.policy(now).idle_time.total_seconds()
        for one in self._ledger.machines.values():
            if (
                one.group in later
                and one.serves
                and self._ledger.is_empty(one)
                and now.monotonic - one.idle_since > seconds + 1e-6
                and self._ledger.slots(one) <= self._ledger.slots(machine)
            ):
                return f"{one.id} of the later group {one.group} is idle as well"
        return ""

    def _limit(self, machine: Machine, now: Now) -> str:
        del machine, now
        ledger = self._ledger
        groups = ledger.checker.world.clouds
        most = sum(ledger.present(one) + ledger.possible(one) for one in groups)
        limit = ledger.checker.settings.max_instances
        return "" if most > limit > 0 else f"there are at most {most} instances of {limit}"

    def _group_limit(self, machine: Machine, now: Now) -> str:
        del now
        ledger, group = self._ledger, machine.group
        most = ledger.present(group) + ledger.possible(group)
        limit = ledger.checker.settings.group_limits.get(group)
        if limit is not None and most > limit:
            return ""
        return f"the group has at most {most} instances of {limit}"

    def _preference(self, machine: Machine, now: Now) -> str:
        del now
        ledger = self._ledger
        order = list(ledger.checker.world.clouds)
        preferred = order[: order.index(machine.group)]
        tasks = len(ledger.checker.seen.taken.get((machine.group, machine.id), ()))
        free = ledger.free(preferred)
        return "" if 0 < tasks <= free else f"{tasks} tasks, {free} free slots in {preferred}"

    def _used_up(self, machine: Machine, now: Now) -> str:
        del now
        most = self._ledger.checker.settings.max_use_count
        used = 0 if machine.record is None else machine.record.used
        return "" if used >= most > 0 else f"{used} uses of {most}"

    def _age(self, machine: Machine, now: Now) -> str:
        seconds = self._ledger.checker.settings.max_instance_age.total_seconds()
        age = now.monotonic - machine.seen_at
        if machine.restored:
            age = max(age, (now.wall - machine.born).total_seconds())
        if not 0 < seconds <= age + 1.0:
            return f"it is {age:g}s old"
        group = [one for one in self._ledger.machines.values() if one.group == machine.group]
        # One that sleeps may stay for days, and does not hold up the others.
        going = sum(
            one.rule is Rule.AGE and (one.ready or one.state is State.RUNNING)
            for one in group
            if not self._ledger.is_suspending(one)
        )
        return (
            f"{going} of {len(group)} go together" if going > max(1, -(-len(group) // 10)) else ""
        )

    def _unhealthy(self, machine: Machine, now: Now) -> str:
        ledger, settings = self._ledger, self._ledger.checker.settings
        if machine.failures < settings.failure_threshold:
            return f"it failed {machine.failures} checks in a row"
        if not (ledger.is_empty(machine) or settings.remove_unhealthy_with_tasks):
            return "tasks run there"
        replaced = self._replaced.setdefault(machine.group, deque())
        while replaced and replaced[0] + SHARE_SECONDS <= now.monotonic:
            replaced.popleft()
        group = [
            one for one in ledger.machines.values() if one.group == machine.group and one.ready
        ]
        answered = any(one.proven_at >= machine.failing_since for one in group)
        failing = sum(one.failures > 0 for one in group)
        share = max(1, -(-(len(group) + len(replaced)) // 10))
        if len(replaced) >= share and failing > 1 and not answered:
            return f"{len(replaced)} of {len(group)} were replaced already, and none answers"
        replaced.append(now.monotonic)
        return ""

    def _caused(self, machine: Machine, *causes: str) -> str:
        found = machine.causes.intersection(causes)
        return "" if found else f"nothing of {causes} was seen, only {sorted(machine.causes)}"

    def _failed(self, machine: Machine, now: Now) -> str:
        seconds = self._ledger.checker.settings.creation_timeout.total_seconds()
        if machine.state is not State.RUNNING and now.monotonic - machine.seen_at >= seconds:
            return ""
        return self._caused(machine, "failed", "unprepared", "broke")

    def _lost(self, machine: Machine, now: Now) -> str:
        del now
        return self._caused(machine, "taken away")

    def _interrupted(self, machine: Machine, now: Now) -> str:
        del now
        return self._caused(machine, "interrupted")

    def _expired(self, machine: Machine, now: Now) -> str:
        del now
        return "" if self._ledger.is_empty(machine) else "it keeps tasks"

    def _unknown(self, machine: Machine, now: Now) -> str:
        del now
        known = (machine.group, machine.id) in self._ledger.given_up
        return "" if known else "it was never given up"

    def _shutdown(self, machine: Machine, now: Now) -> str:
        del machine, now
        return "" if self._removing else "the scaler does not remove its instances"

    def _lost_tasks(self, machine: Machine, now: Now) -> str:
        """A restart dismisses instances that ran tasks or are used up."""
        if machine.rule is Rule.USED_UP:
            return self._used_up(machine, now)
        if self._ledger.checker.settings.keep_instance_with_acquisitions:
            return "the settings keep it"
        return self._caused(machine, "tasks were lost there")


_DECREASE = effects.Decrease
_REASONS: Mapping[Rule, Callable[[Any, Any, Any], str]] = {
    Rule.IDLE: RemovalBook._idle,
    Rule.LIMIT: RemovalBook._limit,
    Rule.GROUP_LIMIT: RemovalBook._group_limit,
    Rule.PREFERENCE: RemovalBook._preference,
    Rule.USED_UP: RemovalBook._used_up,
    Rule.AGE: RemovalBook._age,
    Rule.UNHEALTHY: RemovalBook._unhealthy,
    Rule.INTERRUPTED: RemovalBook._interrupted,
    Rule.EXPIRED: RemovalBook._expired,
    Rule.FAILED: RemovalBook._failed,
    Rule.LOST: RemovalBook._lost,
    Rule.UNKNOWN: RemovalBook._unknown,
    Rule.SHUTDOWN: RemovalBook._shutdown,
}
