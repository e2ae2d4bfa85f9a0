"""Which instances are due for a health check, and which failed their last one."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

from fleeting.types import Duration
from taskscaler.core.model.agenda import CHANGED, CHECKED
from taskscaler.core.model.indexes import AgeQueue
from taskscaler.core.model.lifecycle import SERVING, Phase
from taskscaler.core.model.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sized

    from taskscaler.core.model.agenda import Agenda
    from taskscaler.core.model.instance import TrackedInstance
    from taskscaler.core.model.settings import Settings

__all__ = ("Checks",)

# How many instances of a group are checked at the same time for the heartbeat:
# instances created together must not all be checked together.
CHECKS_AT_ONCE = 50

# While most of a group fails, one instance in so many is replaced in so many seconds.
SHARE = 10
SHARE_SECONDS = 300.0


class Checks:
    """The health checks of one group; writes the health of its instances.

    Args:
        alive: all instances of the group.
        agenda: learns how checks end.

    Attributes:
        under_way: how many outcomes are awaited.
        sick: serving instances that failed their last check, by id.
        held_back: why sick instances are not replaced now; empty if they are.
    """

    __slots__ = ("_agenda", "_answered", "_healthy", "_replaced", "held_back", "sick", "under_way")

    def __init__(self, alive: Sized, agenda: Agenda) -> None:
        self.under_way = 0
        self.sick: dict[str, TrackedInstance] = {}
        self.held_back = ""
        # When each instance last answered; the latest answer is the last.
        self._answered: dict[str, float] = {}
        # When the latest sick instances were replaced.
        self._replaced: deque[float] = deque()
        self._agenda = agenda
        self._healthy = AgeQueue(_seen_at, alive)

    @property
    def sick_slots(self) -> int:
        """Return the slots that tasks could get if their instances passed their checks."""
        if not self.sick:
            return 0
        return sum(one.open_slots for one in self.sick.values() if one.phase is Phase.READY)

    def recovering_slots(self, threshold: int) -> int:
        """Return those of them that are expected back: their instances are not replaced yet."""
        if not self.sick:
            return 0
        return sum(
            one.open_slots
            for one in self.sick.values()
            if one.phase is Phase.READY and (self.held_back or one.health.failures < threshold)
        )

    def prove(self, instance: TrackedInstance, now: float) -> None:
        """An instance that begins to serve has shown that it works."""
        instance.health.checked_at = now
        self.used(instance, now)
        self._healthy.add(instance)

    def used(self, instance: TrackedInstance, now: float) -> None:
        """An instance answered a task that ended now, which shows that it works."""
        instance.health.proven_at = now
        self._answered.pop(instance.id, None)
        self._answered[instance.id] = now

    def begin(self, instance: TrackedInstance) -> None:
        """A check of an instance begins."""
        instance.health.checking = True
        self.under_way += 1

    def end(self, instance: TrackedInstance, now: float) -> bool:
        """A check ends; return False if it is not awaited any more."""
        if not instance.health.checking:
            return False
        instance.health.checking = False
        instance.health.checked_at = now
        self.under_way -= 1
        self._agenda.news |= CHECKED
        return True

    def passed(self, instance: TrackedInstance, now: float) -> bool:
        """An instance passed its check; return whether it had failed the one before."""
        was_sick = instance.health.failures > 0
        instance.health.failures = 0
        self.used(instance, now)
        self._healthy.add(instance)
        if was_sick:
            self.held_back = ""
            del self.sick[instance.id]
            self._agenda.news |= CHANGED
        return was_sick

    def failed(self, instance: TrackedInstance) -> None:
        """An instance failed its check, which ended just now."""
        if not instance.health.failures:
            instance.health.failing_since = instance.health.checked_at
        instance.health.failures += 1
        self.sick[instance.id] = instance
        self._agenda.news |= CHANGED

    def leave(self, instance: TrackedInstance) -> None:
        """An instance serves no longer: a check that is under way has no outcome."""
        self.under_way -= instance.health.checking
        instance.health.checking = False
        instance.health.failures = 0
        self.sick.pop(instance.id, None)
        self._answered.pop(instance.id, None)

    def replace(self, instance: TrackedInstance, now: float, serving: int) -> bool:
        """Return whether a sick instance may be replaced now, and count it if so.

        Args:
            instance: the one that failed too many checks.
            now: in monotonic seconds.
            serving: how many instances of the group serve, sick ones too.
        """
        while self._replaced and self._replaced[0] + SHARE_SECONDS <= now:
            self._replaced.popleft()
        share = max(1, (serving + len(self._replaced)) // SHARE)
        if len(self._replaced) >= share and self._fail_together(instance.health.failing_since):
            self.held_back = (
                f"checks fail on {counted(len(self.sick), 'instance')} of {serving}, and fewer "
                "have answered since. So the fault is probably in the network or in this process, "
                f"and at most {counted(share, 'instance')} may be replaced in "
                f"{Duration(seconds=SHARE_SECONDS)}"
            )
            return False
        self.held_back = ""
        self._replaced.append(now)
        return True

    def _fail_together(self, since: float) -> bool:
        """Return whether fewer instances have answered since a moment than are sick now."""
        answers = itertools.takewhile(lambda at: at >= since, reversed(self._answered.values()))
        return sum(1 for _ in itertools.islice(answers, len(self.sick))) < len(self.sick)

    def due(self, now: float, settings: Settings) -> Iterator[TrackedInstance]:
        """Yield the instances to be checked now; each check has to begin at once."""
        heartbeat = settings.heartbeat_interval.total_seconds()
        while heartbeat and self.under_way < CHECKS_AT_ONCE:
            instance = self._healthy.first()
            if instance is None or instance.health.seen_at + heartbeat > now:
                break
            yield instance
        pause = settings.probe_timeout.total_seconds()
        for instance in self.sick.values():
            if not instance.health.checking and instance.health.checked_at + pause <= now:
                yield instance

    def next_at(self, settings: Settings) -> float:
        """Return when the next check is due, in monotonic seconds; early at worst."""
        at = float("inf")
        if self.sick:
            pause = settings.probe_timeout.total_seconds()
            sick = (one.health for one in self.sick.values())
            at = min((one.checked_at + pause for one in sick if not one.checking), default=at)
        heartbeat = settings.heartbeat_interval.total_seconds()
        first = self._healthy.bound()
        if heartbeat and first is not None and self.under_way < CHECKS_AT_ONCE:
            at = min(at, first + heartbeat)
        return at


def _seen_at(instance: TrackedInstance) -> float | None:
    health = instance.health
    if instance.phase not in SERVING or health.checking or health.failures:
        return None
    return health.seen_at
