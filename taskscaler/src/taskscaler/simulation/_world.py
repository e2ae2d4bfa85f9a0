"""A whole simulation: clouds, a manager, its tasks, and faults at random times."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from taskscaler.core import events
from taskscaler.simulation._calls import CloudCalls
from taskscaler.simulation._clock import Clock
from taskscaler.simulation._cloud import Cloud
from taskscaler.simulation._faults import Dice, Faults
from taskscaler.simulation._manager import Manager
from taskscaler.simulation._models import Delay
from taskscaler.simulation._result import SimulationResult
from taskscaler.simulation._tasks import TaskPlayer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskscaler.core import Settings
    from taskscaler.simulation._models import GroupModel
    from taskscaler.simulation._observer import SimulationObserver
    from taskscaler.simulation._workload import Arrival

__all__ = ("START", "World", "simulate")

START = datetime(2026, 3, 2, tzinfo=UTC)
HAPPENINGS = (
    "vanish",
    "come_back",
    "recreate",
    "fail",
    "interrupt",
    "add",
    "outage",
    "jump",
    "network",
)


class World:
    """One simulation, which can be run step by step.

    Args:
        settings: the settings of the scaler.
        groups: the models of the groups, in order of preference.
        arrivals: the tasks, in the order of their arrival.
        seed: the seed of all random numbers: the same seed gives the same history.
        faults: the faults that happen; none by default.
        start: the wall time of the beginning, aware.
        monotonic_seconds: the monotonic time of the beginning.
        commit: how long storing records takes.
        observers: objects that see all events and effects.

    Attributes:
        clock: the simulated clock.
        clouds: the actual state of each group, by its id.
        tasks: the tasks that ask for slots.
        manager: the core with its driver.
    """

    def __init__(
        self,
        settings: Settings,
        groups: Sequence[GroupModel],
        arrivals: Iterable[Arrival],
        *,
        seed: int | str = 0,
        faults: Faults | None = None,
        start: datetime = START,
        monotonic_seconds: float = 0.0,
        commit: Delay = Delay(0.0),  # noqa: B008 - it is frozen
        observers: Sequence[SimulationObserver] = (),
    ) -> None:
        faults = faults or Faults()
        name = str(seed)
        self.clock = Clock(start, monotonic_seconds)
        self.clouds = {model.info.id: Cloud(model, self.clock, faults, name) for model in groups}
        self._lines = {id: CloudCalls(cloud, self.clock, name) for id, cloud in self.clouds.items()}
        self.tasks = TaskPlayer(self.clock, iter(arrivals), faults, name)
        self.manager = Manager(
            self.clock,
            self._lines,
            settings,
            self.tasks,
            commit=commit,
            faults=faults,
            seed=name,
            observers=observers,
        )
        self.tasks.manager = self.manager
        self._zero = monotonic_seconds
        self._seed = name
        self._rounds = itertools.count()
        self._round = 0
        self.set_faults(faults)
        self.clock.after(0.0, self.manager.start)

    def run(self, length: timedelta) -> None:
        """Let time pass."""
        self.clock.run(self.clock.seconds + length.total_seconds())

    def set_faults(self, faults: Faults) -> None:
        """Replace the faults from now on."""
        for line in self._lines.values():
            line.cloud.set_faults(faults)
            line.set_faults(faults)
        self.tasks.set_faults(faults)
        self.manager.set_faults(faults)
        # This invalidates the faults that were planned before.
        self._round = next(self._rounds)
        for id in self.clouds:
            dice = Dice(faults, f"{self._seed}/{id}/happenings", *HAPPENINGS)
            if dice.total:
                self._plan(id, dice, self._round)

    def _plan(self, id: str, dice: Dice, number: int) -> None:
        seconds = dice.chance.expovariate(dice.total / 3600.0)
        self.clock.after(seconds, self._happen, id, dice, number)

    def _happen(self, id: str, dice: Dice, number: int) -> None:
        if number != self._round:
            return
        self._plan(id, dice, number)
        kind = dice.pick()
        if kind == "jump":
            self.clock.jump(dice.chance.uniform(-7200.0, 7200.0))
        elif kind == "outage":
            line = self._lines[id]
            line.out_until = self.clock.seconds + dice.chance.uniform(60.0, 3600.0)
        elif kind == "network":
            self.manager.cut(id, dice.chance.choice((20.0, 60.0, 600.0)))
        else:
            member = self.clouds[id].happen(kind, dice.chance)
            if member is not None and kind == "interrupt" and dice.chance.random() < 0.5:
                seconds = dice.chance.choice((30, 120, None))
                wall = self.clock.now.wall
                deadline = None if seconds is None else wall + timedelta(seconds=seconds)
                reason = "the cloud reclaims it"
                self.manager.post(events.InterruptionAnnounced(id, member.id, reason, deadline))

    def result(self) -> SimulationResult:
        """Return the result so far."""
        tasks, manager = self.tasks, self.manager
        return SimulationResult(
            seconds=self.clock.seconds - self._zero,
            steps=self.clock.steps,
            events=manager.events,
            decisions=manager.decisions,
            lives=manager.lives,
            created=sum(cloud.created for cloud in self.clouds.values()),
            instance_seconds=sum(cloud.instance_seconds() for cloud in self.clouds.values()),
            slot_seconds=tasks.busy_seconds,
            slots_per_instance=manager.settings.capacity_per_instance,
            came=tasks.came,
            done=tasks.done,
            cancelled=tasks.cancelled,
            refused=tasks.refused,
            lost=tasks.lost_slots,
            waits=tuple(sorted(tasks.waits)),
        )


def simulate(
    settings: Settings,
    groups: Sequence[GroupModel],
    arrivals: Iterable[Arrival],
    *,
    until: timedelta,
    seed: int | str = 0,
    faults: Faults | None = None,
    start: datetime = START,
    observers: Sequence[SimulationObserver] = (),
) -> SimulationResult:
    """Simulate what given settings do with given tasks, and return the result.

    Args:
        settings: the settings of the scaler.
        groups: the models of the groups, in order of preference.
        arrivals: the tasks, in the order of their arrival.
        until: the simulated time; tasks that arrive later are ignored.
        seed: the seed of all random numbers: the same seed gives the same result.
        faults: the faults that happen; none by default.
        start: the wall time of the beginning, aware.
        observers: objects that see all events and effects.

    Raises:
        IllegalEvent: there is no group, or two groups have the same id.
    """
    world = World(
        settings, groups, arrivals, seed=seed, faults=faults, start=start, observers=observers
    )
    world.run(until)
    return world.result()
