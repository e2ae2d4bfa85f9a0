"""Growing and shrinking, also when answers are lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from fleeting.errors import (
    OutcomeUnknown,
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
)
from fleeting.types import State
from fleeting_plugin_googlecloud._errors import RequestRefused
from gce_faults import (
    HttpFault,
    LostReply,
    LostRequest,
    OperationFault,
    forbidden,
    quota_exceeded,
    rate_limited,
    unavailable,
)
from gce_plugin import drive, open_group, running_group, settle, states
from gce_state import FakeMachine, FakeMember, Pace

if TYPE_CHECKING:
    from gce_cloud import GoogleCloud
    from gce_faults import Fault

pytestmark = pytest.mark.anyio

CREATE = "instanceGroupManagers.createInstances"
DELETE = "instanceGroupManagers.deleteInstances"


def target(cloud: GoogleCloud, place: str = "europe-west1-b") -> int:
    """Return the target size of the group."""
    return cloud.groups[place, "builders"].target


async def test_names_and_request_ids(cloud: GoogleCloud) -> None:
    """The instances get names of ours in one request, which has an id."""
    cloud.group()
    async with open_group(cloud) as group:
        accepted = await group.increase(3, "one")
        (call,) = cloud.calls(CREATE)
        assert [one["name"] for one in call.body["instances"]] == list(accepted.ids)
        assert re.fullmatch(r"[0-9a-f-]{36}", call.parameters["requestId"])
        assert sorted(states(await settle(cloud, group))) == sorted(accepted.ids)


async def test_base_name_of_the_group(cloud: GoogleCloud) -> None:
    """Names begin with the group's base name, which need not be its own name."""
    cloud.group(baseInstanceName="b" * 58)
    async with open_group(cloud) as group:
        (name,) = (await group.increase(1, "one")).ids
        assert name.startswith("b" * 52 + "-")
        assert len(name) == 63


@pytest.mark.parametrize("fault", [LostRequest(), LostReply(), unavailable()])
async def test_one_lost_answer_does_not_matter(cloud: GoogleCloud, fault: Fault) -> None:
    """A request whose answer is lost is sent again with the same id, and adds nothing twice."""
    cloud.group()
    async with open_group(cloud) as group:
        cloud.fail(CREATE, fault)
        assert (await group.increase(2, "one")).count == 2
        assert len({one.parameters["requestId"] for one in cloud.calls(CREATE)}) == 1
        assert target(cloud) == len(states(await settle(cloud, group))) == 2


@pytest.mark.parametrize(
    ("fault", "outcome"), [(LostRequest(), 0), (unavailable(), 0), (LostReply(), 2)]
)
async def test_the_listing_tells_what_became_of_a_request(
    cloud: GoogleCloud, fault: Fault, outcome: int
) -> None:
    """When the answers stay away, the names in the listing tell at once what was created."""
    cloud.group(running=1)
    async with open_group(cloud) as group:
        cloud.fail(CREATE, fault, times=2)
        with pytest.raises(OutcomeUnknown):
            await group.increase(2, "one")
        assert await group.outcome("one") == outcome
        assert await group.outcome("another") == 0
        async with open_group(cloud) as successor:  # After a restart.
            assert await successor.outcome("one") == outcome
        cloud.mend()
        assert (await group.increase(2, "one")).count == 2
        assert len(states(await settle(cloud, group))) == 3


