"""Instances that AWS launches in the place of others are recognised."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from aws_errors import AccessDenied, LostReply
from aws_plugin import open_group, running_group, settle
from fleeting.errors import OutcomeUnknown, PermissionDenied
from fleeting_plugin_aws._states import GroupMember, GroupSnapshot
from fleeting_plugin_aws._successors import Successors

if TYPE_CHECKING:
    from aws_cloud import AwsCloud
    from fleeting.types import Listing

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def group(desired: int, *ids: str, **states: str) -> GroupSnapshot:
    """Return a group with members in service, and others in the given states."""
    members = dict.fromkeys(ids, "InService") | states
    every = {id: GroupMember(id, state) for id, state in members.items()}
    return GroupSnapshot(0, 10, desired, every, NOON)


def seen(*looks: GroupSnapshot, ended: tuple[str, ...] = ()) -> dict[str, str | None]:
    """Return the predecessors of the members at the last look."""
    found = Successors()
    found.expect_end(ended)
    for before, after in itertools.pairwise(looks):
        found.look(before, after)
    return {id: found.predecessor(id) for id in looks[-1].members}


def test_a_launch_after_a_loss() -> None:
    """The first new member after a loss fills the vacancy, at the same look or at a later one."""
    assert seen(group(1, "a"), group(1, "b", a="Terminating")) == {"a": None, "b": "a"}
    assert seen(group(1, "a"), group(1, "b")) == {"b": "a"}
    assert seen(group(1, "a"), group(1), group(1), group(1, b="Pending")) == {"b": "a"}


def test_it_is_known_as_long_as_it_is_listed() -> None:
    """A listing may come later than the look that has seen it first."""
    assert seen(group(1, "a"), group(1, b="Pending"), group(1, "b")) == {"b": "a"}


def test_as_many_as_were_lost() -> None:
    """One loss is filled by one instance; the other was requested."""
    found = seen(group(2, "a", "b"), group(3, "b", "c", "d"))
    assert sorted(found.items(), key=str) == [("b", None), ("c", "a"), ("d", None)]


def test_a_removal_of_ours_leaves_no_vacancy() -> None:
    """The desired capacity was lowered with it, so what comes next was requested."""
    assert seen(group(2, "a"), group(2), group(2, "b"), ended=("a",)) == {"b": None}


@pytest.mark.parametrize("state", ["EnteringStandby", "Standby"])
def test_standby_leaves_no_vacancy(state: str) -> None:
    """An instance in standby comes back by itself."""
    assert seen(group(2, "a"), group(2, a=state), group(2, "b", a=state))["b"] is None


def test_a_lowered_capacity_leaves_no_vacancy() -> None:
    """Another program removed the instance for good: nothing is launched for it."""
    assert seen(group(1, "a"), group(0), group(1, b="Pending")) == {"b": None}


def test_instances_that_return_fill_no_vacancy() -> None:
    """A member that leaves standby is not a new one."""
    looks = (group(1, "a", s="Standby"), group(2, "s"), group(2, "s", "b"))
    assert seen(*looks) == {"s": None, "b": "a"}


def replaced(listing: Listing) -> dict[str, str | None]:
    """Return the predecessors in a listing, by id."""
    return {one.id: one.replaces for one in listing.instances}


@pytest.mark.anyio
async def test_listing_names_the_predecessor(cloud: AwsCloud) -> None:
    """The listing shows in whose place AWS launched an instance; other handles do not know."""
    async with running_group(cloud, 1, spot=True) as (group, [lost]):
        cloud.interrupt(lost)
        listing = await settle(cloud, group)
        [(id, before)] = replaced(listing).items()
        assert before == lost
        async with open_group(cloud) as other:
            assert replaced(await other.update()) == {id: None}


@pytest.mark.anyio
async def test_removed_instances_have_no_successor(cloud: AwsCloud) -> None:
    """A launch after a removal replaces nothing, even if the answer to the removal was lost."""
    async with running_group(cloud, 2) as (group, [first, second]):
        cloud.fail("TerminateInstanceInAutoScalingGroup", LostReply())
        with pytest.raises(OutcomeUnknown):
            await group.decrease([first])
        await group.increase(1, "one")
        listing = await settle(cloud, group)
        assert set(replaced(listing).values()) == {None}
        assert second in replaced(listing)


@pytest.mark.anyio
async def test_a_refused_removal_is_not_expected(cloud: AwsCloud) -> None:
    """If AWS ends an instance later that it refused to end for us, the next one replaces it."""
    async with running_group(cloud, 1, spot=True) as (group, [id]):
        cloud.fail("TerminateInstanceInAutoScalingGroup", AccessDenied())
        with pytest.raises(PermissionDenied):
            await group.decrease([id])
        cloud.interrupt(id)
        assert list(replaced(await settle(cloud, group)).values()) == [id]
