"""The plan of a simulated world, drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from fleeting.types import Capability, GroupInfo
from taskscaler.core import Placement, Policy, Settings, UnknownInstances
from taskscaler.simulation import START, Arrival, Delay, Faults, GroupModel, arrivals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

__all__ = (
    "FREQUENCIES",
    "Plan",
    "Turn",
    "draw_faults",
    "draw_groups",
    "draw_settings",
    "draw_sparse",
    "tasks",
)

# The range of each fault in a world that has it: a probability, or a rate per hour.
FREQUENCIES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(Faults.kinds(), (0.02, 0.3)),
    "crash": (0.0005, 0.01),
    "commits_lost": (0.2, 0.8),
    "never_boots": (0.02, 0.15),
    "hangs": (0.02, 0.2),
    **dict.fromkeys(("vanish", "come_back", "recreate", "fail", "interrupt"), (0.05, 1.0)),
    **dict.fromkeys(("add", "outage", "jump"), (0.01, 0.2)),
    "network": (0.02, 0.5),
}
INSTANT = Delay(0.0)
# The share of quiet worlds.
QUIET = 0.75
# With `missed_updates` of 1, an instance that one such listing omits counts as gone.
WRONG_LISTINGS = ("stale", "incomplete")


@dataclass(frozen=True, slots=True)
class Turn:
    """The end of one manager and the start of the next.

    Attributes:
        hour: when.
        kind: `kill` ends it at once. `drain` asks it to take no new tasks, and ends it when it
            has none. `forget` ends it at once, and loses its records.
        settings: the settings of the next one; None if they stay.
    """

    hour: float
    kind: str
    settings: Settings | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One world.

    Attributes:
        seed: the seed of all random numbers of the run.
        hours: the hours with faults.
        settings: the settings at the beginning.
        groups: the models of the groups.
        faults: the faults that happen.
        per_hour: the average number of tasks per hour.
        runs: how long each task runs.
        reserving: the share of the tasks that make a reservation first.
        impatient: the share of the tasks that do not wait for long.
        pausing: the share of the tasks that are suspended half-way.
        changes: later settings, each with the hour from which they are in force.
        commit: how long storing records takes.
        monotonic_seconds: the monotonic time at the beginning. Large values test the precision
            of times on a machine that has run for years.
        shutdown: whether the scaler is shut down at the end and removes its instances.
        patience_seconds: the longest that an impatient task waits.
        turns: the ends of managers, by hour, in addition to the crashes.
        start: the wall time at the beginning.
        calm: whether the load is constant and nothing disturbs it, so that the fleet must be
            steady.
    """

    seed: str
    hours: float
    settings: Settings
    groups: tuple[GroupModel, ...]
    faults: Faults
    per_hour: float
    runs: Delay
    reserving: float = 0.0
    impatient: float = 0.0
    pausing: float = 0.0
    changes: tuple[tuple[float, Settings], ...] = ()
    commit: Delay = INSTANT
    monotonic_seconds: float = 0.0
    shutdown: bool = False
    patience_seconds: float = 600.0
    turns: tuple[Turn, ...] = ()
    start: datetime = START
    calm: bool = False


def draw_sparse(seed: str, hours: float, *, quiet: bool | None = None) -> Plan:
    """Return a plan with few tasks for a seed.

    Args:
        seed: any text; the same seed gives the same plan.
        hours: the hours with faults.
        quiet: whether the world is quiet: it has few tasks and long intervals. None draws this
            from the seed, too.
    """
    chance = Random(f"{seed}/plan")
    settings = draw_settings(chance)
    # Most worlds are quiet, so that each fault has time to show its consequences.
    is_quiet = chance.random() < QUIET
    quiet = is_quiet if quiet is None else quiet
    if quiet:
        settings = draw_long_intervals(chance, settings)
    return Plan(
        seed=seed,
        hours=hours,
        settings=settings,
        groups=draw_groups(chance, chance.choice((1, 1, 1, 1, 2, 3))),
        faults=draw_faults(chance, settings),
        per_hour=chance.choice((0.02, 0.05, 0.1) if quiet else (0.05, 0.1, 0.2, 0.5, 2.0)),
        runs=Delay(chance.choice((30.0, 300.0, 1800.0)), 0.8),
        reserving=chance.choice((0.0, 0.0, 0.5) if quiet else (0.0, 0.5, 1.0)),
        impatient=chance.choice((0.0, 0.3)),
        pausing=chance.choice((0.0, 0.0, 0.3)),
        changes=draw_changes(chance, settings, hours),
        commit=Delay(chance.choice((0.0, 0.0, 0.02, 2.0)), 0.5),
        monotonic_seconds=chance.choice((0.0, 12345.678, 3e7, 1.8e9)),
        shutdown=chance.random() < 0.3,
    )


