"""A fake AWS for tests: one account, one region, over real HTTP on the loopback interface.

Real clients talk to it when their `endpoint_url` is `cloud.url`, from this
process or another one::

    cloud.group("builders", maximum=10, zones=2)
    cloud.room(1, zone="a")                          # zone b launches the others, after a failure
    cloud.fail("SetDesiredCapacity", Throttled(), times=2)
    ...                                              # the code under test scales up
    cloud.settle()                                   # everything under way is completed
    assert len(cloud.calls("SetDesiredCapacity")) == 3

It checks each request and each of its own answers against botocore's service
models. Violations are in `problems`, and the fixture `cloud` fails the test for
them. An operation that is not modelled is a problem too, instead of a guess.

Time does not pass by itself: see `Delays`. Each method may be called from any
thread, and has had its effect when it returns.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from aws_engine import Engine, World
from aws_group import Delays, Group
from aws_proxy import ANY, Hold, Proxy, Spoiler
from aws_queue import Queue
from aws_shortage import Shortage
from cloud_machines import Machines

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    import asyncssh

    from aws_errors import Fault
    from aws_journal import Call
    from aws_moto import Moto

__all__ = ("AwsCloud", "Held")

Result = TypeVar("Result")

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
REGION = "eu-central-1"


class Held:
    """Answers that are held until `release`, or until the `with` block ends."""

    def __init__(self, cloud: AwsCloud, hold: Hold) -> None:
        self._cloud = cloud
        self._hold = hold

    def release(self) -> None:
        """Send the held answers, and hold no more."""
        self._cloud.release(self._hold)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class AwsCloud:
    """The cloud, running in its own thread.

    Attributes:
        url: the `endpoint_url` of all services.
        region: the only region.
        moto_url: the `endpoint_url` of moto alone, which checks nothing.
    """

    def __init__(self, moto: Moto) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.region = REGION
        self.moto_url = moto.url
        self._session: Any = get_session()  # shared, because it caches the service models
        self._engine = Engine(moto.url, REGION)
        self._machines = Machines(self._lets_in)
        self._proxy: Proxy = self._run(self._open())
        self.url = self._proxy.url

    async def _open(self) -> Proxy:
        await self._engine.open()
        proxy = Proxy(self._new_world())
        await proxy.open()
        return proxy

    def _new_world(self) -> World:
        return World(REGION, self._engine, self._machines)

    def close(self) -> None:
        """End the server and its thread."""
        self.reset()

        async def close() -> None:
            await self._proxy.close()
            await self._engine.close()
            await self._machines.close()

        self._run(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> None:
        """Forget everything."""

        async def reset() -> None:
            for hold in self._proxy.holds:
                hold.released.set()
            world = self._proxy.world
            self._proxy.forget(self._new_world())
            await world.remove()
            await self._machines.stop_all()
            self._machines.boot_seconds = 0.0

        self._run(reset())

    def client(
        self, service: str, *, access_key: str = ACCESS_KEY, attempts: int = 1
    ) -> AbstractAsyncContextManager[Any]:
        """Return a client of a service, open during the `async with` block.

        Args:
            service: its name, as botocore knows it.
            access_key: the id of the key that signs.
            attempts: the maximum of attempts for each call.
        """
        client: AbstractAsyncContextManager[Any] = self._session.create_client(
            service,
            region_name=self.region,
            endpoint_url=self.url,
            aws_access_key_id=access_key,
            aws_secret_access_key="not looked at",  # noqa: S106 - not a secret
            config=AioConfig(retries={"mode": "standard", "total_max_attempts": attempts}),
        )
        return client

    # Setting up

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
            mixed: whether it has a MixedInstancesPolicy, which changes the messages of failures.
            protected: NewInstancesProtectedFromScaleIn.
            suspended: the suspended processes.
            delays: the duration of each transition.
            facts: override or extend the answer of DescribeAutoScalingGroups.
            instance_facts: override or extend the answer of DescribeInstances for new instances.
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
            suspended=set(suspended),
        )
        world = self._proxy.world

        world.group_facts[name] = facts or {}
        world.instance_facts[name] = instance_facts or {}
        self._run(self._proxy.autoscaling.create(group, protected=protected))

    def use_machines(
        self, *, boot: timedelta = timedelta(0), known_keys: Sequence[str] = ()
    ) -> int:
        """Start a real SSH server for each instance that is launched from now on.

        The private and the public address of an instance lead to its server, on systems
        where all of 127.0.0.0/8 is the loopback interface, such as Linux. A server accepts
        keys that Instance Connect has sent for the user in the last minute of the cloud's
        clock. Commands run as the user of the tests. The files of an instance are deleted
        when it is stopped.

        Args:
            boot: the time from the launch until the server listens.
            known_keys: public keys that are always accepted.

        Returns:
            The port of all servers.
        """
        self._machines.boot_seconds = boot.total_seconds()
        self._proxy.world.has_machines = True
        self._proxy.world.known_keys = tuple(known_keys)
        return self._machines.port

    def change(self, name: str, **facts: Any) -> None:
        """Set `minimum`, `maximum`, `desired` or `delays` of a group without validation."""

        def change() -> None:
            group = self._group(name)
            if "desired" in facts:
                group.want(facts["desired"], self._proxy.world.now())
            for key, value in facts.items():
                assert hasattr(group, key), key
                setattr(group, key, value)

        self._do(change)

    def say_of_group(self, name: str, **facts: Any) -> None:
        """Override keys of a group in DescribeAutoScalingGroups; None removes a key."""
        self._do(lambda: self._proxy.world.group_facts[name].update(facts))

    def say_of_instance(self, id: str, **facts: Any) -> None:
        """Override keys of an instance in DescribeInstances; None removes a key."""
        self._do(lambda: self._proxy.world.box(id).facts.update(facts))

    def refresh(self, name: str, status: str = "InProgress") -> None:
        """Start an instance refresh of a group."""
        refresh = {
            "InstanceRefreshId": "08b91cf7-8fa6-48af-b6a6-d227f40f1b9b",
            "AutoScalingGroupName": name,
            "Status": status,
            "StartTime": datetime.now(UTC),
            "InstancesToUpdate": len(self.members(name)),
        }
        self._do(lambda: self._proxy.world.refreshes.setdefault(name, []).insert(0, refresh))

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
        members = self._group(name).members
        return self._do(lambda: {id: member.state for id, member in members.items()})

    def desired(self, name: str) -> int:
        """Return the desired capacity of a group."""
        return self._group(name).desired

    # Events

    def settle(self, name: str | None = None) -> None:
        """Complete everything that is under way in one group, or in all groups."""

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
        instance_type: str | None = None,
        code: str = "InsufficientInstanceCapacity",
    ) -> None:
        """Limit the number of instances, running ones included.

        Args:
            count: the limit.
            zone: in this zone only; its letter is enough.
            instance_type: of this instance type only.
            code: EC2's reason: InsufficientInstanceCapacity, VcpuLimitExceeded,
                InstanceLimitExceeded, MaxSpotInstanceCountExceeded, UnfulfillableCapacity,
                InvalidAMIID.NotFound.
        """
        if zone is not None and not zone.startswith(self.region):
            zone = f"{self.region}{zone}"
        shortage = Shortage(count, zone, instance_type, code)
        self._run(self._shortages([*self._proxy.world.shortages, shortage]))

    def unlimited(self) -> None:
        """Remove all limits of `room`, and launch missing instances."""
        self._run(self._shortages([]))

    async def _shortages(self, shortages: list[Shortage]) -> None:
        world = self._proxy.world
        async with world.lock:
            world.shortages = shortages
            if not shortages:
                for group in world.groups.values():
                    await self._proxy.autoscaling.reconcile(group)

    def set_state(self, id: str, state: str, *, health: str = "Healthy") -> None:
        """Set the state of a member, which may be outside of the enumeration."""

        def change() -> None:
            world = self._proxy.world
            found = world.find_member(id)
            assert found is not None, id
            _, member = found
            world.strangers.add(state)
            member.wait, member.state, member.health = None, state, health

        self._do(change)

    def interrupt(self, id: str) -> None:
        """Interrupt a spot instance; the group launches a replacement."""

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
        """Hide each new instance from EC2 for `times` calls that ask for it."""
        self._proxy.world.hidden = times

    def quiet_new(self, times: int) -> None:
        """Keep console and password of each new instance empty for `times` calls."""
        self._proxy.world.quiet = times

    def forward(self, seconds: float) -> None:
        """Advance the cloud's clock."""
        self._proxy.world.ahead_seconds += seconds

    def set_page_size(self, size: int | None) -> None:
        """Limit the number of items in each page of an answer."""
        self._proxy.world.page_size = size

    def set_password(self, id: str, password: str, public_key: bytes) -> None:
        """Set the password of a Windows instance, encrypted for a public key (PEM)."""
        box = self._proxy.world.box(id)
        box.password, box.password_key = password, public_key

    # Faults

    def fail(
        self,
        operation: str,
        fault: Fault,
        *,
        times: int | None = 1,
        access_key: str | None = None,
    ) -> None:
        """Apply a fault to the next calls of an operation.

        Args:
            operation: its name, or `*` for all.
            fault: see `aws_errors`.
            times: how often; None means until `mend`.
            access_key: for calls signed with this key only.
        """
        self._proxy.spoilers.append(Spoiler(operation, fault, times, access_key))

    def mend(self) -> None:
        """Remove all faults."""
        self._proxy.spoilers.clear()

    def allow_only(self, *actions: str) -> None:
        """Allow only these actions, such as `ec2:DescribeInstances`."""
        self._proxy.allowed = frozenset(actions)

    def hold(self, operation: str, *, before: bool = False) -> Held:
        """Hold the answers of an operation until they are released.

        Args:
            operation: its name, or `*` for all.
            before: whether the requests have no effect until then, either.
        """
        hold = Hold(operation, before)
        self._proxy.holds.append(hold)
        return Held(self, hold)

    def release(self, hold: Hold) -> None:
        """Release the answers of a `hold`."""
        if hold in self._proxy.holds:
            self._proxy.holds.remove(hold)
        self._loop.call_soon_threadsafe(hold.released.set)

    # Inspecting calls

    @property
    def problems(self) -> list[str]:
        """Return the problems of requests and answers."""
        return self._proxy.problems

    def take_problems(self) -> list[str]:
        """Return the problems and forget them, for tests that provoke them."""
        problems = list(self._proxy.problems)
        self._proxy.problems.clear()
        return problems

    def calls(self, operation: str = ANY) -> list[Call]:
        """Return the calls of an operation, or all calls, in order."""
        # A copy, because calls may be added during the iteration.
        calls = list(self._proxy.journal.calls)
        return [call for call in calls if operation in {ANY, call.operation}]

    async def reached(self, operation: str, count: int = 1, *, answered: bool = False) -> None:
        """Wait until `count` calls of an operation have arrived, or have been answered."""

        def is_reached() -> bool:
            calls = self.calls(operation)
            return sum(call.ended is not None or not answered for call in calls) >= count

        async def wait() -> None:
            async with self._proxy.changed:
                await self._proxy.changed.wait_for(is_reached)

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wait(), self._loop))

    def queue(self, name: str) -> Queue:
        """Create an SQS queue."""

        async def create() -> str:
            answer = await self._engine.call("sqs", "CreateQueue", QueueName=name)
            url: str = answer["QueueUrl"]
            self._proxy.world.queues.append(url)
            return url

        inside = self._run(create())
        url = f"{self.url}/{'/'.join(inside.split('/')[3:])}"

        def send(body: str) -> None:
            self._run(self._engine.call("sqs", "SendMessage", QueueUrl=inside, MessageBody=body))

        return Queue(url, self.region, send)

    def _lets_in(self, id: str, user: str, key: asyncssh.SSHKey) -> bool:
        return self._proxy.world.lets_in(id, user, key)

    def _group(self, name: str) -> Group:
        return self._proxy.world.groups[name]

    def _do(self, work: Callable[[], Result]) -> Result:
        """Run a function in the cloud's thread, without concurrency."""

        async def do() -> Result:
            return work()

        return self._run(do())

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
