"""Carries out effects: calls providers and connectors, and turns the outcome into an event.

Whatever a provider does, an event comes of it within the deadline: a plugin's
bug, a hanging call and a lost reply must not stop the scaler.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import anyio.lowlevel

from fleeting.errors import (
    AuthenticationFailed,
    ConnectionLost,
    FleetingError,
    InstanceUnhealthy,
    NotSupported,
    OutcomeUnknown,
    ProviderError,
    Unreachable,
)
from fleeting.types import Accepted, ConnectInfo, Instance, Listing, State
from taskscaler.core import effects, events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import Completed
    from taskscaler.runtime.connections import Connections

logger = logging.getLogger("taskscaler")

T = TypeVar("T")

# The pause between two tries to reach an instance that may still be booting.
RETRY_SECONDS = 1.0

# How much of a ready command's last words to repeat.
QUOTED_CHARACTERS = 300

# What every shell of every system can do.
PROBE = "exit 0"


async def list_group(group: InstanceGroup, effect: effects.List) -> events.Event:
    """Carry out a `List`."""
    try:
        listing = await _call(group.update, Listing, effect.timeout_seconds, "a listing")
        return events.ListingArrived(effect.group, listing)
    except ProviderError as error:
        return events.ListingFailed(effect.group, error)


async def increase(group: InstanceGroup, effect: effects.Increase) -> events.Event:
    """Carry out an `Increase`."""
    try:
        accepted = await _call(
            lambda: group.increase(effect.count, effect.operation),
            Accepted,
            effect.timeout_seconds,
            "an increase",
        )
    except OutcomeUnknown as error:
        nothing = Accepted(0, error=error)
        return events.IncreaseSettled(effect.group, effect.operation, nothing, unknown=True)
    except ProviderError as error:
        accepted = Accepted(0, error=error)
    return events.IncreaseSettled(effect.group, effect.operation, accepted)


async def decrease(group: InstanceGroup, effect: effects.Decrease) -> events.Event:
    """Carry out a `Decrease`."""
    accepted = await _accepted(
        lambda: group.decrease(effect.ids), effect.timeout_seconds, "a decrease"
    )
    return events.DecreaseSettled(effect.group, effect.ids, accepted)


async def suspend(group: InstanceGroup, effect: effects.Suspend) -> events.Event:
    """Carry out a `Suspend`."""
    accepted = await _accepted(
        lambda: group.suspend(effect.ids), effect.timeout_seconds, "a suspension"
    )
    return events.SuspendSettled(effect.group, effect.ids, accepted)


async def resume(group: InstanceGroup, effect: effects.Resume) -> events.Event:
    """Carry out a `Resume`."""
    accepted = await _accepted(
        lambda: group.resume(effect.ids), effect.timeout_seconds, "a resumption"
    )
    return events.ResumeSettled(effect.group, effect.ids, accepted)


async def _accepted(
    call: Callable[[], Awaitable[Accepted]], timeout_seconds: float, noun: str
) -> Accepted:
    """Return what became of a request that is asked for again if it failed."""
    try:
        return await _call(call, Accepted, timeout_seconds, noun)
    except ProviderError as error:
        return Accepted(0, error=error)


async def connect_info(group: InstanceGroup, id: str, timeout_seconds: float) -> ConnectInfo:
    """Ask how to reach an instance.

    Raises:
        FleetingError: whatever went wrong.
    """
    return await _call(
        lambda: group.connect_info(id),
        ConnectInfo,
        timeout_seconds,
        f"the way to instance {id}",
        FleetingError,
    )


async def check_health(
    group: InstanceGroup, connections: Connections, effect: effects.CheckHealth
) -> events.Event:
    """Carry out a `CheckHealth`: the instance must answer, and its cloud not deny that it works.

    A cloud that does not answer says nothing about the instance.
    """
    deadline = anyio.current_time() + effect.timeout_seconds
    reason: str | None = f"it did not answer within {effect.timeout_seconds:g}s"
    with anyio.CancelScope(deadline=deadline):
        reason = await _guarded(lambda: _why_silent(group, connections, effect))
    if reason is None and effect.cloud:
        with anyio.CancelScope(deadline=deadline):
            reason = await _guarded(lambda: _why_denied(group, effect.id))
    if reason is None:
        return events.HealthPassed(effect.group, effect.id)
    return events.HealthFailed(effect.group, effect.id, reason)


async def _why_silent(
    group: InstanceGroup, connections: Connections, effect: effects.CheckHealth
) -> str | None:
    """Return why an instance does not answer, or None if it does."""
    connection = await connections.get(group, effect.id, effect.timeout_seconds)
    try:
        return await _why_idle(connection)
    except ConnectionLost:
        # Which was only found out by using it; that it can be made anew is what counts.
        connection = await connections.get(group, effect.id, effect.timeout_seconds)
        return await _why_idle(connection)


async def _why_idle(connection: Connection) -> str | None:
    try:
        completed = await connection.run(PROBE)
    except NotSupported:
        return None if connection.is_open else "its connection broke"
    return None if completed.succeeded else f"`{PROBE}` {_ended(completed)} there"


async def _why_denied(group: InstanceGroup, id: str) -> str | None:
    """Return why its cloud says that an instance does not work, or None if it does not say so."""
    try:
        await group.heartbeat(id)
    except ProviderError as error:
        logger.debug("whether instance %s works is not known: %s", id, error)
    return None


async def _guarded(ask: Callable[[], Awaitable[str | None]]) -> str | None:
    """Return the reason that something gives, and the words of whatever it raises instead."""
    try:
        return await ask()
    except FleetingError as error:
        return str(error)
    except Exception as error:
        logger.exception("a health check raised what it must not")
        return f"a bug in a plugin: {_words(error)}"
    except anyio.get_cancelled_exc_class():
        await anyio.lowlevel.checkpoint_if_cancelled()
        return "its check was cancelled inside a plugin, by a bug"


async def prepare(
    group: InstanceGroup, connections: Connections, effect: effects.Prepare
) -> events.Event:
    """Carry out a `Prepare`: reach the instance, and run the operator's command on it.

    An instance that runs may not listen yet, not know its keys yet, or start its
    server anew while it boots, so what can pass is tried again until the deadline.
    """
    last = "it did not answer"
    with anyio.move_on_after(effect.timeout_seconds):
        while True:
            try:
                reason = await _prove_ready(group, connections, effect)
            except (AuthenticationFailed, ConnectionLost, InstanceUnhealthy, Unreachable) as error:
                last = str(error)
            except ProviderError as error:
                last = str(error)
                if not error.retryable:
                    return events.PreparationFailed(effect.group, effect.id, last)
            except FleetingError as error:
                return events.PreparationFailed(effect.group, effect.id, str(error))
            except Exception as error:
                logger.exception("preparing instance %s raised what it must not", effect.id)
                reason = f"a bug in a plugin: {_words(error)}"
                return events.PreparationFailed(effect.group, effect.id, reason)
            else:
                if reason is None:
                    return events.InstancePrepared(effect.group, effect.id)
                return events.PreparationFailed(effect.group, effect.id, reason)
            await anyio.sleep(RETRY_SECONDS)
    reason = f"it was not ready within {effect.timeout_seconds:g}s: {last}"
    return events.PreparationFailed(effect.group, effect.id, reason)


async def _prove_ready(
    group: InstanceGroup, connections: Connections, effect: effects.Prepare
) -> str | None:
    """Return why the instance is not ready, or None if it is."""
    connection = await connections.get(group, effect.id, effect.timeout_seconds)
    if not effect.command:
        return None
    try:
        completed = await connection.run(effect.command)
    except anyio.get_cancelled_exc_class():
        await anyio.lowlevel.checkpoint_if_cancelled()
        return "the instance_ready_command was cancelled inside the connector, by a bug"
    if completed.succeeded:
        return None
    words = (completed.stderr or completed.stdout).decode(errors="replace").strip()
    said = f": {words[-QUOTED_CHARACTERS:]}" if words else ""
    return f"the instance_ready_command {_ended(completed)}{said}"


def _ended(completed: Completed) -> str:
    return (
        f"ended by signal {completed.signal}"
        if completed.signal
        else (f"ended with {completed.status}")
    )


async def _call(
    call: Callable[[], Awaitable[T]],
    kind: type[T],
    timeout_seconds: float,
    noun: str,
    legal: type[FleetingError] = ProviderError,
) -> T:
    """Await one call of a provider.

    Raises:
        FleetingError: of the class that is legal; everything else becomes `OutcomeUnknown`.
    """
    with anyio.move_on_after(timeout_seconds):
        try:
            answer = await call()
            _check_kind(answer, kind)
        except legal:
            raise
        except Exception as error:
            logger.exception("%s raised what it must not", noun)
            reason = f"{noun} failed by a bug in the plugin: {_words(error)}"
            raise OutcomeUnknown(reason) from error
        except anyio.get_cancelled_exc_class() as error:
            # It is ours if it comes again. Otherwise something inside the plugin was
            # cancelled, which on asyncio looks the same, and would leave us without an event.
            await anyio.lowlevel.checkpoint_if_cancelled()
            logger.exception("%s raised what it must not", noun)
            raise OutcomeUnknown(f"{noun} was cancelled inside the plugin, by a bug") from error
        return answer
    raise OutcomeUnknown(f"{noun} was not answered within {timeout_seconds:g}s")


def _check_kind(answer: object, kind: type) -> None:
    if not isinstance(answer, kind):
        # Not its words: what was to be a way to an instance may hold a password.
        raise TypeError(f"it returned a {type(answer).__name__} instead of a {kind.__name__}")
    # What it holds must be right, too: the core trusts it, and could not go on.
    match answer:
        case Listing():
            right = (
                _are((answer.pending,), int)
                and _are(answer.failures, ProviderError)
                and _are(answer.instances, Instance)
                and _are([one.state for one in answer.instances], State)
            )
        case Accepted():
            right = (
                _are((answer.count,), int)
                and _are(answer.ids, str)
                and (answer.error is None or _are((answer.error,), ProviderError))
            )
        case ConnectInfo():
            right = answer.expires is None or answer.expires.tzinfo is not None
        case _:
            right = True
    if not right:
        raise TypeError(f"it returned a {kind.__name__} that holds values of a wrong type")


def _are(values: object, kind: type) -> bool:
    """Return whether these are values of a kind, in a sequence that can be read twice."""
    return isinstance(values, list | tuple) and all(
        isinstance(one, kind) for one in cast("Sequence[object]", values)
    )


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
