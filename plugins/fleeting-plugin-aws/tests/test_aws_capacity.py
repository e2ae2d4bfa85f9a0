"""How many instances a group should have: what is set, what is removed, what is taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleeting_plugin_aws._activities import Activity
from fleeting_plugin_aws._capacity import (
    is_final,
    is_protected,
    lost,
    lowered,
    plan_growth,
    plan_removal,
)
from fleeting_plugin_aws._states import Member, Snapshot

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
PATIENCE = timedelta(seconds=20)


def group(
    *members: Member, desired: int | None = None, minimum: int = 0, maximum: int = 10
) -> Snapshot:
    """Return a group; it has what it wants unless said otherwise."""
    counted = sum(one.life.counts for one in members)
    wanted = counted if desired is None else desired
    return Snapshot(minimum, maximum, wanted, {one.id: one for one in members}, NOON)


def serving(count: int, *, protected: bool = True, first: int = 0) -> list[Member]:
    """Return members in service."""
    numbers = range(first, first + count)
    return [Member(f"i-{number}", "InService", protected=protected) for number in numbers]


def launch(status: str, *, after: float = 0.0, instance: str = "", message: str = "") -> Activity:
    """Return a launch that began so many seconds after noon, and ended at once."""
    at = NOON + timedelta(seconds=after)
    description = f"Launching a new EC2 instance: {instance}"
    return Activity(f"{status}-{after}", description, status, message, "", at, at)


def test_growth_counts_from_what_is_desired() -> None:
    """What is pending already is not asked for again, and not forgotten."""
    assert plan_growth(group(*serving(2), desired=5), 3) == (3, 8)


def test_growth_counts_from_what_is_there_if_that_is_more() -> None:
    """After a launch was taken back, a late one can be there beyond the desired capacity."""
    assert plan_growth(group(*serving(4), desired=3), 2) == (2, 6)


def test_growth_takes_what_fits() -> None:
    """AWS refuses a number above `MaxSize` as a whole, so only what fits is set."""
    assert plan_growth(group(*serving(8)), 5) == (2, 10)
    assert plan_growth(group(*serving(10)), 1) == (0, 10)


def test_removal_sorts_the_ids() -> None:
    """Each id gets the request that it needs, or none; an id that comes twice gets one."""
    found = plan_removal(
        group(
            *serving(1),
            Member("i-going", "Terminating"),
            Member("i-asleep", "Standby"),
            Member("i-detached", "Detaching"),
            Member("i-retained", "Terminating:Retained"),
            Member("i-odd", "Levitating"),
        ),
        ["i-0", "i-going", "i-asleep", "i-unknown", "i-0", "i-detached", "i-retained", "i-odd"],
    )
    assert found.done == ("i-going", "i-unknown", "i-detached")
    assert found.shrink == ("i-0", "i-odd")
    assert found.release == ("i-asleep", "i-retained")
    assert found.refused == ()


def test_removal_stops_at_the_minimum() -> None:
    """Instances in standby are no reason to keep others, and no way around `MinSize`."""
    members = [*serving(3), Member("i-asleep", "Standby")]
    found = plan_removal(group(*members, minimum=2), [one.id for one in members])
    assert found.shrink == ("i-0",)
    assert found.release == ("i-asleep",)
    assert found.refused == ("i-1", "i-2")


def test_removal_of_what_is_more_than_desired() -> None:
    """Where there are more members than desired, AWS would refuse to desire even fewer."""
    found = plan_removal(group(*serving(3), desired=1), ["i-0", "i-1", "i-2"])
    assert (found.release, found.shrink, found.refused) == (("i-0", "i-1"), ("i-2",), ())
    found = plan_removal(group(*serving(1), desired=0), ["i-0"])
    assert (found.release, found.refused) == (("i-0",), ())


def test_a_failed_launch_is_final_after_a_while() -> None:
    """A failure counts as soon as its time to be made good is over."""
    arguments = (group(desired=1), [launch("Failed")], NOON, PATIENCE)
    assert not is_final(*arguments, NOON + timedelta(seconds=19))
    assert is_final(*arguments, NOON + timedelta(seconds=20))


def test_nothing_is_final_without_a_failure() -> None:
    """Instances that are merely slow are waited for."""
    late = NOON + timedelta(hours=1)
    assert not is_final(group(desired=1), [], NOON, PATIENCE, late)
    assert not is_final(group(desired=1), [launch("Cancelled")], NOON, PATIENCE, late)


def test_failures_from_before_the_last_request_do_not_count() -> None:
    """What failed before more was asked for says nothing about what was asked for."""
    late = NOON + timedelta(hours=1)
    assert not is_final(group(desired=1), [launch("Failed", after=-1)], NOON, PATIENCE, late)


def test_nothing_is_final_while_a_launch_is_under_way() -> None:
    """A launch that has no instance yet may bring one; one whose instance is there does not."""
    late = NOON + timedelta(hours=1)
    failed = launch("Failed")
    coming, there = launch("PreInService"), launch("PreInService", instance="i-0abc")
    members = group(Member("i-0abc", "Pending"), desired=2)
    assert not is_final(members, [coming, failed], NOON, PATIENCE, late)
    assert is_final(members, [there, failed], NOON, PATIENCE, late)


def test_lowered_to_what_is_there() -> None:
    """The capacity that takes back what is missing is what is there, within the limits."""
    assert lowered(group(*serving(3), desired=7)) == 3
    assert lowered(group(*serving(1), desired=7, minimum=2)) == 2
    assert lowered(group(*serving(8), desired=7)) == 7


@pytest.mark.parametrize(
    ("members", "protected"),
    [
        ([], True),
        (serving(2), True),
        ([*serving(2), *serving(1, protected=False, first=2)], False),
        ([Member("i-going", "Terminating"), Member("i-asleep", "Standby")], True),
    ],
)
def test_who_could_be_chosen(members: list[Member], protected: bool) -> None:  # noqa: FBT001
    """Only members that count can be chosen when AWS makes a group smaller."""
    assert is_protected(group(*members)) is protected


def test_what_came_at_the_last_moment_is_not_lost() -> None:
    """An instance that came while the capacity was lowered is there, and its loss is not told."""
    before = group(*serving(2), desired=5)
    assert lost(before, group(*serving(2))) == 3
    assert lost(before, group(*serving(3), desired=2)) == 2


def test_what_the_minimum_keeps_is_not_lost() -> None:
    """What stays wanted because of `MinSize` is still to come."""
    assert lost(group(desired=5, minimum=2), group(desired=2, minimum=2)) == 3


@given(
    there=st.integers(0, 6),
    desired=st.integers(0, 12),
    minimum=st.integers(0, 4),
    newcomers=st.integers(0, 3),
)
def test_a_loss_is_never_both_told_and_coming(
    there: int, desired: int, minimum: int, newcomers: int
) -> None:
    """What is told as lost, what came and what is still pending are together what was pending."""
    before = group(*serving(there), desired=max(desired, minimum), minimum=minimum, maximum=12)
    number = lowered(before)
    after = group(*serving(there + newcomers), desired=number, minimum=minimum, maximum=12)
    came = min(newcomers, before.pending)
    told = lost(before, after)
    assert told <= before.pending - came
    assert told + came + after.pending == before.pending or newcomers > before.pending
