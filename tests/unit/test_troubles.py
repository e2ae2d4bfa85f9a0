"""Which failures a run tells and when, and what it says of the instances that are left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fleeting.types import GroupInfo
from taskscaler import InstanceSummary
from taskscaler.cli.left import kept_lines
from taskscaler.cli.troubles import (
    BOOT_SECONDS,
    PATIENCE_SECONDS,
    QUIET_SECONDS,
    Troubles,
    no_group_left,
)
from taskscaler.core import Demand, Obstacle, Stage, Standing

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEMAND = Demand(0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0)
QUIET = Standing(DEMAND, {}, (), {})


def failing(stage: Stage, reason: str = "no", times: int = 1) -> Standing:
    """Return a standing in which a stage fails."""
    return Standing(DEMAND, {}, (), {}, (Obstacle("g", stage, 1, times, NOON, reason),))


def test_a_failure_that_lasts_is_told_once() -> None:
    """Its newest reason is told, and one that passes soon is not."""
    troubles = Troubles()
    assert troubles.due(failing(Stage.LOGIN), 0.0) == []
    assert troubles.due(QUIET, PATIENCE_SECONDS - 1) == []
    assert troubles.due(failing(Stage.LOGIN), 100.0) == []
    assert troubles.due(failing(Stage.LOGIN, "newer", 5), 100 + PATIENCE_SECONDS) == [
        "g: login failed 5 times on 1 instance since 2026-03-01 12:00:00Z, the last: newer"
    ]
    assert troubles.due(failing(Stage.LOGIN, "newest", 9), 10_000.0) == []


def test_an_instance_that_boots_has_more_time_to_answer() -> None:
    """Refused connections are usual at first."""
    troubles = Troubles()
    assert troubles.due(failing(Stage.CONNECT), 0.0) == []
    assert troubles.due(failing(Stage.CONNECT), PATIENCE_SECONDS) == []
    assert len(troubles.due(failing(Stage.CONNECT), BOOT_SECONDS)) == 1


def test_a_failure_that_comes_back_is_told_again_after_a_while() -> None:
    """A failure that comes and goes does not fill the screen."""
    troubles = Troubles()
    troubles.due(failing(Stage.LOGIN), 0.0)
    assert troubles.due(failing(Stage.LOGIN), PATIENCE_SECONDS)
    troubles.due(QUIET, 10.0)
    troubles.due(failing(Stage.LOGIN), 11.0)
    assert troubles.due(failing(Stage.LOGIN), PATIENCE_SECONDS + QUIET_SECONDS - 1) == []
    assert troubles.due(failing(Stage.LOGIN), PATIENCE_SECONDS + QUIET_SECONDS)


def test_what_was_told_in_another_way_is_not_repeated() -> None:
    """The waiting line has all failures of its moment."""
    troubles = Troubles()
    troubles.due(failing(Stage.LOGIN), 0.0)
    troubles.skip(failing(Stage.LOGIN), 1.0)
    assert troubles.due(failing(Stage.LOGIN), 100.0) == []
    assert troubles.due(failing(Stage.HEALTH), 100.0) == []
    assert troubles.due(failing(Stage.HEALTH), 110.0), "this one is another"


def test_the_failure_of_a_group_is_told_unless_it_is_that_of_a_stage() -> None:
    """Its reason would be told twice."""
    troubles, text = Troubles(), "instance i did not become ready: no"
    lasting = msgspec.structs.replace(QUIET, troubles={"g": text, "h": "not allowed"})
    lasting = msgspec.structs.replace(lasting, obstacles=failing(Stage.LOGIN).obstacles)
    assert troubles.due(lasting, 0.0) == []
    told = troubles.due(lasting, 10.0)
    assert [line.split(" failed")[0] for line in told] == ["g: login", "h: not allowed"]


def test_a_group_that_is_gone_is_told_at_once() -> None:
    """When the last one is gone, the run has a reason to end."""
    gone = msgspec.structs.replace(QUIET, troubles={"g": "deleted"}, gone=("g",))
    troubles = Troubles()
    assert troubles.due(gone, 0.0) == [
        "instance group g is gone, with all that it held: deleted",
    ]
    assert troubles.due(gone, 10.0) == []
    assert no_group_left(QUIET, 1) == ""
    assert no_group_left(gone, 2) == ""
    assert no_group_left(gone, 1) == (
        "the instance group is gone, with all that it held: g: deleted"
    )
    both = msgspec.structs.replace(gone, gone=("g", "h"))
    assert no_group_left(both, 2) == (
        "all instance groups are gone, with all that they held: g: deleted; h: "
    )


# The instances that are left.


def summary(id: str, group: str = "g", reason: str | None = None) -> InstanceSummary:
    """Return an instance that exists."""
    return InstanceSummary(id, group, NOON, NOON, None, reason, 1)


def test_instances_that_stay_are_told_with_what_becomes_of_them() -> None:
    """Those of a temporary group end with it, and are not mentioned."""
    groups = [GroupInfo("g"), GroupInfo("local", temporary=True)]
    left = [summary("a"), summary("b"), summary("c", reason="used up"), summary("d", "local")]
    doomed, kept = kept_lines(left, groups, Path("s.sqlite"))
    assert "instance g/c is not removed yet and may cost money (used up)" in doomed
    assert kept.startswith("2 instances were kept")
    assert kept.endswith("the next run finds them in s.sqlite")
    (kept,) = kept_lines(left[:1], groups, None)
    assert kept.startswith("1 instance was kept")
    assert kept.endswith("the next run will not find it without --state")
    assert kept_lines([summary("d", "local")], groups, None) == []
