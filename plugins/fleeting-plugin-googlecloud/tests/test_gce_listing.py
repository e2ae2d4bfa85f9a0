"""Listings: all members, what they do, and why some do not come."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from fleeting.errors import (
    GroupGone,
    InstanceUnhealthy,
    OutOfCapacity,
    ProviderError,
    QuotaExceeded,
)
from fleeting.types import State
from gce_faults import unavailable
from gce_plugin import drive, open_group, running_group, settle, states
from gce_state import FakeMember

if TYPE_CHECKING:
    from gce_cloud import GoogleCloud

pytestmark = pytest.mark.anyio

QUOTA = [("QUOTA_EXCEEDED", "Quota 'CPUS' exceeded. Limit: 24.0 in region europe-west1.")]
STOCKOUT = [("ZONE_RESOURCE_POOL_EXHAUSTED", "The zone does not have enough resources.")]


@pytest.mark.parametrize(("mode", "pages"), [("PAGELESS", 1), ("PAGINATED", 3)])
async def test_large_group(cloud: GoogleCloud, mode: str, pages: int) -> None:
    """A group of 1,200 members is listed whole, in pages or not."""
    group = cloud.group(listManagedInstancesResults=mode)
    for number in range(1200):
        name = f"builders-{number:04}"
        group.members[name] = FakeMember(name, group.zones[0], "NONE")
    group.target = 1200
    async with open_group(cloud) as opened:
        before = len(cloud.calls())
        listing = await opened.update()
        assert len(states(listing)) == 1200
        assert listing.pending == 0
        calls = cloud.calls("instanceGroupManagers.listManagedInstances", since=before)
        assert len(calls) == pages


async def test_half_a_listing_is_none(cloud: GoogleCloud) -> None:
    """If a later page fails, the listing fails: half of it would say that instances are gone."""
    cloud.page_size = 2
    async with running_group(cloud, 3, listManagedInstancesResults="PAGINATED") as (group, ids):
        listing = "instanceGroupManagers.listManagedInstances"
        cloud.fail(listing, unavailable(), times=2)
        with pytest.raises(ProviderError, match="failed internally"):
            await group.update()
        assert sorted(states(await group.update())) == ids


async def test_second_reader_only_reads(cloud: GoogleCloud) -> None:
    """Another process that lists the group many times changes nothing, and sees the same."""
    async with running_group(cloud, 1) as (group, _):
        cloud.engine.shortages["*"] = STOCKOUT
        await group.increase(2, "one")
        cloud.settle()
        async with open_group(cloud) as reader:
            before = len(cloud.calls())
            listings = [await reader.update() for _ in range(20)]
            names = {one.method for one in cloud.calls(since=before)}
            assert names == {
                "instanceGroupManagers.get",
                "instanceGroupManagers.listManagedInstances",
            }
            assert states(listings[0]) == states(listings[-1]) == states(await group.update())


async def test_failed_creations_are_cancelled(cloud: GoogleCloud) -> None:
    """Of ten instances three exceed the quota: these are told and cancelled, and seven are used."""
    cloud.group()
    async with open_group(cloud) as group:
        await group.increase(7, "one")
        await settle(cloud, group)
        cloud.engine.shortages["*"] = QUOTA
        accepted = await group.increase(3, "two")
        cloud.settle()
        listing = await drive(group)
        assert {one.id for one in listing.failures} == set(accepted.ids)
        assert {type(one.error) for one in listing.failures} == {QuotaExceeded}
        failed = {id for id, state in states(listing).items() if state is State.FAILED}
        assert failed == set(accepted.ids)
        listing = await settle(cloud, group)
        assert set(states(listing).values()) == {State.RUNNING}
        assert (len(states(listing)), listing.pending) == (7, 0)
        assert cloud.groups["europe-west1-b", "builders"].target == 7
        assert {one.id for one in listing.failures} == set(accepted.ids)
        assert (await group.decrease(list(states(listing))[:1])).count == 1


async def test_failures_of_earlier_requests_are_not_told(cloud: GoogleCloud) -> None:
    """A failure from before the opening is an instance that failed, and no failure of ours."""
    fake = cloud.group()
    cloud.engine.shortages["*"] = STOCKOUT
    cloud.engine.create(fake, ["builders-old"])
    cloud.settle()
    async with open_group(cloud) as group:
        listing = await group.update()
        assert (states(listing), listing.failures) == ({"builders-old": State.FAILED}, ())


@pytest.mark.parametrize("logged", [True, False])
async def test_members_that_are_tried_once(cloud: GoogleCloud, *, logged: bool) -> None:
    """A member that the group tried to create only once disappears with a reason."""
    fake = cloud.group()
    fake.retries = False
    async with open_group(cloud) as group:
        cloud.engine.shortages["*"] = STOCKOUT
        accepted = await group.increase(1, "one")
        await group.update()
        cloud.settle()
        if not logged:
            fake.log.clear()
        listing = await group.update()
        (failure,) = listing.failures
        assert (listing.instances, listing.pending, failure.id) == ((), 0, accepted.ids[0])
        assert type(failure.error) is (OutOfCapacity if logged else ProviderError)
        assert (await group.update()).failures == listing.failures


async def test_unknown_words(cloud: GoogleCloud, caplog: pytest.LogCaptureFixture) -> None:
    """A word that Google adds later makes an instance unknown, and is logged once."""
    cloud.lenient = True
    async with running_group(cloud, 2) as (group, ids):
        cloud.members()[ids[0]].changes["currentAction"] = "POLISHING"
        for _ in range(3):
            assert states(await group.update())[ids[0]] is State.UNKNOWN
    assert sum("POLISHING" in one.getMessage() for one in caplog.records) == 1


async def test_recreated_instance(cloud: GoogleCloud) -> None:
    """A machine that is recreated under the same name has another incarnation, and no key."""
    async with running_group(cloud, 1) as (group, ids):
        (id,) = ids
        before = (await group.update()).instances[0].incarnation
        first = await group.connect_info(id)
        cloud.engine.recreate(cloud.groups["europe-west1-b", "builders"], cloud.members()[id])
        assert (await group.update()).instances[0].incarnation is None
        with pytest.raises(InstanceUnhealthy, match="does not exist yet"):
            await group.connect_info(id)
        await settle(cloud, group)
        after = (await group.update()).instances[0].incarnation
        assert None not in {before, after}
        assert before != after
        assert "ssh-keys" not in cloud.machine(id).metadata
        second = await group.connect_info(id)
        assert first.private_key != second.private_key
        assert "ssh-keys" in cloud.machine(id).metadata


async def test_interrupted_instance(cloud: GoogleCloud) -> None:
    """An interrupted machine is lost at once, and can be removed when it has stopped."""
    async with running_group(cloud, 2) as (group, ids):
        cloud.interrupt(ids[0])
        assert states(await group.update())[ids[0]] is State.DELETING
        with pytest.raises(InstanceUnhealthy):
            await group.heartbeat(ids[0])
        listing = await settle(cloud, group)
        assert states(listing)[ids[0]] is State.FAILED
        with pytest.raises(InstanceUnhealthy, match="interrupted"):
            await group.heartbeat(ids[0])
        await group.decrease([ids[0]])
        assert states(await settle(cloud, group)) == {ids[1]: State.RUNNING}


async def test_unhealthy_instance(cloud: GoogleCloud) -> None:
    """The health check of the group is part of the heartbeat."""
    async with running_group(cloud, 1) as (group, ids):
        await group.heartbeat(ids[0])
        health = [{"detailedHealthState": "UNHEALTHY"}]
        cloud.members()[ids[0]].changes["instanceHealth"] = health
        await group.update()
        with pytest.raises(InstanceUnhealthy, match="health check"):
            await group.heartbeat(ids[0])


@pytest.mark.parametrize("running", [0, 2])
async def test_deleted_group(cloud: GoogleCloud, running: int) -> None:
    """A group that is deleted has no instances any more, and cannot grow."""
    async with running_group(cloud, running) as (group, ids):
        cloud.delete_group()
        if running:
            assert (await group.update()).instances == ()
            assert (await group.decrease(ids)).count == 2
        else:
            with pytest.raises(GroupGone, match="does not exist any more"):
                await group.update()
        with pytest.raises(GroupGone, match="create it again"):
            await group.increase(1, "one")


@pytest.mark.parametrize("running", [0, 2])
async def test_group_of_the_same_name(cloud: GoogleCloud, running: int) -> None:
    """A group that was deleted and created again is left alone: it may belong to someone else."""
    async with running_group(cloud, running) as (group, ids):
        cloud.delete_group()
        cloud.group(running=1)
        if running:
            assert (await group.update()).instances == ()
        else:
            with pytest.raises(GroupGone, match="deleted and created again"):
                await group.update()
        with pytest.raises(GroupGone, match="restart the manager"):
            await group.increase(1, "one")
        await group.decrease([*ids, "builders-old0"])
        assert len(cloud.members()) == 1


@pytest.mark.parametrize("size", [5, 0])
async def test_human_changes_the_size(cloud: GoogleCloud, size: int) -> None:
    """When someone resizes the group, the listing shows it."""
    async with running_group(cloud, 2) as (group, ids):
        fake = cloud.groups["europe-west1-b", "builders"]
        cloud.engine.resize(fake, size)
        listing = await settle(cloud, group)
        assert len(listing.instances) == size
        assert listing.pending == 0
        if size:
            assert set(ids) < set(states(listing))


async def test_debug_logs_have_no_requests(
    cloud: GoogleCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG the SDK would log requests with their tokens; it does not."""
    caplog.set_level(logging.DEBUG)
    async with running_group(cloud, 1) as (group, ids):
        await group.connect_info(ids[0])
    text = "".join(str(vars(one)) for one in caplog.records)
    assert "Bearer" not in text
    assert "ssh-ed25519" not in text
