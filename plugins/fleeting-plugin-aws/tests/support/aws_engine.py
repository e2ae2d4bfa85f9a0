"""Calls to moto, and the state that the fake cloud keeps in addition to moto."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncssh
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from aws_errors import AwsError
from aws_wire import SERVICES
from cloud_machines import new_key

if TYPE_CHECKING:
    from aws_group import Group, Member, Wait
    from aws_shortage import Shortage
    from cloud_machines import Machines

__all__ = ("Engine", "NotModelled", "World", "paged")

ANY_KEY = "testing"
# An instance accepts a key for this long after it was sent.
KEY_SECONDS = 60


class NotModelled(Exception):
    """The behaviour of AWS for this request is not modelled."""


class Engine:
    """Calls moto."""

    def __init__(self, url: str, region: str) -> None:
        self._url = url
        self._region = region
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}

    async def open(self) -> None:
        """Make the clients."""
        config = AioConfig(retries={"mode": "standard", "total_max_attempts": 1})
        session: Any = get_session()
        for service in SERVICES:
            self._clients[service] = await self._stack.enter_async_context(
                session.create_client(
                    service,
                    region_name=self._region,
                    endpoint_url=self._url,
                    aws_access_key_id=ANY_KEY,
                    aws_secret_access_key=ANY_KEY,
                    config=config,
                )
            )

    async def close(self) -> None:
        """Close the clients."""
        await self._stack.aclose()

    async def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of moto.

        Raises:
            AwsError: moto answers with an error.
            NotModelled: moto fails.
        """
        try:
            answer = await self._clients[service]._make_api_call(operation, parameters)
        except ClientError as error:
            response: dict[str, Any] = dict(error.response)
            status = response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 500:
                raise NotModelled(f"moto fails on {operation}: {error}") from None
            details = response["Error"]
            raise AwsError(details["Code"], details["Message"], status) from None
        except BotoCoreError as error:
            raise NotModelled(f"moto fails on {operation}({parameters}): {error}") from None
        return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


@dataclass
class Power:
    """A transition of an instance that is being stopped or started: the state until then."""

    shown: str
    wait: Wait


@dataclass
class Box:
    """State of an instance in addition to moto's.

    Attributes:
        facts: overrides for DescribeInstances; None removes a key.
        hidden: the number of further calls for which EC2 does not know it.
        quiet: the number of further calls with empty console and password.
        password: the administrator's password, for Windows.
        password_key: the public key that encrypts the password, in PEM.
        host_key: of its SSH server.
        address: of its SSH server, if there is one.
        power: the transition between running and stopped, if any.
        launched: when it was launched.
        is_off: whether it was stopped or ended.
        keys: users, public keys and when they were sent, on the cloud's clock.
    """

    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    hidden: int = 0
    quiet: int = 0
    password: str | None = None
    password_key: bytes | None = None
    host_key: asyncssh.SSHKey = field(default_factory=new_key)
    address: str | None = None
    power: Power | None = None
    launched: datetime | None = None
    is_off: bool = False
    keys: list[tuple[str, str, float]] = field(default_factory=list[tuple[str, str, float]])


