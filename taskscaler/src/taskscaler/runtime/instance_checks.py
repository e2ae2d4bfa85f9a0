"""Connects to an instance to prepare it for its first task, or to check its health."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

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
    ConfigError,
    ConnectionLost,
    FleetingError,
    HostKeyMismatch,
    InstanceError,
    InstanceUnhealthy,
    NotSupported,
    OutcomeUnknown,
    PluginError,
    ProviderError,
    Unreachable,
)
from taskscaler.core import Stage, effects, events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import Completed
    from taskscaler.runtime.connections import Connections

__all__ = ("check_health", "prepare")

logger = logging.getLogger("taskscaler")

# The pause between two attempts to reach an instance that may still be booting.
RETRY_SECONDS = 1.0

# How long the first attempt to connect may take, so that a reason is known soon. Each further one
# may take twice as long, up to the timeout of a connection: the server may just be slow.
FIRST_CONNECT_SECONDS = 5.0

# How much of the last line of a failed ready command is quoted.
QUOTED_CHARACTERS = 300

# Every shell of every system can do this.
PROBE = "exit 0"


class _NotReady(FleetingError):
    """The operator's ready command failed."""


class _Failure(NamedTuple):
    """A failed attempt to make an instance ready.

    Attributes:
        stage: where it failed.
        reason: human-readable.
        passes: whether it may pass while the instance boots: it does not listen yet, does not
            know its keys yet, restarts its server, or mounts its disk.
        shared: the error, if another instance would fare no better.
    """

    stage: Stage
    reason: str
    passes: bool = False
    shared: FleetingError | None = None


async def prepare(
    group: InstanceGroup,
    connections: Connections,
    effect: effects.Prepare,
    tell: Callable[[Stage, str], None],
) -> events.Event:
    """Carry out a `Prepare`: connect to the instance, and run the operator's ready command.

    Failures that may pass while the instance boots are retried until the deadline.

    Args:
        group: of the instance.
        connections: to the instances.
        effect: names the instance.
        tell: learns at once of each failure.
    """
    last, told = _Failure(Stage.CONNECT, "it did not answer"), None
    patience = FIRST_CONNECT_SECONDS
    await anyio.sleep(effect.pause_seconds)
    with anyio.move_on_after(effect.timeout_seconds):
        while True:
            try:
                connection = await connections.get(
                    group, effect.id, effect.provider_seconds, connector_seconds=patience
                )
                if effect.command:
                    # The reason if the time is up before the command ends.
                    last = _Failure(Stage.READY_COMMAND, "the instance_ready_command did not end")
                    await _run_ready_command(connection, effect.command)
            except Exception as error:  # noqa: BLE001 -- a plugin may raise anything
                last = _judge(error, effect.id)
            else:
                return events.InstancePrepared(effect.group, effect.id)
            told = last
            tell(last.stage, last.reason)
            if not last.passes:
                return events.PreparationFailed(effect.group, effect.id, last.reason, last.shared)
            patience *= 2
            await anyio.sleep(RETRY_SECONDS)
    if last is not told:
        tell(last.stage, last.reason)
    reason = f"it was not ready within {effect.timeout_seconds:g}s: {last.reason}"
    return events.PreparationFailed(effect.group, effect.id, reason, last.shared)


async def _run_ready_command(connection: Connection, command: str) -> None:
    """Run the operator's command once; its failure is raised."""
    # Its deadline is that of the preparation.
    completed = await call_within(None, lambda: connection.run(command))
    if not completed.succeeded:
        output = (completed.stderr.strip() or completed.stdout.strip()).decode(errors="replace")
        last = output.splitlines()[-1] if output else ""
        # The whole line passes the door: a secret that was cut could not be recognized.
        quoted = f": {foreign(last, len(last))[-QUOTED_CHARACTERS:]}" if last else ""
        raise _NotReady(f"the instance_ready_command {_ending(completed)}{quoted}")


def _judge(error: Exception, id: str) -> _Failure:
    """Return what a failed attempt means for the instance."""
    stage, reason, passes = Stage.CONNECT, str(error), False
    shared: FleetingError | None = None
    match error:
        case _NotReady():
            stage, passes = Stage.READY_COMMAND, True
        case AuthenticationFailed():
            stage, passes = Stage.LOGIN, True
        case HostKeyMismatch():
            stage = Stage.LOGIN
        case ConnectionLost() | Unreachable():
            passes = True
        case InstanceError():
            stage, passes = Stage.CONNECT_INFO, isinstance(error, InstanceUnhealthy)
        case ProviderError():
            # After a provider that hung, or a bug in it, the pauses grow.
            passes = error.retryable and not isinstance(error, OutcomeUnknown)
            stage, shared = Stage.CONNECT_INFO, error
        case ConfigError() | PluginError():
            stage, shared = Stage.SETTINGS, error
        case CancelledInside():
            stage = Stage.READY_COMMAND
            reason = "it was cancelled inside the connector because of a bug"
        case FleetingError():
            pass
        case _:
            reason = _bug(error)
            # Without its traceback, which shows values that may be secrets.
            logger.error("preparing instance %s failed: %s", id, describe_bug(error, where=True))
    return _Failure(stage, reason, passes, shared)


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
        logger.error("a health check failed: %s", describe_bug(error, where=True))  # noqa: TRY400 - a traceback may show secrets
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
