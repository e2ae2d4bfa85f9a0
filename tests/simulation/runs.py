"""Runs one world: hours with faults, then a quiet time in which everything must come right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from taskscaler import IllegalEvent
from taskscaler.core import Policy, UnknownInstances, events
from taskscaler.simulation import START, Faults, World

from .books import Books
from .life import Broken
from .plans import Plan, tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Effect, Event, Now, Settings

__all__ = ("Failure", "Figures", "play")

HOUR = timedelta(hours=1)
# How long after the last fault everybody must have been served: where there is one slot
# for two tasks an hour, days of work are waiting.
PATIENCE_HOURS = 336
# For how long nothing may change when nothing is to be changed.
QUIET_HOURS = 4


@dataclass(frozen=True, slots=True)
class Failure:
    """An invariant that did not hold.

    Attributes:
        plan: the world in which that was.
        invariant: which one.
        what: what was seen instead.
        hours: when.
        history: what the core was told and answered before that, the last of it last.
    """

    plan: Plan
    invariant: str
    what: str
    hours: float
    history: Sequence[tuple[Now, Event, Sequence[Effect]]]


@dataclass(frozen=True, slots=True)
class Figures:
    """How much one run, or several, have played.

    Attributes:
        worlds: how many.
        fault_hours: hours in which faults were on.
        quiet_hours: hours in which they were not.
        steps: things that happened.
        events: those of them that the core was told.
        fault_events: those of these that were in the hours with faults.
        lives: how many times a manager was started.
        tasks: how many came.
        instances: how many were created.
    """

    worlds: int = 0
    fault_hours: float = 0.0
    quiet_hours: float = 0.0
    steps: int = 0
    events: int = 0
    fault_events: int = 0
    lives: int = 0
    tasks: int = 0
    instances: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, name) + getattr(other, name) for name in Figures.__slots__))


def play(plan: Plan) -> Figures | Failure:
    """Run a world to its end, or to the first invariant that does not hold."""
    books = Books(plan.settings)
    world = books.world = World(
        plan.settings,
        plan.groups,
        tasks(plan, START),
        seed=plan.seed,
        faults=plan.faults,
        commit=plan.commit,
        monotonic_seconds=plan.monotonic_seconds,
        observers=[books],
    )
    try:
        for hour, settings in plan.changes:
            world.clock.after(hour * 3600, change, world, settings)
        world.run(timedelta(hours=plan.hours))
        fault_events = world.manager.events
        calm_down(world, books)
        if plan.shutdown:
            close(world)
        else:
            rest(world, books)
    except (Broken, IllegalEvent, ArithmeticError, LookupError, ValueError) as error:
        name = error.invariant if isinstance(error, Broken) else type(error).__name__
        what = error.what if isinstance(error, Broken) else str(error)
        hours = (world.clock.seconds - plan.monotonic_seconds) / 3600
        return Failure(plan, name, what, hours, tuple(books.history))
    outcome = world.result()
    return Figures(
        1,
        plan.hours,
        outcome.seconds / 3600 - plan.hours,
        outcome.steps,
        outcome.events,
        fault_events,
        outcome.lives,
        outcome.came,
        outcome.created,
    )


def change(world: World, settings: Settings) -> None:
    """Put other settings in force; if the manager is away, from its next life on."""
    world.manager.settings = settings
    world.manager.post(events.SettingsChanged(settings))


def calm_down(world: World, books: Books) -> None:
    """No more faults: every task that came is served within bounded time."""
    world.set_faults(Faults())
    world.run(HOUR)  # Whoever is away comes back.
    # Somebody has cleaned up what we were told to ignore, so that there is room for us.
    settings = replace(books.settings, unknown_instances=UnknownInstances.REMOVE)
    change(world, settings)
    for _ in range(PATIENCE_HOURS):
        if not world.tasks.active:
            return
        world.run(HOUR)
    waiting = ", ".join(f"{one.key}: {one.phase.value}" for one in world.tasks.active.values())
    raise Broken("served", f"after {PATIENCE_HOURS} hours without a fault: {waiting}")


def rest(world: World, books: Books) -> None:
    """Nobody wants anything: the fleet comes to its target and stays there, then to nothing."""
    settings = replace(books.settings, schedule=(), max_instance_age=timedelta(0))
    change(world, settings)
    settle(world, settings)
    expect_idle(world, settings)
    expect_no_scaling(world, books, "I6")
    settings = replace(settings, policy=Policy(idle_time=settings.policy.idle_time))
    change(world, settings)
    settle(world, settings)
    left = [cloud.size for cloud in world.clouds.values()]
    if any(left):
        raise Broken("I5", f"nobody wants anything, and there are {left} instances")
    expect_no_scaling(world, books, "I5")


def settle(world: World, settings: Settings) -> None:
    """Let as much time pass as it takes to come to rest."""
    world.run(
        settings.policy.idle_time
        + 2 * settings.creation_timeout
        + max(2, settings.missed_updates + 1) * settings.update_interval
        + 3 * settings.deletion_retry_interval
        + settings.backoff_limit
        + HOUR
    )


def expect_idle(world: World, settings: Settings) -> None:
    """Check that there is as much idle capacity as the policy wants and the limits allow."""
    slots = settings.capacity_per_instance
    uses = settings.max_use_count or slots
    most = [cloud.model.info.max_size or 1000 for cloud in world.clouds.values()]
    rooms = [cloud.model.room or 1000 for cloud in world.clouds.values()]
    room = sum(map(min, most, rooms))
    limit = min(room, settings.max_instances or room)
    wanted = min(-(-settings.policy.idle_count // min(slots, uses)), limit)
    there = sum(cloud.size for cloud in world.clouds.values())
    if there < wanted:
        raise Broken("idle", f"{there} instances are there, {wanted} are wanted")


def expect_no_scaling(world: World, books: Books, invariant: str) -> None:
    """Check that nothing comes or goes while nothing changes."""
    before = books.scalings
    world.run(timedelta(hours=QUIET_HOURS))
    if books.scalings != before:
        raise Broken(invariant, f"{books.scalings - before} changes while nobody wanted any")


def close(world: World) -> None:
    """The scaler is closed, and removes what it has."""
    # What is not ours is to be removed, too, since a moment ago; somebody has to see it first.
    world.run(2 * world.manager.settings.update_interval + HOUR)
    world.manager.post(events.ShutdownAsked(remove=True))
    world.run(timedelta(hours=3))
    left = [cloud.size for cloud in world.clouds.values()]
    if any(left):
        raise Broken("closed", f"the scaler is closed, and there are {left} instances")
