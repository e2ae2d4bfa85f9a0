"""A group that a command has opened; each call of it has a deadline."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio

import fleeting
from fleeting._run import first_error
from fleeting._secrets import remember_passing
from fleeting._text import guard_logs, say
from fleeting.abc import InstanceGroup
from fleeting.cli._plugin_calls import bounded, expect_type, plugin_bug, too_late
from fleeting.errors import ConfigError, FleetingError, InstanceGone
from fleeting.types import Accepted, ConnectInfo, Listing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from fleeting.abc import Connection
    from fleeting.cli._selection import GroupSelection

__all__ = ("CALL_SECONDS", "OpenGroup", "connect_instance", "open_group")

T = TypeVar("T")

OPEN_SECONDS = 120.0
CALL_SECONDS = 60.0
# For a connector that has no limit of its own.
CONNECT_SECONDS = 60.0
# A connector reports its own timeout better than we can, so give it time to do so.
GRACE_SECONDS = 10.0
# Repeating a change that is still under way may create, and bill, duplicate instances.
LOOK_FIRST = (
    "the request may still be carried out, so check `fleeting group status` before repeating it"
)


class OpenGroup:
    """An open group.

    Attributes:
        selection: how it was selected.
        instances: the group itself, as the plugin opened it.
        drives: whether this process holds the lock of the group.
    """

    def __init__(self, selection: GroupSelection, instances: InstanceGroup) -> None:
        self.selection = selection
        self.instances = instances
        self.drives = False

    @property
    def id(self) -> str:
        """Return the id of the group."""
        return self.instances.info.id

    async def list_instances(self) -> Listing:
        """Return the listing of the group; raises as `ask` does."""
        return await self.ask("list its instances", Listing, self.instances.update)

    async def reconcile(self, listing: Listing) -> None:
        """Take the steps that follow from a listing, if this process drives the group."""
        if self.drives:
            action = "take the steps that follow from its listing"
            await self.ask(action, type(None), self.instances.reconcile, listing)

    async def ask(
        self, action: str, expected: type[T], method: Callable[..., Awaitable[T]], *args: Any
    ) -> T:
        """Call a method of the group that only reads.

        Args:
            action: what it does, for messages, such as `list its instances`.
            expected: the type that the contract promises.
            method: the method.
            args: its arguments.

        Raises:
            ProviderError: it took too long, or the plugin has a bug.
            FleetingError: it failed.
        """
        return await bounded(
            _checked(method, args, expected), CALL_SECONDS, f"group {self.id} did not {action}"
        )

    async def change(
        self, action: str, method: Callable[..., Awaitable[Accepted]], *args: Any
    ) -> Accepted:
        """Call a method of the group that changes it.

        If the call is cancelled, a line on standard error says that the change may still
        happen.

        Args:
            action: what it does, for messages, such as `confirm the removal`.
            method: the method.
            args: its arguments.

        Raises:
            ProviderError: it took too long, or the plugin has a bug.
            FleetingError: it failed.
        """
        failure = f"group {self.id} did not {action}"
        call = _checked(method, args, Accepted)
        try:
            return await bounded(call, CALL_SECONDS, failure, LOOK_FIRST)
        except anyio.get_cancelled_exc_class():
            with suppress(OSError):  # Standard error may be closed by now.
                say(f"interrupted: {failure}; {LOOK_FIRST}", err=True)
            raise


@asynccontextmanager
async def open_group(selection: GroupSelection) -> AsyncGenerator[OpenGroup]:
    """Open a group while the block runs.

    Raises:
        FleetingError: on entering, it cannot be opened; on leaving, it cannot be closed.
    """
    guard_logs()
    failure = f"the group of {selection.label} did not open"
    seconds = OPEN_SECONDS
    inside: BaseException | None = None
    # One scope around everything, because a plugin may open scopes of its own.
    with anyio.move_on_after(OPEN_SECONDS) as scope:
        try:
            async with selection.provider.open(selection.config, selection.settings) as instances:
                expect_type(instances, InstanceGroup)
                scope.deadline = math.inf
                group = OpenGroup(selection, instances)
                failure = f"group {group.id} did not close"
                try:
                    yield group
                except BaseException as error:
                    inside = _first(error)
                    raise
                finally:
                    seconds = CALL_SECONDS
                    scope.deadline = anyio.current_time() + seconds
        except (Exception, BaseExceptionGroup) as error:
            first = _first(error)
            if isinstance(inside, Exception):
                first = inside  # The error of the block matters more than that of closing.
            elif isinstance(first, Exception) and not isinstance(first, FleetingError):
                raise plugin_bug(first, failure) from error
            if first is error:
                raise
            raise first from error
    if isinstance(inside, Exception):
        raise inside  # A plugin may have swallowed it.
    if scope.cancelled_caught:
        raise too_late(failure, seconds)


@asynccontextmanager
async def connect_instance(group: OpenGroup, id: str) -> AsyncGenerator[Connection]:
    """Connect to an instance while the block runs.

    Raises:
        FleetingError: on entering, the instance cannot be reached.
    """
    action = f"return the connection details of instance {id}"
    try:
        info = await group.ask(action, ConnectInfo, group.instances.connect_info, id)
        remember_passing(filter(None, (info.password, info.private_key)))
    except InstanceGone as error:
        raise ConfigError(str(error)) from error  # The id is what the operator typed.
    info = info.with_settings(group.selection.settings.connector)
    seconds = CONNECT_SECONDS if info.timeout is None else info.timeout.total_seconds()
    failure = f"instance {id} could not be reached"
    async with await bounded(
        fleeting.connect(info), seconds + GRACE_SECONDS, failure
    ) as connection:
        yield connection


async def _checked(
    method: Callable[..., Awaitable[T]], args: tuple[Any, ...], expected: type[T]
) -> T:
    value = await method(*args)
    expect_type(value, expected)
    return value


def _first(error: BaseException) -> BaseException:
    if isinstance(error, BaseExceptionGroup):
        return first_error(cast("BaseExceptionGroup[BaseException]", error))
    return error
