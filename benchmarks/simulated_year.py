"""Measures the simulation of a year: 5,000 jobs a day on one group, without faults.

More jobs arrive by day than at night. Half of them run for more than five minutes. The core lists
the group every ten minutes, and every ten seconds while it expects a change; its other intervals
are the defaults. The seconds are processor time.

    python -m benchmarks.simulated_year [--days N] [--jobs N] [--idle-count N]

With idle capacity, the core decides again for each slot that is taken.
"""

from __future__ import annotations

import argparse
import time
from datetime import timedelta

from benchmarks._report import report

from fleeting.types import GroupInfo
from taskscaler.core import Policy, Settings
from taskscaler.simulation import START, Delay, GroupModel, arrivals, simulate, working_hours


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365, help="simulated days")
    parser.add_argument("--jobs", type=int, default=5000, help="jobs per day")
    parser.add_argument("--idle-count", type=int, default=0, help="idle slots to keep")
    options = parser.parse_args()
    length = timedelta(days=options.days)
    settings = Settings(
        capacity_per_instance=8,
        max_instances=50,
        policy=Policy(idle_count=options.idle_count, idle_time=timedelta(minutes=30)),
        update_interval=timedelta(minutes=10),
        update_interval_when_expecting=timedelta(seconds=10),
    )
    jobs = arrivals(
        options.jobs / 24,
        Delay(300.0, 0.8),
        start=START,
        length=length,
        seed="year",
        shape=working_hours,
    )
    started = time.process_time()
    result = simulate(settings, [GroupModel(GroupInfo("builders"))], jobs, until=length)
    seconds = time.process_time() - started
    row = {
        "days": options.days,
        "jobs": result.done,
        "seconds": seconds,
        "jobs/s": result.done / seconds,
        "events/s": result.events / seconds,
        "utilisation %": result.utilisation * 100,
        "wait p50 s": result.wait_seconds(50),
        "wait p99 s": result.wait_seconds(99),
        "instance-hours": result.instance_seconds / 3600,
        "decisions": result.decisions,
    }
    report("simulated_year", [row])


if __name__ == "__main__":
    main()
