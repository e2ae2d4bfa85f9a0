"""Calls of a provider, each with a deadline and each ending in an event.

A plugin with a bug, a hanging call and a lost reply must not stop the scaler: within
its deadline, every call of a provider returns, or raises an error that the core
can handle.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

from fleeting import (
    CancelledInside,
    DeadlineExceeded,
    call_within,
    describe_bug,
    foreign,
    is_readable,
    quote_bug,
    remember_passing,
)
from fleeting.errors import FleetingError, OutcomeUnknown, ProviderError
from fleeting.types import Accepted, ConnectInfo, CreationFailure, Instance, Listing, State
from taskscaler.core import effects, events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fleeting.abc import InstanceGroup

__all__ = ("ScalingCall", "call_provider", "connect_info", "reconcile")

logger = logging.getLogger("taskscaler")

T = TypeVar("T")

# The effects that are one call of a provider.
ScalingCall = (
    effects.List
    | effects.Increase
    | effects.AskOutcome
    | effects.Decrease
    | effects.Suspend
    | effects.Resume
)


async def call_provider(group: InstanceGroup, effect: ScalingCall) -> events.Event:
    """Carry out an effect that is one call of a provider; return what came of it."""
    match effect:
        case effects.List():
            return await _list(group, effect)
        case effects.Increase():
            return await _increase(group, effect)
        case effects.AskOutcome():
            count = await _outcome(group, effect)
            return events.OutcomeTold(effect.group, effect.operation, count)
        case effects.Decrease():
            accepted = await _change(group.decrease, effect, "a decrease")
            return events.DecreaseSettled(effect.group, effect.ids, accepted)
        case effects.Suspend():
            accepted = await _change(group.suspend, effect, "a suspension")
            return events.SuspendSettled(effect.group, effect.ids, accepted)
        case effects.Resume():
            accepted = await _change(group.resume, effect, "a resumption")
            return events.ResumeSettled(effect.group, effect.ids, accepted)


async def reconcile(group: InstanceGroup, listing: Listing, timeout_seconds: float) -> None:
    """Let a provider take the steps that follow from a listing, and log what it refuses.

    Only the process that drives the group calls this. The call after the next listing takes the
    steps that failed.
    """
    try:
        await _call(
            lambda: group.reconcile(listing),
            type(None),
            timeout_seconds,
            "taking the steps that follow from a listing",
        )
    except ProviderError as error:
        logger.warning("group %s: %s; it will be tried again", group.info.id, error)


async def connect_info(group: InstanceGroup, id: str, timeout_seconds: float) -> ConnectInfo:
    """Ask a provider how to reach an instance.

    Raises:
        FleetingError: the provider did not tell.
    """
    info = await _call(
        lambda: group.connect_info(id),
        ConnectInfo,
        timeout_seconds,
        f"the connect info of instance {id}",
        FleetingError,
    )
    remember_passing(filter(None, (info.password, info.private_key)))
    return info


async def _list(group: InstanceGroup, effect: effects.List) -> events.Event:
    try:
        listing = await _call(group.update, Listing, effect.timeout_seconds, "a listing")
    except ProviderError as error:
        return events.ListingFailed(effect.group, error)
    return events.ListingArrived(effect.group, _readable(listing))


def _readable(listing: Listing) -> Listing:
    """Return a listing whose reasons may be shown and stored."""
    if not any(one.reason for one in listing.instances):
        return listing
    instances = (
        replace(one, reason=foreign(one.reason)) if one.reason else one for one in listing.instances
    )
    return replace(listing, instances=tuple(instances))


async def _increase(group: InstanceGroup, effect: effects.Increase) -> events.Event:
    try:
        accepted = await _call(
            lambda: group.increase(effect.count, effect.operation),
            Accepted,
            effect.timeout_seconds,
            "an increase",
        )
    except OutcomeUnknown as error:
        # Unlike the other changes, an increase must not simply be repeated after a lost reply:
        # that could create, and bill, the instances twice. So the provider is asked.
        count = await _outcome(group, effect)
        if count is not None:
            count = min(count, effect.count)
        told = count is not None
        accepted = Accepted(count or 0, error=None if count == effect.count else error)
        return events.IncreaseSettled(
            effect.group, effect.operation, accepted, unknown=not told, told=told
        )
    except ProviderError as error:
        accepted = Accepted(0, error=error)
    return events.IncreaseSettled(effect.group, effect.operation, accepted)


async def _outcome(
    group: InstanceGroup, effect: effects.Increase | effects.AskOutcome
) -> int | None:
    """Ask a provider what became of an increase whose reply was lost; None if it cannot tell."""
    try:
        count = await _call(
            lambda: group.outcome(effect.operation),
            (int, type(None)),
            effect.timeout_seconds,
            "the outcome of an increase",
        )
    except ProviderError as error:
        logger.warning("group %s did not tell what an increase created: %s", effect.group, error)
        return None
    return None if count is None else max(0, count)


async def _change(
    method: Callable[[Sequence[str]], Awaitable[Accepted]],
    effect: effects.Decrease | effects.Suspend | effects.Resume,
    noun: str,
) -> Accepted:
    """Make a call that may be repeated, so a lost reply is a failure like any other."""
    try:
        return await _call(lambda: method(effect.ids), Accepted, effect.timeout_seconds, noun)
    except ProviderError as error:
        return Accepted(0, error=error)


async def _call(
    call: Callable[[], Awaitable[T]],
    kind: type[T] | tuple[type, ...],
    timeout_seconds: float,
    noun: str,
    legal: type[FleetingError] = ProviderError,
) -> T:
    """Await one call of a provider.

    Args:
        call: makes the call.
        kind: what it must return.
        timeout_seconds: how long it may take.
        noun: the subject of error messages.
        legal: the class of errors that it may raise.

    Raises:
        FleetingError: one that is legal; every other failure becomes an `OutcomeUnknown`.
    """
    try:
        answer = await call_within(timeout_seconds, call)
        _check(answer, kind)
    except legal:
        raise
    except DeadlineExceeded:
        raise OutcomeUnknown(f"{noun} was not answered within {timeout_seconds:g}s") from None
    except CancelledInside as error:
        # Without its traceback, which shows values that may be secrets.
        bug = describe_bug(error, where=True)
        logger.error("%s failed because of a bug in the plugin: %s", noun, bug)  # noqa: TRY400 - as above
        raise OutcomeUnknown(f"{noun} was cancelled inside the plugin because of a bug") from error
    except Exception as error:
        bug = describe_bug(error, where=True)
        logger.error("%s failed because of a bug in the plugin: %s", noun, bug)  # noqa: TRY400 - as above
        reason = f"{noun} failed because of a bug in the plugin: {quote_bug(error)}"
        raise OutcomeUnknown(reason) from error
    return answer


def _check(answer: object, kind: type | tuple[type, ...]) -> None:
    """Check an answer and the values in it: the core trusts them.

    Raises:
        TypeError: something is of the wrong type.
    """
    if not isinstance(answer, kind):
        # Only its type: connect info of the wrong type may hold a password.
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(one.__name__ for one in kinds)
        raise TypeError(f"it returned a {type(answer).__name__} instead of a {wanted}")
    match answer:
        case Listing():
            right = (
                _are((answer.pending,), int)
                and _are(answer.failures, CreationFailure)
                and all(_is_error(one.error) for one in answer.failures)
                and _are(answer.instances, Instance)
                and _are([one.state for one in answer.instances], State)
            )
        case Accepted():
            right = (
                _are((answer.count,), int)
                and _are(answer.ids, str)
                and (answer.error is None or _is_error(answer.error))
            )
        case ConnectInfo():
            right = answer.expires is None or answer.expires.tzinfo is not None
        case _:
            right = True
    if not right:
        raise TypeError(f"it returned a {type(answer).__name__} that holds values of a wrong type")


def _is_error(value: object) -> bool:
    """Return whether a value is an error of a provider that the core can read."""
    return isinstance(value, ProviderError) and is_readable(value)


def _are(values: object, kind: type) -> bool:
    """Return whether these are values of a kind, in a sequence that can be read twice."""
    return isinstance(values, list | tuple) and all(
        isinstance(one, kind) for one in cast("Sequence[object]", values)
    )
