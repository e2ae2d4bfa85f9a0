"""A fake AWS for tests: one account, one region, over real HTTP on the loopback interface.

Real clients talk to it when their `endpoint_url` is `cloud.url`. It checks each
request and each of its own answers against botocore's service models; what it
finds is in `problems`, and the fixture `cloud` fails the test for it.

Time does not pass by itself: see `Delays`. Each method may be called from any
thread, and has had its effect when it returns.
"""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from aws_engine import Engine, World
from aws_group import Delays, Group, Shortage
from aws_proxy import ANY, Hold, Proxy, Spoiler

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from aws_errors import Fault
    from aws_journal import Call
    from aws_moto import Moto

__all__ = ("AwsCloud", "Held")

Result = TypeVar("Result")

REGION = "eu-central-1"
UNLIMITED = 10_000
NO_ROOM = (
    "We currently do not have sufficient {type} capacity in the Availability Zone you requested"
    " ({zone}). Our system will be working on provisioning additional capacity. You can currently"
    " get {type} capacity by not specifying an Availability Zone in your request or choosing"
    " {others}."
)
TOO_MANY_CPUS = (
    "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the"
    " instance bucket that the specified instance type belongs to. Please visit"
    " http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
)
MESSAGES = {
    "InsufficientInstanceCapacity": NO_ROOM,
    "InstanceLimitExceeded": (
        "You have requested more instances (21) than your current instance limit of 20 allows"
        " for the specified instance type. Please visit"
        " http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
    ),
    "InvalidAMIID.NotFound": "The image id '[ami-0123456789abcdef0]' does not exist",
    "MaxSpotInstanceCountExceeded": "Max spot instance count exceeded",
    "UnfulfillableCapacity": (
        "Unable to fulfill capacity due to your request configuration. Please adjust your"
        " request and try again."
    ),
    "VcpuLimitExceeded": TOO_MANY_CPUS,
}


