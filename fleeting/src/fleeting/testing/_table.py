"""From the outcomes of tests to a verdict on each promise, and to the table of them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from fleeting.testing._promises import Promise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ("Judgement", "Line", "Outcome", "Result", "Verdict", "judge", "render", "report_of")

INDENT = 11
NARROWEST = 60


class Result(Enum):
    """What came of a test."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


class Verdict(Enum):
    """What is known of a promise: a test that was skipped proves nothing."""

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
class Outcome:
    """What came of one test.

    Attributes:
        test: its name, with its parameters.
        promise: the value of what it is about.
        result: what came of it.
        reason: why it failed or was skipped, in one line.
    """

    test: str
    promise: str
    result: Result
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the tests say of one promise."""

    promise: Promise
    verdict: Verdict
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table, and how it looks on a terminal."""

    text: str
    markup: Mapping[str, bool] = field(default_factory=dict[str, bool])


def judge(
    outcomes: Iterable[Outcome], known: Mapping[str, Promise] | None = None
) -> list[Judgement]:
    """Return a verdict on each promise, in the order of the specification.

    Args:
        outcomes: of the tests that were run.
        known: all tests of the contract, so that those are named that were not run.
    """
    by_promise: dict[str, list[Outcome]] = {promise.value: [] for promise in Promise}
    left = dict(known or {})
    for outcome in outcomes:
        by_promise[outcome.promise].append(outcome)
        left.pop(outcome.test.partition("[")[0], None)
    for test, promise in left.items():
        by_promise[promise.value].append(Outcome(test, promise.value, Result.NOT_RUN))
    return [
        Judgement(promise, _verdict(by_promise[promise.value]), tuple(by_promise[promise.value]))
        for promise in Promise
    ]


def _verdict(outcomes: Sequence[Outcome]) -> Verdict:
    results = {outcome.result for outcome in outcomes}
    if Result.FAILED in results:
        return Verdict.BROKEN
    return Verdict.KEPT if Result.PASSED in results else Verdict.NOT_SHOWN


def render(judgements: Sequence[Judgement], width: int) -> Iterator[Line]:
    """Yield the table: the verdict on each promise, and below it the tests behind it."""
    for judgement in judgements:
        yield Line(
            f"{judgement.verdict.value:<{INDENT}}{judgement.promise.value}",
            {_MARKUP[judgement.verdict]: True},
        )
        for text in _tests(judgement):
            for line in textwrap.wrap(
                text, max(width, NARROWEST) - INDENT, subsequent_indent="  ", break_on_hyphens=False
            ):
                yield Line(" " * INDENT + line)
    counts = [
        f"{sum(one.verdict is verdict for one in judgements)} {verdict.value}"
        for verdict in Verdict
    ]
    yield Line(", ".join(counts), {"bold": True})


def _tests(judgement: Judgement) -> Iterator[str]:
    """Yield the tests that passed, and each other one with its reason."""
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
    """Return the same as data for JSON."""
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