async def test_refusal_after_a_lost_answer_proves_nothing(cloud: GoogleCloud) -> None:
    """If the second attempt is refused, the first one may have succeeded."""
    cloud.group()
    async with open_group(cloud) as group:
        cloud.fail(CREATE, LostReply())
        cloud.fail(CREATE, rate_limited())
        with pytest.raises(OutcomeUnknown):
            await group.increase(2, "one")
        assert await group.outcome("one") == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (rate_limited(), Throttled),
        (HttpFault(429, "tooManyRequests", "slow down"), Throttled),
        (
            HttpFault(
                403,
                "forbidden",
                "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of x",
            ),
            Throttled,
        ),
        (quota_exceeded(), QuotaExceeded),
        (forbidden(), PermissionDenied),
        (HttpFault(400, "invalid", "Invalid value"), RequestRefused),
        (OperationFault("QUOTA_EXCEEDED", "Quota 'CPUS' exceeded"), QuotaExceeded),
        (OperationFault("ZONE_RESOURCE_POOL_EXHAUSTED", "no capacity"), OutOfCapacity),
        (OperationFault("STRANGE", "who knows"), RequestRefused),
    ],
)
async def test_refused_increase(
    cloud: GoogleCloud, fault: Fault, kind: type[ProviderError]
) -> None:
    """Refusals, also those that are in an operation that is done, have a class each."""
    cloud.group()
    async with open_group(cloud) as group:
        cloud.fail(CREATE, fault)
        with pytest.raises(kind) as caught:
            await group.increase(1, "one")
        assert type(caught.value) is kind
        assert len(cloud.calls(CREATE)) == 1
        assert target(cloud) == 0


async def test_operation_that_is_never_done(cloud: GoogleCloud) -> None:
    """An operation that takes long is accepted; the instances come when it is done."""
    cloud.group(pace=Pace(operation=1e9))
    async with open_group(cloud) as group:
        assert (await group.increase(2, "one")).count == 2
        assert len(cloud.calls("zoneOperations.get")) > 3
        assert (await group.update()).instances == ()
        assert len(states(await settle(cloud, group))) == 2


async def test_listing_behind_an_accepted_removal(cloud: GoogleCloud) -> None:
    """A removal that was accepted shows at once, although the group has not begun with it."""
    async with running_group(cloud, 2, pace=Pace()) as (group, ids):
        cloud.engine.pace = Pace(operation=1e9)
        await group.decrease(ids[:1])
        assert states(await group.update()) == {ids[0]: State.DELETING, ids[1]: State.RUNNING}
        before = len(cloud.calls(DELETE))
        assert states(await settle(cloud, group)) == {ids[1]: State.RUNNING}
        assert len(cloud.calls(DELETE)) == before


async def test_operation_that_is_forgotten(cloud: GoogleCloud) -> None:
    """An operation that Google does not know any more is over."""
    cloud.group(pace=Pace(operation=1e9))
    async with open_group(cloud) as group:
        gone = HttpFault(404, "notFound", "The operation was not found")
        cloud.fail("zoneOperations.get", gone)
        assert (await group.increase(2, "one")).count == 2


async def test_repeated_operation(cloud: GoogleCloud) -> None:
    """Repeating an operation adds nothing, also by another handle that knows nothing of it."""
    cloud.group()
    async with open_group(cloud) as first, open_group(cloud) as second:
        accepted = await first.increase(2, "one")
        assert await first.increase(2, "one") == accepted
        assert await second.increase(2, "one") == accepted
        cloud.engine.operations.clear()  # As if Google had forgotten the request id.
        async with open_group(cloud) as third:
            await third.decrease(["builders-unknown"])
            cloud.settle()
            assert (await first.increase(2, "one")).count == 2
        assert len(states(await settle(cloud, first))) == 2


async def test_names_that_are_taken(cloud: GoogleCloud) -> None:
    """Names of other members are not used; a member that came in between gets in no way."""
    fake = cloud.group()
    async with open_group(cloud) as group:
        first = (await group.increase(2, "one")).ids
        await group.decrease(first)
        await settle(cloud, group)
    taken = FakeMember(first[0], fake.zones[0], "NONE")
    fake.members[first[0]] = taken
    fake.target = 1
    async with open_group(cloud) as group:
        second = (await group.increase(2, "one")).ids
        assert first[0] not in second
    fake.members.clear()
    fake.target = 0
    cloud.engine.operations.clear()
    async with open_group(cloud) as group:
        fake.members[first[0]] = taken
        fake.target = 1
        third = (await group.increase(2, "one")).ids
        assert len(set(third)) == 2
        assert len(cloud.members()) == target(cloud) == 2


