"""Listings, and the requests that change a group."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

from aws_errors import AccessDenied, LostReply, LostRequest, Throttled, Unavailable
from aws_group import Delays
from aws_plugin import drive, open_group, running_group, settle, states
from fleeting.errors import (
    GroupGone,
    InstanceGone,
    InstanceUnhealthy,
    OutcomeUnknown,
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
)
from fleeting.errors import Throttled as TooMany
from fleeting.types import Accepted, Listing, State

if TYPE_CHECKING:
    from datetime import tzinfo

    from aws_cloud import AwsCloud
    from aws_errors import Fault
    from fleeting.abc import InstanceGroup

pytestmark = pytest.mark.anyio

UNTIL_SETTLED = Delays(None, None, None, None)


async def grown(cloud: AwsCloud, group: InstanceGroup, count: int) -> list[str]:
    """Add `count` instances and return the ids of all running ones."""
    await group.increase(count, "grow")
    return sorted(states(await settle(cloud, group)))


async def until_failure(group: InstanceGroup) -> Listing:
    """Return the first listing with a failure."""
    with anyio.fail_after(10):
        while not (listing := await drive(group)).failures:
            pass
    return listing


async def test_new_instances_are_pending_creating_running(cloud: AwsCloud) -> None:
    """A new instance is pending until it has an id, then creating, then running."""
    cloud.group("builders", delays=Delays(listing=3, launch=3))
    async with open_group(cloud) as group:
        assert await group.increase(2, "one") == Accepted(2)
        seen: list[tuple[int, set[State]]] = []
        while not seen or seen[-1][1] != {State.RUNNING}:
            listing = await group.update()
            found = (listing.pending, set(states(listing).values()))
            if found not in seen:
                seen.append(found)
        assert seen == [(2, set()), (0, {State.CREATING}), (0, {State.RUNNING})]


async def test_removed_instance_is_deleting_and_then_absent(cloud: AwsCloud) -> None:
    """Removal lowers the desired capacity at once; the instance is listed until it is gone."""
    cloud.group("builders", desired=2, delays=Delays(terminate=None))
    async with open_group(cloud) as group:
        first, second = states(await group.update())
        assert await group.decrease([first]) == Accepted(1, (first,))
        listing = await group.update()
        assert states(listing) == {first: State.DELETING, second: State.RUNNING}
        assert (listing.pending, cloud.desired("builders")) == (0, 1)
        assert states(await settle(cloud, group)) == {second: State.RUNNING}


async def test_terminating_instance_needs_no_request(cloud: AwsCloud) -> None:
    """An instance that is already being terminated is accepted without a request."""
    cloud.group("builders", desired=1, delays=Delays(terminate=None))
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        for _ in range(3):
            assert await group.decrease([id]) == Accepted(1, (id,))
        assert len(cloud.calls("TerminateInstanceInAutoScalingGroup")) == 1


async def test_removal_of_suspended_instance_keeps_the_others(cloud: AwsCloud) -> None:
    """An instance in standby is terminated without decrementing the desired capacity."""
    async with running_group(cloud, 3, protected=False) as (group, [suspended, *others]):
        await group.suspend([suspended])
        await settle(cloud, group)
        assert await group.decrease([suspended]) == Accepted(1, (suspended,))
        assert states(await settle(cloud, group)) == dict.fromkeys(others, State.RUNNING)
        assert cloud.desired("builders") == 2


async def test_ten_terminations_at_once(cloud: AwsCloud) -> None:
    """At most ten terminations are concurrent, and all are carried out."""
    async with running_group(cloud, 25, maximum=25) as (group, ids):
        async with anyio.create_task_group() as tasks:
            with cloud.hold("TerminateInstanceInAutoScalingGroup"):
                tasks.start_soon(group.decrease, ids)
                await cloud.reached("TerminateInstanceInAutoScalingGroup", 10)
                await anyio.wait_all_tasks_blocked()
                assert len(cloud.calls("TerminateInstanceInAutoScalingGroup")) == 10
        calls = cloud.calls("TerminateInstanceInAutoScalingGroup")
        assert len(calls) == 25
        assert max(call.at_once for call in calls) <= 10


async def test_one_capacity_write_at_a_time(cloud: AwsCloud) -> None:
    """Concurrent increases write one after the other, and none overwrites another."""
    cloud.group("builders", maximum=20)
    async with open_group(cloud) as group:
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(group.increase, 2, f"operation-{number}")
        assert cloud.desired("builders") == 10
        assert {call.writes_at_once for call in cloud.calls("SetDesiredCapacity")} == {1}


async def test_full_group_names_the_command(cloud: AwsCloud) -> None:
    """Instances above `MaxSize` are refused with the command that raises it."""
    cloud.group("builders", desired=3, maximum=4)
    async with open_group(cloud) as group:
        accepted = await group.increase(3, "one")
        assert accepted.count == 1
        assert isinstance(accepted.error, QuotaExceeded)
        assert "--region eu-central-1 --auto-scaling-group-name builders --max-size" in str(
            accepted.error
        )
        assert (await group.increase(1, "two")).count == 0
        assert len(cloud.calls("SetDesiredCapacity")) == 1


async def test_minimum_names_the_command(cloud: AwsCloud) -> None:
    """Removals below `MinSize` are refused with the command that lowers it."""
    async with running_group(cloud, 3, minimum=2) as (group, ids):
        accepted = await group.decrease(ids)
        assert accepted.count == 1
        assert isinstance(accepted.error, QuotaExceeded)
        assert "--min-size 0" in str(accepted.error)
        with pytest.raises(QuotaExceeded, match="min_size of 2"):
            await group.decrease([one for one in ids if one not in accepted.ids])


async def test_unknown_states_are_left_alone(
    cloud: AwsCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """A state that the plugin does not know is `UNKNOWN`, counts, and is logged once."""
    async with running_group(cloud, 1) as (group, [id]):
        cloud.set_state(id, "Levitating")
        for _ in range(2):
            listing = await group.update()
            assert (states(listing), listing.pending) == ({id: State.UNKNOWN}, 0)
    assert [one.getMessage() for one in caplog.records if "Levitating" in one.getMessage()] == [
        (
            "group aws/123456789012/eu-central-1/builders has an instance in the state "
            "'Levitating', which this version does not know; the instance is left alone until its "
            "state changes"
        )
    ]


async def test_unhealthy_instance_fails_its_heartbeat(cloud: AwsCloud) -> None:
    """An unhealthy instance is listed as running, and its heartbeat raises."""
    async with running_group(cloud, 1) as (group, [id]):
        await group.heartbeat(id)
        member = {
            "InstanceId": id,
            "AvailabilityZone": "eu-central-1a",
            "LifecycleState": "InService",
            "HealthStatus": "Unhealthy",
            "ProtectedFromScaleIn": True,
        }
        cloud.say_of_group("builders", Instances=[member])
        assert states(await group.update()) == {id: State.RUNNING}
        with pytest.raises(InstanceUnhealthy, match=r"considers instance .* unhealthy"):
            await group.heartbeat(id)


async def test_heartbeats_cost_nothing(cloud: AwsCloud) -> None:
    """Heartbeats between two listings are answered from the first."""
    async with running_group(cloud, 3) as (group, ids):
        before = len(cloud.calls())
        for id in ids:
            await group.heartbeat(id)
        assert len(cloud.calls()) == before
        with pytest.raises(InstanceGone):
            await group.heartbeat("i-00000000000000000")


@pytest.mark.parametrize("mixed", [False, True])
async def test_failed_launches_are_given_up_once(cloud: AwsCloud, mixed: bool) -> None:  # noqa: FBT001
    """Each missing instance is reported once, after the desired capacity was lowered."""
    cloud.group("builders", mixed=mixed, types=("m5.large",))
    cloud.room(1)
    async with open_group(cloud) as group:
        assert await group.increase(3, "one") == Accepted(3)
        listing = await until_failure(group)
        assert [type(one.error) for one in listing.failures] == [OutOfCapacity] * 2
        assert "eu-central-1a" in str(listing.failures[0].error)
        assert len({one.id for one in listing.failures}) == 2
        assert (listing.pending, cloud.desired("builders")) == (0, 1)
        cloud.unlimited()
        failures, listing = listing.failures, await settle(cloud, group)
        assert (len(listing.instances), listing.pending) == (1, 0)
        assert listing.failures == failures


async def test_failure_before_the_answer_counts(cloud: AwsCloud) -> None:
    """A launch that fails before AWS answers the increase is reported."""
    cloud.group("builders")
    cloud.room(0)
    async with open_group(cloud) as group:
        with cloud.hold("SetDesiredCapacity") as held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(group.increase, 1, "one")
                await cloud.reached("SetDesiredCapacity")
                second = int(time.time())  # AWS's clock has whole seconds.
                while int(time.time()) == second:
                    await anyio.sleep(0.01)
                held.release()
        assert len((await until_failure(group)).failures) == 1


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [(LostReply(), True), (LostRequest(), False), (AccessDenied(), False)],
)
async def test_failures_are_reported_when_the_reduction_fails(
    cloud: AwsCloud,
    fault: Fault,
    is_done: bool,  # noqa: FBT001
) -> None:
    """Failures are reported once the capacity was lowered, even if that answer was lost."""
    cloud.group("builders")
    cloud.room(0)
    async with open_group(cloud) as group:
        await group.increase(2, "one")
        cloud.fail("SetDesiredCapacity", fault)
        while len(cloud.calls("SetDesiredCapacity")) < 2:
            await drive(group)
        first = await drive(group)
        assert (first.pending, len(first.failures)) == ((0, 2) if is_done else (2, 0))
        second = await drive(group)
        assert (second.pending, len(second.failures)) == (0, 2)
        assert cloud.desired("builders") == 0


async def test_failures_are_reported_by_the_next_listing(cloud: AwsCloud) -> None:
    """Failures are reported once, even if the listing cannot see the reduction's result."""
    cloud.group("builders")
    cloud.room(0)
    async with open_group(cloud, max_attempts=1) as group:
        await group.increase(2, "one")
        with cloud.hold("SetDesiredCapacity") as held:
            async with anyio.create_task_group() as tasks:

                async def update() -> None:
                    while len(cloud.calls("SetDesiredCapacity")) < 2:
                        assert (await drive(group)).failures == ()

                tasks.start_soon(update)
                await cloud.reached("SetDesiredCapacity", 2)
                cloud.fail("DescribeAutoScalingGroups", Unavailable())
                held.release()
        assert [len((await drive(group)).failures) for _ in range(2)] == [0, 2]


