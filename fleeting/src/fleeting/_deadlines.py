"""Calls of foreign code: providers, connectors, stores and what they run.

Foreign code may hang, call `sys.exit`, and on asyncio it may let a cancellation escape that was
meant for one of its own tasks. Passed on, these would end the caller without a word.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.lowlevel

from fleeting.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = (
    "CancelledInside",
    "DeadlineExceeded",
    "EndedInside",
    "UnreadableError",
    "call_within",
    "is_readable",
)

T = TypeVar("T")


class DeadlineExceeded(Exception):
    """A call did not return in time, and was cancelled. Handle it where the call is made."""


class CancelledInside(Exception):
    """A call raised a cancellation that its caller had not asked for: a bug in what was called."""


class EndedInside(Exception):
    """A call tried to end the whole process, as by `sys.exit`: a bug in what was called."""


class UnreadableError(Exception):
    """A call raised an error that cannot be read: a bug in the class of that error."""


def is_readable(error: BaseException) -> bool:
    """Return whether an error has a text, and if it is a provider's, a pause or None.

    Both are made by foreign code: a class may have an `__init__` that sets no `retry_after`.
    """
    if isinstance(error, ProviderError):
        pause: object = getattr(error, "retry_after", error)
        if pause is not None and not isinstance(pause, timedelta):
            return False
    try:
        str(error)
    except Exception:  # noqa: BLE001 - whatever it raises, there is no text
        return False
    return True


async def call_within(
    seconds: float | None, call: Callable[[], Awaitable[T]], *, shield: bool = False
) -> T:
    """Await a call of foreign code for a limited time.

    Args:
        seconds: the deadline; None waits for ever.
        call: makes the call.
        shield: for clean-up: a cancellation from outside does not interrupt the call.

    Raises:
        DeadlineExceeded: the call did not return in time; it was cancelled.
        CancelledInside: the call was cancelled, but not from outside.
        EndedInside: the call tried to end the process.
        UnreadableError: the call raised an error that has no text, or a wrong `retry_after`.
        Exception: whatever else the call raises.
    """
    with anyio.move_on_after(seconds, shield=shield):
        try:
            return await call()
        except anyio.get_cancelled_exc_class() as error:
            # A cancellation from outside is raised again at the next checkpoint, which is here.
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise CancelledInside("it was cancelled inside because of a bug") from error
        except Exception as error:
            if is_readable(error):
                raise
            wrong = f"it raised {type(error).__name__}, whose text or retry_after cannot be read"
            raise UnreadableError(wrong).with_traceback(error.__traceback__) from error
        except (BaseExceptionGroup, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise EndedInside(f"it tried to end the process ({type(error).__name__})") from error
    raise DeadlineExceeded(f"it did not return within {seconds:g}s")
