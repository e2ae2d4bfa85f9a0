"""Cancels a call at the await that a test chooses, and checks how the call reacts.

Theory of operation. `_Cancelling` steps through a coroutine from one suspension to
the next, and cancels a scope around it at the n-th. It passes on what the event loop
then throws into the coroutine, and so learns whether the cancellation reached the call
(a shielded call, or one in a thread, may finish first) and whether the call ended.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from fleeting.testing._contract.resources import settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from datetime import timedelta
    from typing import Any

__all__ = ("cancelled_at",)


class _Ignored(Exception):
    """The call continues although it was cancelled."""


class _Cancelling:
    """Awaits a call, and cancels a scope when the call suspends for the n-th time."""

    def __init__(
        self, inner: Awaitable[object], point: int, scope: anyio.CancelScope, limit: timedelta
    ) -> None:
        self.was_told = False
        self.reached = False
        self._inner = inner
        self._point = point
        self._scope = scope
        self._limit = limit
        self._deadline = float("inf")

    def cancel(self) -> None:
        """Cancel the call where it is."""
        self._scope.cancel()
        self._deadline = anyio.current_time() + self._limit.total_seconds()

    async def cancel_when_blocked(self) -> None:
        """Cancel the call once it waits for something that does not happen."""
        await settle()
        self.cancel()

    def __await__(self) -> Generator[Any, Any, object]:
        cancelled = anyio.get_cancelled_exc_class()
        steps = self._inner.__await__()
        resume: Callable[[Any], Any] = steps.send
        value: Any = None
        suspended = 0
        while True:
            try:
                trap = resume(value)
            except StopIteration as stop:
                return stop.value
            suspended += 1
            if suspended == self._point:
                self.reached = True
                self.cancel()
            try:
                value, resume = (yield trap), steps.send
                error = getattr(value, "error", None)  # Trio sends what asyncio throws.
            except BaseException as thrown:  # noqa: BLE001 - it is passed on
                value, resume = thrown, steps.throw
                error = thrown
            # On asyncio the message names the cancelled scope. A call may cancel a scope of its
            # own, as a forceful close does, and correctly continue after that.
            ours = f"{id(self._scope):x}" in str(error)
            self.was_told |= isinstance(error, cancelled) and ours
            if anyio.current_time() > self._deadline:
                with suppress(RuntimeError):  # The call may ignore closing, too.
                    steps.close()
                raise _Ignored(f"continued for more than {self._limit}")


async def cancelled_at(
    point: int,
    call: Awaitable[object],
    *,
    limit: timedelta,
    name: str = "the call",
    may_block: bool = False,
) -> bool:
    """Cancel a call when it suspends for the n-th time; return whether it got that far.

    Args:
        point: the n.
        call: what to await; it must not have started.
        limit: how long the call may take to end after that.
        name: of the call, for messages.
        may_block: whether the call may wait for ever; it is then cancelled while it waits.

    Raises:
        AssertionError: the call was cancelled, but continued or raised another error.
    """
    told = f"{name} was cancelled at its await number {point}, but"
    scope = anyio.CancelScope()
    cancelling = _Cancelling(call, point, scope, limit)
    with scope:
        try:
            await _drive(cancelling, may_block=may_block)
        except _Ignored as ignored:
            raise AssertionError(f"{told} {ignored}") from None
        except Exception as error:
            if not cancelling.was_told:
                raise
            raise AssertionError(
                f"{told} raised {type(error).__name__} instead: {error}"
            ) from error
    if cancelling.was_told and not scope.cancelled_caught:
        raise AssertionError(f"{told} swallowed the cancellation")
    return cancelling.reached


async def _drive(cancelling: _Cancelling, *, may_block: bool) -> None:
    if not may_block:
        await cancelling
        return
    try:
        async with anyio.create_task_group() as watching:
            watching.start_soon(cancelling.cancel_when_blocked)
            await cancelling
            watching.cancel_scope.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
