"""Watches groups that announce interruptions, for as long as the scaler runs."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from fleeting import CancelledInside, DeadlineExceeded, call_within, describe_bug, foreign
from fleeting.errors import FleetingError
from fleeting.types import Notice
from taskscaler.core import events

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from fleeting.abc import InstanceGroup

__all__ = ("watch",)

logger = logging.getLogger("taskscaler")

# The pause before watching again after the plugin stopped, and its limit.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0

# How long a plugin may take to clean up when it is not watched any more.
CLOSE_SECONDS = 5.0


async def watch(group: InstanceGroup, post: Callable[[events.Event], object]) -> None:
    """Post what a group announces, until cancelled; start again whenever the plugin stops.

    Args:
        group: one with `Capability.WATCH`.
        post: takes the events.
    """
    pause = FIRST_PAUSE_SECONDS

    async def follow() -> None:
        nonlocal pause
        async with _notices(group) as notices:
            async for notice in notices:
                post(_event(group.info.id, notice))
                pause = FIRST_PAUSE_SECONDS

    while True:
        try:
            await call_within(None, follow)
            why = "it ended by itself"
        except FleetingError as error:
            why = str(error)
        except CancelledInside as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - a plugin can raise anything
            why = describe_bug(error, where=True)
        logger.warning("group %s announces no interruptions for %gs: %s", group.info.id, pause, why)
        await anyio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


@asynccontextmanager
async def _notices(group: InstanceGroup) -> AsyncGenerator[AsyncIterator[Notice]]:
    """Iterate over the notices of a group, and have the plugin clean up afterwards."""
    notices = group.watch()
    try:
        yield notices
    finally:
        # Generators and streams have an `aclose`; other iterators need not.
        aclose = getattr(notices, "aclose", None)
        if aclose is not None:
            try:
                await call_within(CLOSE_SECONDS, aclose, shield=True)
            except DeadlineExceeded:
                logger.warning(
                    "group %s did not stop watching within %gs", group.info.id, CLOSE_SECONDS
                )


def _event(group: str, notice: object) -> events.InterruptionAnnounced:
    if not isinstance(notice, Notice):
        # Only its type: the value could be a secret.
        raise TypeError(f"it announced a {type(notice).__name__} instead of a Notice")
    return events.InterruptionAnnounced(group, notice.id, foreign(notice.reason), notice.deadline)