async def test_machine_of_the_same_name_outside_of_the_group(cloud: GoogleCloud) -> None:
    """A machine that is not a member prevents one with its name; that is cancelled or waits."""
    cloud.group()
    async with open_group(cloud) as group:
        accepted = await group.increase(1, "one")
        (name,) = accepted.ids
        machine = FakeMachine(name, "europe-west1-b")
        cloud.engine.machines["europe-west1-b", name] = machine
        listing = await settle(cloud, group)
        (instance,) = listing.instances
        assert instance.state is State.CREATING
        assert "already exists" in (instance.reason or "")


async def test_second_request_of_one_increase_is_refused(cloud: GoogleCloud) -> None:
    """If Google takes only the first thousand instances, these are accepted, with the reason."""
    cloud.group()
    async with open_group(cloud) as group:
        cloud.fail_later(CREATE, quota_exceeded(), after=1)
        accepted = await group.increase(1001, "one")
        assert (accepted.count, len(accepted.ids), target(cloud)) == (1000, 1000, 1000)
        assert type(accepted.error) is QuotaExceeded


async def test_answer_to_the_second_request_is_lost(cloud: GoogleCloud) -> None:
    """If one of several answers stays away, the outcome is unknown, and the listing tells it."""
    cloud.group()
    async with open_group(cloud) as group:
        cloud.fail_later(CREATE, LostRequest(), after=1)
        cloud.fail(CREATE, LostRequest())
        with pytest.raises(OutcomeUnknown):
            await group.increase(1001, "one")
        assert await group.outcome("one") == 1000


async def test_many_at_once(cloud: GoogleCloud) -> None:
    """More instances than Google takes in one request are created and deleted in several."""
    cloud.group()
    async with open_group(cloud) as group:
        accepted = await group.increase(1001, "one")
        assert len(accepted.ids) == target(cloud) == 1001
        assert [len(one.body["instances"]) for one in cloud.calls(CREATE)] == [1000, 1]
        assert (await group.decrease(accepted.ids)).count == 1001
        assert [len(one.body["instances"]) for one in cloud.calls(DELETE)] == [1000, 1]
        assert target(cloud) == 0


@pytest.mark.parametrize("regional", [False, True])
async def test_members_that_are_gone(cloud: GoogleCloud, *, regional: bool) -> None:
    """Ids that are gone are accepted, together with others and alone."""
    async with running_group(cloud, 4, regional=regional) as (group, ids):
        fake = next(iter(cloud.groups.values()))
        cloud.engine.delete(fake, [fake.members[ids[0]]])
        cloud.settle()
        zone = fake.members[ids[1]].zone
        assert (await group.decrease(ids[:2])).ids == tuple(ids[:2])
        (call,) = cloud.calls(DELETE)
        assert call.body["skipInstancesOnValidationError"] is True
        assert f"zones/{zone}/instances/{ids[1]}" in call.body["instances"]
        await settle(cloud, group)
        cloud.refuses_nothing_left = True
        cloud.engine.delete(fake, [fake.members[ids[2]]])
        cloud.settle()
        assert (await group.decrease([ids[2]])).ids == (ids[2],)
        assert (await group.decrease([ids[2], "never-there"])).count == 2
        assert sorted(states(await settle(cloud, group))) == ids[3:]
        assert fake.target == 1


async def test_regional_members_are_named_with_their_zones(cloud: GoogleCloud) -> None:
    """Each member of a regional group is named with its zone."""
    async with running_group(cloud, 4, regional=True) as (group, ids):
        await group.decrease(ids)
        (call,) = cloud.calls(DELETE)
        assert call.method == "regionInstanceGroupManagers.deleteInstances"
        zones = {one.split("/")[1] for one in call.body["instances"]}
        assert zones == {"europe-west1-b", "europe-west1-c"}


async def test_queued_member_is_named_without_url(cloud: GoogleCloud) -> None:
    """A member that has no URL yet is deleted by its name, in a request of its own."""
    async with running_group(cloud, 2) as (group, ids):
        cloud.members()[ids[0]].changes["instance"] = ""
        await group.update()
        assert (await group.decrease(ids)).count == 2
        bodies = [one.body["instances"] for one in cloud.calls(DELETE)]
        assert bodies == [[f"zones/europe-west1-b/instances/{ids[1]}"], [ids[0]]]


