"""How the desired capacity is changed: growing, removing, giving up failed launches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleeting_plugin_aws._activities import Activity
from fleeting_plugin_aws._capacity import (
    all_protected,
    can_give_up,
    count_given_up,
    plan_increase,
    plan_termination,
    reduced_capacity,
)
from fleeting_plugin_aws._states import GroupMember, GroupSnapshot

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
PATIENCE = timedelta(seconds=20)


def group(
    *members: GroupMember, desired: int | None = None, minimum: int = 0, maximum: int = 10
) -> GroupSnapshot:
    """Return a group; by default its desired capacity is what its members count."""
    counted = sum(one.counts for one in members)
    wanted = counted if desired is None else desired
    return GroupSnapshot(minimum, maximum, wanted, {one.id: one for one in members}, NOON)


def serving(count: int, *, protected: bool = True, first: int = 0) -> list[GroupMember]:
    """Return members in service."""
    numbers = range(first, first + count)
    return [GroupMember(f"i-{number}", "InService", protected=protected) for number in numbers]


def launch(status: str, *, after: float = 0.0, instance: str = "", message: str = "") -> Activity:
    """Return a launch that started `after` seconds after noon and ended at once."""
    at = NOON + timedelta(seconds=after)
    description = f"Launching a new EC2 instance: {instance}"
    return Activity(f"{status}-{after}", description, status, message, "", at, at)


def test_increase_adds_to_the_desired_capacity() -> None:
    """Instances that are already pending are neither requested twice nor dropped."""
    assert plan_increase(group(*serving(2), desired=5), 3) == (3, 8)


def test_increase_adds_to_the_members_if_they_are_more() -> None:
    """After a launch was given up, a late instance can exceed the desired capacity."""
    assert plan_increase(group(*serving(4), desired=3), 2) == (2, 6)


def test_increase_accepts_what_fits() -> None:
    """AWS refuses a number above `MaxSize` as a whole, so only the part that fits is set."""
    assert plan_increase(group(*serving(8)), 5) == (2, 10)
    assert plan_increase(group(*serving(10)), 1) == (0, 10)


def test_termination_sorts_the_ids() -> None:
    """Each id gets the request that it needs, or none; a repeated id gets one."""
    found = plan_termination(
        group(
            *serving(1),
            GroupMember("i-going", "Terminating"),
            GroupMember("i-asleep", "Standby"),
            GroupMember("i-detached", "Detaching"),
            GroupMember("i-retained", "Terminating:Retained"),
            GroupMember("i-odd", "Levitating"),
        ),
        ["i-0", "i-going", "i-asleep", "i-unknown", "i-0", "i-detached", "i-retained", "i-odd"],
    )
    assert found.done == ("i-going", "i-unknown", "i-detached")
    assert found.shrink == ("i-0", "i-odd")
    assert found.release == ("i-asleep", "i-retained")
    assert found.refused == ()


def test_termination_stops_at_the_minimum() -> None:
    """Instances in standby neither count towards `MinSize` nor allow going below it."""
    members = [*serving(3), GroupMember("i-asleep", "Standby")]
    found = plan_termination(group(*members, minimum=2), [one.id for one in members])
    assert found.shrink == ("i-0",)
    assert found.release == ("i-asleep",)
    assert found.refused == ("i-1", "i-2")


def test_termination_of_surplus_members() -> None:
    """Members beyond the desired capacity are terminated without decrementing it."""
    found = plan_termination(group(*serving(3), desired=1), ["i-0", "i-1", "i-2"])
    assert (found.release, found.shrink, found.refused) == (("i-0", "i-1"), ("i-2",), ())
    found = plan_termination(group(*serving(1), desired=0), ["i-0"])
    assert (found.release, found.refused) == (("i-0",), ())


def test_failed_launch_is_given_up_after_the_patience() -> None:
    """A failed launch can be given up when `launch_patience` has passed."""
    arguments = (group(desired=1), [launch("Failed")], NOON, PATIENCE)
    assert not can_give_up(*arguments, NOON + timedelta(seconds=19))
    assert can_give_up(*arguments, NOON + timedelta(seconds=20))


def test_nothing_is_given_up_without_a_failure() -> None:
    """Instances that are only slow are waited for."""
    late = NOON + timedelta(hours=1)
    assert not can_give_up(group(desired=1), [], NOON, PATIENCE, late)
    assert not can_give_up(group(desired=1), [launch("Cancelled")], NOON, PATIENCE, late)


def test_failures_before_the_last_increase_do_not_count() -> None:
    """A launch that failed before the last increase does not belong to it."""
    late = NOON + timedelta(hours=1)
    assert not can_give_up(group(desired=1), [launch("Failed", after=-1)], NOON, PATIENCE, late)


def test_nothing_is_given_up_while_a_launch_is_under_way() -> None:
    """A launch without an instance may still bring one; a launch whose instance came does not."""
    late = NOON + timedelta(hours=1)
    failed = launch("Failed")
    coming, there = launch("PreInService"), launch("PreInService", instance="i-0abc")
    members = group(GroupMember("i-0abc", "Pending"), desired=2)
    assert not can_give_up(members, [coming, failed], NOON, PATIENCE, late)
    assert can_give_up(members, [there, failed], NOON, PATIENCE, late)


def test_reduced_capacity_is_the_counted_members() -> None:
    """The capacity is reduced to the members that count, but not below `MinSize`."""
    assert reduced_capacity(group(*serving(3), desired=7)) == 3
    assert reduced_capacity(group(*serving(1), desired=7, minimum=2)) == 2
    assert reduced_capacity(group(*serving(8), desired=7)) == 7


@pytest.mark.parametrize(
    ("members", "protected"),
    [
        ([], True),
        (serving(2), True),
        ([*serving(2), *serving(1, protected=False, first=2)], False),
        ([GroupMember("i-going", "Terminating"), GroupMember("i-asleep", "Standby")], True),
    ],
)
def test_protection_of_all_members(members: list[GroupMember], protected: bool) -> None:  # noqa: FBT001
    """Only members that count have to be protected from scale-in."""
    assert all_protected(group(*members)) is protected


def test_late_instance_is_not_given_up() -> None:
    """An instance that arrives while the capacity is reduced is not counted as given up."""
    before = group(*serving(2), desired=5)
    assert count_given_up(before, group(*serving(2))) == 3
    assert count_given_up(before, group(*serving(3), desired=2)) == 2


def test_instances_kept_by_the_minimum_are_not_given_up() -> None:
    """Instances that `MinSize` keeps requested are still pending."""
    assert count_given_up(group(desired=5, minimum=2), group(desired=2, minimum=2)) == 3


@given(
    present=st.integers(0, 6),
    desired=st.integers(0, 12),
    minimum=st.integers(0, 4),
    newcomers=st.integers(0, 3),
)
def test_given_up_instances_never_come(
    present: int, desired: int, minimum: int, newcomers: int
) -> None:
    """Instances given up, arrived and still pending add up to those that were pending."""
    before = group(*serving(present), desired=max(desired, minimum), minimum=minimum, maximum=12)
    number = reduced_capacity(before)
    after = group(*serving(present + newcomers), desired=number, minimum=minimum, maximum=12)
    came = min(newcomers, before.pending)
    given_up = count_given_up(before, after)
    assert given_up <= before.pending - came
    assert given_up + came + after.pending == before.pending or newcomers > before.pending
