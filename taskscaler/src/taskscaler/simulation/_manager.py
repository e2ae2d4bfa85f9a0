"""Plays the part of the shell around the core: carries effects out, and can end at any moment.

What the core answers goes into an outbox; what is to be stored is committed
first, all that has come together at once, and only then the rest is carried out
in its order. When the manager ends, everything that it had begun is forgotten;
what the cloud has taken up goes on there. Its next life begins with what was
committed.
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

# How long a manager is away after it ended, at most.
AWAY_SECONDS = 600.0


class Manager:
    """The core with everything that moves it.

    Args:
        clock: on which things happen.
        lines: to the clouds, by the ids of their groups, in order of preference.
        settings: the operator's.
        tasks: those who are told about their slots.
        commit: how long it takes to store something.
        faults: what goes wrong.
        seed: where chance comes from.
        observers: who looks on.

    Attributes:
        state: the core; None while the manager is away.
        records: what is stored, by key.
        settings: those in force.
        lives: how many times the manager was started.
        events: how many the core was told.
        decisions: how many increases and decreases it wanted.
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
        self.set_faults(faults)

    def set_faults(self, faults: Faults) -> None:
        """Let other things go wrong from now on."""
        self.faults = faults
        self._preparations = Dice(faults, f"{self._seed}/preparations", "unprepared", "hangs")
        self._checks = Dice(faults, f"{self._seed}/checks", "unhealthy")
        # How many events and effects it lives through; drawn once for each life.
        crash = faults.crash
        self._left = self._chance.expovariate(crash) if crash else float("inf")

    def start(self) -> None:
        """Begin a life, with what was stored in the ones before."""
        self.lives += 1
        infos = [line.cloud.model.info for line in self._lines.values()]
        self.state = ScalerState(infos, self.settings, name=f"life-{self.lives}")
        self._wake_at = self._planned_wake = float("inf")
        if self.faults.crash:
            self._left = self._chance.expovariate(self.faults.crash)
        self.post(events.RecordsRestored(tuple(self.records.values())))
        self.post(events.TimePassed())
        self._tasks.reached()

    def post(self, event: events.Event) -> list[effects.Effect] | None:
        """Tell the core what happened, and carry out what it answers.

        Returns:
            What it answered; None if the manager is away, or ended over it.
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
                # Another one may follow under its id; what is under way is not about that one.
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
        """End here and now, and begin anew after a while."""
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

    # What is to be done.

    def _flush(self) -> None:
        """Store what is to be stored, then do the rest; and again what came meanwhile."""
        self._flushing = True
        life = self.lives
        while self._outbox and self.lives == life and self.state is not None:
            batch, self._outbox = self._outbox, []
            self._storing = tuple(one for one, _ in batch if type(one) is effects.Persist)
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
            # Nothing is left to be done if that has ended this life.
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
        """Do nothing: it is for people only, or for somebody who has gone."""

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
        """Return what posts the outcome of a call, unless this life is over by then."""
        life = self.lives

        def post(outcome: Any) -> None:
            if self.lives == life:
                self.post(settle(outcome))

        return post

    # Talks with an instance.

    def _prepare(self, effect: effects.Prepare) -> None:
        cloud = self._lines[effect.group].cloud
        kind = self._preparations.throw()
        seconds = cloud.model.preparation.draw(self._preparations.chance)
        if kind == "hangs":
            seconds = effect.timeout_seconds
        token = self._preparing[effect.group, effect.id] = object()
        self._clock.after(min(seconds, effect.timeout_seconds), self._prepared, effect, token, kind)

    def _prepared(self, effect: effects.Prepare, token: object, kind: str) -> None:
        if self._preparing.get((effect.group, effect.id)) is not token:
            return
        del self._preparing[effect.group, effect.id]
        if kind or not self._lines[effect.group].cloud.reachable(effect.id):
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
        if kind or not self._lines[effect.group].cloud.reachable(effect.id):
            self.post(events.HealthFailed(effect.group, effect.id, "it did not answer"))
        else:
            self.post(events.HealthPassed(effect.group, effect.id))

    _CARRY_OUT: Mapping[type[effects.Effect], Callable[[Any, Any], None]] = {
        effects.List: _list,
        effects.Increase: _increase,
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
    """Return an error as an answer that accepts nothing."""
    return Accepted(0, error=outcome) if isinstance(outcome, ProviderError) else outcome