async def test_cancelling_what_is_being_created(cloud: GoogleCloud) -> None:
    """Deleting members before their machines exist ends a shortage, and the size is as before."""
    async with running_group(cloud, 1) as (group, ids):
        cloud.engine.shortages["*"] = [("ZONE_RESOURCE_POOL_EXHAUSTED", "no capacity")]
        await group.increase(3, "one")
        cloud.settle()
        assert target(cloud) == 4
        await drive(group)
        assert sorted(states(await settle(cloud, group))) == ids
        assert target(cloud) == 1


@pytest.mark.parametrize("fault", [LostRequest(), LostReply(), unavailable()])
async def test_lost_answer_to_a_deletion(cloud: GoogleCloud, fault: Fault) -> None:
    """A deletion is repeated until it is accepted, and deletes nothing else."""
    async with running_group(cloud, 3) as (group, ids):
        cloud.fail(DELETE, fault, times=2)
        with pytest.raises(OutcomeUnknown):
            await group.decrease(ids[:1])
        assert (await group.decrease(ids[:1])).count == 1
        assert sorted(states(await settle(cloud, group))) == ids[1:]
        assert target(cloud) == 2


async def test_refused_deletion(cloud: GoogleCloud) -> None:
    """A deletion that Google refuses is an error as long as something is left to delete."""
    async with running_group(cloud, 2) as (group, ids):
        cloud.fail(DELETE, HttpFault(400, "invalid", "Invalid value"))
        with pytest.raises(RequestRefused, match="Invalid value"):
            await group.decrease(ids)
        cloud.fail(DELETE, forbidden())
        with pytest.raises(PermissionDenied, match="fleeting check googlecloud"):
            await group.decrease(ids)


async def test_a_zone_without_capacity(cloud: GoogleCloud) -> None:
    """A regional group creates the instances in another zone."""
    cloud.group(regional=True)
    cloud.engine.shortages["europe-west1-b"] = [("ZONE_RESOURCE_POOL_EXHAUSTED", "none")]
    async with open_group(cloud, regional=True) as group:
        await group.increase(4, "one")
        assert set(states(await settle(cloud, group)).values()) == {State.RUNNING}
        assert {one.zone for one in cloud.members().values()} == {"europe-west1-c"}


async def test_suspended_members_do_not_count(cloud: GoogleCloud) -> None:
    """With three suspended instances, one more is one more that runs."""
    async with running_group(cloud, 5) as (group, ids):
        await group.suspend(ids[:3])
        listing = await settle(cloud, group)
        assert (target(cloud), listing.pending) == (2, 0)
        await group.increase(1, "one")
        listing = await settle(cloud, group)
        found = list(states(listing).values())
        assert found.count(State.RUNNING) == 3
        assert found.count(State.SUSPENDED) == 3
        assert listing.pending == 0


async def test_suspending_only_what_runs(cloud: GoogleCloud) -> None:
    """Suspended instances are not suspended again, and one that is gone does not disturb."""
    async with running_group(cloud, 2) as (group, ids):
        accepted = await group.suspend([ids[0], "gone"])
        assert accepted.ids == (ids[0],)
        assert "gone" in str(accepted.error)
        before = len(cloud.calls("instanceGroupManagers.suspendInstances"))
        assert (await group.suspend([ids[0]])).count == 1
        assert len(cloud.calls("instanceGroupManagers.suspendInstances")) == before
        with pytest.raises(ProviderError, match=r"suspend is not possible.*gone \(gone\)"):
            await group.suspend(["gone"])
        with pytest.raises(ProviderError, match="suspending"):
            await group.resume([ids[0]])


async def test_suspended_member_can_be_removed(cloud: GoogleCloud) -> None:
    """Removing a suspended instance leaves the target size as it is."""
    async with running_group(cloud, 2) as (group, ids):
        await group.suspend(ids[:1])
        await settle(cloud, group)
        await group.decrease(ids[:1])
        assert states(await settle(cloud, group)) == {ids[1]: State.RUNNING}
        assert target(cloud) == 1
