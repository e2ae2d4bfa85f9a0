"""Runs one world: hours with faults, then a time without, in which it must recover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from taskscaler import IllegalEvent
from taskscaler.core import Policy, UnknownInstances, events
from taskscaler.simulation import START, Faults, World

from .checker import InvariantChecker
from .observations import Violation
from .plans import Plan, tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Effect, Event, Now, Settings

__all__ = ("Failure", "Figures", "play")

HOUR = timedelta(hours=1)
# The most hours until all tasks are served after the last fault: with one slot for two tasks an
# hour, days of work are waiting.
SERVED_WITHIN_HOURS = 336
# The hours without any scaling at constant load.
STABLE_HOURS = 4


@dataclass(frozen=True, slots=True)
class Failure:
    """An invariant that did not hold.

    Attributes:
        plan: the plan of the world.
        invariant: the name of the invariant, or of the exception that the core raised.
        what: what was observed instead.
        hours: the time since the beginning.
        history: the newest events with their effects, in order.
    """

    plan: Plan
    invariant: str
    what: str
    hours: float
    history: Sequence[tuple[Now, Event, Sequence[Effect]]]


@dataclass(frozen=True, slots=True)
class Figures:
    """The size of one run, or of several together.

    Attributes:
        worlds: the number of worlds.
        fault_hours: the simulated hours with faults.
        quiet_hours: the simulated hours without faults.
        steps: the number of actions on the clock.
        events: the number of events that were applied to the core.
        fault_events: the number of these in the hours with faults.
        lives: the number of starts of the manager.
        tasks: the number of tasks that arrived.
        instances: the number of instances that were created.
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
    checker = InvariantChecker(plan.settings)
    world = checker.world = World(
        plan.settings,
        plan.groups,
        tasks(plan, START),
        seed=plan.seed,
        faults=plan.faults,
        commit=plan.commit,
        monotonic_seconds=plan.monotonic_seconds,
        observers=[checker],
    )
    try:
        for hour, settings in plan.changes:
            world.clock.after(hour * 3600, change, world, settings)
        world.run(timedelta(hours=plan.hours))
        fault_events = world.manager.events
        expect_recovery(world, checker)
        if plan.shutdown:
            expect_shutdown(world)
        else:
            expect_rest(world, checker)
    except (Violation, IllegalEvent, ArithmeticError, LookupError, ValueError) as error:
        name = error.invariant if isinstance(error, Violation) else type(error).__name__
        what = error.what if isinstance(error, Violation) else str(error)
        hours = (world.clock.seconds - plan.monotonic_seconds) / 3600
        return Failure(plan, name, what, hours, tuple(checker.history))
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
    """Change the settings; if the manager is down, its next life begins with them."""
    world.manager.settings = settings
    world.manager.post(events.SettingsChanged(settings))


def expect_recovery(world: World, checker: InvariantChecker) -> None:
    """Switch the faults off, and check that every task is served within bounded time."""
    world.set_faults(Faults())
    world.run(HOUR)  # A group or a manager that is down comes back.
    # Unknown instances that are ignored could take all the room that tasks wait for.
    settings = replace(checker.settings, unknown_instances=UnknownInstances.REMOVE)
    change(world, settings)
    for _ in range(SERVED_WITHIN_HOURS):
        if not world.tasks.active:
            return
        world.run(HOUR)
    waiting = ", ".join(f"{one.key}: {one.phase.value}" for one in world.tasks.active.values())
    raise Violation("served", f"after {SERVED_WITHIN_HOURS} hours without a fault: {waiting}")


def expect_rest(world: World, checker: InvariantChecker) -> None:
    """Check that a fleet without tasks reaches its idle capacity, and later zero, and stays."""
    settings = replace(checker.settings, schedule=(), max_instance_age=timedelta(0))
    change(world, settings)
    settle(world, settings)
    expect_idle(world, settings)
    expect_no_scaling(world, checker, "I6")
    settings = replace(settings, policy=Policy(idle_time=settings.policy.idle_time))
    change(world, settings)
    settle(world, settings)
    left = [cloud.size for cloud in world.clouds.values()]
    if any(left):
        raise Violation("I5", f"{left} instances are left without tasks or idle capacity")
    expect_no_scaling(world, checker, "I5")


def settle(world: World, settings: Settings) -> None:
    """Let time pass until all removals, creations and retries are over."""
    world.run(
        settings.policy.idle_time
        + 2 * settings.creation_timeout
        + max(2, settings.missed_updates + 1) * settings.update_interval
        + 3 * settings.deletion_retry_interval
        + settings.backoff_limit
        + HOUR
    )


def expect_idle(world: World, settings: Settings) -> None:
    """Check that there is the idle capacity of the policy, as far as the limits allow."""
    slots = settings.capacity_per_instance
    uses = settings.max_use_count or slots
    most = [cloud.model.info.max_size or 1000 for cloud in world.clouds.values()]
    rooms = [cloud.model.room or 1000 for cloud in world.clouds.values()]
    room = sum(map(min, most, rooms))
    limit = min(room, settings.max_instances or room)
    wanted = min(-(-settings.policy.idle_count // min(slots, uses)), limit)
    there = sum(cloud.size for cloud in world.clouds.values())
    if there < wanted:
        raise Violation("idle", f"expected at least {wanted} instances, got {there}")


def expect_no_scaling(world: World, checker: InvariantChecker, invariant: str) -> None:
    """Check that no instance is requested or removed while the demand is constant."""
    before = checker.scalings
    world.run(timedelta(hours=STABLE_HOURS))
    if checker.scalings != before:
        raise Violation(invariant, f"{checker.scalings - before} changes at constant demand")


def expect_shutdown(world: World) -> None:
    """Shut the scaler down, and check that it removes all instances."""
    # Unknown instances are removed as well, but only after a listing has shown them.
    world.run(2 * world.manager.settings.update_interval + HOUR)
    world.manager.post(events.ShutdownAsked(remove=True))
    world.run(timedelta(hours=3))
    left = [cloud.size for cloud in world.clouds.values()]
    if any(left):
        raise Violation("closed", f"{left} instances are left after the shutdown")
