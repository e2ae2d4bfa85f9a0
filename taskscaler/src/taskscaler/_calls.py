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
    OutcomeUnknown,
    ProviderError,
    Unreachable,
)
from fleeting.types import Accepted, Instance, Listing, State
from taskscaler.core import effects, events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fleeting.abc import InstanceGroup
    from taskscaler._connections import Connections

logger = logging.getLogger("taskscaler")

T = TypeVar("T")

# The pause between two tries to reach an instance that may still be booting.
RETRY_SECONDS = 1.0

# How much of a ready command's last words to repeat.
QUOTED_CHARACTERS = 300


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
    try:
        accepted = await _call(
            lambda: group.decrease(effect.ids), Accepted, effect.timeout_seconds, "a decrease"
        )
    except ProviderError as error:
        accepted = Accepted(0, error=error)
    return events.DecreaseSettled(effect.group, effect.ids, accepted)


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
    connection = await connections.get(group, effect.id)
    if not effect.command:
        return None
    completed = await connection.run(effect.command)
    if completed.succeeded:
        return None
    words = (completed.stderr or completed.stdout).decode(errors="replace").strip()
    ended = f"by signal {completed.signal}" if completed.signal else f"with {completed.status}"
    said = f": {words[-QUOTED_CHARACTERS:]}" if words else ""
    return f"the instance_ready_command ended {ended}{said}"


async def _call(
    call: Callable[[], Awaitable[T]], kind: type[T], timeout_seconds: float, noun: str
) -> T:
    """Await one call of a provider.

    Raises:
        ProviderError: whatever went wrong.
    """
    with anyio.move_on_after(timeout_seconds):
        try:
            answer = await call()
            _check_kind(answer, kind)
        except ProviderError:
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
        raise TypeError(f"it returned {answer!r:.100} instead of {kind.__name__}")
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
