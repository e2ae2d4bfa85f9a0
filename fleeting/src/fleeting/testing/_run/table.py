"""Turns the outcomes of tests into a verdict on each promise, a table and a report."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from fleeting.testing._contract.promises import Promise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = (
    "ContractOutcome",
    "Judgement",
    "Result",
    "TableLine",
    "Verdict",
    "judge",
    "render",
    "report_of",
)

INDENT = 11
NARROWEST = 60


class Result(Enum):
    """The result of a test."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


class Verdict(Enum):
    """The verdict on a promise; a skipped test shows nothing."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_SHOWN = "not shown"


_MARKUP = {Verdict.KEPT: "green", Verdict.BROKEN: "red", Verdict.NOT_SHOWN: "yellow"}
_VERBS = {
    Result.FAILED: "failed",
    Result.SKIPPED: "was skipped",
    Result.NOT_RUN: "was not run",
}


@dataclass(frozen=True, slots=True)
class ContractOutcome:
    """The outcome of one test.

    Attributes:
        test: its name, with parameters.
        promise: the value of its `Promise`.
        result: its result.
        reason: why it failed or was skipped, on one line.
    """

    test: str
    promise: str
    result: Result
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one promise, and the tests that it is based on."""

    promise: Promise
    verdict: Verdict
    outcomes: tuple[ContractOutcome, ...]


@dataclass(frozen=True, slots=True)
class TableLine:
    """A line of the table, and its markup on a terminal."""

    text: str
    markup: Mapping[str, bool] = field(default_factory=dict[str, bool])


def judge(
    outcomes: Iterable[ContractOutcome], known: Mapping[str, Promise] | None = None
) -> list[Judgement]:
    """Return a verdict on each promise, in the order of the specification.

    Args:
        outcomes: those of the tests that were run.
        known: all tests of the contract, to name those that were not run.
    """
    by_promise: dict[str, list[ContractOutcome]] = {promise.value: [] for promise in Promise}
    left = dict(known or {})
    for outcome in outcomes:
        by_promise[outcome.promise].append(outcome)
        left.pop(outcome.test.partition("[")[0], None)
    for test, promise in left.items():
        by_promise[promise.value].append(ContractOutcome(test, promise.value, Result.NOT_RUN))
    return [
        Judgement(promise, _verdict(by_promise[promise.value]), tuple(by_promise[promise.value]))
        for promise in Promise
    ]


def _verdict(outcomes: Sequence[ContractOutcome]) -> Verdict:
    results = {outcome.result for outcome in outcomes}
    if Result.FAILED in results:
        return Verdict.BROKEN
    return Verdict.KEPT if Result.PASSED in results else Verdict.NOT_SHOWN


def render(judgements: Sequence[Judgement], width: int) -> Iterator[TableLine]:
    """Yield the lines of the table: each verdict, and below it the tests behind it."""
    for judgement in judgements:
        yield TableLine(
            f"{judgement.verdict.value:<{INDENT}}{judgement.promise.value}",
            {_MARKUP[judgement.verdict]: True},
        )
        for text in _tests(judgement):
            for line in textwrap.wrap(
                text, max(width, NARROWEST) - INDENT, subsequent_indent="  ", break_on_hyphens=False
            ):
                yield TableLine(" " * INDENT + line)
    counts = [
        f"{sum(one.verdict is verdict for one in judgements)} {verdict.value}"
        for verdict in Verdict
    ]
    yield TableLine(", ".join(counts), {"bold": True})


def _tests(judgement: Judgement) -> Iterator[str]:
    """Yield the passed tests, and the others with their reasons."""
    passed = [one.test for one in judgement.outcomes if one.result is Result.PASSED]
    if passed:
        yield ", ".join(passed)
    for result, verb in _VERBS.items():
        reasons: dict[str, list[str]] = {}
        for one in judgement.outcomes:
            if one.result is result:
                reasons.setdefault(one.reason, []).append(one.test)
        for reason, tests in reasons.items():
            words = verb.replace("was", "were") if len(tests) > 1 else verb
            yield f"{', '.join(tests)} {words}{reason and f': {reason}'}"


def report_of(groups: Mapping[str, Sequence[Judgement]]) -> dict[str, Any]:
    """Return the judgements as data for JSON."""
    return {
        "groups": [
            {
                "name": name,
                "promises": [
                    {
                        "promise": judgement.promise.value,
                        "verdict": judgement.verdict.value,
                        "tests": [
                            {"name": one.test, "result": one.result.value, "reason": one.reason}
                            for one in judgement.outcomes
                        ],
                    }
                    for judgement in judgements
                ],
            }
            for name, judgements in groups.items()
        ]
    }
