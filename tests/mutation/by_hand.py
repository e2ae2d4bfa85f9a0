"""Tries the mistakes that were made by hand (`semantic.py`): the program behind `--semantic`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutation.semantic import Mistake, read_mistakes
from tests.mutation.trials import (
    EXAMPLES,
    PROPERTIES,
    Outcome,
    Plan,
    Program,
    Stage,
    Suite,
    Trials,
    Verdict,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from tests.mutation.mutants import Mutant
    from tests.mutation.trials import Snapshot

__all__ = ("SUITES", "run")

MISTAKES = Path(__file__).with_name("semantic")
SIMULATION = "simulation"
SUITES = (EXAMPLES, PROPERTIES, SIMULATION)
# Of processor time: a named test, and an hour of the simulation, need about one.
LIMIT_SECONDS = 60


def run(asked: argparse.Namespace, snapshot: Snapshot) -> tuple[int, str]:
    """Try all mistakes; return the exit status and a report."""
    subjects = {
        subject: [one for one in mistakes if asked.only in one.name]
        for subject, mistakes in read_mistakes(MISTAKES).items()
    }
    sources = snapshot.sources()
    mutants = {one.name: one.apply(sources) for group in subjects.values() for one in group}
    snapshot.enter()
    if asked.suites:
        return 0, _compare(asked, snapshot, subjects, mutants)
    mistakes = [one for group in subjects.values() for one in group]
    killers = {one.name: Stage((one.killer,), asked.examples, LIMIT_SECONDS) for one in mistakes}
    outcomes = _outcomes(((mutants[name], (one,)) for name, one in killers.items()), asked.jobs)
    missed = [one for one in mistakes if not outcomes[one.name].killer.startswith(one.killer)]
    lines = [
        f"{one.killer} does not notice this mistake: {one.name}.\n{one.difference(sources)}\n"
        for one in missed
    ]
    noticed = len(mistakes) - len(missed)
    lines.append(f"{len(mistakes)} mistakes, {noticed} of them noticed by the test that is named")
    return (1 if missed else 0), "\n".join(lines)


def _outcomes(planned: Iterable[tuple[Mutant, Sequence[Suite]]], jobs: int) -> dict[str, Outcome]:
    """Return the outcome of each mistake by its name."""
    return {mutant.where: outcome for mutant, outcome in Trials(jobs).run(planned)}


def _suite(name: str, asked: argparse.Namespace, snapshot: Snapshot) -> Suite:
    if name == SIMULATION:
        arguments = ("--hours", str(asked.hours), "--seed", "1")
        return Program("tests.simulation", arguments, LIMIT_SECONDS + asked.hours)
    return Plan(snapshot, asked.examples).stage(name)


def _compare(
    asked: argparse.Namespace,
    snapshot: Snapshot,
    subjects: Mapping[str, Sequence[Mistake]],
    mutants: Mapping[str, Mutant],
) -> str:
    """Try each mistake with each suite; return a table of how many each suite notices."""
    noticed: dict[str, set[str]] = {}
    for name in asked.suites:
        suite = _suite(name, asked, snapshot)
        outcomes = _outcomes(((one, (suite,)) for one in mutants.values()), asked.jobs)
        noticed[name] = {
            name for name, one in outcomes.items() if one.verdict is not Verdict.SURVIVED
        }
    lines = [
        f"{subject}: {one.name}: noticed by {', '.join(suites) or 'none'}"
        for subject, mistakes in subjects.items()
        for one in mistakes
        for suites in [[suite for suite, names in noticed.items() if one.name in names]]
    ]
    lines.append("".join(f"{word:>12}" for word in ("mistakes", *noticed)))
    rows = {subject: {one.name for one in mistakes} for subject, mistakes in subjects.items()}
    for subject, names in [*rows.items(), ("total", set(mutants))]:
        counts = (len(names), *(len(names & found) for found in noticed.values()))
        lines.append(f"{''.join(f'{count:12}' for count in counts)}  {subject}")
    return "\n".join(lines)
