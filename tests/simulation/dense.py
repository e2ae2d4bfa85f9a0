"""The plans of dense worlds: hundreds of tasks an hour, and everything that an operator may do.

Of the worlds of a run, some are *sparse* (`plans.py`), so that each fault has time to show its
consequences, most are *dense*, and a few are *calm*: a constant random load without faults.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from taskscaler.config.periods import compile_period, find_zone
from taskscaler.core import Policy, ScheduledPolicy, Settings, UnknownInstances
from taskscaler.simulation import START, Delay, Faults, GroupModel

from .plans import (
    FREQUENCIES,
    Plan,
    Turn,
    draw_faults,
    draw_groups,
    draw_settings,
    draw_sparse,
)

__all__ = ("draw", "draw_calm", "draw_dense")

# How long the worlds of each kind last, relative to the sparse ones.
DENSE_SHARE, CALM_SHARE = 0.5, 0.25
# The starts of worlds: an ordinary week, and the hours before clocks change.
STARTS = (
    START,
    datetime(2026, 3, 28, 20, tzinfo=UTC),
    datetime(2026, 10, 24, 20, tzinfo=UTC),
    datetime(2026, 11, 1, 2, tzinfo=UTC),
    datetime(2026, 4, 4, 10, tzinfo=UTC),
)
# The last one changes its clocks by half an hour.
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")
# These faults happen with each task or event, so they are rarer where there are many.
FAULTS = {
    **FREQUENCIES,
    "breaks": (0.001, 0.02),
    "unhealthy": (0.005, 0.1),
    "unprepared": (0.01, 0.1),
    "crash": (0.00002, 0.0005),
    **dict.fromkeys(("vanish", "come_back", "recreate", "fail", "interrupt"), (0.1, 5.0)),
}


def draw(seed: str, hours: float) -> Plan:
    """Return the plan for a seed: of a sparse, a dense or a calm world.

    Args:
        seed: any text; the same seed gives the same plan.
        hours: the hours with faults of a sparse world; the others are shorter.
    """
    kind = Random(f"{seed}/kind").random()
    if kind < 0.3:
        return draw_sparse(seed, hours)
    if kind < 0.9:
        return draw_dense(seed, hours * DENSE_SHARE)
    return draw_calm(seed, hours * CALM_SHARE)


def draw_dense(seed: str, hours: float) -> Plan:
    """Return the plan of a dense world."""
    chance = Random(f"{seed}/dense")
    per_hour = chance.choice((40.0, 100.0, 250.0, 600.0))
    runs = Delay(chance.choice((30.0, 120.0, 600.0)), 0.8)
    busy_slots = _busy_slots(per_hour, runs)
    settings = draw_dense_settings(chance, busy_slots)
    groups = draw_groups(chance, chance.choice((1, 1, 2, 3)))
    groups = tuple(
        _widen(chance, one, busy_slots / settings.capacity_per_instance) for one in groups
    )
    settings = replace(settings, group_limits=_draw_limits(chance, settings, groups))
    return Plan(
        seed=seed,
        hours=hours,
        settings=settings,
        groups=groups,
        faults=draw_faults(chance, settings, FAULTS),
        per_hour=per_hour,
        runs=runs,
        reserving=chance.choice((0.0, 0.5, 1.0)),
        impatient=1.0,
        patience_seconds=chance.choice((60.0, 1800.0)),
        pausing=chance.choice((0.0, 0.0, 0.05, 0.3)),
        changes=_draw_changes(chance, settings, groups, busy_slots, hours),
        turns=_draw_turns(chance, settings, hours),
        commit=Delay(chance.choice((0.0, 0.0, 0.02, 1.0)), 0.5),
        monotonic_seconds=chance.choice((0.0, 12345.678, 3e7, 1.8e9)),
        start=chance.choice(STARTS),
        shutdown=chance.random() < 0.3,
    )


def draw_calm(seed: str, hours: float) -> Plan:
    """Return the plan of a world with a constant random load and without faults."""
    chance = Random(f"{seed}/calm")
    per_hour = chance.choice((20.0, 60.0, 200.0))
    runs = Delay(chance.choice((120.0, 600.0)), chance.choice((0.0, 0.5)))
    busy_slots = _busy_slots(per_hour, runs)
    idle_count = math.ceil(busy_slots * chance.choice((0.3, 1.0, 2.0)))
    policy = Policy(
        idle_count=idle_count,
        # As long as a task runs, at least; otherwise each task may need its own instance.
        idle_time=timedelta(minutes=chance.choice((20, 60))),
        scale_factor=chance.choice((0.0, 0.2)),
        preemptive_mode=chance.choice((None, False)),
    )
    settings = Settings(
        capacity_per_instance=chance.choice((1, 1, 4)),
        policy=policy,
        update_interval=timedelta(minutes=5),
        update_interval_when_expecting=timedelta(seconds=15),
        heartbeat_interval=timedelta(minutes=chance.choice((0, 15))),
    )
    return Plan(
        seed=seed,
        hours=hours,
        settings=settings,
        groups=tuple(_without_limits(one) for one in draw_groups(chance, 1)),
        faults=Faults(),
        per_hour=per_hour,
        runs=runs,
        reserving=chance.choice((0.0, 0.0, 0.5)),
        calm=True,
    )


def _without_limits(model: GroupModel) -> GroupModel:
    return replace(model, info=replace(model.info, max_size=None), room=None)


def _busy_slots(per_hour: float, runs: Delay) -> float:
    """Return how many slots the tasks use on average."""
    return per_hour / 3600 * runs.median_seconds * math.exp(runs.sigma**2 / 2)


def _widen(chance: Random, model: GroupModel, busy: float) -> GroupModel:
    """Return a group with room for some of the load, or all."""
    size, room = chance.choice((None, None, 0.5)), chance.choice((None, 0.3, 1.0))
    most = None if size is None or model.room is None else max(1, math.ceil(busy * size))
    return replace(
        model,
        info=replace(model.info, max_size=most),
        room=None if room is None or model.room is None else max(1, math.ceil(busy * room)),
    )


def draw_dense_settings(chance: Random, busy_slots: float) -> Settings:
    """Return settings that an operator with such a load could choose."""
    settings = draw_settings(chance)
    settings = replace(
        settings,
        capacity_per_instance=chance.choice((1, 1, 2, 4, 8)),
        max_use_count=chance.choice((0, 0, 0, 1, 5, 20)),
        reservation_throttling=chance.random() < 0.2,
        update_interval=timedelta(minutes=chance.choice((2, 10))),
        update_interval_when_expecting=timedelta(seconds=chance.choice((5, 20, 60))),
        creation_timeout=timedelta(minutes=chance.choice((10, 20))),
        heartbeat_interval=timedelta(minutes=chance.choice((0, 5, 30))),
        probe_after=timedelta(seconds=chance.choice((0, 10, 300, 3600))),
        max_instance_age=timedelta(hours=chance.choice((0, 0, 1, 4))),
        suspend_time_to_live=timedelta(minutes=chance.choice((10, 60, 10080))),
    )
    return _draw_change(chance, settings, busy_slots)


def _draw_change(chance: Random, settings: Settings, busy_slots: float) -> Settings:
    """Return settings with other limits and policies."""
    share = chance.choice((None, 0.4, 1.0, 1.5, 3.0))
    limit = (
        0 if share is None else 1 + math.ceil(busy_slots * share / settings.capacity_per_instance)
    )
    return replace(
        settings,
        max_instances=limit,
        policy=_draw_policy(chance, busy_slots),
        schedule=_draw_schedule(chance, busy_slots),
        throttle_limit=chance.choice((math.inf, 100.0, 100.0, 0.5, 0.05)),
        throttle_burst=chance.choice((0, 0, 2, 10)),
        unknown_instances=chance.choice(tuple(UnknownInstances)),
        cooldown=timedelta(minutes=chance.choice((0, 2, 10))),
        failure_threshold=chance.choice((1, 3)),
    )


def _draw_policy(chance: Random, busy_slots: float) -> Policy:
    return Policy(
        idle_count=math.ceil(busy_slots * chance.choice((0.0, 0.0, 0.1, 0.5, 1.0))),
        idle_time=timedelta(minutes=chance.choice((0, 1, 5, 20, 60))),
        scale_factor=chance.choice((0.0, 0.0, 0.2, 1.0)),
        scale_factor_limit=chance.choice((0, 0, 3)),
        preemptive_mode=chance.choice((None, None, False)),
    )


def _draw_schedule(chance: Random, busy_slots: float) -> tuple[ScheduledPolicy, ...]:
    """Return policies for parts of the day, of the week or of each hour."""
    entries: list[ScheduledPolicy] = []
    for _ in range(chance.choice((0, 0, 1, 3))):
        hours = sorted(chance.sample(range(24), 2))
        minutes = chance.choice(((0, 59), (0, 29), (15, 44)))
        days = chance.choice(((1, 7), (1, 5), (6, 7)))
        expression = f"{minutes[0]}-{minutes[1]} {hours[0]}-{hours[1]} * * {days[0]}-{days[1]}"
        policy = _draw_policy(chance, busy_slots)
        zone = find_zone(chance.choice(ZONES))
        entries.append(ScheduledPolicy(policy, (compile_period(expression),), zone))
    return tuple(entries)


def _draw_limits(
    chance: Random, settings: Settings, groups: tuple[GroupModel, ...]
) -> dict[str, int]:
    """Return own limits of some groups; the last one has none, so that tasks can be served."""
    most = settings.max_instances or 20
    return {
        group.info.id: max(1, round(most * chance.choice((0.2, 0.5, 1.0))))
        for group in groups[:-1]
        if chance.random() < 0.5
    }


def _draw_changes(
    chance: Random,
    settings: Settings,
    groups: tuple[GroupModel, ...],
    busy_slots: float,
    hours: float,
) -> tuple[tuple[float, Settings], ...]:
    """Return the settings that the operator changes to, by hour."""
    changes: list[tuple[float, Settings]] = []
    for _ in range(chance.choice((0, 1, 3, 8))):
        changed = _draw_change(chance, settings, busy_slots)
        limits = _draw_limits(chance, changed, groups)
        changes.append((chance.uniform(0, hours), replace(changed, group_limits=limits)))
    return tuple(sorted(changes, key=lambda change: change[0]))


def _draw_turns(chance: Random, settings: Settings, hours: float) -> tuple[Turn, ...]:
    """Return when managers end."""
    turns: list[Turn] = []
    for _ in range(chance.choice((0, 0, 1, 4))):
        kind = chance.choice(("kill", "kill", "drain", "drain", "forget"))
        others = None
        if chance.random() < 0.3:
            others = replace(
                settings,
                capacity_per_instance=chance.choice((1, 2, 4)),
                max_use_count=chance.choice((0, 1, 20)),
            )
        turns.append(Turn(chance.uniform(0, hours), kind, others))
    return tuple(sorted(turns, key=lambda turn: turn.hour))
