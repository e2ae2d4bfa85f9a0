"""Measures how many instances a warm pool creates at a constant random load.

20 tasks an hour arrive at random and run for ten minutes each, for a day, on one group without
faults and with one slot on each instance. `idle_time` is 20 minutes.

    python -m benchmarks.warm_pool [--days N]
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import TYPE_CHECKING

from benchmarks._report import report

from fleeting.types import GroupInfo
from taskscaler.core import Policy, Settings
from taskscaler.simulation import START, Delay, GroupModel, arrivals, simulate

if TYPE_CHECKING:
    from taskscaler.simulation import SimulationResult

IDLE_COUNTS = (0, 5, 10, 20)
IDLE_TIME = timedelta(minutes=20)


def measure(idle_count: int, days: int) -> SimulationResult:
    """Simulate the load with an idle count."""
    length = timedelta(days=days)
    tasks = arrivals(20, Delay(600.0), start=START, length=length, seed="1")
    settings = Settings(policy=Policy(idle_count=idle_count, idle_time=IDLE_TIME))
    return simulate(settings, [GroupModel(GroupInfo("builders"))], tasks, until=length)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=1, help="simulated days")
    days = parser.parse_args().days
    rows: list[dict[str, object]] = []
    for idle_count in IDLE_COUNTS:
        result = measure(idle_count, days)
        created = int(str(rows[0]["created"])) if rows else result.created
        rows.append(
            {
                "idle_count": idle_count,
                "tasks": result.came,
                "created": result.created,
                "ratio": result.created / created,
                "instance-hours": result.instance_seconds / 3600,
                "wait p50 s": result.wait_seconds(50),
                "wait p99 s": result.wait_seconds(99),
            }
        )
    report("warm_pool", rows)


if __name__ == "__main__":
    main()
