"""The simulated driver of the core: it carries out effects, and can be killed at any moment.

The effects of the core go into an outbox. Records are committed first, all that are waiting
at once; then the other effects are carried out in order. When the manager is killed, all
that it had begun is forgotten, but the clouds go on with accepted calls. Its next life
starts with the committed records.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from fleeting.errors import OutcomeUnknown, ProviderError
from fleeting.types import Accepted, Listing
from taskscaler.core import ScalerState, effects, events
from taskscaler.simulation._faults import Dice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskscaler.core import Record, Settings
    from taskscaler.simulation._calls import CloudCalls
    from taskscaler.simulation._clock import Clock
    from taskscaler.simulation._faults import Faults
    from taskscaler.simulation._models import Delay
    from taskscaler.simulation._observer import SimulationObserver
    from taskscaler.simulation._tasks import Attempt, TaskPlayer

__all__ = ("Manager",)

# The longest time between the end and the next start of the manager.
AWAY_SECONDS = 600.0


class Manager:
    """The core with its driver.

    Args:
        clock: the simulated clock.
        lines: the calls to the clouds, by group id, in order of preference.
        settings: the settings of the scaler.
        tasks: the tasks that get the answers.
        commit: how long storing records takes.
        faults: the faults that happen.
        seed: the seed of the random numbers.
        observers: objects that see all events and effects.

    Attributes:
        state: the core; None while the manager is away.
        records: the stored records, by key.
        settings: the settings in force.
        lives: the number of starts.
        events: the number of events applied to the core.
        decisions: the number of increases and decreases that the core requested.
    """

    def __init__(
        self,
        clock: Clock,
        lines: Mapping[str, CloudCalls],
        settings: Settings,
        tasks: TaskPlayer,
        *,
        commit: Delay,
        faults: Faults,
        seed: str,
        observers: Sequence[SimulationObserver],
    ) -> None:
        self.state: ScalerState | None = None
        self.records: dict[tuple[str, str, str], Record] = {}
        self.settings = settings
        self.lives = 0
        self.events = 0
        self.decisions = 0
        self._clock = clock
        self._lines = lines
        self._tasks = tasks
        self._commit = commit
        self._seed = seed
        self._observers = tuple(observers)
        self._chance = Random(f"{seed}/manager")
        self._outbox: list[tuple[effects.Effect, Attempt | None]] = []
        self._flushing = False
        self._storing: tuple[effects.Persist, ...] = ()
        self._wake_at = self._planned_wake = float("inf")
        self._preparing: dict[tuple[str, str], object] = {}
        self._checking: dict[tuple[str, str], object] = {}
        self._left = float("inf")
        # Until when no instance of a group can be reached, in monotonic seconds.
        self._cut_until: dict[str, float] = {}
        self.set_faults(faults)

    def set_faults(self, faults: Faults) -> None:
        """Replace the faults from now on."""
        self.faults = faults
        self._preparations = Dice(faults, f"{self._seed}/preparations", "unprepared", "hangs")
        self._checks = Dice(faults, f"{self._seed}/checks", "unhealthy")
        # The number of events and effects until the crash; drawn once for each life.
        crash = faults.crash
        self._left = self._chance.expovariate(crash) if crash else float("inf")
        if not faults.network:
            self._cut_until.clear()

    def cut(self, group: str, seconds: float) -> None:
        """Reach no instance of a group for a number of seconds."""
        self._cut_until[group] = self._clock.seconds + seconds

    def _reaches(self, group: str, id: str) -> bool:
        is_cut = self._cut_until.get(group, 0.0) > self._clock.seconds
        return not is_cut and self._lines[group].cloud.reachable(id)

    def start(self) -> None:
        """Start a life with the records that were stored before."""
        self.lives += 1
        for line in self._lines.values():
            line.cloud.reopen()
        infos = [line.cloud.model.info for line in self._lines.values()]
        self.state = ScalerState(infos, self.settings, name=f"life-{self.lives}")
        self._wake_at = self._planned_wake = float("inf")
        if self.faults.crash:
            self._left = self._chance.expovariate(self.faults.crash)
        self.post(events.RecordsRestored(tuple(self.records.values())))
        self.post(events.TimePassed())
        self._tasks.reached()

    def post(self, event: events.Event) -> list[effects.Effect] | None:
        """Apply an event to the core, and carry out its effects.

        Returns:
            The effects; None if the manager is away, or crashed meanwhile.
        """
        state = self.state
        if state is None or self._ends():
            return None
        self.events += 1
        now = self._clock.now
        answer = state.apply(event, now)
        for observer in self._observers:
            observer.applied(now, event, answer)
        for effect in answer:
            attempt = None
            if type(effect) in _ANSWERS:
                attempt = self._tasks.attempt(effect.key)  # type: ignore[attr-defined]  # one of the three that have it
            elif type(effect) is effects.Gone:
                # Another instance may get the same id; pending answers are not about that one.
                self._preparing.pop((effect.group, effect.id), None)
                self._checking.pop((effect.group, effect.id), None)
            self._outbox.append((effect, attempt))
        if not self._flushing:
            self._flush()
        return answer if self.state is state else None

    # The end of a life.

    def _ends(self) -> bool:
        self._left -= 1.0
        if self._left > 0:
            return False
        self.end(
            away_seconds=self._chance.choice((0.0, 5.0, self._chance.uniform(0, AWAY_SECONDS)))
        )
        return True

    def end(self, *, away_seconds: float) -> None:
        """End now, and start again after a while."""
        if self._storing and not self._chance.random() < self.faults.commits_lost:
            self._store(self._storing)
        self.state = None
        self._storing = ()
        self._outbox.clear()
        self._preparing.clear()
        self._checking.clear()
        self._flushing = False
        for observer in self._observers:
            observer.ended(self._clock.now)
        self._tasks.lost()
        self._clock.after(away_seconds, self.start)

    # The outbox.

    def _flush(self) -> None:
        """Commit the records and carry out the effects, until the outbox is empty."""
        self._flushing = True
        life = self.lives
        while self._outbox and self.lives == life and self.state is not None:
            batch, self._outbox = self._outbox, []
            self._storing = tuple([one for one, _ in batch if type(one) is effects.Persist])
            seconds = self._commit.draw(self._chance) if self._storing else 0.0
            if seconds:
                self._clock.after(seconds, self._stored, batch, life)
                return
            self._finish(batch)
        if self.lives == life:
            self._flushing = False

    def _stored(self, batch: list[tuple[effects.Effect, Attempt | None]], life: int) -> None:
        if self.lives == life and self.state is not None:
            self._finish(batch)
            # The outbox is empty if the last step ended this life.
            self._flush()

    def _finish(self, batch: list[tuple[effects.Effect, Attempt | None]]) -> None:
        self._store(self._storing)
        self._storing = ()
        for effect, attempt in batch:
            if type(effect) is effects.Persist:
                continue
            if self._ends():
                return
            for observer in self._observers:
                observer.carried_out(self._clock.now, effect)
            if attempt is not None:
                attempt.deliver(effect)
            else:
                self._CARRY_OUT[type(effect)](self, effect)

    def _store(self, persists: Sequence[effects.Persist]) -> None:
        for persist in persists:
            for record in persist.put:
                self.records[record.key] = record
            for key in persist.drop:
                self.records.pop(key, None)

    def _wake(self, effect: effects.WakeAt) -> None:
        self._wake_at = effect.monotonic
        if self._wake_at < self._planned_wake:
            self._planned_wake = self._wake_at
            self._clock.at(self._wake_at, self._woken, self._wake_at, self.lives)

    def _woken(self, planned: float, life: int) -> None:
        if self.lives != life or planned != self._planned_wake:
            return
        self._planned_wake = float("inf")
        if self._clock.seconds >= self._wake_at:
            self._wake_at = float("inf")
            self.post(events.TimePassed())
        elif self._wake_at < float("inf"):
            self._wake(effects.WakeAt(self._wake_at))

    def _nothing(self, effect: effects.Effect) -> None:
        """Ignore an effect that only informs, or whose task has ended."""

    # Calls to the cloud.

    def _list(self, effect: effects.List) -> None:
        line = self._lines[effect.group]

        def settle(outcome: Listing | ProviderError) -> events.Event:
            if isinstance(outcome, ProviderError):
                return events.ListingFailed(effect.group, outcome)
            line.cloud.heard(outcome)
            return events.ListingArrived(effect.group, outcome)

        line.call(line.cloud.list, self._answer(settle), effect.timeout_seconds)

    def _increase(self, effect: effects.Increase) -> None:
        self.decisions += 1
        line = self._lines[effect.group]

        def settle(outcome: Accepted | ProviderError) -> events.Event:
            unknown = isinstance(outcome, OutcomeUnknown)
            accepted = _as_accepted(outcome)
            return events.IncreaseSettled(effect.group, effect.operation, accepted, unknown)

        act = partial(line.cloud.increase, effect.count)
        line.call(act, self._answer(settle), effect.timeout_seconds, creates=effect.count)

    def _ask_outcome(self, effect: effects.AskOutcome) -> None:
        # Most clouds cannot tell after a restart.
        told = events.OutcomeTold(effect.group, effect.operation, None)
        self._clock.after(0.0, self._answer(lambda _: told), None)

    def _decrease(self, effect: effects.Decrease) -> None:
        self.decisions += 1
        for id in effect.ids:
            self._preparing.pop((effect.group, id), None)
        self._change(effect, "decrease", events.DecreaseSettled)

    def _suspend(self, effect: effects.Suspend) -> None:
        self._change(effect, "suspend", events.SuspendSettled)

    def _resume(self, effect: effects.Resume) -> None:
        self._change(effect, "resume", events.ResumeSettled)

    def _change(self, effect: Any, act: str, settled: Callable[..., events.Event]) -> None:
        line = self._lines[effect.group]

        def settle(outcome: Accepted | ProviderError) -> events.Event:
            return settled(effect.group, effect.ids, _as_accepted(outcome))

        call = partial(getattr(line.cloud, act), effect.ids)
        line.call(call, self._answer(settle), effect.timeout_seconds)

    def _answer(self, settle: Callable[[Any], events.Event]) -> Callable[[Any], None]:
        """Return a function that posts the result of a call, unless this life has ended."""
        life = self.lives

        def post(outcome: Any) -> None:
            if self.lives == life:
                self.post(settle(outcome))

        return post

    # Preparations and checks of instances.

    def _prepare(self, effect: effects.Prepare) -> None:
        cloud = self._lines[effect.group].cloud
        kind = self._preparations.throw()
        seconds = cloud.model.preparation.draw(self._preparations.chance)
        # A connection is tried again until the deadline.
        seconds = max(seconds, self._cut_until.get(effect.group, 0.0) - self._clock.seconds)
        if kind == "hangs":
            seconds = effect.timeout_seconds
        token = self._preparing[effect.group, effect.id] = object()
        seconds = effect.pause_seconds + min(seconds, effect.timeout_seconds)
        self._clock.after(seconds, self._prepared, effect, token, kind)

    def _prepared(self, effect: effects.Prepare, token: object, kind: str) -> None:
        if self._preparing.get((effect.group, effect.id)) is not token:
            return
        del self._preparing[effect.group, effect.id]
        if kind or not self._reaches(effect.group, effect.id):
            reason = f"it {kind}" if kind else "it did not answer"
            self.post(events.PreparationFailed(effect.group, effect.id, reason))
        else:
            self.post(events.InstancePrepared(effect.group, effect.id))

    def _check(self, effect: effects.CheckHealth) -> None:
        cloud = self._lines[effect.group].cloud
        kind = self._checks.throw()
        seconds = cloud.model.reply.draw(self._checks.chance)
        token = self._checking[effect.group, effect.id] = object()
        self._clock.after(min(seconds, effect.timeout_seconds), self._checked, effect, token, kind)

    def _checked(self, effect: effects.CheckHealth, token: object, kind: str) -> None:
        if self._checking.get((effect.group, effect.id)) is not token:
            return
        del self._checking[effect.group, effect.id]
        if kind or not self._reaches(effect.group, effect.id):
            self.post(events.HealthFailed(effect.group, effect.id, "it did not answer"))
        else:
            self.post(events.HealthPassed(effect.group, effect.id))

    _CARRY_OUT: Mapping[type[effects.Effect], Callable[[Any, Any], None]] = {
        effects.List: _list,
        effects.Increase: _increase,
        effects.AskOutcome: _ask_outcome,
        effects.Decrease: _decrease,
        effects.Suspend: _suspend,
        effects.Resume: _resume,
        effects.Prepare: _prepare,
        effects.CheckHealth: _check,
        effects.WakeAt: _wake,
        effects.Grant: _nothing,
        effects.Refuse: _nothing,
        effects.Revoke: _nothing,
        effects.Decided: _nothing,
        effects.Gone: _nothing,
    }


_ANSWERS = (effects.Grant, effects.Refuse, effects.Revoke)


def _as_accepted(outcome: Accepted | ProviderError) -> Accepted:
    """Return an error as an answer that accepts no instance."""
    return Accepted(0, error=outcome) if isinstance(outcome, ProviderError) else outcome