class Held:
    """Answers that are kept back until `release`, or until the `with` block ends."""

    def __init__(self, cloud: AwsCloud, hold: Hold) -> None:
        self._cloud = cloud
        self._hold = hold

    def release(self) -> None:
        """Let them go, and those that come later."""
        self._cloud.release(self._hold)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class AwsCloud:
    """The cloud, in a thread of its own.

    Attributes:
        url: the `endpoint_url` of all services.
        region: the only region.
    """

    def __init__(self, moto: Moto) -> None:
        self._moto = moto
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.region = REGION
        self._engine = Engine(moto.url, REGION)
        self._proxy: Proxy = self._run(self._open())
        self.url = self._proxy.url

    async def _open(self) -> Proxy:
        await self._engine.open()
        proxy = Proxy(World(REGION, self._engine))
        await proxy.open()
        return proxy

    def close(self) -> None:
        """End the server and its thread."""
        self.reset()

        async def close() -> None:
            await self._proxy.close()
            await self._engine.close()

        self._run(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> None:
        """Forget everything."""

        async def reset() -> None:
            for hold in self._proxy.holds:
                hold.released.set()
            self._proxy.forget(World(REGION, self._engine))

        self._run(reset())
        self._moto.reset()

    # What there is

    def group(
        self,
        name: str,
        *,
        desired: int = 0,
        minimum: int = 0,
        maximum: int = 10,
        zones: int = 1,
        types: Sequence[str] = ("t3.micro",),
        spot: bool = False,
        mixed: bool = False,
        protected: bool = True,
        suspended: Sequence[str] = ("AZRebalance",),
        delays: Delays | None = None,
        facts: dict[str, Any] | None = None,
        instance_facts: dict[str, Any] | None = None,
    ) -> None:
        """Create an Auto Scaling group, with its launch template.

        Args:
            name: its name.
            desired: its DesiredCapacity; the members are in service at once.
            minimum: its MinSize.
            maximum: its MaxSize.
            zones: how many availability zones it has: `a`, `b` and so on.
            types: its instance types, the preferred one first.
            spot: whether its instances are spot instances.
            mixed: whether it has a MixedInstancesPolicy; its failed activities are then
                worded differently.
            protected: NewInstancesProtectedFromScaleIn.
            suspended: the suspended processes.
            delays: how long everything takes.
            facts: what DescribeAutoScalingGroups says of it besides or instead.
            instance_facts: what DescribeInstances says of its new instances besides or instead.
        """
        group = Group(
            name,
            tuple(f"{self.region}{letter}" for letter in "abcdef"[:zones]),
            tuple(types),
            minimum,
            maximum,
            desired,
            delays or Delays(),
            is_spot=spot,
            is_mixed=mixed,
        )
        world = self._proxy.world

        async def create() -> None:
            await _create(world.engine, group, protected=protected, suspended=suspended)
            world.groups[name] = group
            world.group_facts[name] = facts or {}
            world.instance_facts[name] = instance_facts or {}
            async with world.lock:
                await self._proxy.autoscaling.reconcile(group)
                group.settle()
                group.look(world.now())

        self._run(create())

    def change(self, name: str, **facts: Any) -> None:
        """Change what a group is: `minimum`, `maximum`, `desired` or `delays`, without a check."""
        group = self._group(name)

        async def change() -> None:
            if "desired" in facts:
                group.want(facts.pop("desired"), self._proxy.world.now())
            for key, value in facts.items():
                assert hasattr(group, key), key
                setattr(group, key, value)

        self._run(change())

    def say_of_group(self, name: str, **facts: Any) -> None:
        """Let DescribeAutoScalingGroups say something else of a group; None removes a key."""
        self._proxy.world.group_facts[name] |= facts

    def say_of_instance(self, id: str, **facts: Any) -> None:
        """Let DescribeInstances say something else of an instance; None removes a key."""
        self._proxy.world.box(id).facts |= facts

    def delete_group(self, name: str) -> None:
        """Begin to delete a group with its members, as `ForceDelete` does."""
        group = self._group(name)

        async def delete() -> None:
            async with self._proxy.world.lock:
                group.minimum = group.maximum = 0
                group.want(0, self._proxy.world.now())
                group.is_being_deleted = True
                for member in group.counted:
                    await self._proxy.autoscaling.end(group, member, "the group is being deleted.")

        self._run(delete())

    def members(self, name: str) -> dict[str, str]:
        """Return the ids of a group's members and their states."""
        return {id: member.state for id, member in self._group(name).members.items()}

    def desired(self, name: str) -> int:
        """Return the desired capacity of a group."""
        return self._group(name).desired

    # What happens

    def settle(self, name: str | None = None) -> None:
        """Let everything that is under way end now: in one group, or in all."""

        async def settle() -> None:
            world = self._proxy.world
            groups = [world.groups[name]] if name else list(world.groups.values())
            async with world.lock:
                for group in groups:
                    group.settle()
                    group.look(world.now())
                    await self._proxy.autoscaling.reconcile(group)
                    group.settle()
                    group.look(world.now())
                for box in world.boxes.values():
                    box.power, box.hidden = None, 0

        self._run(settle())

    def room(
        self,
        count: int,
        *,
        zone: str | None = None,
        type: str | None = None,
        code: str = "InsufficientInstanceCapacity",
    ) -> None:
        """Limit how many instances there can be, running ones included.

        Args:
            count: how many.
            zone: in this zone only; its letter is enough.
            type: of this instance type only.
            code: EC2's reason: InsufficientInstanceCapacity, VcpuLimitExceeded,
                InstanceLimitExceeded, MaxSpotInstanceCountExceeded, UnfulfillableCapacity,
                InvalidAMIID.NotFound.
        """
        if zone is not None and not zone.startswith(self.region):
            zone = f"{self.region}{zone}"
        shortage = Shortage(count, zone, type, code, MESSAGES[code])
        self._run(self._shortages([*self._proxy.world.shortages, shortage]))

    def unlimited(self) -> None:
        """Lift all limits of `room`, and launch what waits for it."""
        self._run(self._shortages([]))

    async def _shortages(self, shortages: list[Shortage]) -> None:
        world = self._proxy.world
        async with world.lock:
            world.shortages = shortages
            if not shortages:
                for group in world.groups.values():
                    await self._proxy.autoscaling.reconcile(group)

    def set_state(self, id: str, state: str, *, health: str = "Healthy") -> None:
        """Put a member into a state, which may be one that no enumeration knows."""
        found = self._proxy.world.find_member(id)
        assert found is not None, id
        self._proxy.world.strangers.add(state)
        _, member = found
        member.wait = None
        member.health = health
        member.state = state

    def interrupt(self, id: str) -> None:
        """Take a spot instance away: it terminates, and the group launches another one."""

        async def interrupt() -> None:
            world = self._proxy.world
            async with world.lock:
                found = world.find_member(id)
                assert found is not None, id
                group, member = found
                cause = "an instance was taken out of service in response to an EC2 health check"
                await self._proxy.autoscaling.end(group, member, f"{cause} (spot interruption).")
                await self._proxy.autoscaling.reconcile(group)

        self._run(interrupt())

    def hide_new(self, times: int) -> None:
        """Let EC2 not know new instances for so many calls that ask for them."""
        self._proxy.world.hidden = times

    def quiet_new(self, times: int) -> None:
        """Leave console and password of new instances empty for so many calls."""
        self._proxy.world.quiet = times

    def forward(self, seconds: float) -> None:
        """Put the cloud's clock forward."""
        self._proxy.world.ahead_seconds += seconds

    def set_page_size(self, size: int | None) -> None:
        """Let answers have at most so many items a page."""
        self._proxy.world.page_size = size

    def set_password(self, id: str, password: str, public_key: bytes) -> None:
        """Give a Windows instance its password, for the owner of a key (PEM)."""
        box = self._proxy.world.box(id)
        box.password, box.password_key = password, public_key

    # What goes wrong

    def fail(
        self,
        operation: str,
        fault: Fault,
        *,
        times: int | None = 1,
        access_key: str | None = None,
    ) -> None:
        """Let something happen to the next calls of an operation.

        Args:
            operation: its name, or `*` for all.
            fault: what happens: see `aws_errors`.
            times: how often; None means until `mend`.
            access_key: for calls signed with this key only.
        """
        self._proxy.spoilers.append(Spoiler(operation, fault, times, access_key))

    def mend(self) -> None:
        """Let nothing go wrong any more."""
        self._proxy.spoilers.clear()

    def hold(self, operation: str, *, before: bool = False) -> Held:
        """Keep the answers of an operation back until they are released.

        Args:
            operation: its name, or `*` for all.
            before: whether the requests have no effect until then, either.
        """
        hold = Hold(operation, before)
        self._proxy.holds.append(hold)
        return Held(self, hold)

    def release(self, hold: Hold) -> None:
        """Let the answers of a `hold` go."""
        if hold in self._proxy.holds:
            self._proxy.holds.remove(hold)
        self._loop.call_soon_threadsafe(hold.released.set)

    # What was asked

    @property
    def problems(self) -> list[str]:
        """Return what was wrong with requests and answers."""
        return self._proxy.problems

    def calls(self, operation: str = ANY) -> list[Call]:
        """Return the calls of an operation, or all, in order."""
        calls = list(self._proxy.journal.calls)
        return [call for call in calls if operation in {ANY, call.operation}]

    async def reached(self, operation: str, count: int = 1, *, answered: bool = False) -> None:
        """Wait until so many calls of an operation have come, or have been answered."""

        def is_reached() -> bool:
            calls = self.calls(operation)
            return sum(call.ended is not None or not answered for call in calls) >= count

        async def wait() -> None:
            async with self._proxy.changed:
                await self._proxy.changed.wait_for(is_reached)

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wait(), self._loop))

    # What a queue tells

    def queue(self, name: str) -> str:
        """Create an SQS queue, and return its URL."""

        async def create() -> str:
            answer = await self._engine.call("sqs", "CreateQueue", QueueName=name)
            return f"{self.url}/{'/'.join(answer['QueueUrl'].split('/')[3:])}"

        return self._run(create())

    def send(self, queue_url: str, body: str) -> None:
        """Put a message into a queue."""
        self._run(self._engine.call("sqs", "SendMessage", QueueUrl=queue_url, MessageBody=body))

    def send_event(self, queue_url: str, kind: str, **detail: Any) -> None:
        """Put an event of EventBridge into a queue, as a rule with that target does.

        Args:
            queue_url: the queue.
            kind: the event's `detail-type`, as `EC2 Spot Instance Interruption Warning`.
            detail: the event's own facts.
        """
        source = "aws.autoscaling" if "AutoScalingGroupName" in detail else "aws.ec2"
        event = {
            "version": "0",
            "id": "6a2b1c1e-7f43-4a44-9b9e-0f3c1d2e4a5b",
            "detail-type": kind,
            "source": source,
            "account": "123456789012",
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self.region,
            "resources": [],
            "detail": detail,
        }
        self.send(queue_url, json.dumps(event))

    def warn_of_interruption(self, queue_url: str, id: str) -> None:
        """Announce that a spot instance will be taken away in two minutes."""
        kind = "EC2 Spot Instance Interruption Warning"
        self.send_event(queue_url, kind, **{"instance-id": id, "instance-action": "terminate"})

    def recommend_rebalance(self, queue_url: str, id: str) -> None:
        """Announce that a spot instance might be taken away soon."""
        kind = "EC2 Instance Rebalance Recommendation"
        self.send_event(queue_url, kind, **{"instance-id": id})

    def _group(self, name: str) -> Group:
        return self._proxy.world.groups[name]

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _create(
    engine: Engine, group: Group, *, protected: bool, suspended: Sequence[str]
) -> None:
    await engine.call(
        "ec2",
        "CreateLaunchTemplate",
        LaunchTemplateName=f"template-{group.name}",
        LaunchTemplateData={"ImageId": await engine.image(), "InstanceType": group.types[0]},
    )
    await engine.call(
        "autoscaling",
        "CreateAutoScalingGroup",
        AutoScalingGroupName=group.name,
        LaunchTemplate={"LaunchTemplateName": f"template-{group.name}", "Version": "1"},
        MinSize=0,
        MaxSize=UNLIMITED,
        DesiredCapacity=0,
        AvailabilityZones=list(group.zones),
        NewInstancesProtectedFromScaleIn=protected,
    )
    if suspended:
        await engine.call(
            "autoscaling",
            "SuspendProcesses",
            AutoScalingGroupName=group.name,
            ScalingProcesses=list(suspended),
        )
