"""A group that a person's command has open, and calls each of which has a deadline."""

from __future__ import annotations

import math
import signal
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import click

import fleeting
from fleeting._run import first_error
from fleeting.errors import ConfigError, FleetingError, ProviderError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.cli._target import Target

__all__ = ("Hand", "bounded", "opened", "perform", "reach")

T = TypeVar("T")

OPEN_SECONDS = 120.0
CALL_SECONDS = 60.0
# For a connector that knows no limit of its own.
CONNECT_SECONDS = 60.0
# A connector says better than we why it did not come about in time, so let it.
GRACE_SECONDS = 10.0
# A termination is an end like that of Ctrl-C, so that a remote command and a terminal go with it.
_ENDINGS = tuple(one for one in signal.Signals if one.name in {"SIGTERM", "SIGHUP"})


class Hand:
    """An open group.

    Attributes:
        target: how it was named.
        group: itself.
    """

    def __init__(self, target: Target, group: InstanceGroup) -> None:
        self.target = target
        self.group = group

    @property
    def id(self) -> str:
        """Return the id of the group."""
        return self.group.info.id

    async def ask(self, what: str, call: Awaitable[T]) -> T:
        """Await a call of the group, for a limited time.

        Args:
            what: it does, for messages, such as `list its instances`.
            call: it.

        Raises:
            ProviderError: it took too long, or failed in a way that no plugin may.
            FleetingError: it failed.
        """
        return await bounded(call, CALL_SECONDS, f"group {self.id} did not {what}")


def perform(function: Callable[..., Awaitable[int]], *args: Any, **options: Any) -> int:
    """Run a command's coroutine to its end, and return the exit code.

    Raises:
        FleetingError: the first of those that were raised.
        KeyboardInterrupt: somebody interrupted; everything has been cleaned up.
    """
    try:
        return anyio.run(_performed, partial(function, *args, **options))
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors


async def _performed(function: Callable[[], Awaitable[int]]) -> int:
    if sys.platform == "win32":
        return await function()
    ended_by: list[signal.Signals] = []
    code = 0
    async with anyio.create_task_group() as tasks:

        async def hear() -> None:
            with anyio.open_signal_receiver(*_ENDINGS) as received:
                async for number in received:
                    ended_by.append(number)
                    tasks.cancel_scope.cancel()
                    return

        tasks.start_soon(hear)
        code = await function()
        tasks.cancel_scope.cancel()
    return 128 + ended_by[0] if ended_by else code


async def bounded(call: Awaitable[T], seconds: float, failure: str) -> T:
    """Await what a plugin does for a limited time, and make each of its failures one of ours.

    Args:
        call: what to await.
        seconds: how long it may take.
        failure: what did not happen, for messages.

    Raises:
        ProviderError: it took too long, or failed in a way that no plugin may.
        FleetingError: it failed.
    """
    with anyio.move_on_after(seconds):
        try:
            return await call
        except FleetingError:
            raise
        except Exception as error:
            raise _bug(error, failure) from error
    raise _late(failure, seconds)


@asynccontextmanager
async def opened(target: Target) -> AsyncGenerator[Hand]:
    """Open a group while the block runs.

    Raises:
        FleetingError: on entering, it cannot be opened.
    """
    failure = f"the group of {target.label} did not open"
    hand: Hand | None = None
    # One scope around all, because what a plugin opens may be scopes in turn.
    with anyio.move_on_after(OPEN_SECONDS) as scope:
        try:
            async with target.provider.open(target.config, target.settings) as group:
                scope.deadline = math.inf
                hand = Hand(target, group)
                try:
                    yield hand
                finally:
                    scope.deadline = anyio.current_time() + CALL_SECONDS
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        except (FleetingError, click.ClickException):
            raise
        except Exception as error:
            if hand is not None:
                raise
            raise _bug(error, failure) from error
    if scope.cancelled_caught:
        if hand is not None:
            raise _late(f"group {hand.id} did not close", CALL_SECONDS)
        raise _late(failure, OPEN_SECONDS)


@asynccontextmanager
async def reach(hand: Hand, id: str) -> AsyncGenerator[Connection]:
    """Connect to an instance while the block runs.

    Raises:
        FleetingError: on entering, it cannot be reached, or nobody knows how.
    """
    info = await hand.ask(f"say how to reach instance {id}", hand.group.connect_info(id))
    settings = hand.target.settings.connector
    try:
        info = info.with_settings(settings)
    except (OSError, UnicodeError):
        # What the error says of a wrong file could show a part of the key.
        raise ConfigError(
            f"the key file for instance {id}, {settings.key_path}, cannot be read as text; name a "
            "key in OpenSSH or PEM format that this user may read"
        ) from None
    seconds = CONNECT_SECONDS if info.timeout is None else info.timeout.total_seconds()
    failure = f"instance {id} could not be reached"
    async with await bounded(
        fleeting.connect(info), seconds + GRACE_SECONDS, failure
    ) as connection:
        yield connection


def _bug(error: Exception, failure: str) -> ProviderError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ProviderError(f"{failure}: the plugin has a bug ({reason}); tell its author")


def _late(failure: str, seconds: float) -> ProviderError:
    return ProviderError(
        f"{failure} within {seconds:g} s; see whether its cloud can be reached, and try again"
    )
