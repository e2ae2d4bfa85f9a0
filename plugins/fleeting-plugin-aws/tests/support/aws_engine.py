"""The way to moto, and what the fake cloud knows beside it."""

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
from aws_machines import new_key
from aws_wire import SERVICES

if TYPE_CHECKING:
    from aws_group import Group, Member, Wait
    from aws_machines import Machines
    from aws_shortage import Shortage

__all__ = ("Engine", "NotModelled", "World", "paged")

ANY_KEY = "testing"
# How long a key that was sent opens an instance.
KEY_SECONDS = 60


class NotModelled(Exception):
    """What a client asks for is something about which this cloud does not know what AWS does."""


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
        """Let moto do something.

        Raises:
            AwsError: moto answers with an error.
            NotModelled: moto breaks.
        """
        try:
            answer = await self._clients[service]._make_api_call(operation, parameters)
        except ClientError as error:
            response: dict[str, Any] = dict(error.response)
            status = response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 500:
                raise NotModelled(f"moto breaks on {operation}: {error}") from None
            details = response["Error"]
            raise AwsError(details["Code"], details["Message"], status) from None
        except BotoCoreError as error:
            raise NotModelled(f"moto breaks on {operation}({parameters}): {error}") from None
        return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


@dataclass
class Power:
    """That an instance is being stopped or started: what it shows until that is done."""

    shown: str
    wait: Wait


@dataclass
class Box:
    """What is known of an instance beside what moto says.

    Attributes:
        facts: what DescribeInstances says instead; None takes something away.
        hidden: how many more calls EC2 does not know it yet.
        quiet: how many more calls its console output and its password are not there yet.
        password: its administrator's password, for Windows.
        password_key: the public key that this is encrypted for, in PEM.
        host_key: by which it is recognized.
        address: where its machine listens, if it is one that really runs.
        power: what goes on about its power.
        launched: since when it runs.
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
    """Everything that the fake cloud remembers and moto does not.

    Attributes:
        region: the only one.
        engine: the way to moto.
        machines: what runs on the instances.
        has_machines: whether new instances really run.
        known_keys: public keys that open all of them.
        lock: held while the state is changed with moto's help.
        groups: by their names.
        boxes: by their instances' ids.
        shortages: why instances cannot be launched.
        strangers: values that no enumeration knows, on purpose.
        page_size: how many items a page has at most.
        ahead_seconds: how far the cloud's clock is ahead.
        hidden: for how many calls EC2 does not know a new instance.
        quiet: for how many calls the console of a new instance is empty.
        group_facts: what describes of a group say instead, by the group's name.
        instance_facts: what describes of its new instances say instead, by the group's name.
        queues: the URLs of the queues that there are.
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
        """Remove what was created.

        moto could forget everything at once, but then takes a third of a second to begin anew.
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
        """Return what is known of an instance beside what moto says."""
        return self.boxes.setdefault(id, Box())

    async def power_on(self, id: str, group: Group | None) -> None:
        """Begin to run an instance, which is new if its group is given."""
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
        """Stop an instance, and whatever runs on it."""
        box = self.box(id)
        box.is_off = True
        await self.machines.stop(id, address=None if for_good else box.address)

    def lets_in(self, id: str, user: str, key: asyncssh.SSHKey) -> bool:
        """Return whether a user may log in: with a key that was just sent, or one that is known."""
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
