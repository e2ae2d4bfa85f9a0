"""Runs one world: hours with faults, then a time without, in which it must recover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from taskscaler import IllegalEvent
from taskscaler.core import Policy, UnknownInstances, events
from taskscaler.simulation import Faults, World

from .books import Books
from .observations import Violation
from .plans import Plan, Turn, tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Effect, Event, Now, Settings

__all__ = ("Failure", "Figures", "play")

HOUR = timedelta(hours=1)
# The most hours until all tasks are served after the last fault: with one slot for two tasks an
# hour, days of work are waiting.
SERVED_WITHIN_HOURS = 336
# The minutes after which a manager that drains is replaced although it has tasks.
DRAIN_MINUTES = 90
# Idle capacity may cost so many times the instances at a constant random load, and so many more.
CHURN, CHURN_SLACK = 1.5, 5
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
        grants: the number of slots that were granted.
        removals: the number of instances whose removal was decided.
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
    grants: int = 0
    removals: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, name) + getattr(other, name) for name in Figures.__slots__))


def play(plan: Plan) -> Figures | Failure:
    """Run a world to its end, or to the first invariant that does not hold."""
    books = Books(plan.settings)
    world = begin(plan, books)
    try:
        world.run(timedelta(hours=plan.hours))
        fault_events = world.manager.events
        if plan.calm:
            expect_steady(plan, world)
        expect_recovery(world, books)
        if plan.shutdown:
            expect_shutdown(world)
        else:
            expect_rest(world, books)
    except (Violation, IllegalEvent, ArithmeticError, LookupError, ValueError) as error:
        name = error.invariant if isinstance(error, Violation) else type(error).__name__
        what = error.what if isinstance(error, Violation) else str(error)
        hours = (world.clock.seconds - plan.monotonic_seconds) / 3600
        return Failure(plan, name, what, hours, tuple(books.checker.history))
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
        books.checker.granted,
        books.removals,
    )


def begin(plan: Plan, books: Books | None = None) -> World:
    """Return the world of a plan, before it runs."""
    world = World(
        plan.settings,
        plan.groups,
        tasks(plan),
        seed=plan.seed,
        faults=plan.faults,
        start=plan.start,
        commit=plan.commit,
        monotonic_seconds=plan.monotonic_seconds,
        observers=[books] if books else [],
    )
    if books:
        books.checker.world = world
    for hour, settings in plan.changes:
        if hour < plan.hours:
            world.clock.after(hour * 3600, change, world, settings)
    for one in plan.turns:
        if one.hour < plan.hours:
            world.clock.after(one.hour * 3600, turn, world, one)
    return world


def turn(world: World, plan: Turn) -> None:
    """End the manager; the next one starts soon."""
    manager = world.manager
    if manager.state is None:
        return  # It has crashed already.
    if plan.kind == "drain":
        manager.post(events.DrainAsked())
        drain(world, plan, manager.lives, DRAIN_MINUTES)
    else:
        replace_manager(world, plan)


def drain(world: World, plan: Turn, life: int, minutes: int) -> None:
    """Replace a manager that drains when it has no task any more, or after a while."""
    manager = world.manager
    if manager.lives != life or manager.state is None:
        return
    if manager.state.drained or not minutes:
        replace_manager(world, plan)
    else:
        world.clock.after(60.0, drain, world, plan, life, minutes - 1)


def replace_manager(world: World, plan: Turn) -> None:
    """End the manager, and start the next one with its settings, and with or without records."""
    manager = world.manager
    if plan.settings is not None:
        manager.settings = replace(
            manager.settings,
            capacity_per_instance=plan.settings.capacity_per_instance,
            max_use_count=plan.settings.max_use_count,
        )
    manager.end(away_seconds=5.0)
    clouds = world.clouds.values()
    # No listing shows an instance that comes later, so the next manager could not know of it.
    if plan.kind == "forget" and not any(cloud.pending + cloud.promised for cloud in clouds):
        manager.records.clear()
        for cloud in clouds:
            for member in cloud.members.values():
                member.ours = member.foreseen = False
                member.troubled = True


def change(world: World, settings: Settings) -> None:
    """Change the settings; if the manager is down, its next life begins with them."""
    fixed = world.manager.settings
    settings = replace(
        settings,
        capacity_per_instance=fixed.capacity_per_instance,
        max_use_count=fixed.max_use_count,
    )
    world.manager.settings = settings
    world.manager.post(events.SettingsChanged(settings))


def expect_steady(plan: Plan, world: World) -> None:
    """Check that idle capacity costs few instances more than the same load without it."""
    policy = replace(plan.settings.policy, idle_count=0, scale_factor=0.0, preemptive_mode=False)
    without = begin(replace(plan, settings=replace(plan.settings, policy=policy)))
    without.run(timedelta(hours=plan.hours))
    slots = plan.settings.capacity_per_instance
    kept = -(-plan.settings.policy.idle_count // slots)
    most = CHURN * without.result().created + kept + CHURN_SLACK
    if world.result().created > most:
        created, bare = world.result().created, without.result().created
        raise Violation(
            "churn", f"{created} instances for {world.tasks.came} tasks, {bare} without idle ones"
        )


def expect_recovery(world: World, books: Books) -> None:
    """Switch the faults off, and check that every task is served within bounded time."""
    world.set_faults(Faults())
    world.run(HOUR)  # A group or a manager that is down comes back.
    # Unknown instances that are ignored could take all the room that tasks wait for.
    settings = replace(books.checker.settings, unknown_instances=UnknownInstances.REMOVE)
    change(world, settings)
    for _ in range(SERVED_WITHIN_HOURS):
        if not world.tasks.active:
            return
        world.run(HOUR)
    waiting = ", ".join(f"{one.key}: {one.phase.value}" for one in world.tasks.active.values())
    raise Violation("served", f"after {SERVED_WITHIN_HOURS} hours without a fault: {waiting}")


def expect_rest(world: World, books: Books) -> None:
    """Check that a fleet without tasks reaches its idle capacity, and later zero, and stays."""
    settings = replace(books.checker.settings, schedule=(), max_instance_age=timedelta(0))
    change(world, settings)
    settle(world, settings)
    expect_idle(world, settings)
    expect_no_scaling(world, books, "I6")
    settings = replace(settings, policy=Policy(idle_time=settings.policy.idle_time))
    change(world, settings)
    settle(world, settings)
    left = [cloud.size for cloud in world.clouds.values()]
    if any(left):
        raise Violation("I5", f"{left} instances are left without tasks or idle capacity")
    expect_no_scaling(world, books, "I5")


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


def expect_no_scaling(world: World, books: Books, invariant: str) -> None:
    """Check that no instance is created or removed while the demand is constant."""
    before = world.result().created + books.checker.removed
    world.run(timedelta(hours=STABLE_HOURS))
    changes = world.result().created + books.checker.removed - before
    if changes:
        raise Violation(invariant, f"{changes} changes at constant demand")


def expect_shutdown(world: World) -> None:
    """Shut the scaler down, and check that it removes all instances."""
    # Unknown instances are removed as well, but only after a listing has shown them.
    world.run(2 * world.manager.settings.update_interval + HOUR)
    world.manager.post(events.ShutdownAsked(remove=True))
    world.run(timedelta(hours=3))
    left = [cloud.size for cloud in world.clouds.values()]
    if any(left):
        raise Violation("closed", f"{left} instances are left after the shutdown")
