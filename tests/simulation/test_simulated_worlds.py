"""The invariants hold in simulated worlds with all kinds of faults."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from taskscaler.simulation import Digest, World

from .dense import draw, draw_calm, draw_dense
from .plans import draw_sparse, tasks
from .runs import Failure, Figures, play

ROOT = Path(__file__).parents[2]
SEEDS = [f"test-{number}" for number in range(8)]


@functools.cache
def played(seed: str) -> Figures | Failure:
    """Return the outcome of a world, which is played once."""
    return play(draw_sparse(seed, 24.0))


@functools.cache
def played_dense(seed: str) -> Figures | Failure:
    """Return the outcome of a dense world, which is played once."""
    return play(draw_dense(seed, 1.0))


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_in_a_simulated_day(seed: str) -> None:
    """The invariants hold on a day with faults, and afterwards the scaler recovers."""
    outcome = played(seed)
    assert isinstance(outcome, Figures), outcome
    assert outcome.fault_hours == 24
    assert outcome.events > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_in_a_dense_hour(seed: str) -> None:
    """The books agree with an hour of many tasks, changes of the operator, and faults."""
    outcome = played_dense(seed)
    assert isinstance(outcome, Figures), outcome


def test_a_constant_load_costs_few_instances() -> None:
    """In a calm world the fleet is steady although the load is random."""
    outcome = play(draw_calm("test-1", 2.0))
    assert isinstance(outcome, Figures), outcome


@pytest.mark.long
def test_invariants_hold_in_many_worlds() -> None:
    """The books agree with worlds of all kinds."""
    for number in range(12):
        outcome = play(draw(f"long-{number}", 8.0))
        assert isinstance(outcome, Figures), outcome


def test_worlds_have_activity() -> None:
    """In the worlds of the tests, managers restart, tasks arrive and instances are created."""
    outcomes = [*map(played, SEEDS), *map(played_dense, SEEDS)]
    total = sum((one for one in outcomes if isinstance(one, Figures)), Figures())
    assert total.lives > 1.5 * len(SEEDS)
    assert total.tasks > 50 * len(SEEDS)
    assert total.grants > 20 * len(SEEDS)
    assert total.removals > len(SEEDS)
    assert total.instances > len(SEEDS)


def digest(seed: str) -> str:
    """Return the hash of a world's history."""
    plan, seen = draw_sparse(seed, 12.0), Digest()
    world = World(
        plan.settings,
        plan.groups,
        tasks(plan),
        seed=plan.seed,
        faults=plan.faults,
        commit=plan.commit,
        observers=[seen],
    )
    world.run(timedelta(hours=12))
    return seen.value


def test_same_seed_gives_same_history() -> None:
    """A world that is played twice has one history; another seed gives another one."""
    assert digest(SEEDS[0]) == digest(SEEDS[0]) != digest(SEEDS[1])


@pytest.mark.long
def test_same_seed_gives_same_history_in_other_processes() -> None:
    """The same seeds give the same history in two processes with different hash seeds."""
    script = (
        "from tests.simulation.test_simulated_worlds import SEEDS, digest\n"
        "print(*map(digest, SEEDS[:6]))"
    )
    histories = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for number in ("1", "2")
    ]
    assert histories[0] == histories[1]
    assert len(set(histories[0])) == 6
    assert all(len(one) == hashlib.sha256().digest_size * 2 for one in histories[0])


def test_command_line_prints_figures() -> None:
    """The command plays the hours of its option and prints them."""
    options = ["-m", "tests.simulation", "--hours", "15", "--seed", "quick", "--json"]
    completed = subprocess.run(
        [sys.executable, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout
    figures = json.loads(completed.stdout)
    assert figures["worlds"] == 1
    assert figures["distinct_firings"] > 0
    assert figures["tasks_per_cpu_second"] > 0