def draw_settings(chance: Random) -> Settings:
    """Return settings that an operator could choose."""
    return Settings(
        capacity_per_instance=chance.choice((1, 1, 2, 5)),
        max_instances=chance.choice((0, 1, 2, 4, 10)),
        max_use_count=chance.choice((0, 0, 1, 3)),
        policy=draw_policy(chance),
        placement=chance.choice(tuple(Placement)),
        unknown_instances=chance.choice(tuple(UnknownInstances)),
        keep_instance_with_acquisitions=chance.random() < 0.3,
        instance_ready_timeout=timedelta(minutes=chance.choice((2, 10))),
        update_interval=timedelta(minutes=chance.choice((30, 60, 120))),
        update_interval_when_expecting=timedelta(seconds=chance.choice((60, 120, 300, 600))),
        creation_timeout=timedelta(minutes=chance.choice((15, 30))),
        deletion_retry_interval=timedelta(minutes=chance.choice((1, 10))),
        missed_updates=chance.choice((1, 2, 2, 3)),
        backoff=timedelta(seconds=chance.choice((1, 30))),
        backoff_limit=timedelta(minutes=chance.choice((5, 30))),
        operation_timeout=timedelta(seconds=chance.choice((30, 60))),
        heartbeat_interval=timedelta(minutes=chance.choice((0, 0, 60, 240))),
        probe_after=timedelta(seconds=chance.choice((0, 10, 3600, 86400))),
        failure_threshold=chance.choice((1, 3)),
        remove_unhealthy_with_tasks=chance.random() < 0.3,
        max_instance_age=timedelta(hours=chance.choice((0, 0, 0, 6))),
        suspend_time_to_live=timedelta(hours=chance.choice((1, 168))),
        cooldown=timedelta(minutes=chance.choice((0, 5, 30))),
        increase_interval=timedelta(seconds=chance.choice((0, 1, 30))),
    )


def draw_long_intervals(chance: Random, settings: Settings) -> Settings:
    """Return the settings with longer intervals."""
    return replace(
        settings,
        update_interval=timedelta(hours=chance.choice((2, 4, 8))),
        update_interval_when_expecting=timedelta(minutes=chance.choice((10, 20))),
        creation_timeout=timedelta(hours=chance.choice((1, 2))),
        deletion_retry_interval=timedelta(minutes=chance.choice((10, 30))),
        heartbeat_interval=timedelta(hours=chance.choice((0, 2, 8))),
        backoff=timedelta(seconds=chance.choice((30, 300))),
    )


def draw_policy(chance: Random) -> Policy:
    """Return a policy."""
    return Policy(
        idle_count=chance.choice((0, 0, 0, 1, 3)),
        idle_time=timedelta(minutes=chance.choice((0, 5, 20, 60))),
        scale_factor=chance.choice((0.0, 0.0, 0.5)),
        preemptive_mode=chance.choice((None, None, False)),
    )


def draw_groups(chance: Random, count: int) -> tuple[GroupModel, ...]:
    """Return the models of the groups."""
    return tuple(
        GroupModel(
            GroupInfo(
                f"group-{number}",
                max_size=chance.choice((None, None, 3)),
                capabilities=frozenset([Capability.SUSPEND]),
            ),
            boot=Delay(chance.choice((5.0, 60.0, 200.0)), 0.3),
            preparation=Delay(chance.choice((0.5, 20.0)), 0.5),
            deletion=Delay(chance.choice((0.0, 30.0, 200.0)), 0.3),
            reply=Delay(chance.choice((0.05, 2.0)), 0.5),
            # The last group has no limit, so that every task can be served in the end.
            room=chance.choice((None, 1, 2)) if number < count - 1 else None,
            names=chance.random() < 0.5,
        )
        for number in range(count)
    )


def draw_faults(
    chance: Random,
    settings: Settings,
    frequencies: Mapping[str, tuple[float, float]] = FREQUENCIES,
) -> Faults:
    """Return some of the faults, each with a random frequency."""
    share = chance.choice((0.1, 0.3, 1.0))
    chosen = {
        name: chance.uniform(*frequencies[name])
        for name in Faults.kinds()
        if chance.random() < share
    }
    if settings.missed_updates == 1:
        chosen = {name: value for name, value in chosen.items() if name not in WRONG_LISTINGS}
    return Faults(**chosen)


def draw_changes(
    chance: Random, settings: Settings, hours: float
) -> tuple[tuple[float, Settings], ...]:
    """Return the settings that the operator changes to, by hour."""
    changes: list[tuple[float, Settings]] = []
    for _ in range(chance.choice((0, 0, 1, 3))):
        changed = replace(
            settings,
            max_instances=chance.choice((0, 1, 3, 8)),
            policy=draw_policy(chance),
            unknown_instances=chance.choice(tuple(UnknownInstances)),
        )
        changes.append((chance.uniform(0, hours), changed))
    return tuple(sorted(changes, key=lambda change: change[0]))


def tasks(plan: Plan) -> Iterator[Arrival]:
    """Yield the tasks of a world, in the order of their arrival."""
    chance = Random(f"{plan.seed}/habits")
    length = timedelta(hours=plan.hours)
    name = f"{plan.seed}/arrivals"
    for arrival in arrivals(plan.per_hour, plan.runs, start=plan.start, length=length, seed=name):
        reserves, leaves, impatient, pauses = (chance.random() for _ in range(4))
        yield replace(
            arrival,
            reserves_seconds=chance.uniform(0, 60) if reserves < plan.reserving else None,
            leaves=leaves < 0.1,
            patience_seconds=chance.uniform(1, plan.patience_seconds)
            if impatient < plan.impatient
            else float("inf"),
            pause_seconds=chance.uniform(60, 7200) if pauses < plan.pausing else None,
        )