@dataclass
class World:
    """The state that the fake cloud keeps in addition to moto.

    Attributes:
        region: the only region.
        engine: calls moto.
        machines: the SSH servers of the instances.
        has_machines: whether new instances get an SSH server.
        known_keys: public keys that all servers accept.
        lock: held while the state is changed by calling moto.
        groups: by their names.
        boxes: by their instances' ids.
        shortages: why instances cannot be launched.
        strangers: values outside of their enumerations, on purpose.
        page_size: the maximum of items in a page.
        ahead_seconds: how far the cloud's clock is ahead.
        hidden: the number of calls for which EC2 does not know a new instance.
        quiet: the number of calls with empty console and password of a new instance.
        group_facts: overrides for descriptions of groups, by name.
        instance_facts: overrides for descriptions of new instances, by the group's name.
        queues: the URLs of the existing queues.
        refreshes: the instance refreshes, by the group's name.
    """

    region: str
    engine: Engine
    machines: Machines
    has_machines: bool = False
    known_keys: tuple[str, ...] = ()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    groups: dict[str, Group] = field(default_factory=dict[str, "Group"])
    boxes: dict[str, Box] = field(default_factory=dict[str, Box])
    shortages: list[Shortage] = field(default_factory=list["Shortage"])
    strangers: set[str] = field(default_factory=set[str])
    page_size: int | None = None
    ahead_seconds: float = 0.0
    hidden: int = 0
    quiet: int = 0
    group_facts: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    instance_facts: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    queues: list[str] = field(default_factory=list[str])
    refreshes: dict[str, list[dict[str, Any]]] = field(
        default_factory=dict[str, list[dict[str, Any]]]
    )

    async def remove(self) -> None:
        """Remove everything that was created.

        Resetting moto as a whole would take a third of a second.
        """
        for name in self.groups:
            await self.engine.call(
                "autoscaling", "DeleteAutoScalingGroup", AutoScalingGroupName=name, ForceDelete=True
            )
        for name in self.group_facts:
            await self.engine.call(
                "ec2", "DeleteLaunchTemplate", LaunchTemplateName=f"template-{name}"
            )
        for url in self.queues:
            await self.engine.call("sqs", "DeleteQueue", QueueUrl=url)

    def now(self) -> float:
        """Return the seconds of the cloud's clock."""
        return time.monotonic() + self.ahead_seconds

    def find_member(self, id: str) -> tuple[Group, Member] | None:
        """Return a member and its group."""
        for group in self.groups.values():
            if id in group.members:
                return group, group.members[id]
        return None

    def running(self) -> Counter[tuple[str, str]]:
        """Return how many instances there are by zone and type."""
        return Counter(
            (member.zone, member.type)
            for group in self.groups.values()
            for member in group.members.values()
        )

    def box(self, id: str) -> Box:
        """Return the state of an instance that moto does not keep."""
        return self.boxes.setdefault(id, Box())

    async def power_on(self, id: str, group: Group | None) -> None:
        """Start an instance; with a group, the instance is new."""
        box = self.box(id)
        box.is_off = False
        if group is not None:
            box.hidden, box.quiet = self.hidden, self.quiet
            box.launched = datetime.now(UTC)
            box.facts |= self.instance_facts.get(group.name, {})
        if self.has_machines:
            if box.address is None:
                box.address = self.machines.new_address()
            self.machines.start(id, box.address, box.host_key)

    async def power_off(self, id: str, *, for_good: bool) -> None:
        """Stop an instance with everything that runs on it."""
        box = self.box(id)
        box.is_off = True
        await self.machines.stop(id, address=None if for_good else box.address)

    def lets_in(self, id: str, user: str, key: asyncssh.SSHKey) -> bool:
        """Return whether a user may log in with a key that was just sent, or is known."""
        now = self.now()
        sent = [
            text
            for name, text, since in self.box(id).keys
            if name == user and now - since <= KEY_SECONDS
        ]
        return any(asyncssh.import_public_key(text) == key for text in [*sent, *self.known_keys])


def paged(
    items: list[Any], size: int | None, limit: int | None, token: str | None
) -> tuple[list[Any], str | None]:
    """Return one page, and the token of the next one.

    Raises:
        AwsError: the token is not one of ours.
    """
    sizes = [number for number in (size, limit) if number is not None]
    prefix, _, text = (token or "page-0").partition("-")
    if prefix != "page" or not text.isdigit():
        raise AwsError("InvalidNextToken", "The token 'null' is invalid.")
    start = int(text)
    end = start + min(sizes) if sizes else len(items)
    return items[start:end], f"page-{end}" if end < len(items) else None
