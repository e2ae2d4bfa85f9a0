"""A group that a person's command has open, and calls each of which has a deadline."""

from __future__ import annotations

import math
import signal
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import click

import fleeting
from fleeting._deadlines import DeadlineExceeded, call_within
from fleeting._run import first_error
from fleeting._text import plain
from fleeting.abc import InstanceGroup
from fleeting.cli._endings import Endings
from fleeting.errors import ConfigError, FleetingError, ProviderError
from fleeting.types import Accepted, ConnectInfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from fleeting.abc import Connection
    from fleeting.cli._target import Target

__all__ = ("Hand", "bounded", "bug", "expect", "opened", "perform", "reach")

T = TypeVar("T")

OPEN_SECONDS = 120.0
CALL_SECONDS = 60.0
# For a connector that knows no limit of its own.
CONNECT_SECONDS = 60.0
# A connector says better than we why it did not come about in time, so let it.
GRACE_SECONDS = 10.0
TRY_AGAIN = "see whether its cloud can be reached, and try again"
# Who asks a second time for what is coming gets twice as much, and pays for it.
LOOK_FIRST = "it may happen all the same, so look at `fleeting group status` before you try again"


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

    async def ask(
        self, what: str, expected: type[T], call: Callable[..., Awaitable[T]], *words: Any
    ) -> T:
        """Make a call of the group, for a limited time.

        Args:
            what: it does, for messages, such as `list its instances`.
            expected: what a plugin that keeps its contract returns.
            call: it.
            words: what it takes.

        Raises:
            ProviderError: it took too long, or failed in a way that no plugin may.
            FleetingError: it failed.
        """

        async def answer() -> T:
            given = await call(*words)
            expect(given, expected)
            return given

        failure = f"group {self.id} did not {what}"
        if expected is not Accepted:
            return await bounded(answer(), CALL_SECONDS, failure)
        try:
            return await bounded(answer(), CALL_SECONDS, failure, LOOK_FIRST)
        except anyio.get_cancelled_exc_class():
            with suppress(OSError):  # Perhaps nobody can be told any more.
                click.echo(f"{plain(failure)} before the end; {LOOK_FIRST}", err=True)
            raise


def perform(function: Callable[..., Awaitable[int]], *args: Any, **options: Any) -> int:
    """Run a command's coroutine to its end, and return the exit code.

    Raises:
        FleetingError: the first of those that were raised.
        KeyboardInterrupt: somebody interrupted; everything has been cleaned up.
    """
    endings = Endings()
    try:
        code = anyio.run(_performed, partial(function, *args, **options), endings)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    if endings.first is signal.SIGINT:
        raise KeyboardInterrupt
    return code


async def _performed(function: Callable[[], Awaitable[int]], endings: Endings) -> int:
    code = 0
    with anyio.CancelScope() as scope, endings.cancelling(scope):
        code = await function()
    return code if endings.first is None else 128 + endings.first


async def bounded(call: Awaitable[T], seconds: float, failure: str, advice: str = TRY_AGAIN) -> T:
    """Await what a plugin does for a limited time, and make each of its failures one of ours.

    Args:
        call: what to await.
        seconds: how long it may take.
        failure: what did not happen, for messages.
        advice: what to do if it took too long.

    Raises:
        ProviderError: it took too long, or failed in a way that no plugin may.
        FleetingError: it failed.
    """
    try:
        return await call_within(seconds, lambda: call)
    except FleetingError:
        raise
    except DeadlineExceeded:
        raise _late(failure, seconds, advice) from None
    except Exception as error:
        raise bug(error, failure) from error


def expect(given: object, expected: type) -> None:
    """Refuse what a plugin that keeps its contract never gives.

    Raises:
        TypeError: it gave that.
    """
    if not isinstance(given, expected):
        raise TypeError(f"it gave {type(given).__name__} instead of {expected.__name__}")


@asynccontextmanager
async def opened(target: Target) -> AsyncGenerator[Hand]:
    """Open a group while the block runs.

    Raises:
        FleetingError: on entering, it cannot be opened; on leaving, it cannot be closed.
    """
    failure = f"the group of {target.label} did not open"
    seconds = OPEN_SECONDS
    inside: BaseException | None = None
    # One scope around all, because what a plugin opens may be scopes in turn.
    with anyio.move_on_after(OPEN_SECONDS) as scope:
        try:
            async with target.provider.open(target.config, target.settings) as group:
                expect(group, InstanceGroup)
                scope.deadline = math.inf
                hand = Hand(target, group)
                failure = f"group {hand.id} did not close"
                try:
                    yield hand
                except BaseException as error:
                    inside = _first(error)
                    raise
                finally:
                    seconds = CALL_SECONDS
                    scope.deadline = anyio.current_time() + seconds
        except (Exception, BaseExceptionGroup) as error:
            first = _first(error)
            if isinstance(inside, Exception):
                first = inside  # What was done matters more than what closing made of it.
            elif isinstance(first, Exception) and not isinstance(first, FleetingError):
                raise bug(first, failure) from error
            if first is error:
                raise
            raise first from error
    if isinstance(inside, Exception):
        raise inside  # Whatever a plugin makes of it.
    if scope.cancelled_caught:
        raise _late(failure, seconds)


@asynccontextmanager
async def reach(hand: Hand, id: str) -> AsyncGenerator[Connection]:
    """Connect to an instance while the block runs.

    Raises:
        FleetingError: on entering, it cannot be reached, or nobody knows how.
    """
    what = f"say how to reach instance {id}"
    info = await hand.ask(what, ConnectInfo, hand.group.connect_info, id)
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


def bug(error: Exception, failure: str) -> ProviderError:
    """Return the error to raise instead of one that no plugin may raise."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ProviderError(f"{failure}: the plugin has a bug ({reason}); tell its author")


def _first(error: BaseException) -> BaseException:
    if isinstance(error, BaseExceptionGroup):
        return first_error(cast("BaseExceptionGroup[BaseException]", error))
    return error


def _late(failure: str, seconds: float, advice: str = TRY_AGAIN) -> ProviderError:
    return ProviderError(f"{failure} within {seconds:g} s; {advice}")