async def test_failures_are_found_on_every_page(cloud: AwsCloud) -> None:
    """Failures are found when the history has several pages."""
    cloud.group("builders", zones=3, maximum=20)
    cloud.room(0, zone="a")
    cloud.room(5)
    async with open_group(cloud) as group:
        cloud.set_page_size(2)
        await group.increase(6, "one")
        listing = await until_failure(group)
        assert (len(listing.instances), len(listing.failures), listing.pending) == (5, 1, 0)


class Ahead(datetime):
    """A clock that is an hour ahead."""

    @classmethod
    @override
    def now(cls, tz: tzinfo | None = None) -> Ahead:
        return super().now(tz) + timedelta(hours=1)


async def test_wrong_clock_does_not_hide_failures(
    cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures since the last increase are selected by AWS's clock, not by ours."""
    monkeypatch.setattr("fleeting_plugin_aws._clients.datetime", Ahead)
    cloud.group("builders")
    cloud.room(0)
    async with open_group(cloud) as group:
        await group.increase(1, "one")
        assert len((await until_failure(group)).failures) == 1


async def test_reported_failure_does_not_affect_later_increases(cloud: AwsCloud) -> None:
    """A reported failure does not affect instances requested after it."""
    cloud.group("builders")
    cloud.room(0)
    async with open_group(cloud) as group:
        await group.increase(1, "one")
        failures = (await until_failure(group)).failures
        cloud.unlimited()
        cloud.change("builders", delays=UNTIL_SETTLED)
        await group.increase(2, "two")
        for _ in range(3):
            listing = await drive(group)
            assert (listing.pending, listing.failures) == (2, failures)


async def test_another_zone_replaces_a_failed_launch(cloud: AwsCloud) -> None:
    """If another zone has capacity, the instances come there and no failure is reported."""
    cloud.group("builders", zones=2)
    cloud.room(0, zone="a")
    async with open_group(cloud) as group:
        await group.increase(2, "one")
        listing = await settle(cloud, group)
        assert set(states(listing).values()) == {State.RUNNING}
        assert (len(listing.instances), listing.failures) == (2, ())


async def test_unprotected_instances_are_not_endangered(
    cloud: AwsCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """If a member is not protected, missing instances stay pending, with one warning."""
    cloud.group("builders", desired=1, protected=False)
    cloud.room(1)
    async with open_group(cloud) as group:
        await group.increase(1, "one")
        for _ in range(3):
            listing = await drive(group)
            assert (listing.pending, listing.failures) == (1, ())
        assert cloud.desired("builders") == 2
    warnings = [one.getMessage() for one in caplog.records if "stay requested" in one.getMessage()]
    assert len(warnings) == 1
    assert "set-instance-protection --region eu-central-1" in warnings[0]


async def test_listing_without_permission_to_read_the_history(
    cloud: AwsCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """If the history may not be read, the listing succeeds with a warning."""
    cloud.group("builders", delays=UNTIL_SETTLED)
    cloud.fail("DescribeScalingActivities", AccessDenied(), times=None)
    async with open_group(cloud) as group:
        await group.increase(1, "one")
        for _ in range(2):
            assert (await drive(group)).pending == 1
    warnings = [one for one in caplog.records if "cannot find out" in one.getMessage()]
    assert [one.levelno for one in warnings] == [logging.WARNING]


async def test_deleted_group_is_gone(cloud: AwsCloud) -> None:
    """A group that is being deleted loses its instances and accepts no new ones."""
    cloud.group("builders", desired=1, delays=Delays(terminate=2))
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        cloud.delete_group("builders")
        assert states(await group.update()) == {id: State.DELETING}
        with pytest.raises(GroupGone, match="is being deleted"):
            await group.increase(1, "one")
        while (await group.update()).instances:
            pass
        assert await group.update() == Listing()
        assert await group.decrease([id, id]) == Accepted(1, (id,))
        with pytest.raises(GroupGone, match="does not exist any more"):
            await group.increase(1, "two")


async def test_missing_group_is_not_empty(cloud: AwsCloud) -> None:
    """A group that disappears without having been deleted is an error, not an empty listing."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        await group.update()
        cloud.reset()
        with pytest.raises(GroupGone, match="does not exist any more"):
            await group.update()


async def test_lost_answer_to_an_increase(cloud: AwsCloud) -> None:
    """An increase whose answer is lost raises `OutcomeUnknown`, and is not repeated."""
    cloud.group("builders")
    cloud.fail("SetDesiredCapacity", LostReply())
    async with open_group(cloud) as group:
        with pytest.raises(OutcomeUnknown, match="may or may not have been carried out"):
            await group.increase(2, "one")
        assert len(states(await settle(cloud, group))) == 2
        assert len(cloud.calls("SetDesiredCapacity")) == 1


async def test_lost_answer_to_a_removal(cloud: AwsCloud) -> None:
    """After a lost answer, repeating the removal accepts it and removes nothing else."""
    cloud.group("builders", desired=3, delays=Delays(terminate=None))
    cloud.fail("TerminateInstanceInAutoScalingGroup", LostReply())
    async with open_group(cloud) as group:
        removed = sorted(states(await group.update()))[:2]
        accepted = await group.decrease(removed)
        assert accepted.count == 1
        assert isinstance(accepted.error, OutcomeUnknown)
        again = await group.decrease(removed)
        assert (again.count, again.error) == (2, None)
        assert cloud.desired("builders") == 1
        assert len(states(await settle(cloud, group))) == 1


@pytest.mark.parametrize("fault", [Throttled(), Unavailable()])
async def test_passing_faults_are_retried(cloud: AwsCloud, fault: Throttled) -> None:
    """A request that changes nothing is repeated after a passing fault."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        cloud.fail("DescribeAutoScalingGroups", fault)
        assert len((await group.update()).instances) == 1


async def test_throttled_change_is_retried(cloud: AwsCloud) -> None:
    """A throttled request is repeated even if it changes something."""
    cloud.group("builders")
    async with open_group(cloud) as group:
        cloud.fail("SetDesiredCapacity", Throttled())
        assert await group.increase(1, "one") == Accepted(1)


async def test_lasting_faults_have_their_class(cloud: AwsCloud) -> None:
    """After the last attempt, the error has the class of AWS's answer."""
    cloud.group("builders")
    async with open_group(cloud) as group:
        for fault, kind in (
            (Throttled(), TooMany),
            (AccessDenied(), PermissionDenied),
            (Unavailable(), ProviderError),
        ):
            before = len(cloud.calls("DescribeAutoScalingGroups"))
            cloud.fail("DescribeAutoScalingGroups", fault, times=None)
            with pytest.raises(
                kind, match="DescribeAutoScalingGroups of aws/123456789012/eu-central-1/builders"
            ):
                await group.update()
            cloud.mend()
            tries = 1 if kind is PermissionDenied else 2
            assert len(cloud.calls("DescribeAutoScalingGroups")) == before + tries
