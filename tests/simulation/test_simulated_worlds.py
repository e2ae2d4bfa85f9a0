"""Simulated worlds in which everything goes wrong, and the invariants that hold in them."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from taskscaler.simulation import START, Digest, World

from .plans import draw, tasks
from .runs import Failure, Figures, play

ROOT = Path(__file__).parents[2]
SEEDS = [f"test-{number}" for number in range(24)]


@functools.cache
def played(seed: str) -> Figures | Failure:
    """Return what comes of a world; it is played once."""
    return play(draw(seed, 24.0))


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_in_a_simulated_day(seed: str) -> None:
    """A day of faults breaks no invariant, and afterwards everything comes right."""
    outcome = played(seed)
    assert isinstance(outcome, Figures), outcome
    assert outcome.fault_hours == 24
    assert outcome.events > 0


def test_worlds_are_worth_playing() -> None:
    """In the worlds of the tests managers end, tasks come and instances are made."""
    outcomes = [played(seed) for seed in SEEDS]
    total = sum((one for one in outcomes if isinstance(one, Figures)), Figures())
    assert total.lives > 1.5 * len(SEEDS)
    assert total.tasks > len(SEEDS)
    assert total.instances > len(SEEDS)


def digest(seed: str) -> str:
    """Return the sum of everything that happens in a world."""
    plan, seen = draw(seed, 12.0), Digest()
    world = World(
        plan.settings,
        plan.groups,
        tasks(plan, START),
        seed=plan.seed,
        faults=plan.faults,
        commit=plan.commit,
        observers=[seen],
    )
    world.run(timedelta(hours=12))
    return seen.value


def test_same_seed_gives_same_history() -> None:
    """Two processes with other hash orders see the same history of the same seeds."""
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
    """The command plays as many hours as it was told to, and says so."""
    command = [
        sys.executable,
        "-m",
        "tests.simulation",
        "--hours",
        "96",
        "--seed",
        "test",
        "--json",
    ]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout
    assert '"fault_hours": 96.0' in completed.stdout
