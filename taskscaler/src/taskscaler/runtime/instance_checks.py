"""Connects to an instance to prepare it for its first task, or to check its health."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from fleeting import (
    CancelledInside,
    DeadlineExceeded,
    call_within,
    describe_bug,
    foreign,
    quote_bug,
)
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
from taskscaler.core import effects, events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import Completed
    from taskscaler.runtime.connections import Connections

__all__ = ("check_health", "prepare")

logger = logging.getLogger("taskscaler")

# The pause between two attempts to reach an instance that may still be booting.
RETRY_SECONDS = 1.0

# These may pass while an instance boots: it does not listen yet, does not know its keys yet, or
# restarts its server.
MAY_PASS = (AuthenticationFailed, ConnectionLost, InstanceUnhealthy, Unreachable)

# How much of the output of a failed ready command is quoted.
QUOTED_CHARACTERS = 300

# Every shell of every system can do this.
PROBE = "exit 0"


async def prepare(
    group: InstanceGroup, connections: Connections, effect: effects.Prepare
) -> events.Event:
    """Carry out a `Prepare`: connect to the instance, and run the operator's ready command.

    Failures that may pass while the instance boots are retried until the deadline.
    """
    last, refusal = "it did not answer", None
    await anyio.sleep(effect.pause_seconds)
    with anyio.move_on_after(effect.timeout_seconds):
        while True:
            try:
                reason = await _why_not_ready(group, connections, effect)
            except MAY_PASS as error:
                last, refusal = str(error), None
            except ProviderError as error:
                last, refusal = str(error), error
                # A bug in the plugin, or a provider that hangs, may last: the pauses grow then.
                if not error.retryable or isinstance(error, OutcomeUnknown):
                    return events.PreparationFailed(effect.group, effect.id, last, error)
            except FleetingError as error:
                return events.PreparationFailed(effect.group, effect.id, str(error))
            except Exception as error:  # noqa: BLE001 - a plugin can raise anything
                bug = describe_bug(error, where=True)
                # Without its traceback, which shows values that may be secrets.
                logger.error("preparing instance %s failed: %s", effect.id, bug)  # noqa: TRY400
                return events.PreparationFailed(effect.group, effect.id, _bug(error))
            else:
                if reason is None:
                    return events.InstancePrepared(effect.group, effect.id)
                return events.PreparationFailed(effect.group, effect.id, reason)
            await anyio.sleep(RETRY_SECONDS)
    reason = f"it was not ready within {effect.timeout_seconds:g}s: {last}"
    return events.PreparationFailed(effect.group, effect.id, reason, refusal)


async def _why_not_ready(
    group: InstanceGroup, connections: Connections, effect: effects.Prepare
) -> str | None:
    connection = await connections.get(group, effect.id, effect.timeout_seconds)
    if not effect.command:
        return None
    try:
        # Its deadline is that of the preparation.
        completed = await call_within(None, lambda: connection.run(effect.command))
    except CancelledInside:
        return "the instance_ready_command was cancelled inside the connector because of a bug"
    if completed.succeeded:
        return None
    output = (completed.stderr or completed.stdout).decode(errors="replace").strip()
    # The whole output passes the door: a secret that was cut could not be recognized.
    quoted = f": {foreign(output, len(output))[-QUOTED_CHARACTERS:]}" if output else ""
    return f"the instance_ready_command {_ending(completed)}{quoted}"


async def check_health(
    group: InstanceGroup, connections: Connections, effect: effects.CheckHealth
) -> events.Event:
    """Carry out a `CheckHealth`: the instance must answer, and its provider not call it unhealthy.

    A provider that does not answer says nothing about the instance.
    """
    deadline = anyio.current_time() + effect.timeout_seconds
    reason = await _reason_of(
        lambda: _why_silent(group, connections, effect),
        effect.timeout_seconds,
        late=f"it did not answer within {effect.timeout_seconds:g}s",
    )
    if reason is None and effect.cloud:
        left = deadline - anyio.current_time()
        reason = await _reason_of(lambda: _why_unhealthy(group, effect.id), left, late=None)
    if reason is None:
        return events.HealthPassed(effect.group, effect.id)
    error = reason if isinstance(reason, ProviderError) else None
    return events.HealthFailed(effect.group, effect.id, str(reason), error)


async def _reason_of(
    check: Callable[[], Awaitable[str | None]], seconds: float, *, late: str | None
) -> str | FleetingError | None:
    """Return why a check fails, whether it returns, raises or hangs; None if it passes."""
    try:
        return await call_within(seconds, check)
    except DeadlineExceeded:
        return late
    except FleetingError as error:
        return error
    except CancelledInside:
        return "its check was cancelled inside a plugin because of a bug"
    except Exception as error:  # noqa: BLE001 - as above
        logger.error("a health check failed: %s", describe_bug(error, where=True))  # noqa: TRY400
        return _bug(error)


async def _why_silent(
    group: InstanceGroup, connections: Connections, effect: effects.CheckHealth
) -> str | None:
    """Return why an instance does not answer, or None if it does."""
    connection = await connections.get(group, effect.id, effect.timeout_seconds)
    try:
        return await _why_probe_fails(connection)
    except ConnectionLost:
        # The connection broke unnoticed since its last use. A healthy instance accepts a new one.
        connection = await connections.get(group, effect.id, effect.timeout_seconds)
        return await _why_probe_fails(connection)


async def _why_probe_fails(connection: Connection) -> str | None:
    try:
        completed = await connection.run(PROBE)
    except NotSupported:
        return None if connection.is_open else "its connection broke"
    return None if completed.succeeded else f"`{PROBE}` {_ending(completed)} there"


async def _why_unhealthy(group: InstanceGroup, id: str) -> str | None:
    """Raise what the provider says about the instance, unless it only failed to answer."""
    try:
        await group.heartbeat(id)
    except ProviderError as error:
        logger.debug("the provider did not say whether instance %s works: %s", id, error)
    return None


def _ending(completed: Completed) -> str:
    if completed.signal:
        return f"ended by signal {completed.signal}"
    return f"ended with {completed.status}"


def _bug(error: Exception) -> str:
    return f"a bug in a plugin: {quote_bug(error)}"
